"""The example in Python of the guide prints what the guide shows."""

import re

from support import ROOT


def test_the_guide_prints_what_it_shows(capsys):
    page = (ROOT / "docs" / "guides" / "rubrics-for-video-prompts.md").read_text()
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out == shown
