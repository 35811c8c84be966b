"""What becomes of a row that is longer than the limit, and what that costs. Pure.

Used by the check and by training alike, so that what the one says is what the other does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tunewright.models.tokens import Encoded

Strategy = Literal["truncate", "drop", "split", "raise"]


@dataclass(frozen=True)
class Fitted:
    """A row within the limit.

    Attributes:
        rows: What is trained on: the row, its pieces, or none.
        length: Tokens of the row as it was.
        too_long: Whether it had to be changed or left out for its length.
        tokens_lost: Tokens of the row that are in none of `rows`.
        trained_lost: Those of them that would have been trained on.
        end_lost: Whether the last token that would have been trained on is one of them.
    """

    rows: tuple[Encoded, ...]
    length: int
    too_long: bool = False
    tokens_lost: int = 0
    trained_lost: int = 0
    end_lost: bool = False


@dataclass(frozen=True)
class Excess:
    """What the limit costs, over many rows.

    Attributes:
        rows: Rows given.
        rows_kept: Rows that are trained on, pieces counted.
        longest: Tokens of the longest row as it was.
        rows_too_long: Rows that had to be changed or left out.
        rows_unlearned: Rows of which nothing is trained on, for whatever reason.
        rows_without_end: Rows that lose the end of their last answer.
        tokens: Tokens that are trained with, the repeated prompts of pieces counted.
        trained_tokens: Those of them that are trained on.
        tokens_lost: Tokens that are not used.
        trained_lost: Those of them that would have been trained on.
    """

    rows: int = 0
    rows_kept: int = 0
    longest: int = 0
    rows_too_long: int = 0
    rows_unlearned: int = 0
    rows_without_end: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    tokens_lost: int = 0
    trained_lost: int = 0

    def __add__(self, other: "Excess") -> "Excess":
        """Return the totals of both."""
        return Excess(
            rows=self.rows + other.rows,
            rows_kept=self.rows_kept + other.rows_kept,
            longest=max(self.longest, other.longest),
            rows_too_long=self.rows_too_long + other.rows_too_long,
            rows_unlearned=self.rows_unlearned + other.rows_unlearned,
            rows_without_end=self.rows_without_end + other.rows_without_end,
            tokens=self.tokens + other.tokens,
            trained_tokens=self.trained_tokens + other.trained_tokens,
            tokens_lost=self.tokens_lost + other.tokens_lost,
            trained_lost=self.trained_lost + other.trained_lost,
        )


def fit(encoded: Encoded, max_length: int, strategy: Strategy) -> Fitted:
    """Return what remains of a row; nothing of it has more than `max_length` tokens.

    A row without a trained token is left out. Of a row that is too long the tokens after the last trained
    one go first: nothing is learned from them. If that does not suffice, then

    * truncate: what is over the limit is cut off;
    * drop: the row is left out;
    * split: the prompt, which is all before the first trained token, is repeated before each window of the
      rest; of a prompt over half the limit only the end is kept, and its first token. A window ends with a
      turn where it can;
    * raise: nothing is done.

    Raises:
        ValueError: The row is too long and the strategy is raise, or the limit is below 4 tokens.
    """
    if max_length < 4:
        raise ValueError("the limit is below 4 tokens")
    length = len(encoded.mask)
    used = _used(encoded.mask)
    if not used:
        return Fitted((), length, tokens_lost=length)
    if length <= max_length:
        return Fitted((encoded,), length)
    if used <= max_length:
        return _kept(encoded, [([], range(used))])
    if strategy == "raise":
        raise ValueError(f"the row has {length} tokens, {length - max_length} more than allowed")
    if strategy == "drop":
        return _kept(encoded, [])
    if strategy == "truncate":
        return _kept(encoded, [([], range(max_length))])
    return _split(encoded, max_length)


def excess(fitted: Iterable[Fitted]) -> Excess:
    """Return what the limit costs over all rows."""
    total = Excess()
    for one in fitted:
        total += Excess(
            rows=1,
            rows_kept=len(one.rows),
            longest=one.length,
            rows_too_long=int(one.too_long),
            rows_unlearned=int(not one.rows),
            rows_without_end=int(one.end_lost),
            tokens=sum(len(row.mask) for row in one.rows),
            trained_tokens=sum(sum(row.mask) for row in one.rows),
            tokens_lost=one.tokens_lost,
            trained_lost=one.trained_lost,
        )
    return total


def _kept(encoded: Encoded, pieces: list[tuple[list[int], range]]) -> Fitted:
    """Return the pieces of a row: tokens at positions that are context only, then at others."""
    ids, mask = encoded.input_ids, encoded.mask
    rows = [
        Encoded(
            [ids[at] for at in context] + ids[window.start : window.stop],
            [0] * len(context) + mask[window.start : window.stop],
        )
        for context, window in pieces
        if any(mask[window.start : window.stop])
    ]
    kept = {at for context, window in pieces for at in (*context, *window)} if rows else set()
    return Fitted(
        rows=tuple(rows),
        length=len(ids),
        too_long=True,
        tokens_lost=len(ids) - len(kept),
        trained_lost=sum(mask) - sum(mask[at] for at in kept),
        end_lost=_used(mask) - 1 not in kept,
    )


def _split(encoded: Encoded, max_length: int) -> Fitted:
    mask = encoded.mask
    used = _used(mask)
    begin = mask.index(1)
    prompt = list(range(begin))
    if begin > max_length // 2:
        prompt = [0, *range(begin - max_length // 2 + 1, begin)]
    pieces: list[tuple[list[int], range]] = []
    while begin < used:
        # Without a prompt the first token of a window would have nothing that it is learned from.
        context = prompt or ([begin - 1] if begin else [])
        room = max_length - len(context)
        if not any(mask[begin : begin + room]):
            # A turn of the user that is too long: its end is context, as with a prompt.
            begin = mask.index(1, begin) - room // 2
        end = min(begin + room, used)
        if end < used:
            end = _turn_end(mask, begin, end)
        pieces.append((context, range(begin, end)))
        begin = end
    return _kept(encoded, pieces)


def _turn_end(mask: list[int], begin: int, end: int) -> int:
    """Return the last place up to `end` that is after a trained turn, else `end`."""
    for at in range(end, begin, -1):
        if mask[at - 1] and not mask[at]:
            return at
    return end


def _used(mask: list[int]) -> int:
    """Return the number of tokens up to the last trained one."""
    return next((at for at in range(len(mask), 0, -1) if mask[at - 1]), 0)
