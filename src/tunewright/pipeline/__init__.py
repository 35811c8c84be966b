"""The stages in their order, each made of the folders of those before. `steps.py` is where two stages meet."""

from tunewright.pipeline.checking import check_any
from tunewright.pipeline.choosing import chosen
from tunewright.pipeline.deciding import SAFE, Answer, Decider, Given, OfAgent, Question
from tunewright.pipeline.logbook import logged
from tunewright.pipeline.running import (
    SKIPPED,
    EndedError,
    Outcome,
    PublishingRefusedError,
    StoppedError,
    run,
    run_stage,
)
from tunewright.pipeline.state import because, loaded, present
from tunewright.pipeline.steps import ASIDE, STAGES, Stage, checkpoint_of, checkpoints_of

__all__ = [
    "ASIDE",
    "SAFE",
    "SKIPPED",
    "STAGES",
    "Answer",
    "Decider",
    "EndedError",
    "Given",
    "OfAgent",
    "Outcome",
    "PublishingRefusedError",
    "Question",
    "Stage",
    "StoppedError",
    "because",
    "check_any",
    "checkpoint_of",
    "checkpoints_of",
    "chosen",
    "loaded",
    "logged",
    "present",
    "run",
    "run_stage",
]
