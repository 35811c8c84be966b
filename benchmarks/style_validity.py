"""Whether the transfer score tells authors apart, on novels that nobody here wrote.

    python benchmarks/style_validity.py [--novels FOLDER] [--words N ...] [--docs docs/concepts/transfer-score.md]

FOLDER has files named Author_Title.txt. For every author with two or more novels, each of them is the reference: one
half of it stands for the held-out text, which gives the direction, the other for the training text, which is 100 %;
then the halves change places. The base are passages of all other authors, without the novel under test. Every other
novel is scored: those of the same author should come near 100 %, all others near 0 %.

Then small draws of passages are scored, and it is counted how often their 95 % interval has the value of the whole
texts in it. `--docs` puts the tables into a page between `<!-- validity:start -->` and `<!-- validity:end -->`.
"""

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from statistics import fmean

from pages import fill

from tunewright.evaluate._style import Sides, scored, sides_of
from tunewright.evaluate.style import Counts, count, passages

NOVELS = Path(__file__).parents[2] / "shared" / "corpora" / "british-fiction"
PASSAGES = 240
"""Of a novel, evenly spread over it; each half has half as many."""
SPLITS = 40
DRAWS, DRAWN, SAMPLES = 200, 40, 300
PAIRS = (
    ("Austen_Emma", "Austen_Pride"),
    ("Dickens_Bleak", "Dickens_David"),
    ("Trollope_Prime", "Trollope_Phineas"),
    ("Eliot_Adam", "Eliot_Mill"),
    ("Austen_Emma", "Fielding_Tom"),
    ("Thackeray_Vanity", "Trollope_Barchester"),
)
"""Reference and text under test, for the intervals."""

Novels = dict[str, list[Counts]]


@dataclass(frozen=True)
class Validity:
    """What was found at one length of passages.

    Attributes:
        words: Of a passage.
        same: Mean score of other novels of the reference's author, percent.
        lowest_same: The lowest of them.
        other: Mean score of novels of other authors.
        highest_other: The highest of them.
        auc: Probability that one of the first scores above one of the second.
        pairs: Number of both.
        by_author: Reference's author to the mean scores of his own and of other novels.
        coverage: Reference and text under test to value, mean width of the interval and share that has the value.
    """

    words: int
    same: float
    lowest_same: float
    other: float
    highest_other: float
    auc: float
    pairs: tuple[int, int]
    by_author: dict[str, tuple[float, float]]
    coverage: dict[str, tuple[float, float, float]]


def read(folder: Path, words: int) -> Novels:
    """Return the counts of each novel's passages."""
    found: Novels = {}
    for file in sorted(folder.glob("*_*.txt")):
        cut = passages(file.read_text(encoding="utf-8"), words)
        found[file.stem] = [count(text) for text in spread(cut, PASSAGES)]
    return found


