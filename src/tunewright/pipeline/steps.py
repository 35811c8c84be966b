"""What the stages are, what each reads, and how it is called: the only file where two stages meet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from tunewright.artifacts import Artifact, Kind
from tunewright.config.schema import Config
from tunewright.data import check, prepare
from tunewright.errors import failure
from tunewright.evaluate import Checkpoint, compare
from tunewright.events import Listener
from tunewright.export import export
from tunewright.merge import Candidate, merge
from tunewright.publish import publish
from tunewright.report import report
from tunewright.train import is_finished, plan, train, whole_checkpoints, write_checkpoint

Stage = Literal[
    "prepare", "check", "plan", "train", "compare", "merge", "export", "publish", "report"
]
STAGES: tuple[Stage, ...] = get_args(Stage)
ASIDE: tuple[Stage, ...] = ("check", "plan")
"""Stages that only look: they can be told other options without changing what the run is."""

Artifacts = Mapping[Kind, Artifact]
Make = Callable[[Config, Artifacts, Listener], Artifact]


@dataclass(frozen=True)
class Step:
    """A stage: what it makes, of what, and how.

    Attributes:
        kind: What it makes; also the name of its folder.
        parents: Artifacts it reads.
        make: Calls the stage.
        anew: Calls it where it is to be done anew although it is finished; None: as `make`.
        of_all: It reads whatever is there.
    """

    kind: Kind
    parents: tuple[Kind, ...]
    make: Make
    anew: Make | None = None
    of_all: bool = False

    def reads(self, found: Artifacts) -> tuple[Kind, ...]:
        """Return the kinds of what it is made of, where these artifacts are there."""
        others: tuple[Kind, ...] = tuple(kind for kind in found if kind != self.kind)
        return others if self.of_all else self.parents


def _train_anew(config: Config, artifacts: Artifacts, listener: Listener) -> Artifact:
    """Train from step 0; a training that was interrupted on this way goes on."""
    restart = is_finished(Path(config.run_dir))
    return train(config, artifacts["dataset"], restart=restart, listener=listener)


def checkpoints_of(config: Config, adapter: Artifact) -> list[Checkpoint]:
    """Return the whole checkpoints of the training that an adapter is from, in the order of steps.

    Those of a training that was begun anew since have other losses.
    """
    losses = dict(adapter.facts["eval_losses"])
    return [
        Checkpoint(step, path, loss)
        for step, path, loss in whole_checkpoints(Path(config.run_dir))
        if loss is not None and losses.get(step) == loss
    ]


def checkpoint_of(config: Config, adapter: Artifact, step: int) -> Checkpoint:
    """Return the whole checkpoint of a step of the training that an adapter is from.

    Raises:
        TunewrightError: E_NOT_FOUND, with the steps that there are.
    """
    found = {one.step: one for one in checkpoints_of(config, adapter)}
    if step in found:
        return found[step]
    there = ", ".join(map(str, found)) or "none"
    raise failure(
        "E_NOT_FOUND",
        f"There is no whole checkpoint of step {step}; those that are there: {there}.",
        where=config.run_dir,
        fix="Name one of them; `train.save_total_limit` says how many are kept.",
    )


def _candidates(config: Config, adapter: Artifact) -> list[Candidate]:
    """Return the checkpoints that can be merged in place of the adapter, if one is asked for."""
    found = [] if config.merge.checkpoint is None else checkpoints_of(config, adapter)
    write = partial(write_checkpoint, config, adapter.path)
    return [Candidate(one.step, one.eval_loss, partial(write, one.path)) for one in found]


STEPS: Mapping[Stage, Step] = {
    "prepare": Step("dataset", (), lambda c, a, s: prepare(c, listener=s)),
    "check": Step("check", ("dataset",), lambda c, a, s: check(c, a["dataset"], listener=s)),
    "plan": Step("plan", ("dataset",), lambda c, a, s: plan(c, a["dataset"], listener=s)),
    "train": Step(
        "adapter", ("dataset",), lambda c, a, s: train(c, a["dataset"], listener=s), _train_anew
    ),
    "compare": Step(
        "evaluation",
        ("dataset", "adapter"),
        lambda c, a, s: compare(
            c,
            a["dataset"],
            a["adapter"],
            checkpoints=checkpoints_of(c, a["adapter"]) if c.compare.checkpoints else (),
            listener=s,
        ),
    ),
    "merge": Step(
        "merged",
        ("adapter", "dataset"),
        lambda c, a, s: merge(
            c, a["adapter"], a["dataset"], checkpoints=_candidates(c, a["adapter"]), listener=s
        ),
    ),
    "export": Step(
        "exported",
        ("merged", "dataset"),
        lambda c, a, s: export(c, a["merged"], a["dataset"], listener=s),
    ),
    "publish": Step(
        "published",
        ("adapter", "evaluation", "exported"),
        lambda c, a, s: publish(c, a["adapter"], a["evaluation"], a["exported"], listener=s),
    ),
    "report": Step("report", (), lambda c, a, s: report(c, a, listener=s), of_all=True),
}
