"""All artifacts of a run -> one HTML page."""

from collections.abc import Mapping

from tunewright.artifacts import Artifact, Kind
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener


def report(
    config: Config, artifacts: Mapping[Kind, Artifact], *, listener: Listener = SILENT
) -> Artifact:
    """Return the folder with report.html: verdict, proofs, samples, curves and provenance of a run.

    The page is one file. It loads nothing, runs no script, and shows text from data as text.

    Args:
        config: The run's config.
        artifacts: What the run has made so far, by kind; what is missing is named as not done.
        listener: Is told where the page is.

    Raises:
        TunewrightError: E_RUN_LOCKED, another process is writing it. E_IO, the system refused.
    """
    from tunewright.report._page import write_report

    return write_report(config, artifacts, listener=listener)
