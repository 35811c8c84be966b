"""What the limit does to rows: nothing over it, nothing trained twice, every loss counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.lengths import Excess, excess, fit
from tunewright.models.tokens import Encoded


def row(*runs: int) -> Encoded:
    """Tokens 0, 1, 2, ...; runs that are not trained on and runs that are, in turn."""
    mask = [index % 2 for index, count in enumerate(runs) for _ in range(count)]
    return Encoded(list(range(len(mask))), mask)


rows = st.lists(st.integers(0, 40), max_size=9).map(lambda runs: row(*runs))
limits = st.integers(4, 60)
strategies = st.sampled_from(["truncate", "drop", "split"])


def trained(encoded: Encoded) -> list[int]:
    return [t for t, learned in zip(encoded.input_ids, encoded.mask, strict=True) if learned]


@given(rows, limits)
def test_split_trains_every_token_exactly_once(encoded, limit):
    fitted = fit(encoded, limit, "split")
    pieces = Counter(token for piece in fitted.rows for token in trained(piece))
    assert pieces == Counter(trained(encoded))
    assert (fitted.trained_lost, fitted.end_lost) == (0, False)


@given(rows, limits)
def test_a_token_is_trained_after_one_that_came_before_it(encoded, limit):
    for piece in fit(encoded, limit, "split").rows:
        assert piece.input_ids == sorted(set(piece.input_ids))
        if piece.mask[0]:
            # Nothing comes before the first token of the row itself.
            assert piece.input_ids[0] == 0


@given(rows, limits, strategies)
def test_nothing_is_over_the_limit_or_without_something_to_learn(encoded, limit, strategy):
    fitted = fit(encoded, limit, strategy)
    for piece in fitted.rows:
        assert len(piece.input_ids) == len(piece.mask) <= limit
        assert any(piece.mask)


@given(rows, limits, strategies)
def test_losses_are_counted(encoded, limit, strategy):
    fitted = fit(encoded, limit, strategy)
    kept = {token for piece in fitted.rows for token in piece.input_ids}
    learned = {token for piece in fitted.rows for token in trained(piece)}
    wanted = trained(encoded)
    assert fitted.length == len(encoded.mask)
    assert fitted.tokens_lost == len(encoded.mask) - len(kept)
    assert fitted.trained_lost == len(set(wanted) - learned)
    assert fitted.end_lost == bool(wanted and wanted[-1] not in learned)
    assert fitted.too_long == (bool(wanted) and len(encoded.mask) > limit)


@given(rows, limits, st.sampled_from(["truncate", "drop", "split", "raise"]))
def test_a_row_that_fits_stays_as_it_is(encoded, limit, strategy):
    if len(encoded.mask) <= limit and any(encoded.mask):
        fitted = fit(encoded, limit, strategy)
        assert fitted.rows == (encoded,)
        assert (fitted.tokens_lost, fitted.too_long) == (0, False)


def test_what_follows_the_last_trained_token_goes_first():
    for strategy in ("truncate", "drop", "split", "raise"):
        fitted = fit(row(4, 6, 1), 10, strategy)
        assert fitted.rows == (row(4, 6),)
        assert (fitted.tokens_lost, fitted.trained_lost, fitted.end_lost) == (1, 0, False)


def test_truncate_drop_and_raise():
    long = row(4, 10)
    cut = fit(long, 8, "truncate")
    assert cut.rows == (Encoded(list(range(8)), [0, 0, 0, 0, 1, 1, 1, 1]),)
    assert (cut.tokens_lost, cut.trained_lost, cut.end_lost) == (6, 6, True)
    left_out = fit(long, 8, "drop")
    assert left_out.rows == ()
    assert (left_out.tokens_lost, left_out.trained_lost, left_out.end_lost) == (14, 10, True)
    with pytest.raises(ValueError, match="14 tokens, 6 more than allowed"):
        fit(long, 8, "raise")


def test_a_prompt_that_fills_the_limit_leaves_nothing_to_truncate():
    fitted = fit(row(8, 3), 8, "truncate")
    assert fitted.rows == ()
    assert (fitted.tokens_lost, fitted.trained_lost) == (11, 3)


def test_split_repeats_the_prompt():
    first, second = fit(row(2, 9), 8, "split").rows
    assert first == Encoded([0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 1, 1, 1, 1, 1])
    assert second == Encoded([0, 1, 8, 9, 10], [0, 0, 1, 1, 1])


def test_split_keeps_the_beginning_and_end_of_a_long_prompt():
    first, second = fit(row(100, 7), 10, "split").rows
    assert first.input_ids == [0, 96, 97, 98, 99, 100, 101, 102, 103, 104]
    assert second.input_ids == [0, 96, 97, 98, 99, 105, 106]
    assert fit(row(100, 7), 10, "split").tokens_lost == 95


def test_split_ends_a_piece_with_a_turn():
    first, second = fit(row(2, 4, 2, 6), 10, "split").rows
    assert first.input_ids == [0, 1, 2, 3, 4, 5]
    assert second.input_ids == [0, 1, 6, 7, 8, 9, 10, 11, 12, 13]


def test_split_of_raw_text_gives_each_window_the_token_before():
    pieces = fit(row(0, 9), 4, "split").rows
    assert [p.input_ids for p in pieces] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]]
    assert [p.mask for p in pieces] == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1]]


def test_split_keeps_the_end_of_a_users_turn_that_is_too_long():
    fitted = fit(row(2, 3, 50, 3), 10, "split")
    assert [p.input_ids for p in fitted.rows] == [
        [0, 1, 2, 3, 4],
        [0, 1, 51, 52, 53, 54, 55, 56, 57],
    ]
    assert fitted.tokens_lost == 46


def test_nothing_to_learn_is_left_out():
    fitted = fit(row(5), 8, "truncate")
    assert (fitted.rows, fitted.too_long, fitted.tokens_lost) == ((), False, 5)
    assert fit(row(), 8, "split").rows == ()


def test_a_limit_that_is_no_limit():
    with pytest.raises(ValueError, match="below 4"):
        fit(row(1, 1), 3, "split")


def test_totals_over_rows():
    given_rows = [row(2, 3), row(4, 10), row(6)]
    assert excess(fit(one, 8, "truncate") for one in given_rows) == Excess(
        rows=3,
        rows_kept=2,
        longest=14,
        rows_too_long=1,
        rows_unlearned=1,
        rows_without_end=1,
        tokens=13,
        trained_tokens=7,
        tokens_lost=12,
        trained_lost=6,
    )
    halves = [excess([fit(one, 8, "split")]) for one in given_rows]
    assert sum(halves, Excess()) == excess(fit(one, 8, "split") for one in given_rows)
