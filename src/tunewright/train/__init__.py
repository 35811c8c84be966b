"""A dataset to an adapter."""

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener


def plan(config: Config, dataset: Artifact, *, listener: Listener = SILENT) -> Artifact:
    """Return what can be known before training: sizes, steps, memory, disk, and why.

    Raises:
        TunewrightError: Everything that makes the run impossible, at once: E_MODEL, E_DISK_SPACE,
            E_CONFIG_VALUE (sequence longer than the model's context, no module of that name).
    """
    from tunewright.train._plan import plan as body

    return body(config, dataset, listener)


def train(config: Config, dataset: Artifact, *, listener: Listener = SILENT) -> Artifact:
    """Return the adapter of the best evaluation, with its metrics log and summary.

    Raises:
        TunewrightError: E_DIVERGED, the loss or its gradient is no longer a number: names the step.
    """
    from tunewright.train._sft import train as body

    return body(config, dataset, listener)
