"""Manuscripts, storyboards and rows to a dataset that is safe to train on."""

from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener


def prepare(config: Config, *, listener: Listener = SILENT) -> Artifact:
    """Return the dataset made of `prepare.source`: chunks, shots or rows, split by source.

    Raises:
        TunewrightError: E_NOT_FOUND, E_UNSAFE_PATH, E_HUB: the sources. E_DATA_ROW for every row that
            cannot be used, with file and line; E_COLUMNS, E_PREFERENCE, a file whose rows are not for
            training as they stand; E_DATA_EMPTY, nothing can be held out.
    """
    from tunewright.data._prepare import prepare as body

    return body(config, listener)


def check(config: Config, dataset: Artifact, *, listener: Listener = SILENT) -> Artifact:
    """Return the findings about a dataset: lengths, loss masks, secrets, duplicates, leakage.

    Raises:
        TunewrightError: E_LEAK, E_NOTHING_TO_LEARN, E_EOS_NOT_LEARNED, E_SECRET, E_TOO_LONG: everything that
            is wrong at once; `details` has the figures and the warnings.
    """
    from tunewright.data._check import check as body

    return body(config, dataset, listener)


def check_source(config: Config, *, listener: Listener = SILENT) -> dict[str, Any]:
    """Return figures, `warnings` and `rendered` rows of `prepare.source`, before it is a dataset.

    Raises:
        TunewrightError: As prepare and check do, all at once.
    """
    from tunewright.data._source_check import check_source as body

    return body(config, listener)


def repair(config: Config, out: Path, *, listener: Listener = SILENT) -> dict[str, Any]:
    """Return what was changed; `out` gets rows.jsonl, rejected.jsonl and changes.jsonl.

    Left out are rows that cannot be used, and exact and near copies of an earlier row; secrets are blacked
    out. The sources stay as they are.

    Raises:
        TunewrightError: E_EXISTS, `out` is there already; else as prepare does for the sources.
    """
    from tunewright.data._repair import repair as body

    return body(config, out, listener)


def rendered(checked: Artifact) -> list[dict[str, Any]]:
    """Return the rows that a check kept: `where`, and `runs` of `text` that is `learned` or not."""
    from tunewright.data.spool import Rows

    with Rows(checked.path / "rendered.jsonl") as rows:
        return list(rows)


def against_digests(config: Config) -> dict[str, str]:
    """Return name and SHA-256 of every file that `check.against` names; nothing if it is unset.

    Raises:
        TunewrightError: As prepare does for the sources.
    """
    from tunewright.data._sources import against_digests as body

    return body(config)


def input_digests(config: Config) -> dict[str, str]:
    """Return name and SHA-256 of every file that `prepare.source` and `model.chat_template` name.

    A source that is gone, or a Hub that cannot be reached, has an empty digest.

    Raises:
        TunewrightError: As prepare does for the sources.
    """
    from tunewright.data._sources import input_digests as body

    return body(config)
