"""Raw text and rows to a dataset that is safe to train on."""

from pathlib import Path

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.data.sources import digests, find
from tunewright.events import SILENT, Listener


def prepare(config: Config, *, listener: Listener = SILENT) -> Artifact:
    """Return the dataset made of `prepare.source`: chunks or rows, split by source.

    Raises:
        TunewrightError: E_NOT_FOUND; E_DATA_ROW for every row that cannot be used, with file and line;
            E_DATA_EMPTY, nothing can be held out.
    """
    from tunewright.data._prepare import prepare as body

    return body(config, listener)


def check(config: Config, dataset: Artifact, *, listener: Listener = SILENT) -> Artifact:
    """Return the findings about a dataset: lengths, loss masks, duplicates, leakage.

    Raises:
        TunewrightError: E_LEAK, E_NOTHING_TO_LEARN, E_EOS_NOT_LEARNED: everything that is wrong at once.
    """
    from tunewright.data._check import check as body

    return body(config, dataset, listener)


def input_digests(config: Config) -> dict[str, str]:
    """Return name and SHA-256 of every file that `prepare.source` names.

    Raises:
        TunewrightError: E_NOT_FOUND.
    """
    return digests(find(config.prepare.source, config.prepare.format))


def check_file(path: Path, *, listener: Listener = SILENT) -> dict[str, int]:
    """Return counts of a JSONL file's rows: `rows`, `turns`, `exact_duplicates`, `near_duplicates`.

    Raises:
        TunewrightError: E_NOT_FOUND; E_DATA_ROW for every row that cannot be used, with file and line.
    """
    from tunewright.data._check import check_file as body

    return body(path, listener)
