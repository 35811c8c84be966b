"""Base against tuned: style, memorisation, perplexity, and a verdict."""

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener


def compare(
    config: Config, dataset: Artifact, adapter: Artifact, *, listener: Listener = SILENT
) -> Artifact:
    """Return the evaluation of an adapter: what it changed, with intervals, and a verdict in plain words.

    The folder holds `samples.jsonl` (every prompt with the answer of base, tuned and author) and
    `markers.json`; the facts hold the verdict and every figure behind it. An overfitted or degraded
    model is written like any other: its gates say so, and publishing refuses it.

    Raises:
        TunewrightError: E_DATA_EMPTY, the dataset has no training or no held-out rows. E_DATA_ROW, a
            row cannot be read. E_NOTHING_TO_LEARN, no row has a token to score within
            `train.max_length`. E_MODEL, the base or the adapter cannot be loaded.
    """
    from tunewright.evaluate._compare import evaluate

    return evaluate(config, dataset, adapter, listener)
