"""The docs as a site: built without a warning, every page in it, and a broken link is noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

import tunewright

pytestmark = pytest.mark.slow


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)


def test_it_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING  -" not in done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        place = tmp_path / (name if name.name != "index" else name.parent)
        assert (place / "index.html").is_file(), page
    text = (tmp_path / "reference" / "python" / "index.html").read_text("utf-8")
    names = [f"tunewright.{name}" for name in tunewright.__all__]
    # A function that is named like its package is told by its full name.
    ids = {n if f'id="{n}"' in text else f"{n}.{n.rpartition('.')[2]}" for n in names}
    for name in (*ids, "tunewright.store.resolve", "tunewright.doctor.examine"):
        assert f'id="{name}"' in text, name
    assert 'src="http' not in text
    assert 'rel="stylesheet" href="http' not in text


def test_a_link_that_leads_nowhere_fails(tmp_path):
    left_out = shutil.ignore_patterns("errors", "python.md")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=left_out)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("assets"))
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text("utf-8") + "\n[gone](concepts/gone.md)\n", "utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "gone.md" in done.stderr
