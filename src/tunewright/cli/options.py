"""Options that several commands take, and flags that stand for options of the config."""

import json
from typing import Any

import click

from tunewright.cli.text import visible

SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override an option, for example --set train.learning_rate=1e-4. May be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
BAD_ROWS = click.option(
    "--on-bad-row",
    type=click.Choice(["raise", "skip"]),
    help="Rows that cannot be used: refuse the data, or leave them out and list them.",
)
MAX_BAD = click.option("--max-bad", metavar="SHARE", help="Bad rows that skip accepts: 1% or 0.01.")


def given(**options: Any) -> list[str]:
    """Return the flags that were given as overrides: `prepare__max_bad=0.1` is prepare.max_bad."""
    return [
        f"{key.replace('__', '.')}={json.dumps(value)}"
        for key, value in options.items()
        if value is not None
    ]


def bad_rows(on_bad_row: str | None, max_bad: str | None) -> dict[str, Any]:
    """Return both flags as `given` takes them.

    Raises:
        click.UsageError: A share is given, and not what it is for.
        click.BadParameter: The share is no number.
    """
    if max_bad is not None and on_bad_row != "skip":
        raise click.UsageError("--max-bad limits what --on-bad-row skip leaves out: give both.")
    return {"prepare__on_bad_row": on_bad_row, "prepare__max_bad": as_share(max_bad)}


def as_share(text: str | None) -> float | None:
    """Return 0.01 for `1%` or `0.01`.

    Raises:
        click.BadParameter: It is neither.
    """
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is not a share such as 1% or 0.01.") from error


def refuse_together(*, show: int | None, against: str | None, out: str | None) -> None:
    """Refuse `check --fix` with what only looks.

    Raises:
        click.UsageError: `--fix` comes with `--show` or `--against`.
    """
    for flag, value in (("--show", show), ("--against", against)):
        if out is not None and value is not None:
            message = f"--fix writes, {flag} looks: check the result of --fix with {flag}."
            raise click.UsageError(message)


def note(text: str) -> None:
    """Print what there is to say about a config, beside the result."""
    click.echo(visible(text), err=True)


def hyphened(word: str) -> str:
    """Return a flag or command with hyphens for underscores: job launchers write either."""
    return word.replace("_", "-")
