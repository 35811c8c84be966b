"""The only place where weights and tokenizers are loaded, and where messages become tokens."""

from contextlib import AbstractContextManager


def weights_kept() -> AbstractContextManager[None]:
    """While it lasts, models of one folder share their weights, which are read once.

    Weights in 4 bits are read each time. Nothing may write into the shared ones: adapters are trained beside
    them, and layers that are trained whole are copies.
    """
    from tunewright.models._load import weights_kept as body

    return body()
