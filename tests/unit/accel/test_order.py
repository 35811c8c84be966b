from hypothesis import given
from hypothesis import strategies as st

from tunewright.accel.order import epoch_order

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(
    LENGTHS, st.integers(1, 16), st.sampled_from(["random", "group_by_length"]), st.integers(0, 9)
)
def test_every_row_is_there_once_and_steps_are_whole(lengths, rows_a_step, strategy, epoch):
    order = epoch_order(lengths, rows_a_step=rows_a_step, strategy=strategy, seed=1, epoch=epoch)
    assert len(order) % rows_a_step == 0
    assert sorted(order) == list(range(len(order)))
    fill = [row for row in order if row >= len(lengths)]
    assert len(fill) < rows_a_step
    assert order[len(order) - len(fill) :] == fill
    for start in range(0, len(order), rows_a_step):
        sizes = [[*lengths, *[0] * rows_a_step][row] for row in order[start : start + rows_a_step]]
        assert sizes == sorted(sizes, reverse=True)


@given(LENGTHS, st.integers(1, 8))
def test_grouping_begins_with_a_longest_row_and_pads_no_more(lengths, rows_a_step):
    def padding(strategy):
        order = epoch_order(lengths, rows_a_step=rows_a_step, strategy=strategy, seed=3, epoch=0)
        steps = [order[i : i + rows_a_step] for i in range(0, len(order), rows_a_step)]
        sizes = [[lengths[row] for row in step if row < len(lengths)] for step in steps]
        return order, sum(len(s) * max(s) - sum(s) for s in sizes)

    order, grouped = padding("group_by_length")
    if len(lengths) % rows_a_step == 0:
        assert lengths[order[0]] == max(lengths)
        if len(lengths) <= 50 * rows_a_step:
            assert grouped <= padding("random")[1]


def test_epochs_and_seeds_differ_and_are_the_same_when_done_again():
    def order(seed, epoch):
        return epoch_order([5] * 40, rows_a_step=4, strategy="random", seed=seed, epoch=epoch)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)
