"""A benchmark's table goes to its place in a page, and to nowhere else."""

import re

import pytest
from support import ROOT, benchmark

fill = benchmark("pages").fill
PAGE = "Before.\n\n<!-- speed:start -->\nold\n<!-- speed:end -->\n\n<!-- data:start -->\nkept\n<!-- data:end -->\n"


def test_a_table_takes_the_place_of_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):
        fill(page, "speed", r"| \1 | new |")
        assert page.read_text() == PAGE.replace("old", r"| \1 | new |")


@pytest.mark.parametrize("text", ["No place.\n", PAGE + PAGE])
def test_a_page_without_one_place_stays_as_it_is(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(SystemExit, match="speed:start"):
        fill(page, "speed", "new")
    assert page.read_text() == text


def test_each_place_in_the_docs_is_filled_by_a_benchmark():
    """A benchmark and its page name the same place."""
    code = "\n".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py"))
    pages = "\n".join(p.read_text() for p in (ROOT / "docs").rglob("*.md"))
    places = re.findall(r"<!-- (\w+):start -->", pages)
    assert sorted(places) == sorted(re.findall(r'fill\([^"]*"(\w+)"', code))
