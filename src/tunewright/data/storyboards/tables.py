"""Shot lists with columns, as CSV, TSV or a Markdown table, to shots. Pure."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tunewright.data.storyboards.prompts import split_flags, unbalanced, weighted
from tunewright.data.storyboards.roles import (
    Role,
    as_negative,
    parameters_of,
    role_of,
    split_list,
)
from tunewright.data.storyboards.shot import Parameter, Shot, Tell, unique_labels

_DELIMITERS = "\t;,|"
_FILMING: frozenset[Role] = frozenset(
    {"shot", "scene", "camera", "size", "angle", "lens", "light", "duration", "num_frames"}
)
_ROWS = frozenset(
    {
        "completion",
        "response",
        "output",
        "answer",
        "messages",
        "conversations",
        "instruction",
        "chosen",
        "rejected",
    }
)


@dataclass(frozen=True)
class Draft:
    """What a file says of one shot, before labels are made unique."""

    label: str
    scene: str
    line: int
    values: Mapping[str, str]
    others: Mapping[str, str]


def is_shot_list(head: str) -> bool:
    """Return whether the first line names a description and two or more columns that only filming has."""
    first = next((line for line in head.splitlines() if line.strip()), "")
    return _of_shots(next(csv.reader([first], delimiter=_delimiter(first)), []))


def is_grid_header(line: str) -> bool:
    """Return whether a line of Markdown is the head of a table of shots."""
    return line.startswith("|") and line.endswith("|") and _of_shots(_cells(line))


def _of_shots(names: Sequence[str]) -> bool:
    if {re.sub(r"\W", "", name.lower()) for name in names} & _ROWS:
        return False
    roles = {role_of(name) for name in names}
    return "description" in roles and len(roles & _FILMING) >= 2


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=lambda mark: (header.count(mark), -_DELIMITERS.index(mark)))


def read_table(name: str, text: str, tell: Tell) -> list[Shot]:
    """Return a shot for each row of a CSV or TSV file, in its order.

    Columns are known by their usual names. Columns of other names, such as notes, go into the shot's
    parameters under their own names.
    """
    lines = text.split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    rows = _rows(text, _delimiter(lines[first]), tell)
    line, header = next(rows, (1, []))
    return shots_of_drafts(name, _drafts(header, rows, line, tell), tell)


def _rows(text: str, delimiter: str, tell: Tell) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with the physical line on which each begins."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            last = reader.line_num
            lines = f"Lines {begin} to {last}" if last > begin else f"Line {begin}"
            tell(
                begin,
                f"{lines} cannot be read as a row: {fault}.",
                f"Check the quotes on line {begin}.",
            )
            continue
        if any(cell.strip() for cell in row):
            yield begin, [cell.strip() for cell in row]


def _drafts(
    header: Sequence[str], rows: Iterator[tuple[int, list[str]]], line: int, tell: Tell
) -> list[Draft]:
    roles = _columns(header)
    if "description" not in roles.values():
        tell(
            line,
            "No column of this shot list describes the picture.",
            "Name one of them `description`.",
        )
        return []
    drafts = [
        _draft(header, roles, row, begin) for begin, row in rows if _fits(row, header, begin, tell)
    ]
    if not drafts:
        tell(line, "The shot list has no shots.", "Add a row for each shot.")
    return drafts


def _columns(header: Sequence[str]) -> dict[int, Role]:
    """Return the role of each column; the first of several with one role has it."""
    roles: dict[int, Role] = {}
    for column, name in enumerate(header):
        role = role_of(name)
        if role and role not in roles.values():
            roles[column] = role
    return roles


def _fits(row: list[str], header: Sequence[str], line: int, tell: Tell) -> bool:
    if len(row) <= len(header) or not any(row[len(header) :]):
        return True
    tell(
        line,
        f"The row has {len(row)} cells, the first line has {len(header)}.",
        "Put quotes around cells with the delimiter in them.",
    )
    return False


def _draft(header: Sequence[str], roles: Mapping[int, Role], row: list[str], line: int) -> Draft:
    cells = list(enumerate(row[: len(header)]))
    values = {roles[column]: cell for column, cell in cells if column in roles and cell}
    others = {header[column]: cell for column, cell in cells if column not in roles and cell}
    return Draft(values.get("shot", ""), values.get("scene", ""), line, values, others)


def shots_of_drafts(name: str, drafts: Sequence[Draft], tell: Tell) -> list[Shot]:
    """Return the shots of what was read; a draft that describes nothing is reported."""
    labels = unique_labels(
        [draft.label for draft in drafts],
        [draft.scene for draft in drafts],
        [draft.line for draft in drafts],
    )
    shots = [_shot(name, label, draft, tell) for label, draft in zip(labels, drafts, strict=True)]
    return [shot for shot in shots if shot]


def _shot(name: str, label: str, draft: Draft, tell: Tell) -> Shot | None:
    text, negative, flags = split_flags(" ".join(draft.values.get("description", "").split()))
    if not text.strip(" ,.;"):
        tell(draft.line, f"Shot {label} has no description.", "Describe it, or remove the shot.")
        return None
    negative = ", ".join(
        part for part in (as_negative(draft.values.get("negative", "")), negative) if part
    )
    for part in (text, negative):
        bracket = unbalanced(part) if weighted(part) else ""
        if bracket:
            tell(
                draft.line,
                f"Shot {label} has a weight and a '{bracket}' without a partner.",
                "Close or remove the bracket.",
            )
            return None
    others: dict[str, Parameter] = {
        _name(key): " ".join(value.split()) for key, value in draft.others.items()
    }
    return Shot(
        f"{name}#{label}",
        draft.line,
        draft.scene,
        text,
        negative,
        " ".join(draft.values.get("style", "").split()),
        split_list(draft.values.get("tags", "")),
        {**others, **parameters_of(draft.values), **flags},
    )


def _name(column: str) -> str:
    return re.sub(r"\W+", "_", column.strip().lower()).strip("_") or "other"


def read_grid(lines: Sequence[tuple[int, str]], scene: str, tell: Tell) -> list[Draft]:
    """Return what a Markdown table says of shots; [] if it is no shot list."""
    grid = [(number, _cells(line)) for number, line in lines]
    header = grid[0][1]
    if "description" not in _columns(header).values():
        return []
    rows = (
        (n, cells) for n, cells in grid[1:] if not all(re.fullmatch(r":?-+:?", c) for c in cells)
    )
    drafts = _drafts(header, iter(rows), grid[0][0], tell)
    return [
        Draft(draft.label, draft.scene or scene, draft.line, draft.values, draft.others)
        for draft in drafts
    ]


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
