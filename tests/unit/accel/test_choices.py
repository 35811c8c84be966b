import pytest

from tunewright.accel import Speeds, batching, precision


@pytest.mark.parametrize(
    ("wanted", "speeds", "value"),
    [
        ("auto", Speeds(100, 260), "bfloat16"),
        ("auto", Speeds(100, 105), "float32"),
        ("auto", Speeds(100, 25), "float32"),
        ("bfloat16", Speeds(100, 25), "bfloat16"),
    ],
)
def test_precision_follows_the_measured_speeds(wanted, speeds, value):
    choice = precision(wanted, "cpu", speeds)
    assert choice.value == value
    assert choice.reason


def test_batching_groups_only_where_padding_costs():
    assert batching("auto", [100] * 16, 4).value == "random"
    assert batching("auto", [10, 200] * 8, 4).value == "group_by_length"
    assert batching("random", [10, 200] * 8, 4).value == "random"
    assert batching("auto", [10, 200] * 8, 4, packed=True).value == "random"
    assert batching("group_by_length", [10, 200] * 8, 4, packed=True).value == "group_by_length"
    assert "49%" not in batching("auto", [10, 200] * 8, 4).reason
    assert "48%" in batching("auto", [10, 200] * 8, 4).reason
