"""Time and memory of the search for copies, on 10 MB of novels that nobody here wrote.

    python benchmarks/memorisation_speed.py [--novels FOLDER] [--docs docs/concepts/memorisation.md]

FOLDER has text files; the first 10 MB of them are the training text, once cut into rows, once
one text for every novel. The answers are passages of the last novel, which is not among them; 40 words of the
training text are planted into every other one. Each measurement runs in a process of its own, so its peak memory
is its own. Prints JSON; `--docs` puts the table into a page between `<!-- speed:start -->` and `<!-- speed:end -->`.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

from pages import fill

from tunewright.evaluate.memorisation import overlap
from tunewright.evaluate.style import passages, spans_of

NOVELS = Path(__file__).parents[2] / "shared" / "corpora" / "british-fiction"
TRAINING_BYTES, ANSWERS_BYTES = 10_000_000, 200_000
ROW_CHARACTERS = 2000
ANSWERS, ANSWER_WORDS = 60, 120
PLANTED_WORDS = 40


@dataclass(frozen=True)
class Speed:
    """What was measured with the training text cut in one way.

    Attributes:
        cut: How.
        texts: Number of training texts.
        megabytes: Their size.
        seconds: Processor time of the search.
        peak_megabytes: Memory of the whole process at its highest.
        before_megabytes: The same before the search, with all texts read.
        planted: Number of answers with a planted copy.
        found: How many of these copies were found whole.
        longest_other: Words of the longest run in the other answers.
    """

    cut: str
    texts: int
    megabytes: float
    seconds: float
    peak_megabytes: float
    before_megabytes: float
    planted: int
    found: int
    longest_other: int


def read(folder: Path) -> list[tuple[str, str]]:
    """Return name and text of the novels up to the size."""
    found: list[tuple[str, str]] = []
    left = TRAINING_BYTES
    for file in sorted(folder.glob("*.txt")):
        text = file.read_bytes()[:left].decode(encoding="utf-8", errors="ignore")
        found.append((file.stem, text))
        left -= len(text.encode())
        if left <= 0:
            break
    return found


def rows(novels: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield name and text of rows: whole lines until there are so many characters."""
    for name, text in novels:
        row = ""
        for line in text.splitlines(keepends=True):
            row += line
            if len(row) >= ROW_CHARACTERS:
                yield name, row
                row = ""
        yield name, row


def answers(novel: Path, training: list[tuple[str, str]]) -> list[str]:
    """Return passages of a novel; every other one has words of the training text in its middle."""
    text = novel.read_bytes()[:ANSWERS_BYTES].decode(encoding="utf-8", errors="ignore")
    chosen = passages(text, ANSWER_WORDS)[:ANSWERS]
    for index in range(0, ANSWERS, 2):
        _, source = training[index * len(training) // ANSWERS]
        at = len(source) // 3
        part = source[at : at + ROW_CHARACTERS]
        places = spans_of(part)
        # The first word may be the end of one.
        lent = part[places[1][0] : places[PLANTED_WORDS][1]]
        own = spans_of(chosen[index])
        before, after = own[len(own) // 2 - 1][1], own[(len(own) + PLANTED_WORDS) // 2][0]
        chosen[index] = f"{chosen[index][:before]} {lent} {chosen[index][after:]}"
    return chosen


def speed(cut: str, folder: Path) -> Speed:
    """Return what is measured."""
    novels = read(folder)
    training = novels if cut == "novels" else list(rows(novels))
    asked = answers(sorted(folder.glob("*.txt"))[-1], training)
    before = peak_megabytes()
    began = time.process_time()
    result = overlap(asked, training)
    seconds = time.process_time() - began
    planted = result.spans[::2]
    return Speed(
        cut=cut,
        texts=len(training),
        megabytes=sum(len(text.encode()) for _, text in training) / 1e6,
        seconds=seconds,
        peak_megabytes=peak_megabytes(),
        before_megabytes=before,
        planted=len(planted),
        found=sum(any(span.words >= PLANTED_WORDS for span in spans) for spans in planted),
        longest_other=max(result.runs[1::2]),
    )


def peak_megabytes() -> float:
    """Return the highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page(results: list[Speed]) -> str:
    """Return the table for the docs."""
    lines = [
        "| training text | texts | seconds | process before | process at its peak | planted copies found "
        "| longest run in other answers |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.megabytes:.1f} MB as {one.cut} | {one.texts} | {one.seconds:.1f} | {one.before_megabytes:.0f} MB "
        f"| {one.peak_megabytes:.0f} MB | {one.found} of {one.planted} | {one.longest_other} words |"
        for one in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Print JSON; put the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--novels", type=Path, default=NOVELS)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    if not given.novels.is_dir():
        message = f"Skipped: no novels in {given.novels}. Give a folder with --novels."
        print(message, file=sys.stderr)
        return
    with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1) as pool:
        results = list(pool.map(speed, ("rows", "novels"), repeat(given.novels)))
    print(json.dumps([asdict(one) for one in results], indent=1))
    if given.docs:
        fill(given.docs, "speed", page(results))


if __name__ == "__main__":
    main()
