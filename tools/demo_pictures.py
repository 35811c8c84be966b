"""Run the demo and put what it shows into the README and the docs: the end of the terminal, the report, the time.

    python tools/demo_pictures.py [--run FOLDER]

Needs Chromium for the picture of the report. `--run` takes a folder in which the demo has run already, with what it
printed in `demo.log` and its seconds in `demo.seconds`, as an earlier call leaves them.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text
from screenshots import browse

from tunewright.machine import cpu_count

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
LOG, SECONDS = "demo.log", "demo.seconds"
COLUMNS, LINES = 100, 46
"""Of the terminal: all of the verdict, and the gates of the last stages."""
GATE = "✓"
PAGE = "1100,1500"
"""Width and height of the picture of the report, in pixels: verdict, score and the first plots."""
START, END = "<!-- demo:start -->", "<!-- demo:end -->"
FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Rich's picture would fetch its letters from elsewhere."""


def run_demo(folder: Path) -> None:
    """Run the demo in a folder, with its colours, and leave its output and its seconds there."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    begin = time.monotonic()
    with (folder / LOG).open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "tunewright", "demo"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    (folder / SECONDS).write_text(f"{time.monotonic() - begin:.0f}")


def terminal(folder: Path) -> str:
    """Return the last lines of the demo as a picture."""
    lines = (folder / LOG).read_text(encoding="utf-8").rstrip().splitlines()[-LINES:]
    # The first of them may be the end of a gate that is longer than a line.
    lines = lines[next(n for n, line in enumerate(lines) if GATE in line) :]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi("\n".join(lines)))
        return FONT.sub("", console.export_svg(title="tunewright demo"))


def in_words(seconds: int) -> str:
    """Return a time as the README says it."""
    minutes, rest = divmod(seconds, 60)
    return (
        f"{minutes} minute{'s' * (minutes != 1)} {rest} seconds" if minutes else f"{rest} seconds"
    )


def main() -> None:
    """Run the demo unless that was done, and write pictures and README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder in which the demo has run")
    given = parser.parse_args().run
    with tempfile.TemporaryDirectory() as scratch:
        folder = given or Path(scratch)
        if given is None:
            run_demo(folder)
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / "demo.svg").write_text(terminal(folder), encoding="utf-8")
        page = folder / "runs" / "demo" / "report" / "report.html"
        size = f"--window-size={PAGE}"
        browse(size, f"--screenshot={IMAGES / 'report.png'}", page.resolve().as_uri())
        took = in_words(int((folder / SECONDS).read_text()))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, after = text[: text.index(START)], text[text.index(END) :]
    shown = (
        f"{START}\nThis is how it ends, {took} later on {cpu_count()} CPU cores:\n\n"
        "![The last gates of the demo, and its verdict](docs/images/demo.svg)\n\n"
        "Beside it lies a report, one HTML page:\n\n"
        "![The report: verdict, figures, curves](docs/images/report.png)\n"
    )
    readme.write_text(before + shown + after, encoding="utf-8")


if __name__ == "__main__":
    main()
