from hypothesis import given
from hypothesis import strategies as st

from tunewright.accel import layout
from tunewright.accel.layout import IGNORED, Row, buckets, executed, passes, pieces


@st.composite
def some_rows(draw):
    """Rows of few different tokens, so that many begin alike."""
    made = []
    starts = draw(st.lists(st.lists(st.integers(1, 2), max_size=40), min_size=1, max_size=3))
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.sampled_from(starts))
        tokens = [*start, *draw(st.lists(st.integers(1, 3), min_size=2, max_size=30))]
        learned = draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
        quiet = draw(st.integers(0, len(tokens) - 1))
        labels = [
            token if on and at >= quiet else IGNORED
            for at, (token, on) in enumerate(zip(tokens, learned, strict=True))
        ]
        made.append(Row(tokens, labels))
    return made


def unfolded(laid, held=None):
    """Return tokens and targets of every row, from the pieces."""
    laid = [*laid, *([held] if held else [])]  # the last one, as its number says
    inner = {number for piece in laid for number in piece.before}
    return [
        (
            [t for number in piece.before for t in laid[number].tokens] + list(piece.tokens),
            [IGNORED] * piece.start + list(piece.targets),
        )
        for at, piece in enumerate(laid)
        if at not in inner
    ]


@given(some_rows(), st.booleans(), st.integers(1, 20))
def test_every_row_comes_out_of_its_pieces(rows, sharing, least):
    before, layout.LEAST_SHARED = layout.LEAST_SHARED, least
    try:
        laid = pieces(rows, sharing=sharing)
    finally:
        layout.LEAST_SHARED = before
    wanted = [(list(row.tokens), [*row.labels[1:], IGNORED]) for row in rows]
    assert sorted(unfolded(laid)) == sorted(wanted)
    for piece in laid:
        assert piece.start == sum(len(laid[number].tokens) for number in piece.before)
    for number in {number for piece in laid for number in piece.before}:
        assert set(laid[number].targets) == {IGNORED}
    assert executed(laid) <= sum(len(row.tokens) for row in rows)


@given(some_rows(), st.integers(1, 200), st.one_of(st.none(), st.integers(1, 4)), st.booleans())
def test_passes_hold_every_row_once_within_the_limits(rows, most, most_rows, sharing):
    made = passes(rows, sharing=sharing, most_tokens=most, most_rows=most_rows)
    found = [row for laid in made.passes for row in unfolded(laid, made.held)]
    assert sorted(found) == sorted((list(r.tokens), [*r.labels[1:], IGNORED]) for r in rows)
    held = len(made.held.tokens) if made.held else 0
    for laid in made.passes:
        count = len(unfolded(laid, made.held))
        assert held + executed(laid) <= most or count == 1
        assert most_rows is None or count <= most_rows
    assert made.executed == held + sum(executed(laid) for laid in made.passes)
    if made.held:
        assert sharing
        assert len(made.passes) > 1
        assert held <= min(row.shareable for row in rows)


def test_what_all_rows_begin_with_runs_once_before_several_passes():
    start = list(range(100, 140))
    rows = [Row([*start, n, n, n, n], [IGNORED] * 42 + [n, n]) for n in range(6)]
    made = passes(rows, sharing=True, most_tokens=50, most_rows=None)
    assert list(made.held.tokens) == start
    assert [executed(laid) for laid in made.passes] == [8, 8, 8]
    assert made.executed == 40 + 6 * 4
    assert passes(rows, sharing=True, most_tokens=1000).held is None
    assert passes(rows, sharing=False, most_tokens=50).held is None


def test_equal_beginnings_run_once():
    start, more = list(range(100, 140)), list(range(200, 230))
    tails = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    rows = [Row([*start, *more, *t], [IGNORED] * 70 + t) for t in tails]
    rows.append(Row([*start, 9, 9, 9], [IGNORED] * 42 + [9]))
    laid = pieces(rows, sharing=True)
    assert executed(laid) == 40 + 29 + (1 + 3) + (1 + 2) + (1 + 4) + 3
    assert sorted(len(piece.before) for piece in laid) == [0, 1, 1, 2, 2, 2]


def test_what_predicts_a_label_is_the_rows_own():
    tokens = list(range(50))
    first, second = (Row(tokens, [IGNORED] * at + tokens[at:]) for at in (30, 40))
    laid = pieces([first, second], sharing=True)
    assert len(laid[0].tokens) == 29
    assert all(piece.start == 29 for piece in laid[1:])


def test_a_short_beginning_is_not_worth_a_piece():
    rows = [Row([1] * 12 + [n, n], [IGNORED] * 13 + [n]) for n in range(2, 5)]
    assert executed(pieces(rows, sharing=True)) == 3 * 14


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=9), st.integers(1, 600), st.integers(0, 50)
)
def test_buckets_cost_the_least(lengths, most, costs):
    def cost(groups):
        return sum(len(g) * max(lengths[row] for row in g) + costs for g in groups)

    found = buckets(lengths, most_tokens=most, pass_costs=costs)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for cuts in range(2 ** (len(order) - 1)):
        groups = [[order[0]]]
        for at, row in enumerate(order[1:]):
            if cuts >> at & 1:
                groups.append([])
            groups[-1].append(row)
        fits = all(len(g) == 1 or len(g) * max(lengths[r] for r in g) <= most for g in groups)
        assert not fits or cost(found) <= cost(groups)


def test_buckets_keep_to_the_rows_of_a_pass():
    found = buckets([5] * 7, most_tokens=1000, most_rows=3, pass_costs=9)
    assert sorted(map(len, found)) == [1, 3, 3]
