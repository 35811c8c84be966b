"""Time and memory of the data stage, and how many planted near copies it finds.

    python benchmarks/data_speed.py [--only NAME ...] [--rows N] [--out FILE] [--docs docs/performance.md]

Each measurement runs in a process of its own, so its peak memory is its own. Rows are made from the
bundled manuscript's words with a fixed seed. Prints JSON and a table; `--docs` puts the table into a page
between the lines `<!-- data:start -->` and `<!-- data:end -->`.
"""

import argparse
import bisect
import itertools
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import fill

from tunewright.data.near._links import Links, links
from tunewright.data.near.union import Union

SAMPLES = Path(__file__).parent.parent / "src" / "tunewright" / "data" / "samples" / "manuscript"
THRESHOLD = 0.8
WORDS = 60
PLANTED = {"0.75": (60, 8), "0.8": (58, 6), "0.85": (78, 6), "0.9": (61, 3), "1": (60, 0)}
"""Jaccard similarity of word 5-grams: words of the row, shingles that the copy's edits change."""
PLANTED_EVERY = 50
"""One row in so many is a copy, of each similarity."""
MANUSCRIPT_WORDS = 1_000_000


class Words:
    """Draws words as often as the bundled manuscript uses them."""

    def __init__(self, seed: int) -> None:
        text = " ".join(p.read_text(encoding="utf-8") for p in sorted(SAMPLES.glob("*.txt")))
        counts = Counter(re.findall(r"[a-z]+", text.lower()))
        self.rng = random.Random(seed)
        self._words = sorted(counts)
        self._limits = list(itertools.accumulate(counts[word] for word in self._words))

    def draw(self, count: int) -> list[str]:
        """Return some words."""
        top = self._limits[-1]
        return [
            self._words[bisect.bisect_right(self._limits, self.rng.random() * top)]
            for _ in range(count)
        ]


class Rows:
    """Texts in a file, one a line; given again by number."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("Q")
        at = 0
        with path.open("rb") as stream:
            for line in stream:
                self._starts.append(at)
                at += len(line)
        self._file = path.open("rb")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with self._path.open(encoding="utf-8") as stream:
            for line in stream:
                yield line, line

    def __getitem__(self, number: int) -> tuple[str, str]:
        self._file.seek(self._starts[number])
        line = self._file.readline().decode()
        return line, line


def _edited(words: list[str], changed: int, draw: Words) -> list[str]:
    """Return words of which so many 5-grams differ: an inner word changes five, the n-th n."""
    copied = list(words)
    places = [10 * (n + 1) for n in range(changed // 5)]
    if changed % 5:
        places.append(changed % 5 - 1)
    for place in places:
        while copied[place] == words[place]:
            copied[place] = draw.draw(1)[0]
    return copied if changed else [word.upper() for word in words]


def planted_rows(path: Path, count: int) -> dict[str, list[tuple[int, int]]]:
    """Write `count` texts, near copies among them; return the pairs of each similarity."""
    draw = Words(1)
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in PLANTED}
    waiting: list[tuple[int, str, int, list[str]]] = []
    with path.open("w", encoding="utf-8") as file:
        for row in range(count):
            name, late = None, None
            if row % PLANTED_EVERY < len(PLANTED):
                name = list(PLANTED)[row % PLANTED_EVERY]
            elif waiting and waiting[0][0] <= row:
                late = waiting.pop(0)
            if late is not None:
                _, kind, original, words = late
                words = _edited(words, PLANTED[kind][1], draw)
                pairs[kind].append((original, row))
            else:
                words = draw.draw(PLANTED[name][0] if name else WORDS)
                if name:
                    waiting.append((row + 500, name, row, words))
            file.write(" ".join(words) + "\n")
    return pairs


def _searched(rows: Rows, folder: Path) -> tuple[Links, dict[str, float]]:
    start, processor = time.perf_counter(), time.process_time()
    found = links(rows, rows.__getitem__, folder=folder, threshold=THRESHOLD)
    return found, {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "links": len(found.pairs),
    }


def measure_planted(folder: Path, count: int) -> dict[str, Any]:
    """Return time, and recall and precision by comparison with what was planted."""
    path = folder / "rows"
    pairs = planted_rows(path, count)
    rows = Rows(path)
    found, figures = _searched(rows, folder)
    joined = Union(count)
    for one, other in found.pairs.tolist():
        joined.join(one, other)
    hits = {
        kind: sum(joined.first(one) == joined.first(other) for one, other in planted)
        for kind, planted in pairs.items()
    }
    true = sum(
        _jaccard(rows[one][0], rows[other][0]) >= THRESHOLD for one, other in found.pairs.tolist()
    )
    near = [kind for kind in pairs if float(kind) >= THRESHOLD]
    return {
        **figures,
        "recall": sum(hits[k] for k in near) / sum(len(pairs[k]) for k in near),
        "precision": true / len(found.pairs),
        "found_by_similarity": {k: hits[k] / len(pairs[k]) for k in pairs},
    }


def _jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = tuple(text.lower().split())
        return {words[n : n + 5] for n in range(len(words) - 4)}

    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def measure_identical(folder: Path, count: int) -> dict[str, Any]:
    """Return the time for one row that is there `count` times."""
    path = folder / "rows"
    line = " ".join(Words(2).draw(WORDS)) + "\n"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line for _ in range(count))
    return _searched(Rows(path), folder)[1]


def measure_template(folder: Path, count: int) -> dict[str, Any]:
    """Return the time for rows that share two thirds of their words and are no near copies."""
    path = folder / "rows"
    draw = Words(3)
    shared = " ".join(draw.draw(WORDS * 2 // 3))
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{shared} {' '.join(draw.draw(WORDS // 3))}\n" for _ in range(count))
    return _searched(Rows(path), folder)[1]


def measure_check(folder: Path, count: int) -> dict[str, Any]:
    """Return time and exit code of `tunewright check` on a file of instruction rows."""
    planted_rows(folder / "rows", count)
    data = folder / "rows.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for text, _ in Rows(folder / "rows"):
            words = text.split()
            row = {"instruction": " ".join(words[:15]), "output": " ".join(words[15:])}
            file.write(json.dumps(row) + "\n")
    return _command(["check", str(data), "--json"], folder)


def measure_prepare(folder: Path, count: int) -> dict[str, Any]:
    """Return time and exit code of `tunewright prepare` on a manuscript of so many words."""
    draw = Words(4)
    chapters: list[str] = []
    for chapter in range(-(-count // 4000)):
        sentences = [" ".join(draw.draw(16)).capitalize() + "." for _ in range(250)]
        paragraphs = [" ".join(sentences[n : n + 5]) for n in range(0, 250, 5)]
        chapters.append("\n\n".join([f"Chapter {chapter + 1}", *paragraphs]))
    (folder / "novel.txt").write_text("\n\n".join(chapters), encoding="utf-8")
    config = folder / "novel.yaml"
    config.write_text(
        f"name: novel\noutput_dir: {folder / 'out'}\nprepare:\n  source: {folder / 'novel.txt'}\n",
        encoding="utf-8",
    )
    return _command(["prepare", str(config), "--json"], folder)


def _command(arguments: list[str], folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "tunewright", *arguments], stdout=output, stderr=output
        )
        figures, exit_code = _waited(child)
    figures["seconds"] = round(time.perf_counter() - start, 1)
    if exit_code not in (0, 3):
        # 3: the planted copies are a finding
        return {
            "failed": f"exit code {exit_code}",
            "output": (folder / "output").read_text()[-2000:],
        }
    return {**figures, "exit_code": exit_code}


def _waited(child: subprocess.Popen[bytes]) -> tuple[dict[str, Any], int]:
    """Return peak memory, processor time and the exit code of a process when it has ended."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    figures = {
        "peak_memory_mb": round(usage.ru_maxrss * unit / 1e6),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }
    return figures, child.returncode


MEASUREMENTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int, str]] = {
    "near-100k": (measure_planted, 100_000, "near copies, {:,} rows"),
    "near-1m": (measure_planted, 1_000_000, "near copies, {:,} rows"),
    "identical": (measure_identical, 1_000_000, "near copies, one row {:,} times"),
    "template": (measure_template, 100_000, "near copies, {:,} rows that share 40 of 60 words"),
    "check": (measure_check, 100_000, "`check`, {:,} rows"),
    "prepare": (measure_prepare, MANUSCRIPT_WORDS, "`prepare`, manuscript of {:,} words"),
}


def measured(name: str, count: int) -> dict[str, Any]:
    """Run one measurement in a process of its own; return its figures and peak memory."""
    command = [sys.executable, __file__, "--child", name, "--rows", str(count)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    stdout = child.stdout.read() if child.stdout else b""
    figures, exit_code = _waited(child)
    if exit_code:
        return {"count": count, "failed": f"exit code {exit_code}"}
    return {"count": count, **figures, **json.loads(stdout)}


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        f"Measured on {results['machine']}.",
        "",
        "| what | time | processor time | peak memory | recall | precision |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in results["measurements"].items():
        what = MEASUREMENTS[name][2].format(figures["count"])
        if "seconds" not in figures:
            lines.append(f"| {what} | {figures['failed']} | | | | |")
            continue
        shares = [f"{figures[k]:.4f}" if k in figures else "" for k in ("recall", "precision")]
        times = [f"{figures[k]} s" for k in ("seconds", "processor_seconds")]
        columns = [*times, f"{figures['peak_memory_mb']:,} MB", *shares]
        lines.append(f"| {what} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = f"{os.cpu_count()} cores"
    return (
        f"{platform.machine()}, {cores}, {pages / 2**30:.0f} GB, Python {platform.python_version()}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), default=[])
    parser.add_argument("--rows", type=int, help="rows or words instead of the usual number")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--docs", type=Path, help="put the table into this page")
    parser.add_argument("--child", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure, count, _ = MEASUREMENTS[args.child]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), args.rows or count)))
        return
    results = {
        "machine": _machine(),
        "measurements": {
            name: measured(name, args.rows or MEASUREMENTS[name][1])
            for name in args.only or MEASUREMENTS
        },
    }
    text = json.dumps(results, indent=1)
    print(text, "\n", table(results), sep="\n")
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.docs:
        fill(args.docs, "data", table(results))


if __name__ == "__main__":
    main()
