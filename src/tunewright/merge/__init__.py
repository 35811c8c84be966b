"""An adapter into its base."""

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener


def merge(
    config: Config, adapter: Artifact, dataset: Artifact, *, listener: Listener = SILENT
) -> Artifact:
    """Return the merged model, proven to compute what the base with its adapter computes.

    Raises:
        TunewrightError: E_GATE_MERGE, a tensor or the next-token distributions differ by more than
            rounding; E_ARTIFACT_INVALID, the adapter's files or the base's are not those of the run.
    """
    from tunewright.merge._merge import merge as body

    return body(config, adapter, dataset, listener)
