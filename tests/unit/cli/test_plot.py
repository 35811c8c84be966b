import math

import pytest

from tunewright.cli.plot import plot


def test_a_falling_line_is_drawn_from_the_upper_left_to_the_lower_right():
    lines = plot("loss", [(0, 5.0), (10, 1.0)], width=12, height=6, braille=False)
    assert lines == [
        "loss 1",
        "5 **",
        "    ***",
        "       ***",
        "1         **",
        "  0       10",
    ]


def test_braille_sets_the_dots_of_a_rising_line():
    lines = plot("x", [(0, 0.0), (3, 7.0)], width=4, height=4, braille=True)
    assert lines[1:3] == ["7  ⡜", "0 ⡜"]
    # Eight rows of four dots: every row has one.
    assert (
        sum((ord(c) - 0x2800).bit_count() for line in lines for c in line if ord(c) > 0x2800) == 8
    )


@pytest.mark.parametrize("width", [16, 38, 60, 200])
@pytest.mark.parametrize("height", [4, 7, 14])
@pytest.mark.parametrize("count", [1, 2, 50, 5000])
def test_it_keeps_to_its_size_and_draws_every_column(width, height, count):
    points = [(step, 3 + math.sin(step / 7)) for step in range(count)]
    lines = plot("held-out loss", points, width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    margin = lines[-1].index("0")
    if count > 1:
        drawn = {i for line in lines[1:-1] for i, c in enumerate(line) if ord(c) > 0x2800}
        assert drawn == set(range(margin, width))
        assert lines[-1].endswith(str(count - 1))


def test_a_constant_curve_is_a_line():
    lines = plot("rate", [(1, 2.0), (9, 2.0)], width=16, height=4, braille=False)
    assert lines[1] == "2 " + "*" * 14


def test_values_that_are_no_number_are_left_out():
    points = [(1, 4.0), (2, math.nan), (3, math.inf), (4, 2.0)]
    assert plot("a", points, width=20, height=5) == plot(
        "a", [(1, 4.0), (4, 2.0)], width=20, height=5
    )
    assert plot("a", [(1, math.nan)], width=20, height=4) == ["a: nothing yet", "", "", ""]
    assert plot("a", [], width=20, height=4) == ["a: nothing yet", "", "", ""]
