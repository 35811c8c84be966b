"""The comparison: both sides are asked, measured, judged, and written into one folder."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import CompareSection, Config
from tunewright.errors import TunewrightError
from tunewright.evaluate import prompts_digest, rubric
from tunewright.evaluate._course import course
from tunewright.evaluate._endpoint import Endpoint, endpoint
from tunewright.evaluate._figures import Answers, figured
from tunewright.evaluate._losses import author_ended, losses
from tunewright.evaluate._sides import opened
from tunewright.evaluate.harness import ask
from tunewright.evaluate.judging import MAX_TOKENS, Duel, judged
from tunewright.evaluate.material import Material, read
from tunewright.evaluate.sides import Checkpoint, Other, folder_of
from tunewright.events import Listener
from tunewright.models.sampling import Sampling

SAMPLES, MARKERS = "samples.jsonl", "markers.json"
MOST = 0.9
"""Share of the author's answers that should fit, where their structure is judged."""


def evaluate(
    config: Config,
    dataset: Artifact | None,
    adapter: Artifact | None,
    *,
    other: Other | None,
    checkpoints: Sequence[Checkpoint],
    listener: Listener,
) -> Artifact:
    """Do what `compare` says."""
    options = config.compare
    material = read(
        dataset.path if dataset else None,
        num_prompts=options.num_prompts,
        prompts=options.prompts,
        prompts_file=options.prompts_file,
    )
    path = Path(config.run_dir) / folder_of(other)
    parents = {artifact.kind: artifact for artifact in (dataset, adapter) if artifact is not None}
    settings = settings_of(config, "evaluation") | prompts_digest(config)
    settings |= {"of": repr(other)} if other else {}
    with writing(path, "evaluation", settings=settings, parents=parents) as draft:
        facts, samples = _compared(config, material, adapter, other, checkpoints, listener)
        _write_lines(draft.path / SAMPLES, samples)
        _write_json(draft.path / MARKERS, facts["markers"])
        draft.facts.update(facts)
        listener.said(_headline(facts))
    return load_artifact(path, "evaluation")


def _compared(
    config: Config,
    material: Material,
    adapter: Artifact | None,
    other: Other | None,
    checkpoints: Sequence[Checkpoint],
    listener: Listener,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the facts, and the samples with what is copied in them."""
    options = config.compare
    rubrics = rubric.resolve(options.rubrics)
    # Of a pattern that takes too long, one learns before the answers are made.
    for question in material.questions:
        for one in rubrics:
            rubric.check(one, question.author or "")
    sampling = Sampling(options.max_new_tokens, options.temperature, options.top_p)
    until = time.monotonic() + 60 * options.max_minutes
    with ExitStack() as stack:
        # Opened first, so that an address that is wrong is told before the answers are made.
        judge = stack.enter_context(_judge(options)) if options.judge_url else None
        sides = stack.enter_context(
            opened(config, adapter.path if adapter else None, other, sampling=sampling)
        )
        ended = author_ended(sides, material.questions, options.max_new_tokens)
        if rubrics and ended is not None and ended < MOST:
            listener.said(
                f"{1 - ended:.0%} of the author's answers are longer than compare.max_new_tokens "
                f"({options.max_new_tokens}): answers are cut there, and the rubrics judge what is left."
            )
        asked = ask(
            sides,
            material.prompts,
            batch_size=options.batch_size,
            seed=config.seed,
            max_seconds=until - time.monotonic(),
            listener=listener,
        )
        answers = Answers(material, *asked.answers)
        found = losses(sides, material, config, listener)
        known = found.heldout_rows if found else ()
        along = course(
            config, sides, answers, checkpoints, known=known, until=until, listener=listener
        )
        names = {"base": sides[0].name, "tuned": sides[1].name}
        facts, samples = figured(config, answers, found, rubrics=rubrics, author_ended=ended)
        facts["compared"] = names
        facts["prompts"] = {"asked": len(answers.questions), "planned": asked.planned}
        if along:
            facts["checkpoints"] = along
        if judge:
            facts["judge"] = _judged(config, judge, answers, until, listener)
    return facts, samples


def _judge(options: CompareSection) -> AbstractContextManager[Endpoint]:
    return endpoint(
        str(options.judge_url),
        options.judge_model,
        name="judge",
        where="compare.judge_url",
        sampling=Sampling(MAX_TOKENS, temperature=0.0, top_p=1.0),
    )


def _judged(
    config: Config, judge: Endpoint, answers: Answers, until: float, listener: Listener
) -> dict[str, Any] | None:
    """Return what a judge prefers; None where it fails, since the comparison does not need it."""
    duels = [
        Duel(question.whole, base.text, tuned.text)
        for question, base, tuned in zip(
            answers.questions, answers.base, answers.tuned, strict=True
        )
    ]
    try:
        found = judged(
            judge,
            duels,
            criterion=config.compare.judge_criterion,
            batch_size=config.compare.batch_size,
            max_seconds=until - time.monotonic(),
            samples=config.compare.bootstrap_samples,
            seed=config.seed,
            listener=listener,
        )
    except TunewrightError as error:
        listener.said(f"The judge is left out: {error.problems[0].message}")
        return None
    return {"model": judge.model, **found}


def _headline(facts: Mapping[str, Any]) -> str:
    """Return the verdict in a line: what it says is printed with the result."""
    found = facts["transfer_score"]
    score = "no transfer score"
    if found["score"] is not None:
        score = f"transfer score {found['score']:.0f} % ({found['low']:.0f} to {found['high']:.0f})"
    return f"Verdict: {facts['verdict']}; {score}."


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
