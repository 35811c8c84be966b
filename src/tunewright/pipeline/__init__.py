"""The stages in their order, each made of the folders of those before. `steps.py` is where two stages meet."""

from tunewright.pipeline.looking import check_any, push
from tunewright.pipeline.running import Outcome, PublishingRefusedError, run, run_stage
from tunewright.pipeline.state import loaded, present
from tunewright.pipeline.steps import STAGES, Stage, checkpoints_of

__all__ = [
    "STAGES",
    "Outcome",
    "PublishingRefusedError",
    "Stage",
    "check_any",
    "checkpoints_of",
    "loaded",
    "present",
    "push",
    "run",
    "run_stage",
]
