from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.near.union import Union


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_joined_rows_are_those_that_a_search_reaches(pairs):
    union = Union(20)
    joins = sum(union.join(i, j) for i, j in pairs)
    for row in range(20):
        reached, grew = {row}, True
        while grew:
            more = reached | {x for p in pairs if set(p) & reached for x in p}
            grew, reached = more != reached, more
        assert union.first(row) == min(reached)
    assert joins == 20 - len({union.first(row) for row in range(20)})
