"""The check that no test prints a traceback can fail."""

import os
import subprocess
import sys

import pytest
from no_tracebacks import TRACEBACK, require_none
from support import ROOT

PRINTED = f"print({TRACEBACK!r}, file=sys.stderr)"
STARTED = f"subprocess.run([sys.executable, '-c', {'1/0'!r}])"


@pytest.mark.parametrize(
    ("body", "code"), [(PRINTED, 1), (STARTED, 1), ("print('E_IO', file=sys.stderr)", 0)]
)
def test_a_test_that_prints_one_fails(tmp_path, body, code):
    file = tmp_path / "test_it.py"
    file.write_text(f"import subprocess, sys\ndef test_it():\n    {body}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no_tracebacks", "-c", os.devnull, str(file)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("printed a traceback" in done.stdout) == bool(code)


def test_a_command_that_prints_one_is_noticed():
    require_none("ERROR E_IO: no.\n")
    with pytest.raises(AssertionError, match="printed a traceback"):
        require_none(f"begin\n{TRACEBACK}:\n")
