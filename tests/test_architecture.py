"""What DESIGN.md promises about the shape of the code."""

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tunewright.cli.commands import cli

SRC = Path(__file__).parent.parent / "src" / "tunewright"
HEAVY = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "numpy",
    "matplotlib", "gguf", "xllamacpp", "huggingface_hub", "scipy", "rich", "datasketch", "ftfy",
)  # fmt: skip


def commands(command: click.Command, path: tuple[str, ...] = ()):
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


ALL = list(commands(cli))


@pytest.mark.parametrize("module", ["tunewright", "tunewright.cli", "tunewright.pipeline"])
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


def test_what_needs_no_adapter_does_not_load_peft():
    """It takes longer to load than PyTorch does, with all that it brings."""
    quick = ("data._prepare", "data._check", "serve._chat", "serve._serve")
    code = f"""
import importlib, sys
for module in {quick}:
    importlib.import_module("tunewright." + module)
    print(*[(module, name) for name in ("peft", "trl", "bitsandbytes") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


LIBRARIES = "import click, dotenv, pydantic, yaml"
"""What the command line stands on. A slow or busy machine imports them as much slower as ours."""


def processor_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_fast():
    """0.3 s of processor time or, on a slower machine, 2.5 times what four libraries take there."""
    libraries, ours = [], []
    for _ in range(20):
        libraries.append(processor_seconds("-c", LIBRARIES))
        ours.append(processor_seconds("-m", "tunewright", "--help"))
        if min(ours) < max(0.3, 2.5 * min(libraries)):
            return
    pytest.fail(f"--help takes {min(ours):.2f} s, the libraries alone {min(libraries):.2f} s")


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=[" ".join(p) or "tunewright" for p, _ in ALL]
)
def test_every_command_has_help_with_an_example(path, command):
    with click.Context(command, info_name="tunewright") as context:
        text = command.get_help(context)
    assert command.help
    if not isinstance(command, click.Group):
        assert "Example: tunewright " + " ".join(path) in text


def test_files_stay_small():
    long = {p.name: n for p in SRC.rglob("*.py") if (n := p.read_text().count("\n")) > 420}
    assert long == {}
