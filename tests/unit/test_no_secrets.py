"""No command that a process begins has a secret among its words; the watch over all tests itself is tested here."""

import subprocess
import sys

import pytest

SECRET = "h" + "f_" + "Abcd1234" * 5


@pytest.mark.parametrize("words", [[f"--token={SECRET}"], ["-c", f"print('{SECRET}')"]])
def test_a_secret_among_the_words_is_noticed(monkeypatch, words):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(AssertionError, match="the value of HF_TOKEN"):
        subprocess.run([sys.executable, *words], check=False)
    with pytest.raises(AssertionError, match="the value of HF_TOKEN") as caught:
        subprocess.Popen([sys.executable.encode(), *map(str.encode, words)])
    assert SECRET not in str(caught.value)


def test_a_secret_in_the_environment_is_none_of_the_words(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    program = "import os; print(len(os.environ['HF_TOKEN']))"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"43\n"
