"""The check stage: what is wrong with a dataset, all at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, PrepareSection
from tunewright.data._near import near_copies, near_pairs
from tunewright.data.rows import Row, answer_of, read_rows, text_of, write_rows
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.models._load import load_tokenizer, resolve_model, vocabulary_of
from tunewright.models.chat import Encoded, Vocabulary, encode, messages_of

MAX_UNLEARNED_SHARE = 0.1
"""Rows that may have no token to learn from."""
MIN_END_SHARE = 0.5
"""Rows whose end-of-sequence token must be learned, or answers never stop."""
DEFAULT_THRESHOLD: float = PrepareSection.model_fields["near_duplicate_threshold"].default
SHOWN = 5
"""Leaks named one by one; the rest is counted."""


def check(config: Config, dataset: Artifact, listener: Listener) -> Artifact:
    """Check a dataset; see the facade."""
    sides = {side: read_rows(dataset.path / f"{side}.jsonl") for side in ("train", "eval")}
    base = resolve_model(config.model.model_name_or_path, config.model.revision, weights=False)
    tokenizer = load_tokenizer(base)
    vocabulary = vocabulary_of(tokenizer)
    everything = [row for rows in sides.values() for row in rows]
    listener.started("check", len(everything), "rows")
    encoded: list[Encoded] = []
    for row in everything:
        encoded.append(encode(messages_of(row.data), vocabulary))
        listener.advanced(len(encoded), "")
    limit = config.train.max_length
    eos = int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    lengths = measure(encoded, limit, eos)
    copies = compare_sides(sides, dataset.path, config.prepare.near_duplicate_threshold)
    problems = _length_problems(lengths, dataset.path)
    problems += [] if config.check.allow_leakage else copies.leaks
    if copies.duplicates and not config.check.allow_duplicates:
        problems.append(
            Problem(
                "E_DATA_ROW",
                f"{copies.duplicates} rows are exact copies of another.",
                str(dataset.path),
                "Remove them, or set check.allow_duplicates=true.",
            )
        )
    if problems:
        raise TunewrightError(problems)
    settings = settings_of(config, "check")
    path = Path(config.run_dir) / "check"
    with writing(path, "check", settings=settings, parents={"dataset": dataset}) as draft:
        shown = [
            _shown(row, item, tokenizer) for row, item in zip(everything[:3], encoded, strict=False)
        ]
        write_rows(draft.path / "rendered.jsonl", shown)
        draft.facts |= lengths | {
            "exact_duplicates": copies.duplicates,
            "leaks": copies.leaking,
            "special_tokens_typed": _typed(everything, vocabulary),
            "gates": _gates(lengths, copies.leaking),
        }
    return load_artifact(path, "check")


def check_file(path: Path, listener: Listener) -> dict[str, int]:
    """Check one JSONL file; see the facade."""
    if not path.is_file():
        raise failure("E_NOT_FOUND", "There is no such file.", where=path)
    rows = read_rows(path)
    if not rows:
        raise failure("E_DATA_EMPTY", "The file has no rows.", where=path)
    listener.said(f"{len(rows)} rows can be read")
    texts = [text_of(row.data) for row in rows]
    return {
        "rows": len(rows),
        "turns": sum(len(messages_of(row.data)) for row in rows),
        "exact_duplicates": len(texts) - len(set(texts)),
        "near_duplicates": len(near_pairs(texts, DEFAULT_THRESHOLD)),
    }


def measure(encoded: Sequence[Encoded], limit: int, eos: int) -> dict[str, Any]:
    """Return counts over rows cut to `limit` tokens: rows, tokens, trained tokens, losses, ends learned."""
    cut = [(item.input_ids[:limit], item.mask[:limit]) for item in encoded]
    return {
        "rows": len(encoded),
        "tokens": sum(len(ids) for ids, _ in cut),
        "trained_tokens": sum(sum(mask) for _, mask in cut),
        "rows_cut": sum(len(item.input_ids) > limit for item in encoded),
        "tokens_lost": sum(max(0, len(item.input_ids) - limit) for item in encoded),
        "rows_without_labels": sum(not any(mask) for _, mask in cut),
        "rows_with_end": sum(
            any(token == eos and learned for token, learned in zip(ids, mask, strict=True))
            for ids, mask in cut
        ),
        "longest": max(len(item.input_ids) for item in encoded),
    }


@dataclass(frozen=True)
class Copies:
    """What two sides of a split share.

    Attributes:
        duplicates: Rows that are exact copies of an earlier row of the same side.
        leaking: Held-out rows that have a near copy on the training side.
        leaks: A problem for each of the first leaks, and one that counts the rest.
    """

    duplicates: int
    leaking: int
    leaks: list[Problem]


def compare_sides(sides: dict[str, list[Row]], folder: Path, threshold: float) -> Copies:
    """Return exact copies within a side, and exact and near copies across the split."""
    places = [(side, row) for side, rows in sides.items() for row in rows]
    texts = [text_of(row.data) for _, row in places]
    duplicates = sum(
        count - 1 for count in Counter(zip((s for s, _ in places), texts, strict=True)).values()
    )
    pairs = near_copies(texts, [answer_of(row.data) for _, row in places], threshold)
    across = sorted((i, j) for i, j in pairs if places[i][0] != places[j][0])
    leaks = [
        Problem(
            "E_LEAK",
            f"The held-out row is nearly the same as training row {places[i][1].line}.",
            f"{folder / 'eval.jsonl'}:{places[j][1].line}",
            "Run `tunewright prepare` again, or set check.allow_leakage=true.",
        )
        for i, j in across[:SHOWN]
    ]
    if len(across) > SHOWN:
        more = f"{len(across) - SHOWN} more pairs of rows leak."
        leaks.append(Problem("E_LEAK", more, str(folder), "Correct the split."))
    return Copies(duplicates, len({j for _, j in across}), leaks)


def _length_problems(lengths: dict[str, Any], folder: Path) -> list[Problem]:
    problems: list[Problem] = []
    if lengths["rows_without_labels"] > MAX_UNLEARNED_SHARE * lengths["rows"]:
        problems.append(
            Problem(
                "E_NOTHING_TO_LEARN",
                f"{lengths['rows_without_labels']} of {lengths['rows']} rows have no answer to learn after the cut.",
                str(folder),
                f"Raise train.max_length; the longest row has {lengths['longest']} tokens.",
            )
        )
    elif lengths["rows_with_end"] < MIN_END_SHARE * lengths["rows"]:
        problems.append(
            Problem(
                "E_EOS_NOT_LEARNED",
                f"Only {lengths['rows_with_end']} of {lengths['rows']} rows keep their end.",
                str(folder),
                f"Raise train.max_length to {lengths['longest']}.",
            )
        )
    return problems


def _gates(lengths: dict[str, Any], leaking: int) -> list[dict[str, Any]]:
    rows = lengths["rows"]
    return [
        {
            "gate": "no text on both sides of the split",
            "value": f"{leaking} leaks",
            "limit": "0",
            "passed": not leaking,
        },
        {
            "gate": "rows have tokens to learn from",
            "value": f"{rows - lengths['rows_without_labels']} of {rows} rows",
            "limit": f"{1 - MAX_UNLEARNED_SHARE:.0%}",
            "passed": lengths["rows_without_labels"] <= MAX_UNLEARNED_SHARE * rows,
        },
        {
            "gate": "the end of the answer is learned",
            "value": f"{lengths['rows_with_end']} of {rows} rows",
            "limit": f"{MIN_END_SHARE:.0%}",
            "passed": lengths["rows_with_end"] >= MIN_END_SHARE * rows,
        },
    ]


def _typed(rows: Sequence[Row], vocabulary: Vocabulary) -> int:
    return sum(text_of(row.data).count(token) for row in rows for token in vocabulary.special)


def _shown(row: Row, item: Encoded, tokenizer: Any) -> dict[str, Any]:
    """Return a row as trained on: runs of text, each with whether it is learned."""
    runs: list[dict[str, Any]] = []
    ids: list[int] = []
    for index, (token, learned) in enumerate(zip(item.input_ids, item.mask, strict=True)):
        ids.append(token)
        if index + 1 == len(item.mask) or item.mask[index + 1] != learned:
            runs.append({"text": tokenizer.decode(ids), "learned": bool(learned)})
            ids = []
    return {"source": row.data.get("source"), "line": row.line, "runs": runs}
