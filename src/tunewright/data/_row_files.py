"""A file of rows in any known form to canonical rows."""

from collections.abc import Mapping
from typing import Any

from tunewright.config.schema import Config
from tunewright.data._gathered import Gathered
from tunewright.data.formats import kind_of, read
from tunewright.data.formats.columns import apply_columns, suggest
from tunewright.data.formats.forms import (
    Form,
    Layout,
    canonical,
    form_of,
    preference_fix,
    validate_preference,
)
from tunewright.data.formats.records import Record
from tunewright.data.formats.tally import mixed
from tunewright.data.sources import SourceFile
from tunewright.errors import Problem, TunewrightError
from tunewright.events import Listener

REPORT_EVERY = 1000
"""Rows between two movements of the progress bar."""
KEPT_UNKNOWN = 20
"""Rows without a known form that are kept for guessing the columns."""
CORRECT = "Correct the row, or leave bad rows out: --on-bad-row skip."


def layout_of(config: Config) -> Layout | None:
    """Return how instruction and input are joined, where the chat template expects it in a way of its own."""
    return "alpaca" if config.model.chat_template == "alpaca" else None


def read_row_file(config: Config, file: SourceFile, gathered: Gathered, listener: Listener) -> None:
    """Add the rows of a file; what cannot be used is reported."""
    reader = _Reader(config, file, gathered)

    def note(text: str) -> None:
        gathered.notes.append(f"{file.name}: {text}")

    try:
        gathered.reasons[file.name] = kind_of(file.path).reason
        for number, record in enumerate(read(file.path, gathered.rejects.report, note)):
            reader.take(record)
            if number % REPORT_EVERY == 0:
                listener.advanced(len(gathered), file.name)
    except TunewrightError as error:
        gathered.broken.extend(error.problems)
    reader.finish()
    forms = mixed(gathered.forms[file.name])
    if forms:
        note(forms)
    listener.advanced(len(gathered), file.name)


class _Reader:
    """Takes the records of one file."""

    def __init__(self, config: Config, file: SourceFile, gathered: Gathered) -> None:
        options = config.prepare
        chosen = options.source[file.entry].columns or options.columns
        self._columns = {str(role): column for role, column in chosen.items()}
        self._template = options.prompt_template
        self._layout: Layout | None = layout_of(config)
        self._file = file
        self._gathered = gathered
        self._tally = gathered.tally(file.name)
        self._unknown: list[Record] = []
        self._unknown_count = 0

    def take(self, record: Record) -> None:
        """Add a row, or report why it cannot be used."""
        try:
            data = apply_columns(record.data, self._columns) if self._columns else record.data
            form = form_of(data, templated=self._template is not None)
            if form is None:
                self._unknown_count += 1
                if len(self._unknown) < KEPT_UNKNOWN:
                    self._unknown.append(record)
                else:
                    self._report_unknown(record, "")
            elif form == "preference":
                validate_preference(data)
                self._tally.add(form, record.line)
            else:
                self._add(data, form, record.line)
        except ValueError as error:
            self._report("E_DATA_ROW", f"The row cannot be used: {error}.", record, CORRECT)

    def finish(self) -> None:
        """Report rows without a known form: as one problem of the file where it has no other rows."""
        if not self._unknown:
            return
        first = self._unknown[0]
        fix = suggest(list(first.data), [record.data for record in self._unknown])
        if not self._tally.counts and self._unknown_count > 1:
            columns = ", ".join(first.data) or "none"
            message = (
                f"None of {self._unknown_count:,} rows has a known form; the columns are {columns}."
            )
            self._report("E_COLUMNS", message, first, fix)
            return
        for record in self._unknown:
            self._report_unknown(record, fix)

    def _add(self, data: Mapping[str, Any], form: Form, line: int) -> None:
        row = canonical(data, form, layout=self._layout, prompt_template=self._template)
        origin = row.get("source_id")
        self._gathered.add(
            {**row, "source": self._file.name, "line": line},
            entry=self._file.entry,
            group=None if origin is None else f"source_id {origin}",
        )
        self._tally.add(form, line)

    def _report_unknown(self, record: Record, fix: str) -> None:
        columns = ", ".join(record.data) or "none"
        message = f"The row has no known form; the columns are {columns}."
        self._report("E_COLUMNS", message, record, fix)

    def _report(self, code: str, message: str, record: Record, fix: str) -> None:
        where = f"{self._file.path}:{record.line}"
        problem = Problem(code, message, where, fix or CORRECT)
        self._gathered.rejects.report(problem, record.data)


def preference_problem(file: str, count: int, line: int) -> Problem:
    """Return why preference pairs are no dataset for supervised fine-tuning."""
    message = f"{count:,} rows are preference pairs (chosen, rejected), which are not trained on as they stand."
    fix = f"Train on the chosen answers: {preference_fix({})}, or leave the file out."
    return Problem("E_PREFERENCE", message, f"{file}:{line}", fix)
