"""A tokenizer.json of the SentencePiece kind as llama.cpp holds it: one score a piece, and a space before.

llama.cpp joins the neighbours whose joint piece has the highest score; tokenizer.json lists which pairs are
joined, and in which order. Both say the same if every pair that makes a piece is listed and the pairs that
make one piece follow each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from tunewright.export.pretokenizer import as_object, kind_of, unwritable

SPACE = "\u2581"
"""What stands for a space in a piece."""
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
Scheme = Literal["always", "first", "never"]


@dataclass(frozen=True)
class Pieces:
    """What llama.cpp must know of such a tokenizer.

    Attributes:
        scores: Of each piece that is joined of others, or is one character; joined first, highest.
        unknown: The piece for what is unknown, or None.
        prefix: Before what a space is put: every stretch of text between special tokens, the one that
            begins the text, or none.
    """

    scores: Mapping[str, float]
    unknown: str | None
    prefix: Scheme


def is_sentencepiece(definition: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json is of the SentencePiece kind: with bytes as pieces, or Unigram."""
    model = as_object(definition.get("model"))
    return model.get("type") == "Unigram" or bool(model.get("byte_fallback"))


def pieces_of(definition: Mapping[str, Any]) -> Pieces:
    """Return the pieces of a tokenizer.json.

    Raises:
        TunewrightError: E_MODEL, with every reason why llama.cpp would cut texts otherwise.
    """
    model = as_object(definition.get("model"))
    if model.get("type") != "BPE":
        raise unwritable(
            [
                f"its model is {kind_of(model)}, whose best cut llama.cpp looks for without bytes for "
                "unknown characters"
            ]
        )
    vocabulary = cast("dict[str, int]", model.get("vocab") or {})
    merges = [_pair(merge) for merge in cast("list[object]", model.get("merges") or [])]
    prefix = _scheme(definition, [left + right for left, right in merges])
    reasons = [
        f"its model has '{name}'"
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
        if model.get(name)
    ]
    if prefix is None:
        reasons.append(
            f"its normalizer is {kind_of(definition.get('normalizer'))} and its pre-tokenizer "
            f"{kind_of(definition.get('pre_tokenizer'))}, and llama.cpp only writes '{SPACE}' for spaces"
        )
    missing = sum(token not in vocabulary for token in BYTES)
    if missing:
        reasons.append(f"{missing} of the 256 bytes are no pieces")
    reasons += _order_reasons(merges) + _completeness_reasons(vocabulary, merges)
    if prefix is None or reasons:
        raise unwritable(reasons)
    unknown = model.get("unk_token")
    return Pieces(
        scores=_scores(vocabulary, merges),
        unknown=unknown if isinstance(unknown, str) else None,
        prefix=prefix,
    )


def _pair(merge: object) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else cast("list[str]", merge)
    return left, right


def _scores(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return 0, -1, ... for pieces in the order in which they are joined, and less for characters.

    Source: SentencePiece, src/bpe_model_trainer.cc.
    """
    ranked = list(dict.fromkeys(left + right for left, right in merges))
    characters = sorted((t for t in vocabulary if len(t) == 1), key=lambda t: vocabulary[t])
    return {piece: -float(rank) for rank, piece in enumerate([*ranked, *characters])}


def _order_reasons(merges: Sequence[tuple[str, str]]) -> list[str]:
    """Return a reason if pairs that make one piece do not follow each other."""
    seen: set[str] = set()
    last = None
    for left, right in merges:
        piece = left + right
        if piece != last and piece in seen:
            return [
                f"pairs that make {piece!r} have others between them, and llama.cpp has one score"
            ]
        seen.add(piece)
        last = piece
    return []


def _completeness_reasons(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> list[str]:
    """Return a reason if llama.cpp would join what the list does not."""
    listed = set(merges)
    made = {left + right for left, right in merges}
    extra = [
        pair
        for piece in vocabulary
        for pair in _cuts(piece)
        if pair not in listed and all(len(part) == 1 or part in made for part in pair)
    ]
    if not extra:
        return []
    left, right = extra[0]
    return [f"llama.cpp would join {left!r} and {right!r} ({len(extra):,} such pairs), it does not"]


def _cuts(piece: str) -> Iterator[tuple[str, str]]:
    return ((piece[:at], piece[at:]) for at in range(1, len(piece)))


def _scheme(definition: Mapping[str, Any], joined: Sequence[str]) -> Scheme | None:
    """Return what a space is put before, None if more is done to a text than that."""
    normalizer, split = definition.get("normalizer"), definition.get("pre_tokenizer")
    outer = as_object(normalizer)
    listed = outer.get("normalizers") if outer.get("type") == "Sequence" else [outer]
    steps = [as_object(s) for s in cast("list[object]", listed or []) if as_object(s)]
    replaces = steps[-1:] == [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    if split is None and replaces and steps[:-1] in ([], [{"type": "Prepend", "prepend": SPACE}]):
        return "always" if len(steps) > 1 else "never"
    metaspace = as_object(split)
    if steps or metaspace.get("type") != "Metaspace" or metaspace.get("replacement") != SPACE:
        return None
    # Words are cut before each space, which makes no difference if no piece goes over one.
    if metaspace.get("split") and any(SPACE in piece[1:] for piece in joined):
        return None
    scheme = metaspace.get("prepend_scheme")
    return scheme if scheme in ("always", "first", "never") else None
