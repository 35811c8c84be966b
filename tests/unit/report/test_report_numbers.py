"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.report.numbers import above, clock, ends, num, percent, size

NO_NUMBERS = [None, True, "7", math.nan, math.inf]


@pytest.mark.parametrize("show", [num, percent, size, clock])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_a_dash(show, value):
    assert show(value) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (1234.5, "1,234.50"),
        (0.0, "0.00"),
        (0.0000021, "2.1e-06"),
        (-3.14159, "-3.14"),
    ],
)
def test_num(value, text):
    assert num(value) == text


def test_percent():
    assert percent(0.98765) == "98.8 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 MB"), (12_600_000, "12.6 MB"), (1_500_000_000, "1.50 GB")],
)
def test_size(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, "0.4 s"),
        (42, "42 s"),
        (59.7, "1 min 00 s"),
        (71.3, "1 min 11 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_clock(value, text):
    assert clock(value) == text


@given(st.floats(min_value=0, max_value=1e7))
def test_a_clock_never_shows_sixty(seconds):
    assert not {"60 s", "60 min"} & {clock(seconds), " ".join(clock(seconds).split()[2:])}


def test_ends():
    assert ends({"low": 0.123, "high": 0.456}, 0, share=True) == "12 to 46 %"
    assert ends({"low": 1000, "high": 2000.26}) == "1,000.0 to 2,000.3"
    assert ends({"low": None, "high": 1}) == ""


@pytest.mark.parametrize(
    ("low", "high", "way"),
    [(1.1, 1.2, 1), (0.8, 0.9, -1), (0.9, 1.1, 0), (1.0, 1.1, 0), (math.nan, 1.1, None)],
)
def test_above(low, high, way):
    assert above({"low": low, "high": high}, 1) == way


def test_what_has_no_interval_is_on_no_side():
    assert above({"value": 2.0}, 1) is None
