"""Running stages: one, some, or all of them with finished ones skipped."""

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tunewright.artifacts import MAKERS, Artifact, Kind, called, fsync, load_artifact
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.machine import process_rank
from tunewright.pipeline.choosing import chosen
from tunewright.pipeline.deciding import SAFE, STOP, Decider, keep
from tunewright.pipeline.logbook import Log, logged
from tunewright.pipeline.questions import ADAPTER, ASKED, GO_ON, settled, with_checkpoint
from tunewright.pipeline.state import ASKED_FOR, because, loaded, present, standing, survey
from tunewright.pipeline.steps import ASIDE, STEPS, Stage, Step
from tunewright.publish import publish
from tunewright.targets import CONFIG_FILE
from tunewright.train import plan, train

SKIPPED = "skipped (nothing changed)"


@dataclass(frozen=True)
class Outcome:
    """What became of a stage in a run.

    Attributes:
        stage: Its name.
        artifact: What it made.
        skipped: It was finished before.
        seconds: Time it took.
        reasons: Why it was done again; none: it was skipped, or done for the first time.
    """

    stage: Stage
    artifact: Artifact
    skipped: bool
    seconds: float
    reasons: tuple[str, ...] = ()


class EndedError(TunewrightError):
    """A run has ended before its last stage, and not by a fault.

    Attributes:
        outcomes: Of the stages that are done.
    """

    def __init__(self, problems: Iterable[Problem], outcomes: Sequence[Outcome]) -> None:
        super().__init__(problems)
        self.outcomes = outcomes


class PublishingRefusedError(EndedError):
    """Publishing was refused; everything else of the run is done, the report included."""


class StoppedError(EndedError):
    """The user, or an option, has decided to stop."""


def run(
    config: Config,
    *,
    until: Stage | None = None,
    start: Stage | None = None,
    only: Sequence[Stage] = (),
    decider: Decider = SAFE,
    listener: Listener = SILENT,
) -> list[Outcome]:
    """Return the outcome of every stage up to `until`; finished stages are skipped.

    A stage is finished if its folder is complete and was made from the same options, files and parents. Made
    anew with the same outcome, an artifact is the same, and what is made of it stays finished. The report is
    made even if publishing is refused.

    Args:
        config: The run.
        until: The last stage.
        start: This stage and those after it are done anew; what they are made of has to be there.
        only: These stages are done anew, and no others.
        decider: Answers what only the user can know; unset: nobody is asked, and the safe answer is taken.
        listener: Told how far it is.

    Raises:
        TunewrightError: E_USAGE, the choice of stages contradicts itself. E_ARTIFACT_MISSING,
            E_ARTIFACT_INVALID: what `start` and `only` need is not there, or outdated. E_STOPPED, it was
            decided to stop. Else as the stages do.
    """
    stages, anew = chosen(until=until, start=start, only=only)
    with logged(config, _named(until, start, only), listener) as log:
        course = _Course(config, decider, log)
        if anew:
            course.start_from_what_is_there(stages)
        for stage in stages:
            course.go_through(stage, anew=anew)
        course.end()
    return course.outcomes


def run_stage(
    config: Config, stage: Stage, *, listener: Listener = SILENT, **options: Any
) -> Artifact:
    """Return what one stage makes of the artifacts that are there.

    Args:
        config: The run.
        stage: Its name.
        listener: Told how far it is.
        options: Of the stage's own function: `force` of publish; `resume`, `restart`, `allow_inexact` of train.

    Raises:
        TunewrightError: E_ARTIFACT_MISSING names the command that makes what is missing.
            E_ARTIFACT_INVALID, what is there was made from something else than what is there now, or
            with other options.
    """
    step = STEPS[stage]
    with logged(config, stage, listener) as log:
        told = log.listener
        found = present(config) if step.of_all else loaded(config, step.parents, listener=told)
        parents = [found[kind] for kind in step.parents]
        with log.stage(stage, ()):
            if options:
                function = {"plan": plan, "publish": publish, "train": train}[stage]
                artifact = function(config, *parents, listener=told, **options)
            else:
                artifact = step.make(config, found, told)
        log.findings(artifact)
    if _changes_the_run(config, stage):
        _remember(config)
    return artifact


def _changes_the_run(config: Config, stage: Stage) -> bool:
    """Return whether a stage makes its options those of the run: a look at other ones does not."""
    return stage not in ASIDE or not (Path(config.run_dir) / CONFIG_FILE).is_file()


def _named(until: Stage | None, start: Stage | None, only: Sequence[Stage]) -> str:
    """Return a run as it is typed."""
    flags = {"--until": until, "--from": start, "--only": ",".join(only)}
    return " ".join(["run", *(f"{flag} {value}" for flag, value in flags.items() if value)])


