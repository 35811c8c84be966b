"""What a run asks before which stage: warnings about the data, the verdict, checkpoints that are as good."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.pipeline.deciding import STOP, Question, answered_before
from tunewright.pipeline.steps import Artifacts, Stage, checkpoints_of
from tunewright.publish.versions.manifest import BAD_VERDICTS

EXPECTED = "improved"
NOISE = 0.0025
"""Share of the held-out loss by which two states of a training may differ and still be as good.

Six trainings of the bundled base for 40 steps, with nothing but the seed different, have a standard deviation of 0.12 %
of the loss: twice that is chance.
"""
GO_ON = "continue"
ADAPTER = "adapter"


def warned(config: Config, found: Artifacts) -> Question | None:
    """Return the question that warnings about the data raise; None: there are none."""
    checked = found.get("check")
    warnings = checked.facts.get("warnings", ()) if checked else ()
    if checked is None or not warnings:
        return None
    kinds = [
        f"{kind['code']}, {counted(kind['count'], 'time')}: {kind['first'][0]['message']}"
        for kind in warnings
    ]
    text = "\n".join(["The check of the data has warnings.", *kinds])
    choices = {GO_ON: "train on the data as they are", STOP: "stop here, and look at the data"}
    earlier = answered_before(Path(config.run_dir), "warnings", checked.digest)
    return Question("warnings", checked.digest, text, choices, GO_ON, earlier)


def doubted(config: Config, found: Artifacts) -> Question | None:
    """Return the question that a verdict other than `improved` raises; None: it is that."""
    evaluation = found.get("evaluation")
    if evaluation is None or evaluation.facts.get("verdict") == EXPECTED:
        return None
    facts = evaluation.facts
    verdict = facts.get("verdict")
    told = (f"The verdict is {verdict or 'missing'}.", facts.get("meaning"), facts.get("advice"))
    refused = "; publishing will be refused" if verdict in BAD_VERDICTS else ""
    choices = {
        GO_ON: f"merge and export all the same{refused}",
        STOP: "stop here, with a report",
    }
    earlier = answered_before(Path(config.run_dir), "verdict", evaluation.digest)
    text = " ".join(str(part) for part in told if part)
    return Question("verdict", evaluation.digest, text, choices, GO_ON, earlier)


def undecided(config: Config, found: Artifacts) -> Question | None:
    """Return the question that checkpoints as good as the adapter raise; None: there are none, or one was named."""
    adapter = found.get("adapter")
    if adapter is None or config.merge.checkpoint is not None:
        return None
    near = equally_good(adapter.facts["eval_losses"], adapter.facts["best_step"])
    # Looking at checkpoints hashes them: only where one can be as good.
    whole = {one.step: one for one in checkpoints_of(config, adapter)} if near else {}
    losses = {step: loss for step, loss in near if step in whole}
    if not losses:
        return None
    best, lowest = adapter.facts["best_step"], adapter.facts["best_eval_loss"]
    choices = {ADAPTER: f"the run's adapter, step {best}, held-out loss {lowest:.4f}"}
    choices |= {
        str(step): f"step {step}, held-out loss {loss:.4f}" for step, loss in losses.items()
    }
    text = (
        f"States of the training are as good as the run's adapter: their held-out losses differ by less than "
        f"{NOISE:.2%}. An earlier one has seen the data less often, a later one more. Which is merged?"
    )
    earlier = answered_before(Path(config.run_dir), "checkpoint", adapter.digest)
    return Question("checkpoint", adapter.digest, text, choices, ADAPTER, earlier)


ASKED: Mapping[Stage, Sequence[Callable[[Config, Artifacts], Question | None]]] = {
    "plan": (warned,),
    "train": (warned,),
    "merge": (doubted, undecided),
    "export": (doubted,),
}
"""What is asked before a stage is done, and not where it is finished already."""


def equally_good(losses: Sequence[tuple[int, float]], best_step: int) -> list[tuple[int, float]]:
    """Return steps and losses of evaluations that are as good as the best one, that one left out."""
    known = dict(losses)
    limit = known.get(best_step, 0.0) * (1 + NOISE)
    return [(step, loss) for step, loss in losses if 0 < step != best_step and loss <= limit]


def settled(config: Config, adapter: Artifact | None) -> Config:
    """Return the config with the checkpoint that the user has chosen for this adapter, where it names none."""
    if adapter is None or config.merge.checkpoint is not None:
        return config
    chosen = answered_before(Path(config.run_dir), "checkpoint", adapter.digest)
    return with_checkpoint(config, chosen) if chosen and chosen != ADAPTER else config


def with_checkpoint(config: Config, step: str) -> Config:
    """Return the config that merges the checkpoint of a step."""
    section = config.merge.model_copy(update={"checkpoint": int(step)})
    return config.model_copy(update={"merge": section})
