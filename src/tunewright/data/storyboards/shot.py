"""What every reader of storyboards returns, and what it reports to."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright.errors import Problem

Parameter = str | int | float
Tell = Callable[[int, str, str], None]
"""Called with line, message and fix for everything that cannot be used."""


@dataclass(frozen=True)
class Shot:
    """One shot of a storyboard, or one key frame of a prompt schedule.

    Attributes:
        source_id: `<file name>#<shot or frame>`; unique in the file.
        line: Physical line, from 1, where the shot begins.
        scene: Heading or sequence; "" if there is none.
        text: Prompt or description, weights as written.
        negative: What the picture must not show; "" if nothing is named.
        style: Style of the shot or of the whole file; "" if none is named.
        tags: Keywords given by the file.
        parameters: Technical parameters, such as `aspect_ratio`, `num_frames`, `camera`, `lens`, `light`.
    """

    source_id: str
    line: int
    scene: str
    text: str
    negative: str = ""
    style: str = ""
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])


def teller(report: Callable[[Problem], None], where: str) -> Tell:
    """Return a function that reports a line of the file as E_DATA_ROW."""

    def tell(line: int, message: str, fix: str) -> None:
        report(Problem("E_DATA_ROW", message, f"{where}:{line}", fix))

    return tell


def unique_labels(labels: Sequence[str], scenes: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return one label a shot: its own, with the scene before it, or the line, whichever is unique first.

    Shots are often counted from 1 in every scene, so the number alone does not name one.
    """
    if len(set(labels)) == len(labels) and all(labels):
        return list(labels)
    both = ["-".join(part for part in pair if part) for pair in zip(scenes, labels, strict=True)]
    counts = Counter(both)
    return [
        name if name and counts[name] == 1 else f"line{line}"
        for name, line in zip(both, lines, strict=True)
    ]
