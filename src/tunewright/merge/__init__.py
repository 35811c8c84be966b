"""An adapter into its base."""

from collections.abc import Sequence

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener
from tunewright.merge.choice import Candidate


def merge(
    config: Config,
    adapter: Artifact,
    dataset: Artifact,
    *,
    checkpoints: Sequence[Candidate] = (),
    listener: Listener = SILENT,
) -> Artifact:
    """Return the merged model, proven to compute what the base with its adapter computes.

    Args:
        config: The run; `merge.checkpoint` says which state of the training is merged.
        adapter: What `train` made.
        dataset: Its held-out rows are what the proof compares on.
        checkpoints: Other states of the training that can be merged.
        listener: Told how many bytes are written, which state is merged and why.

    Raises:
        TunewrightError: E_GATE_MERGE, a tensor or the next-token distributions differ by more than
            rounding; E_ARTIFACT_INVALID, the adapter's files or the base's are not those of the run, or the
            adapter has what merging does not know; E_MODEL, the base is quantised, or the tokenizer has more
            ids than the embedding has rows; E_NOT_FOUND, there is no state of the step that is asked for; E_OOM, the
            proof would take more memory than is free.
    """
    from tunewright.merge._merge import merge as body

    return body(config, adapter, dataset, listener, checkpoints)
