"""Decisions that are the user's: what is asked, who answers, and where the answers are kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from filelock import FileLock

from tunewright.artifacts import fsync
from tunewright.errors import failure
from tunewright.machine import process_rank

FILE = "decisions.json"
STOP = "stop"
Subject = Literal["warnings", "verdict", "checkpoint"]


@dataclass(frozen=True)
class Question:
    """Something that a run cannot know.

    Attributes:
        subject: What it is about.
        about: Digest of the artifact that raises it: the same question about another one is asked again.
        text: What is to be known, in sentences.
        choices: Each answer, and what it means.
        safe: The answer where nobody is asked.
        earlier: What the user has answered to it before; None: nothing, or to stop.
    """

    subject: Subject
    about: str
    text: str
    choices: Mapping[str, str]
    safe: str
    earlier: str | None = None


@dataclass(frozen=True)
class Answer:
    """What was decided.

    Attributes:
        choice: One of the question's.
        by: Who: the user now, the user before, an option of the command, or nobody.
    """

    choice: str
    by: Literal["user", "earlier", "flag", "default"]


class Decider(Protocol):
    """Answers questions of a run."""

    def decide(self, question: Question) -> Answer:
        """Return one of the question's choices."""
        ...


class Safe:
    """Asks nobody: what was answered before, or else the safe answer."""

    def decide(self, question: Question) -> Answer:
        """Return it."""
        if question.earlier is not None:
            return Answer(question.earlier, "earlier")
        return Answer(question.safe, "default")


class Given:
    """Knows the answers to some questions from options; another decides the rest."""

    def __init__(self, answers: Mapping[Subject, str], rest: Decider) -> None:
        self._answers = answers
        self._rest = rest

    def decide(self, question: Question) -> Answer:
        """Return what was given, if it is one of the choices."""
        given = self._answers.get(question.subject)
        if given in question.choices:
            return Answer(str(given), "flag")
        return self._rest.decide(question)


class OfAgent:
    """Says whose question it is, where one command works for several agents; another decides."""

    def __init__(self, agent: str, rest: Decider) -> None:
        self._agent = agent
        self._rest = rest

    def decide(self, question: Question) -> Answer:
        """Return what is decided for this agent."""
        return self._rest.decide(replace(question, text=f"{self._agent}: {question.text}"))


SAFE: Decider = Safe()


def answered_before(run_dir: Path, subject: Subject, about: str) -> str | None:
    """Return what a user has decided about the same artifact, and not to stop; None: nothing."""
    for row in reversed(_read(run_dir / FILE)):
        if (row.get("subject"), row.get("about")) == (subject, about) and row.get("by") in (
            "user",
            "flag",
        ):
            return None if row.get("answer") == STOP else str(row.get("answer"))
    return None


def keep(run_dir: Path, question: Question, answer: Answer) -> None:
    """Write a decision down, behind those that are there; one that is there already is not written twice.

    Raises:
        TunewrightError: E_IO.
    """
    if process_rank() or answer.by == "earlier":
        return
    row = {
        "subject": question.subject,
        "about": question.about,
        "question": question.text,
        "choices": dict(question.choices),
        "answer": answer.choice,
        "by": answer.by,
    }
    file = run_dir / FILE
    try:
        with FileLock(run_dir / f".{FILE}.lock"):
            rows = _read(file)
            if any(row.items() <= known.items() for known in rows[-1:]):
                return
            now = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps([*rows, {**row, "time": now}], indent=1, ensure_ascii=False)
            draft = run_dir / f".{FILE}.new"
            draft.write_text(text + "\n", encoding="utf-8")
            fsync(draft)
            draft.replace(file)
    except OSError as error:
        raise failure("E_IO", f"{error.strerror}.", where=file) from error


def _read(file: Path) -> list[dict[str, Any]]:
    """Return the decisions in a file; none where it is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    rows = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]