def spread(items: Sequence[str], most: int) -> list[str]:
    """Return so many, evenly spread."""
    return [items[i * len(items) // most] for i in range(min(most, len(items)))]


def author(novel: str) -> str:
    """Return whose it is."""
    return novel.split("_")[0]


def base_of(novels: Novels, reference: str, test: str) -> list[Counts]:
    """Return as many passages as a novel has, in turn from all novels of other authors but the one under test."""
    left = [n for n in novels if author(n) != author(reference) and n != test]
    size = len(novels[test])
    each = -(-size // len(left))
    found = [novels[n][i * len(novels[n]) // each] for i in range(each) for n in left]
    return found[:size]


def turns(novels: Novels, reference: str) -> list[tuple[list[Counts], list[Counts]]]:
    """Return both halves of a novel, either way round."""
    middle = len(novels[reference]) // 2
    first, second = novels[reference][:middle], novels[reference][middle:]
    return [(first, second), (second, first)]


def sides(novels: Novels, reference: str, test: str) -> list[Sides]:
    """Return what is scored, once for each turn of the reference's halves."""
    base = base_of(novels, reference, test)
    return [
        sides_of(base=base, tuned=novels[test], heldout=heldout, training=training)
        for heldout, training in turns(novels, reference)
    ]


def value(turned: Sequence[Sides], samples: int = SPLITS) -> float:
    """Return the score over both turns."""
    found = [scored(one, samples=samples, seed=1) for one in turned]
    return fmean(one[0] for one in found if one)


def validity(folder: Path, words: int) -> Validity:
    """Return what is found with passages of so many words."""
    novels = read(folder, words)
    several = [n for n in novels if sum(author(m) == author(n) for m in novels) > 1]
    same: dict[str, list[float]] = defaultdict(list)
    other: dict[str, list[float]] = defaultdict(list)
    began = time.monotonic()
    for reference in several:
        for test in novels:
            if test != reference:
                side = same if author(test) == author(reference) else other
                side[author(reference)].append(value(sides(novels, reference, test)))
        print(f"{words} words, {reference}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    alike = [score for scores in same.values() for score in scores]
    unlike = [score for scores in other.values() for score in scores]
    above = fmean((a > b) + (a == b) / 2 for a in alike for b in unlike)
    return Validity(
        words=words,
        same=fmean(alike),
        lowest_same=min(alike),
        other=fmean(unlike),
        highest_other=max(unlike),
        auc=above,
        pairs=(len(alike), len(unlike)),
        by_author={name: (fmean(same[name]), fmean(other[name])) for name in sorted(same)},
        coverage={f"{a}, {b}": coverage(novels, a, b) for a, b in PAIRS if {a, b} <= novels.keys()},
    )


def coverage(novels: Novels, reference: str, test: str) -> tuple[float, float, float]:
    """Return the whole texts' score, the mean width of a draw's interval, and how often that has the score."""
    whole = sides(novels, reference, test)[0]
    target = value([whole], 400)
    rng = random.Random(7)
    widths: list[float] = []
    hits = 0
    for draw in range(DRAWS):
        pairs, heldout, training = (
            rng.choices(range(len(side)), k=DRAWN)
            for side in (whole.base, whole.heldout, whole.training)
        )
        drawn = Sides(
            whole.base[pairs], whole.tuned[pairs], whole.heldout[heldout], whole.training[training]
        )
        found = scored(drawn, samples=SAMPLES, seed=draw)
        if found:
            hits += found[1] <= target <= found[2]
            widths.append(found[2] - found[1])
    return target, fmean(widths), hits / len(widths)


def page(results: Sequence[Validity]) -> str:
    """Return the tables for the docs."""
    lines = [
        "| passages | same author | lowest | other authors | highest | AUC | pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        lines.append(
            f"| {one.words} words | {one.same:.1f} % | {one.lowest_same:.0f} % | {one.other:.1f} % | "
            f"{one.highest_other:.0f} % | {one.auc:.4f} | {one.pairs[0]} and {one.pairs[1]} |"
        )
    lines += [
        "",
        "| author | " + " | ".join(f"same, {r.words} | others, {r.words}" for r in results) + " |",
    ]
    lines.append("|---" * (1 + 2 * len(results)) + "|")
    for name in results[0].by_author:
        cells = [f"{v:.0f} %" for r in results for v in r.by_author[name]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| reference and text | words | whole texts | width of the interval | has the value |",
    ]
    lines.append("|---|---|---|---|---|")
    for one in results:
        for name, (target, width, share) in one.coverage.items():
            lines.append(f"| {name} | {one.words} | {target:.0f} % | {width:.0f} | {share:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Print JSON; put the tables into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--novels", type=Path, default=NOVELS)
    parser.add_argument("--words", type=int, nargs="+", default=[400, 150, 80])
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(validity, repeat(given.novels), given.words))
    print(json.dumps([asdict(one) for one in results], indent=1))
    if given.docs:
        fill(given.docs, "validity", page(results))


if __name__ == "__main__":
    main()
