"""Each code has a page with an example, which is run: what it prints is what the page shows.

`UPDATE_EXAMPLES=1` writes what is printed into the pages instead, to be read before it is committed.
"""

import os
import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import yaml
from commands import here
from error_causes import CAUSES
from support import ROOT, SAMPLES, SMALL, shallow_base

from tunewright.config.overrides import apply
from tunewright.errors import CODES, WARNINGS

FOLDER = ROOT / "docs" / "reference" / "errors"
FILE = re.compile(r"^```\w+ title=(\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^```console\n\$ (.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DESCRIPTION = {
    "name": "voice",
    "model": {"model_name_or_path": "./base"},
    "prepare": {"source": "rows.jsonl"},
    "export": {"quantization": ["Q8_0"], "ollama_create": False},
    "publish": {"agent": "writer", "store": "models", "version": "v1"},
}
OPTIONS = (
    "train.sample_prompts=0",
    "prepare.eval_split=0.3",
    "train.num_train_epochs=1",
    "train.per_device_train_batch_size=4",
    "train.save_steps=1",
    "compare.num_prompts=4",
    "compare.max_new_tokens=8",
)
OF_THIS_MACHINE = {
    *("E_DISK_SPACE", "E_GATE_EXPORT", "E_GATE_MERGE", "E_INTERNAL", "E_OOM", "E_RESUME_ENV"),
    *("E_RUN_LOCKED", "E_DIVERGED", "E_GGUF_INVALID"),
}
"""Codes whose examples have figures that are others elsewhere: their words are compared."""
LONGEST = 3


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """A folder with a finished small run of the config `voice.yaml`, and its store. Shared: read only."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "base").mkdir()
    shallow_base(folder / "base")
    rows = (SAMPLES / "shell-helper.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = yaml.safe_load(yaml.safe_dump(DESCRIPTION))
    for option in (*SMALL, *OPTIONS):
        apply(config, option)
    (folder / "voice.yaml").write_text(yaml.safe_dump(config))
    for command in (
        *("prepare", "plan", "train", "compare", "merge", "export"),
        "publish voice.yaml --force --reason example",
    ):
        words = shlex.split(command)
        done = here(*(words if words[1:] else [*words, "voice.yaml"]), cwd=folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return folder


def told(code: str, text: str, folder: Path) -> list[str]:
    """Return the lines of a command's output that are of this code, places relative to the folder."""
    lines = text.replace(f"{folder}/", "").replace(str(folder), ".").splitlines()
    blocks: list[list[str]] = []
    for line in lines:
        if line.startswith((f"ERROR {code}: ", f"WARNING {code}: ")):
            blocks.append([line])
        elif line.startswith(("where: ", "fix: ")) and blocks and len(blocks[-1]) < LONGEST:
            blocks[-1].append(line)
        elif code in line:
            blocks.append([line])
    return [line for block in blocks[:2] for line in block]


def compared(code: str, lines: list[str]) -> list[str]:
    """Return lines with what is another elsewhere taken out."""
    if code not in OF_THIS_MACHINE:
        return lines
    return [re.sub(r"[\d.,]*\d\S*|/\S+|\bon \S+", "#", line) for line in lines]


@pytest.mark.parametrize("code", [*CODES, *WARNINGS])
def test_an_example_prints_what_its_page_shows(code, example, tmp_path, monkeypatch):
    page = FOLDER / f"{code}.md"
    text = page.read_text(encoding="utf-8")
    folder = tmp_path / "example"
    shutil.copytree(example, folder, symlinks=True)
    for name, content in FILE.findall(text):
        (folder / name).write_text(content, encoding="utf-8")
    command, shown = SHOWN.search(text).groups()
    words = shlex.split(command)
    assert words.pop(0) == "tunewright"
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()
    with ExitStack() as later:
        later.callback(torch.set_num_threads, threads)
        CAUSES.get(code, lambda *_: None)(monkeypatch, later)
        done = here(*words, cwd=folder)
    said = told(code, done.stderr + done.stdout, folder)
    assert said, done.stderr + done.stdout
    assert done.returncode == (CODES[code].exit_code if code in CODES else 0)
    if os.environ.get("UPDATE_EXAMPLES"):
        block = f"```console\n$ {command}\n" + "".join(f"{line}\n" for line in said) + "```"
        page.write_text(SHOWN.sub(lambda _: block, text), encoding="utf-8")
        return
    assert compared(code, said) == compared(code, shown.splitlines())


def test_there_is_a_page_for_each_code_and_for_nothing_else():
    assert {page.stem for page in FOLDER.glob("*.md")} == {*CODES, *WARNINGS}
