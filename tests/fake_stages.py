"""Stages that take no time: each writes what its options and parents determine, and counts how often it was called.

Everything around them is real: artifacts, keys, manifests, the pipeline.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunewright import data
from tunewright.artifacts import load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.errors import failure
from tunewright.evaluate import prompts_digest
from tunewright.pipeline import state
from tunewright.pipeline.steps import STEPS

WARNING = {"code": "W_CUT", "message": "Cut.", "where": "a:1", "fix": ""}
WARNINGS = {"warnings": [{"code": "W_CUT", "count": 2, "first": [WARNING]}]}
"""What a check says that warns."""
GATE = {"gate": "g", "value": "1", "limit": "2", "passed": True}


@dataclass
class Fakes:
    """What the fake stages do.

    Attributes:
        calls: Calls of each stage.
        broken: Stages that fail, with an error or an exception.
        facts: What a stage says beside.
        constant: Stages whose outcome does not depend on their options.
        said: What a stage says to its listener.
    """

    calls: Counter = field(default_factory=Counter)
    broken: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    constant: set = field(default_factory=set)
    said: dict = field(default_factory=dict)

    def taken(self) -> dict[str, int]:
        """Return the calls since the last time."""
        found = dict(self.calls)
        self.calls.clear()
        return found


def install(monkeypatch) -> Fakes:
    """Put fake stages in place of the real ones, and a store that has every version."""
    fakes = Fakes()
    for stage, step in STEPS.items():
        monkeypatch.setitem(STEPS, stage, replace(step, make=_make(fakes, stage), anew=None))
    monkeypatch.setattr(state, "is_published", lambda config, artifact: True)
    return fakes


def _make(fakes: Fakes, stage: str):
    step = STEPS[stage]

    def make(config, artifacts, listener):
        fakes.calls[stage] += 1
        parents = {kind: artifacts[kind] for kind in step.reads(artifacts)}
        settings = settings_of(config, step.kind)
        inputs = data.input_digests(config) if stage == "prepare" else None
        extra = {
            "prepare": {"inputs": inputs},
            "check": {"against": {}},
            "compare": prompts_digest(config),
        }
        wish = settings | extra.get(stage, {})
        path = Path(config.run_dir) / step.kind
        with writing(path, step.kind, settings=wish, parents=parents) as draft:
            if stage in fakes.said:
                listener.said(fakes.said[stage])
            error = fakes.broken.get(stage)
            if error:
                raise (
                    error
                    if isinstance(error, BaseException)
                    else failure(error, "No.", where=stage)
                )
            what = "constant" if stage in fakes.constant else repr(wish)
            (draft.path / "made.txt").write_text(what)
            draft.facts |= {"gates": [GATE]}
            draft.facts |= {"inputs": inputs} if inputs else {}
            draft.facts |= _typical(stage) | fakes.facts.get(stage, {})
        return load_artifact(path, step.kind)

    return make


def _typical(stage: str) -> dict:
    return {
        "train": {"eval_losses": [[0, 4.0], [5, 2.0]], "best_step": 5, "best_eval_loss": 2.0},
        "compare": {"verdict": "improved"},
        "publish": {"version": "v1"},
    }.get(stage, {})
