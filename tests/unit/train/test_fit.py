from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from tunewright.config.schema import TrainSection
from tunewright.errors import TunewrightError
from tunewright.models._room import container_free, memory_free
from tunewright.models.families import read_shape
from tunewright.train.fit import fitted, halvings, largest_batch, shared
from tunewright.train.memory import training_memory
from tunewright.train.methods import method_of


@pytest.fixture
def shape(tmp_path):
    sizes = {"vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336}
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = AutoConfig.for_model(
        "mistral", **sizes, max_position_embeddings=32768, tie_word_embeddings=False
    )
    config.save_pretrained(tmp_path)
    return read_shape(tmp_path)


def options(**changes):
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    return TrainSection(**(given | {"load_in_4bit": True} | changes))


def fit_in(gigabytes, shape, given, longest=2048):
    fit, choices = fitted(
        given,
        shape,
        method_of(given, dtype="bfloat16", device="cuda"),
        longest=longest,
        memory_free=None if gigabytes is None else int(gigabytes * 1e9),
    )
    return fit, {choice.name: choice for choice in choices}


@pytest.mark.parametrize(
    ("rows", "tried"),
    [(8, [8, 4, 2, 1]), (1, [1]), (6, [6, 3, 1]), (5, [5, 1]), (12, [12, 6, 3, 1])],
)
def test_halvings_divide_what_they_come_from(rows, tried):
    assert halvings(rows) == tried
    assert all(rows % each == 0 for each in tried)


@pytest.mark.parametrize("gigabytes", [9, 10, 12, 16, 24, 32, 48, 80, 141])
def test_rows_of_a_step_stay_and_what_is_chosen_fits(shape, gigabytes):
    fit, choices = fit_in(gigabytes, shape, options())
    rows = fit.per_device_train_batch_size
    assert rows * fit.gradient_accumulation_steps == 16
    assert fit.memory.total <= 0.9 * gigabytes * 1e9
    assert choices["per_device_train_batch_size"].value == str(rows)
    assert choices["gradient_accumulation_steps"].value == str(fit.gradient_accumulation_steps)
    assert choices["gradient_checkpointing"].value in ("true", "selective", "false")
    assert all(choice.reason for choice in choices.values())


def test_more_memory_never_means_a_slower_way(shape):
    found = [fit_in(size, shape, options())[0] for size in (9, 12, 16, 24, 32, 48, 80, 141, 250)]
    order = [True, "selective", False]
    ways = [
        (order.index(fit.gradient_checkpointing), fit.per_device_train_batch_size) for fit in found
    ]
    assert ways == sorted(ways)
    assert {at for at, _ in ways} == {0, 1, 2}
    assert ways[-1] == (2, 8)


def test_nothing_is_selected_where_weights_come_and_go(shape):
    """Under DeepSpeed and FSDP all is recomputed, or nothing."""
    sizes = (9, 12, 16, 24, 32, 48)
    for changes in ({"options": options(deepspeed="zero.json")}, {"shards": 2}):
        given = {"options": options()} | changes
        ways = {_way(shape, size, **given) for size in sizes}
        assert ways == {True, False}
    assert "selective" in {_way(shape, size, options=options()) for size in sizes}


def _way(shape, size, *, options, shards=1):
    method = method_of(options, dtype="bfloat16", device="cuda", shards=shards)
    found, _ = fitted(options, shape, method, longest=2048, memory_free=size * 10**9)
    return found.gradient_checkpointing


def test_the_micro_batch_is_the_largest_that_fits(shape):
    given = options()
    fit, _ = fit_in(12, shape, given)
    rows = fit.per_device_train_batch_size
    assert 1 <= rows < 8
    more = training_memory(
        shape,
        method_of(given, dtype="bfloat16", device="cuda"),
        rows=2 * rows,
        length=2048,
        checkpointing=fit.gradient_checkpointing,
    )
    assert more.total > 0.9 * 12e9


@pytest.mark.parametrize("asked", [True, "selective", False])
def test_checkpointing_that_was_asked_for_stays(shape, asked):
    given = options(gradient_checkpointing=asked)
    for gigabytes in (32, 250):
        fit, choices = fit_in(gigabytes, shape, given)
        assert fit.gradient_checkpointing == asked
        assert "asked for" in choices["gradient_checkpointing"].reason


def test_what_is_asked_for_stays_where_memory_is_not_known(shape):
    fit, choices = fit_in(None, shape, options())
    assert fit.per_device_train_batch_size == 8
    assert not fit.gradient_checkpointing
    assert "not known" in choices["per_device_train_batch_size"].reason


def test_one_row_that_does_not_fit_is_refused_with_parts_and_a_way_out(shape):
    with pytest.raises(TunewrightError) as caught:
        fit_in(4, shape, options())
    (problem,) = caught.value.problems
    assert problem.code == "E_OOM"
    assert caught.value.exit_code == 5
    assert "weights" in problem.message
    assert "4.00 GB are free" in problem.message
    assert "max_length" in problem.fix
    assert "gradient_checkpointing" not in problem.fix
    with pytest.raises(TunewrightError) as caught:
        fit_in(4, shape, options(gradient_checkpointing=False))
    assert "gradient_checkpointing=true" in caught.value.problems[0].fix


def test_a_base_in_16_bits_is_told_of_4(shape):
    with pytest.raises(TunewrightError) as caught:
        fit_in(12, shape, options(load_in_4bit=False))
    assert "load_in_4bit=true" in caught.value.problems[0].fix
    with pytest.raises(TunewrightError) as caught:
        fit_in(4, shape, options())
    assert "load_in_4bit" not in caught.value.problems[0].fix


def test_the_largest_batch_is_at_most_a_step(shape):
    given = options()
    method = method_of(given, dtype="bfloat16", device="cuda")

    def largest(gigabytes, *, checkpointing=True, longest=2048):
        return largest_batch(
            shape,
            method,
            step=16,
            longest=longest,
            memory_free=int(gigabytes * 1e9),
            checkpointing=checkpointing,
        )

    assert largest(1000, checkpointing=False) == 16
    assert largest(4) == 0
    assert 0 < largest(12) < 16
    assert largest(12, longest=128) > largest(12)
    assert largest(48, checkpointing=False) < largest(48)


def test_longer_rows_take_a_smaller_batch(shape):
    short, _ = fit_in(48, shape, options(), longest=256)
    long, _ = fit_in(48, shape, options(), longest=2048)
    assert (short.gradient_checkpointing, short.per_device_train_batch_size) == (False, 8)
    assert (long.gradient_checkpointing, long.per_device_train_batch_size) == (False, 1)


def test_a_larger_base_takes_more(shape):
    given = options()
    small = replace(shape, layers=4)
    assert fit_in(24, small, given)[0].memory.total < fit_in(24, shape, given)[0].memory.total


def test_the_limit_of_a_container_counts(tmp_path):
    assert container_free(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert container_free(tmp_path) == []
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_free(tmp_path) == [700]
    (tmp_path / "memory.stat").write_text("anon 100\nfile 200\ninactive_file 150\n")
    assert container_free(tmp_path) == [850]
    (tmp_path / "memory.stat").write_text("no numbers\nat all here\n")
    (tmp_path / "memory.current").write_text("1200\n")
    assert container_free(tmp_path) == [0]


def test_free_memory_of_this_machine_is_a_number():
    assert (memory_free("cpu") or 0) > 0


@given(st.integers(1, 64), st.integers(1, 9), st.integers(1, 64))
def test_a_step_keeps_its_rows_on_any_number_of_processes(rows, processes, most):
    share = shared(rows, processes, most)
    if rows % processes:
        assert share is None
    else:
        micro, passes = share
        assert micro * passes * processes == rows
        larger = range(micro + 1, most + 1)
        assert micro <= most
        assert not any((rows // processes) % n == 0 for n in larger)


def test_what_is_too_large_for_one_fits_in_shares(shape):
    given = options(load_in_4bit=False, gradient_checkpointing=True)
    sizes = {"longest": 2048, "memory_free": int(12e9)}
    alone, four = (
        method_of(given, dtype="bfloat16", device="cuda", shards=shards) for shards in (1, 4)
    )
    with pytest.raises(TunewrightError):
        fitted(given, shape, alone, **sizes)
    fit, _ = fitted(given, shape, four, **sizes)
    whole = training_memory(
        shape,
        alone,
        rows=1,
        length=2048,
        checkpointing=True,
    )
    assert whole.weights / 4 < fit.memory.weights < whole.weights / 2
    assert fit.memory.optimizer == whole.optimizer // 4
