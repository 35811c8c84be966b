import os
import time

import pytest

from tunewright.errors import TunewrightError
from tunewright.export._converter import SCRIPT, convert_with, require_converter

WRITES = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype", choices=["f32", "f16", "bf16", "q8_0"])
given = parser.parse_args()
secrets = [name for name in os.environ if "TOKEN" in name and "TOKENIZERS" not in name]
text = f"{given.outtype} {(given.model / 'config.json').read_text()} {os.environ['HF_HUB_OFFLINE']} {secrets}"
given.outfile.write_text(text)
"""
FAILS = """
import sys
for number in range(50):
    print("line", number)
raise SystemExit("Model ThisForCausalLM is not supported")
"""
PARTLY = """
import pathlib, sys
pathlib.Path(sys.argv[sys.argv.index("--outfile") + 1]).write_bytes(b"GGUF")
raise ValueError("out of luck")
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "llama cpp"
    folder.mkdir()
    model = tmp_path / "model; touch x"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def make(script):
        (folder / SCRIPT).write_text(script)
        return folder, model, tmp_path / "out.gguf"

    return make


def refusal(*arguments, **options):
    with pytest.raises(TunewrightError) as caught:
        convert_with(*arguments, **options)
    (problem,) = caught.value.problems
    return problem


def left(file):
    return sorted(path.name for path in file.parent.iterdir() if path.is_file())


def test_the_converter_writes_the_file(checkout, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    folder, model, file = checkout(WRITES)
    convert_with(folder, model, file, "Q8_0")
    assert file.read_text() == "q8_0 {} 1 []"
    assert left(file) == ["out.gguf"]


def test_its_error_is_shown_in_few_lines(checkout):
    folder, model, file = checkout(FAILS)
    problem = refusal(folder, model, file, "F16")
    assert problem.code == "E_CONVERTER"
    assert "exit code 1" in problem.message
    assert "Model ThisForCausalLM is not supported" in problem.message
    assert "line 49" in problem.message
    assert "line 40" not in problem.message
    assert left(file) == []


def test_half_a_file_is_removed_and_an_earlier_one_stays(checkout):
    folder, model, file = checkout(PARTLY)
    file.write_text("earlier")
    assert "out of luck" in refusal(folder, model, file, "F16").message
    assert left(file) == ["out.gguf"]
    assert file.read_text() == "earlier"


def test_a_converter_that_hangs_is_ended(checkout):
    folder, model, file = checkout(
        "import time, os; print(os.getpid(), flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    problem = refusal(folder, model, file, "F16", timeout_seconds=1.5)
    assert time.monotonic() - started < 20
    assert "did not end within 2 seconds" in problem.message
    process = int(problem.message.split()[-1].rstrip("."))
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_converter_that_writes_nothing(checkout):
    folder, model, file = checkout("pass")
    assert "wrote no file" in refusal(folder, model, file, "F16").message


def test_a_type_that_it_does_not_write(checkout):
    folder, model, file = checkout(WRITES)
    problem = refusal(folder, model, file, "Q4_0")
    assert problem.code == "E_CONFIG_VALUE"
    assert "Q8_0" in problem.fix
    assert left(file) == []


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(TunewrightError, match="E_NOT_FOUND"):
        require_converter(tmp_path)
