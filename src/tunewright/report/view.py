"""From facts to what the page shows: stages, gates, positions on the scale, directions of markers."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.artifacts import Artifact, Kind
from tunewright.config.schema import Config
from tunewright.report.numbers import as_number

MARGIN_PERCENT = 7.0
SCALE_LIMITS = (-60.0, 160.0)


@dataclass(frozen=True)
class Stage:
    """A stage as the page names it.

    Attributes:
        kind: Of its artifact.
        title: In words.
        command: Makes it.
        done: Whether its artifact is there.
        failed: Number of its gates that failed.
    """

    kind: Kind
    title: str
    command: str
    done: bool
    failed: int


@dataclass(frozen=True)
class Scale:
    """The transfer score's drawing: positions in percent of its width.

    Attributes:
        base: Where the base is, 0 %.
        author: Where the author is, 100 %.
        target: Where the target is.
        score: Where the tuned model is.
        low: Lower end of the interval.
        high: Upper end.
        anchor: How the score's label is set so that it stays inside.
    """

    base: float
    author: float
    target: float
    score: float
    low: float
    high: float
    anchor: str


_STAGES: tuple[tuple[Kind, str, str], ...] = (
    ("dataset", "data", "tunewright prepare"),
    ("adapter", "training", "tunewright train"),
    ("evaluation", "comparison", "tunewright compare"),
    ("merged", "merge", "tunewright merge"),
    ("exported", "export", "tunewright export"),
    ("published", "publish", "tunewright publish"),
)
_EXTRA: tuple[tuple[Kind, str], ...] = (("check", "check"), ("plan", "plan"))
_TONES = {"improved": "good", "overfitted": "bad", "memorised": "bad", "degraded": "bad"}


def stages(artifacts: Mapping[Kind, Artifact]) -> list[Stage]:
    """Return the pipeline's stages, whether each is done, and how many of its gates failed."""
    failed = Counter(gate["stage"] for gate in gates(artifacts) if not gate["passed"])
    return [
        Stage(kind, title, command, kind in artifacts, failed[title])
        for kind, title, command in _STAGES
    ]


def gates(artifacts: Mapping[Kind, Artifact]) -> list[dict[str, Any]]:
    """Return all gates in the pipeline's order, each with its `stage`."""
    order: list[tuple[Kind, str]] = [(kind, title) for kind, title, _command in _STAGES]
    order[1:1] = _EXTRA
    return [
        {"stage": title, **gate}
        for kind, title in order
        if kind in artifacts
        for gate in artifacts[kind].facts.get("gates") or []
    ]


def tone(verdict: object) -> str:
    """Return `good`, `bad` or `open`: the colour of a verdict."""
    return _TONES.get(str(verdict), "open")


def headline(evaluation: Mapping[str, Any]) -> str:
    """Return the verdict's sentence without the reasons at its end, which the page lists."""
    reasons: list[str] = evaluation.get("reasons") or []
    sentence = str(evaluation.get("sentence", ""))
    return sentence.removesuffix(" ".join(reasons)).rstrip() or sentence


def scale(score: Mapping[str, Any] | None, target: float) -> Scale | None:
    """Return where things are on the transfer scale, or None if there is no score."""
    values = [as_number((score or {}).get(key)) for key in ("score", "low", "high")]
    if values[0] is None:
        return None
    at, low, high = (min(max(_or(v, values[0]), SCALE_LIMITS[0]), SCALE_LIMITS[1]) for v in values)
    low, high = min(low, high), max(low, high)
    left, right = min(0.0, target, low, at), max(100.0, target, high, at)

    def place(value: float) -> float:
        return round(
            MARGIN_PERCENT + (100 - 2 * MARGIN_PERCENT) * (value - left) / (right - left), 2
        )

    anchor = "start" if place(at) < 15 else "end" if place(at) > 85 else "middle"
    return Scale(place(0), place(100), place(target), place(at), place(low), place(high), anchor)


def markers(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the style markers with the `arrow` of the change and whether it went `closer`."""
    result: list[dict[str, Any]] = []
    for row in rows:
        base, tuned, author = (as_number(row.get(key)) for key in ("base", "tuned", "author"))
        arrow, closer = "", row.get("towards")
        if base is not None and tuned is not None:
            arrow = "↑" if tuned > base else "↓" if tuned < base else "="
            if not isinstance(closer, bool) and author is not None and arrow != "=":
                closer = abs(tuned - author) < abs(base - author)
        result.append({**row, "arrow": arrow, "closer": closer})
    return result


def commands(config: Config, artifacts: Mapping[Kind, Artifact]) -> list[tuple[str, str]]:
    """Return what to type, each with what it does, for what has been made."""
    run = shlex.quote(config.run_dir)
    result: list[tuple[str, str]] = []
    if "exported" in artifacts:
        name, modelfile = (
            f"tunewright/{config.name.lower()}",
            shlex.quote(f"{config.run_dir}/exported/Modelfile"),
        )
        if artifacts["exported"].facts.get("ollama_template"):
            create = f"ollama create {name} -f {modelfile}\nollama run {name}"
            result.append(("Ollama", create))
        result += [
            ("Chat in the terminal", f"tunewright chat {run}"),
            ("OpenAI-compatible endpoint", f"tunewright serve {run}"),
        ]
    if "published" in artifacts:
        agent = artifacts["published"].facts.get("agent", config.publish.agent)
        result.append(("Folder of the published version", f"tunewright store resolve {agent}"))
    return result


def _or(value: float | None, other: float | None) -> float:
    return (value if value is not None else other) or 0.0
