import pytest

from tunewright.accel.layout import IGNORED, Row
from tunewright.accel.techniques import KERNELS, TECHNIQUES, Ways, techniques, work_of

AUTO = dict.fromkeys(TECHNIQUES, "auto")


def some(prefix: int, lengths=(80, 60, 40, 20)) -> list[Row]:
    start = list(range(1000, 1000 + prefix))
    return [
        Row(
            [*start, *range(n, n + length)],
            [IGNORED] * (prefix + length // 2) + list(range(length - length // 2)),
        )
        for n, length in enumerate(lengths, 1)
    ]


def chosen(rows, wanted=AUTO, obstacles=(), head=10.0, rows_a_pass=4):
    work = work_of([rows, rows], rows_a_pass=rows_a_pass, tokens_a_pass=10_000)
    found, gain = techniques(wanted, work, dict(obstacles), layers=10.0, head=head)
    return {choice.name: choice for choice in found}, gain, work


def test_counts():
    rows = some(prefix=50)
    *_, work = chosen(rows)
    assert work.tokens == 2 * (4 * 50 + 200)
    assert work.padded == 2 * 4 * 130
    assert work.labels == 2 * (40 + 30 + 20 + 10)
    assert work.shared == 2 * (50 + 200)
    assert work.bucketed == work.tokens


def test_all_of_them_and_what_they_should_gain():
    found, gain, work = chosen(some(prefix=50))
    values = {name: choice.value for name, choice in found.items()}
    assert values == {
        "label_only_head": "on",
        "packing": "on",
        "length_bucketing": "off",
        "shared_prefix": "on",
        "fused_lora": "on",
        "liger_kernel": "on",
        "torch_compile": "off",
    }
    assert gain == pytest.approx(work.padded * 20 / (work.shared * 10 + work.labels * 10))
    assert found["packing"].reason.startswith(
        "it makes a step 1.24 times as fast: 23% of the positions"
    )


def test_no_common_beginning_is_no_reason_to_share():
    found, *_ = chosen(some(prefix=5))
    assert found["shared_prefix"].reason == "equal beginnings of rows would save less than 2 %"
    asked, *_ = chosen(some(prefix=5), AUTO | {"shared_prefix": True})
    assert asked["shared_prefix"].value == "on"


def test_each_can_be_turned_off():
    for name in TECHNIQUES:
        found, *_ = chosen(some(prefix=50), AUTO | {name: False})
        assert (found[name].value, found[name].reason) == ("off", f"asked for in accel.{name}")
    found, gain, _ = chosen(some(prefix=50), dict.fromkeys(TECHNIQUES, False))
    assert gain == 1
    assert {choice.value for choice in found.values()} == {"off"}


def test_an_obstacle_is_named_and_what_needs_it_is_off_too():
    found, gain, work = chosen(some(prefix=50), obstacles={"packing": "attention is eager"})
    assert found["packing"].reason == "attention is eager"
    assert found["shared_prefix"].reason == "it needs packing"
    assert found["length_bucketing"].value == "on"
    assert gain == pytest.approx(work.padded * 20 / (work.bucketed * 10 + work.labels * 10))


def test_plain_is_without_any():
    off = dict.fromkeys(TECHNIQUES, False)
    assert Ways(**off, tokens_a_pass=1, rows_a_pass=1).plain
    assert not Ways(**off | {"packing": True}, tokens_a_pass=1, rows_a_pass=1).plain


@pytest.mark.parametrize(
    ("wanted", "obstacles", "on"),
    [
        ({}, {"liger_kernel": "no GPU"}, []),
        ({"torch_compile": True}, {"liger_kernel": "no GPU"}, ["torch_compile"]),
        ({"torch_compile": True}, {}, ["liger_kernel"]),
        ({"torch_compile": True, "liger_kernel": False}, {}, ["torch_compile"]),
        ({}, dict.fromkeys(KERNELS, "another's"), []),
    ],
)
def test_norms_and_gates_have_one_sort_of_kernels(wanted, obstacles, on):
    found, *_ = chosen(some(prefix=50), AUTO | wanted, obstacles)
    assert [name for name in KERNELS if found[name].value == "on"] == on
    for name, why in obstacles.items():
        assert found[name].reason == why
