"""A test that prints a traceback fails, whatever else it has shown: no user is to see one."""

from collections.abc import Generator
from typing import Any

import pytest

TRACEBACK = "Traceback (most recent call last)"


def require_none(text: str) -> None:
    """Raise if what a command has printed has a traceback in it."""
    if TRACEBACK in text:
        raise AssertionError(f"the command printed a traceback:\n{text[text.index(TRACEBACK) :]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what has passed with a traceback in its output, that of the processes it started included."""
    report = yield
    if report.passed and TRACEBACK in report.capstdout + report.capstderr:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} printed a traceback while {call.when} was run"
    return report
