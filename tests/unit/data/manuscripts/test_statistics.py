from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.manuscripts.cut import Chunk
from tunewright.data.manuscripts.statistics import histogram, statistics


def test_figures_of_chunks():
    chunks = [Chunk(0, 1, 1, 0, "", tokens, "two words") for tokens in (700, 900, 2000)]
    found = statistics(chunks)
    assert (found.chunks, found.words, found.tokens) == (3, 6, 3600)
    assert (found.mean_tokens, found.min_tokens, found.max_tokens) == (1200.0, 700, 2000)
    assert found.histogram[0].low == 600
    assert found.histogram[0].high == 799
    assert [b.count for b in found.histogram if b.count] == [1, 1, 1]
    assert statistics([]).chunks == 0


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=50), st.integers(2, 20))
def test_bins_hold_every_length_once(lengths, bins):
    found = histogram(lengths, bins=bins)
    assert len(found) <= bins
    assert [sum(b.low <= n <= b.high for n in lengths) for b in found] == [b.count for b in found]
    assert sum(b.count for b in found) == len(lengths)
