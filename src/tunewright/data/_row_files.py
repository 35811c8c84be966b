"""A file of rows in any known form to canonical rows."""

from collections.abc import Mapping
from typing import Any

from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.data._gathered import Gathered
from tunewright.data.formats import kind_of, read
from tunewright.data.formats.changes import Changes
from tunewright.data.formats.columns import OPTIONAL, apply_columns, listed, suggest
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
from tunewright.data.formats.varying import Varying
from tunewright.data.sources import SourceFile
from tunewright.errors import Problem, TunewrightError
from tunewright.events import Listener

REPORT_EVERY = 1000
"""Rows between two movements of the progress bar."""
KEPT_UNKNOWN = 20
"""Rows without a known form that are kept for guessing the columns."""
CORRECT = "Correct the row, or leave bad rows out: --set prepare.on_bad_row=skip"
MIXED = "Give it the columns of the file's other rows, or leave bad rows out: --set prepare.on_bad_row=skip"


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
    for said in reader.notes():
        note(said)
    listener.advanced(len(gathered), file.name)


def preference_problem(file: str, count: int, line: int, fix: str = "") -> Problem:
    """Return why preference pairs are no dataset for supervised fine-tuning; `fix` is what to type."""
    what = counted(count, "row is a preference pair", "rows are preference pairs")
    message = f"{what} (chosen, rejected), and such are not trained on as they stand."
    return Problem(
        "E_PREFERENCE",
        message,
        f"{file}:{line}",
        f"Train on the chosen answers{f': {fix}' if fix else ''}, or leave the file out.",
    )


class _Reader:
    """Takes the records of one file."""

    def __init__(self, config: Config, file: SourceFile, gathered: Gathered) -> None:
        options = config.prepare
        chosen = options.source[file.entry].columns or options.columns
        self._columns = {str(role): column for role, column in chosen.items()}
        self._unseen = {r: c for r, c in self._columns.items() if r in OPTIONAL}
        self._template = options.prompt_template
        self._layout: Layout | None = layout_of(config)
        self._file = file
        self._gathered = gathered
        self._tally = gathered.tally(file.name)
        self._changes = Changes()
        self._varying = Varying()
        self._known = False
        self._unknown: list[Record] = []
        self._unknown_count = 0
        self._suggestion = ""

    def take(self, record: Record) -> None:
        """Add a row, or report why it cannot be used."""
        try:
            data = self._mapped(record.data)
            form = form_of(data, templated=self._template is not None)
            if form is None:
                self._take_unknown(record)
                return
            if not self._known:
                self._become_known()
            if form == "preference":
                self._add_preference(data, record.line)
            else:
                self._add(data, form, record.line)
            self._varying.add(record.data, record.line)
        except ValueError as error:
            problem = self._problem("E_DATA_ROW", f"The row cannot be used: {error}.", record)
            self._gathered.rejects.report(problem, record.data)

    def finish(self) -> None:
        """Name the rows without a known form as one problem of the file, where it has no other rows."""
        if not self._unknown:
            return
        first, count = self._unknown[0], self._unknown_count
        row = self._unknown_problem(first, self._suggestion)
        message = (
            f"None of {count:,} rows has a known form; the columns are {listed(first.data)}."
            if count > 1
            else row.message
        )
        problem = self._problem("E_COLUMNS", message, first, self._suggestion)
        self._gathered.rejects.name_file(problem, row, count)

    def notes(self) -> list[str]:
        """Return what is worth saying of the file, in words."""
        forms = mixed(self._tally)
        unseen = self._unseen if self._tally.counts else {}
        never = [f"no row has the column {c}, given for {r}" for r, c in unseen.items()]
        changed = self._varying.notes(one_form=len(self._tally.counts) == 1)
        return [*([forms] if forms else []), *never, *self._changes.notes(), *changed]

    def _mapped(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._columns:
            return data
        if self._unseen:
            self._unseen = {r: c for r, c in self._unseen.items() if c not in data}
        return apply_columns(data, self._columns, self._changes.renamed)

    def _add(self, data: Mapping[str, Any], form: Form, line: int) -> None:
        row = canonical(
            data,
            form,
            layout=self._layout,
            prompt_template=self._template,
            changes=self._changes,
        )
        origin = row.get("source_id")
        if isinstance(origin, str) and not origin.strip():
            del row["source_id"]
            origin = None
        self._gathered.add(
            {**row, "source": self._file.name, "line": line},
            entry=self._file.entry,
            group=None if origin is None else f"source_id {origin}",
        )
        self._tally.add(form, line)

    def _add_preference(self, data: Mapping[str, Any], line: int) -> None:
        validate_preference(data)
        self._gathered.preference_fixes.setdefault(self._file.name, preference_fix(data))
        self._tally.add("preference", line)

    def _take_unknown(self, record: Record) -> None:
        """List a row; it is named once it is known whether the file has rows of another kind."""
        if self._known:
            self._gathered.rejects.report(self._unknown_problem(record, MIXED), record.data)
            return
        self._unknown_count += 1
        if len(self._unknown) < KEPT_UNKNOWN:
            self._unknown.append(record)
            rows = [kept.data for kept in self._unknown]
            self._suggestion = suggest(list(rows[0]), rows)
        self._gathered.rejects.enter(self._unknown_problem(record, self._suggestion), record.data)

    def _become_known(self) -> None:
        self._known = True
        for record in self._unknown:
            self._gathered.rejects.name(self._unknown_problem(record, MIXED))
        self._unknown.clear()

    def _unknown_problem(self, record: Record, fix: str) -> Problem:
        message = f"The row has no known form; the columns are {listed(record.data)}."
        return self._problem("E_COLUMNS", message, record, fix)

    def _problem(self, code: str, message: str, record: Record, fix: str = "") -> Problem:
        return Problem(code, message, f"{self._file.path}:{record.line}", fix or CORRECT)