class _Course:
    """A run under way.

    Attributes:
        outcomes: Of the stages so far.
    """

    def __init__(self, config: Config, decider: Decider, log: Log) -> None:
        self.outcomes: list[Outcome] = []
        self._config = config
        # A checkpoint that is chosen on the way is about one adapter: decisions.json has it, run.yaml not.
        self._given = config
        self._remembered = False
        self._decider = decider
        self._log = log
        self._found: dict[Kind, Artifact] = {}
        self._asked: set[str] = set()
        self._whole: set[Kind] = set()
        self._refused: TunewrightError | None = None
        self._stopped: TunewrightError | None = None

    def start_from_what_is_there(self, stages: Sequence[Stage]) -> None:
        """Take what stages that are not among these have made.

        Raises:
            TunewrightError: E_ARTIFACT_MISSING, E_ARTIFACT_INVALID: all that they need and is not finished.
        """
        table = survey(self._config, self._log.listener)
        self._found = {
            STEPS[stage].kind: one.artifact
            for stage, one in table.items()
            if one.artifact is not None and one.finished and stage not in stages
        }
        made: set[Kind] = {STEPS[stage].kind for stage in stages}
        problems: list[Problem] = []
        by_kind = {STEPS[stage].kind: one for stage, one in table.items()}
        needed: dict[Kind, None] = {kind: None for stage in stages for kind in STEPS[stage].parents}
        for kind in needed:
            if kind in made or kind in self._found:
                continue
            there, noun = by_kind[kind], called(kind)
            code = "E_ARTIFACT_INVALID" if there.reasons else "E_ARTIFACT_MISSING"
            why = f"is outdated: {because(there.reasons)}" if there.reasons else "is not there"
            path, fix = str(Path(self._config.run_dir) / kind), f"{MAKERS[kind]} CONFIG makes it."
            problems.append(Problem(code, f"The {noun} that is needed {why}.", path, fix))
        if problems:
            raise TunewrightError(problems)

    def go_through(self, stage: Stage, *, anew: bool) -> None:
        """Do a stage, or skip it where it is finished.

        Raises:
            TunewrightError: As the stage does, unless publishing is refused.
        """
        step = STEPS[stage]
        # What was stopped or refused goes nowhere, but is told of.
        if (self._stopped or self._refused) and not step.of_all:
            return
        started = time.monotonic()
        self._settle()
        there = standing(self._config, step, self._found, self._log.listener)
        reasons = (ASKED_FOR,) if anew and there.artifact else there.reasons
        if there.artifact is not None and there.finished and not anew:
            artifact = there.artifact
            self._log.write("skip", f"{stage}: nothing changed")
            self._log.tell(f"{stage}: {SKIPPED}")
            skipped = True
        else:
            made = self._made(stage, step, reasons, anew=anew)
            if made is None:
                return
            artifact, skipped = made, False
        if not anew or _changes_the_run(self._config, stage):
            self._remember()
        self._found[step.kind] = artifact
        seconds = time.monotonic() - started
        self.outcomes.append(Outcome(stage, artifact, skipped, seconds, reasons))
        if not skipped:
            self._log.tell(f"{stage}: done in {seconds:.1f} s")

    def end(self) -> None:
        """Say that the run has ended early, if it has.

        Raises:
            TunewrightError: E_STOPPED; what publishing was refused for.
        """
        if self._stopped:
            raise StoppedError(self._stopped.problems, self.outcomes) from self._stopped
        if self._refused:
            raise PublishingRefusedError(self._refused.problems, self.outcomes) from self._refused

    def _made(
        self, stage: Stage, step: Step, reasons: tuple[str, ...], *, anew: bool
    ) -> Artifact | None:
        """Return what a stage makes; None: it was decided not to, or refused."""
        self._ask(stage)
        if self._stopped and not step.of_all:
            return None
        if reasons:
            self._log.tell(f"{stage}: again, because: {because(reasons)}")
        make = (step.anew if anew else None) or step.make
        try:
            with self._log.stage(stage, reasons):
                self._require_whole(step)
                artifact = make(self._config, self._found, self._log.listener)
        except TunewrightError as error:
            if stage != "publish":
                raise
            self._refused = error
            return None
        self._whole.add(step.kind)
        self._log.findings(artifact)
        return artifact

    def _require_whole(self, step: Step) -> None:
        """Hash what a stage is made of, unless it was made just now.

        Raises:
            TunewrightError: E_ARTIFACT_INVALID, files are not what they were.
        """
        for kind in step.parents:
            if kind not in self._whole:
                load_artifact(self._found[kind].path, kind, verify=True)
                self._whole.add(kind)

    def _remember(self) -> None:
        """Write the config into the run folder, if it is not there."""
        if not self._remembered:
            _remember(self._given)
            self._remembered = True

    def _settle(self) -> None:
        """Take over which checkpoint the user has chosen for the adapter that is there."""
        self._config = settled(self._config, self._found.get("adapter"))

    def _ask(self, stage: Stage) -> None:
        """Ask what is to be known before a stage."""
        for raised in ASKED.get(stage, ()):
            question = raised(self._config, self._found)
            if question is None or question.subject in self._asked:
                continue
            self._asked.add(question.subject)
            answer = self._decider.decide(question)
            keep(Path(self._config.run_dir), question, answer)
            text = (
                f"{question.subject}: {answer.choice} (by {answer.by}); asked was: {question.text}"
            )
            self._log.write("decision", text)
            if answer.choice == STOP:
                first = question.text.partition("\n")[0]
                message = f"Stopped before '{stage}'. {first}"
                run = shlex.quote(self._config.run_dir)
                fix = f"To go on all the same: tunewright run {run} --on-{question.subject} {GO_ON}"
                self._stopped = failure("E_STOPPED", message, where=self._config.run_dir, fix=fix)
                return
            if question.subject == "checkpoint" and answer.choice != ADAPTER:
                self._config = with_checkpoint(self._config, answer.choice)


def _remember(config: Config) -> None:
    """Write the resolved config into the run folder, so that later commands need only the folder."""
    if process_rank():
        return
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One name, so that what a killed process left is written over; the lock keeps two apart.
        draft = folder / f".{CONFIG_FILE}.new"
        with FileLock(folder / f".{CONFIG_FILE}.lock"):
            draft.write_text(dump_config(config), encoding="utf-8")
            fsync(draft)
            draft.replace(folder / CONFIG_FILE)
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=folder) from error
