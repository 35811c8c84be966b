"""What a file gives when it is read and every row is used."""

import re

import pytest

from tunewright.data.formats import read
from tunewright.data.formats.forms import canonical, form_of
from tunewright.errors import TunewrightError


@pytest.fixture(scope="session")
def outcome():
    """Return the function that reads a file."""
    return outcome_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the tests of a module share."""
    return tmp_path_factory.mktemp("formats")


def outcome_of(path):
    """Return records, usable rows, problems as (line, message); line 0 stands for the whole file."""
    records, rows, found = [], [], []
    try:
        for record in read(path, found.append, lambda said: None):
            records.append(record)
            form = form_of(record.data)
            try:
                if form is None:
                    raise ValueError("no known form")
                row = canonical(record.data, form)
            except ValueError as error:
                found.append((record.line, str(error)))
            else:
                rows.append(row)
                assert_unchanged(record.data, row)
    except TunewrightError as error:
        found.extend(error.problems)
    return records, rows, [p if isinstance(p, tuple) else placed(p, path) for p in found]


def placed(problem, path):
    assert problem.code in {"E_DATA_ROW", "E_DATA_EMPTY", "E_UNSAFE_FORMAT"}
    assert problem.message[-1] in ".?"
    assert "\n" not in problem.message
    assert problem.fix
    assert problem.where.startswith(str(path))
    line, _, column = problem.where.removeprefix(str(path)).removeprefix(":").partition(":")
    # What the message says of the line is where an editor goes.
    said = re.search(r"at column (\d+)", problem.message)
    if said and " on line " not in problem.message:
        assert column == said[1]
    assert not column or int(column) >= 1
    return int(line or 0), problem.message


def assert_unchanged(data, row):
    """Every text of the row stands as it was; nothing is there that was not."""
    if "messages" in row:
        got = [(m["role"], m["content"]) for m in row["messages"]]
        assert got == [(m["role"], m["content"]) for m in data["messages"]]
    for key in data.keys() - {"messages"}:
        if isinstance(data[key], str) and key in {"prompt", "completion", "instruction", "output"}:
            assert row[key] == data[key]
    assert all(row[key] in ("", data.get(key)) for key in row.keys() & {"input", "prompt"})
