"""Each technique alone and all together: the loss within 1e-6 and the gradient within 1e-5 of the plain path.

The plain path here is Transformers' own: one row at a time, all logits, its cross entropy. Every technique has a
planted error that these limits must notice.
"""

import dataclasses
import itertools

import pytest
import torch
from fast_models import (
    GRADIENT,
    KINDS,
    LOSS,
    OFF,
    gradient_of,
    labels_of,
    make_model,
    make_rows,
    plain,
)
from torch.utils._python_dispatch import TorchDispatchMode

from tunewright.accel import _attention, _head, _lora, _recompute, _step
from tunewright.accel import layout as layouts
from tunewright.accel._check import check
from tunewright.accel._step import Steps
from tunewright.accel.layout import IGNORED, Row

ALONE = {
    "label_only_head": {"label_only_head": True},
    "packing": {"packing": True},
    "length_bucketing": {"length_bucketing": True},
    "shared_prefix": {"packing": True, "shared_prefix": True},
    "fused_lora": {"fused_lora": True},
    "all": {"label_only_head": True, "packing": True, "shared_prefix": True, "fused_lora": True},
    "all, in several passes": {
        "label_only_head": True,
        "packing": True,
        "shared_prefix": True,
        "fused_lora": True,
        "tokens_a_pass": 120,
    },
    "bucketed in several passes": {
        "label_only_head": True,
        "length_bucketing": True,
        "tokens_a_pass": 120,
    },
}


@pytest.fixture(params=KINDS)
def model(request):
    return make_model(request.param)


@pytest.fixture
def rows():
    return make_rows()


def errors(model, rows, ways) -> tuple[float, float]:
    wanted, reference = plain(model, rows)
    labels = labels_of(rows)
    loss = Steps(model, ways).train(rows, labels).loss / labels
    gradient = gradient_of(model)
    return abs(loss / wanted - 1), float((gradient - reference).norm() / reference.norm())


def exact(model, rows, ways) -> bool:
    loss, gradient = errors(model, rows, ways)
    return loss <= LOSS and gradient <= GRADIENT


@pytest.mark.parametrize("name", ALONE)
def test_the_same_loss_and_gradient(model, rows, name):
    assert exact(model, rows, dataclasses.replace(OFF, **ALONE[name]))


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_and_one_that_is_the_embedding(rows, tied):
    ways = dataclasses.replace(OFF, **ALONE["all"])
    assert exact(make_model("llama", tied=tied), rows, ways)


def test_a_head_that_is_trained(rows):
    """Its own gradient too, by way of autograd."""
    model = make_model("qwen3", tied=False)
    model.get_output_embeddings().weight.requires_grad_(True)
    assert exact(model, rows, dataclasses.replace(OFF, **ALONE["all"]))


def ends_lined_up(query, key, value, queries, keys, most_q, most_k, *, scale, window_size):
    """The kernel for pieces of any length, as its documentation tells: each by itself, dense."""
    assert (most_q, most_k) == (int(queries.diff().max()), int(keys.diff().max()))
    assert window_size == (-1, 0)
    found = []
    for at in range(len(queries) - 1):
        q, k, v = (
            x[bounds[at] : bounds[at + 1]].transpose(0, 1)
            for x, bounds in ((query, queries), (key, keys), (value, keys))
        )
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool)
        mask = mask.tril(k.shape[1] - q.shape[1])
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~mask, float("-inf"))
        found.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


def starts_lined_up(query, key, value, queries, keys, most_q, most_k, **settings):
    """The planted error: of a piece after another the last keys are not looked at."""
    kept = torch.cat([keys[at] + torch.arange(size) for at, size in enumerate(queries.diff())])
    return ends_lined_up(
        query, key[kept], value[kept], queries, queries, most_q, most_q, **settings
    )


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (ends_lined_up, "packing"),
        (ends_lined_up, "all"),
        (ends_lined_up, "all, in several passes"),
        (starts_lined_up, "all"),
    ],
)
def test_one_kernel_for_all_pieces(monkeypatch, model, rows, kernel, name):
    """What a GPU does in one call, with a stand-in for the call."""
    monkeypatch.setattr(_attention, "in_one_kernel", lambda _: True)
    monkeypatch.setattr(_attention, "varlen_attn", kernel)
    right = kernel is ends_lined_up
    assert exact(model, rows, dataclasses.replace(OFF, **ALONE[name])) is right


def alike(rows: list[Row]) -> list[Row]:
    """Those of `make_rows` that begin alike."""
    return rows[:6]


HELD = {"packing": True, "shared_prefix": True, "tokens_a_pass": 70}


@pytest.mark.parametrize("more", [{}, {"label_only_head": True, "fused_lora": True}])
@pytest.mark.parametrize("recomputed", [None, "selective", "all"])
def test_what_all_rows_begin_with_runs_once_a_step(monkeypatch, model, rows, more, recomputed):
    monkeypatch.setattr(_recompute, "LEAST_INNER", 8)
    rows = alike(rows)
    wanted, reference = plain(model, rows)
    ways = dataclasses.replace(OFF, **HELD, **more, selective=recomputed == "selective")
    if recomputed:
        _recompute.recompute(model, selective=recomputed == "selective")
    kept = []
    own = _attention.Held.__init__
    monkeypatch.setattr(
        _attention.Held, "__init__", lambda held, length: kept.append(length) or own(held, length)
    )
    labels = labels_of(rows)
    found = Steps(model, ways).train(rows, labels)
    assert kept == [30]
    assert found.executed < sum(len(row.tokens) for row in rows)
    assert found.loss / labels == pytest.approx(wanted, rel=LOSS)
    gradient = gradient_of(model)
    assert float((gradient - reference).norm() / reference.norm()) <= GRADIENT
    measured = Steps(model, ways).measure(rows)
    assert measured.loss / labels == pytest.approx(wanted, rel=LOSS)


@pytest.mark.parametrize(("kernel", "right"), [(ends_lined_up, True), (starts_lined_up, False)])
def test_one_kernel_looks_at_what_is_held(monkeypatch, model, rows, kernel, right):
    monkeypatch.setattr(_attention, "in_one_kernel", lambda _: True)
    monkeypatch.setattr(_attention, "varlen_attn", kernel)
    assert exact(model, alike(rows), dataclasses.replace(OFF, **HELD)) is right


def test_gradients_that_are_not_sent_on_are_noticed(monkeypatch, model, rows):
    monkeypatch.setattr(_attention.Held, "backward", lambda _: None)
    assert not exact(model, alike(rows), dataclasses.replace(OFF, **HELD))


def test_gradients_of_one_pass_only_are_noticed(monkeypatch, model, rows):
    """The planted error: each pass leaves its gradient in place of those before it."""
    own = _attention.Held.of

    def last_only(held, layer):
        copies = own(held, layer)
        for copy in copies:
            copy.grad = None
        return copies

    monkeypatch.setattr(_attention.Held, "of", last_only)
    assert not exact(model, alike(rows), dataclasses.replace(OFF, **HELD))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["packing", "all"])
def test_the_kernel_of_a_gpu_is_as_good_as_plain_16_bits(rows, name):
    model = make_model("qwen3", dtype=torch.bfloat16).cuda()
    found = check(model, Steps(model, dataclasses.replace(OFF, **ALONE[name])), rows, rows_a_pass=2)
    assert found.passed


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_with_recomputed_activations(rows, monkeypatch, kind, selective):
    # Tiny linears are narrow.
    monkeypatch.setattr(_recompute, "LEAST_INNER", 8)
    model = make_model(kind)
    wanted, reference = plain(model, rows)
    _recompute.recompute(model, selective=selective)
    ways = dataclasses.replace(OFF, **ALONE["all"], selective=selective)
    steps = Steps(model, ways)
    labels = labels_of(rows)
    assert steps.train(rows, labels).loss / labels == pytest.approx(wanted, rel=LOSS)
    gradient = gradient_of(model)
    assert float((gradient - reference).norm() / reference.norm()) <= GRADIENT


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("planted", [False, True])
def test_what_is_recomputed_draws_the_same_dropout(rows, monkeypatch, selective, planted):
    monkeypatch.setattr(_recompute, "LEAST_INNER", 8)
    if planted:
        monkeypatch.setattr(torch.utils.checkpoint, "set_device_states", lambda *_, **__: None)
        monkeypatch.setattr(torch, "set_rng_state", lambda _: None)
    found = []
    for recomputed in (False, True):
        model = make_model("llama", dropout=0.3)
        if recomputed:
            _recompute.recompute(model, selective=selective)
        torch.manual_seed(1)
        Steps(model, dataclasses.replace(OFF, **ALONE["packing"])).train(rows, labels_of(rows))
        found.append(gradient_of(model))
    reference, gradient = found
    exact = float((gradient - reference).norm() / reference.norm()) <= GRADIENT
    assert exact is not planted


def test_of_a_layer_only_what_is_cheap_is_computed_twice(rows, monkeypatch):
    """The products of the base run once and those of the adapters' way up twice; all of them where all is recomputed."""
    monkeypatch.setattr(_recompute, "LEAST_INNER", 8)
    counts = {}
    for way in ("kept", "selective", "all"):
        model = make_model("llama")
        model.enable_input_require_grads()
        if way != "kept":
            _recompute.recompute(model, selective=way == "selective")
        with Products() as counted:
            Steps(model, dataclasses.replace(OFF, **ALONE["packing"])).train(rows, labels_of(rows))
        counts[way] = counted.wide, counted.narrow
    linears = 7 * 3
    (wide, narrow), selective, every = counts["kept"], counts["selective"], counts["all"]
    # The last layer's way up is not needed again: what comes after it is a sum.
    assert selective[0] == wide
    assert narrow + linears - 3 <= selective[1] <= narrow + linears
    assert every[0] > wide + linears


class Products(TorchDispatchMode):
    """Counts matrix products: those over a width, and those over the rank."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = self.narrow = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        if func is torch.ops.aten.mm.default:
            inner = args[0].shape[-1]
            self.wide += inner >= 8
            self.narrow += inner < 8
        return func(*args, **(kwargs or {}))


def test_in_16_bits_the_error_is_no_larger_than_that_of_the_plain_path(rows):
    """Against float32 of the same weights: at most 1.2 times as far away."""
    model = make_model("qwen3", dtype=torch.bfloat16)
    low, low_gradient = plain(model, rows)
    ways = dataclasses.replace(OFF, **ALONE["all"])
    labels = labels_of(rows)
    fast = Steps(model, ways).train(rows, labels).loss / labels
    fast_gradient = gradient_of(model)
    wanted, reference = plain(model.float(), rows)
    assert abs(fast - wanted) <= 1.2 * abs(low - wanted) + 1e-4 * wanted
    allowed = 1.2 * (low_gradient - reference).norm()
    assert (fast_gradient - reference).norm() <= allowed


@pytest.mark.parametrize("name", ["packing", "all"])
def test_no_row_sees_another(model, rows, name):
    """With one row changed, the gradient of every other row stays what it was."""
    steps = Steps(model, dataclasses.replace(OFF, **ALONE[name]))
    for at, row in itertools.islice(enumerate(rows), 0, None, 3):
        tail = [(token % 290) + 1 for token in row.tokens[row.shareable :]]
        tokens = [*row.tokens[: row.shareable], *tail]
        changed = Row(
            tokens, [t if w != IGNORED else w for t, w in zip(tokens, row.labels, strict=True)]
        )
        silent = Row(changed.tokens, [IGNORED] * len(tokens))
        others = [*rows[:at], *rows[at + 1 :]]
        labels = labels_of(others)
        before = steps.train(others, labels).loss
        reference = gradient_of(model)
        after = steps.train([*others, silent], labels).loss
        found = gradient_of(model)
        assert after == pytest.approx(before, rel=LOSS)
        assert float((found - reference).norm() / reference.norm()) <= GRADIENT


def test_the_sums_are_those_of_all_logits(model, rows):
    labels = labels_of(rows)
    entropy = correct = 0.0
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0, :-1].float()
            targets = torch.tensor(row.labels[1:])
            kept = targets != IGNORED
            spread = torch.distributions.Categorical(logits=logits[kept])
            entropy += float(spread.entropy().sum())
            correct += int((logits[kept].argmax(-1) == targets[kept]).sum())
    for changes in ALONE.values():
        steps = Steps(model, dataclasses.replace(OFF, **changes))
        found = steps.measure(rows)
        assert found.entropy == pytest.approx(entropy, rel=1e-5)
        assert (found.correct, found.labels) == (correct, labels)
        assert found.tokens == sum(len(row.tokens) for row in rows)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("changes", ALONE.values(), ids=ALONE)
def test_no_rows_are_no_loss(changes):
    found = Steps(make_model("qwen3"), dataclasses.replace(OFF, **changes)).train([], 1)
    assert (found.loss, found.labels, found.tokens, found.executed) == (0, 0, 0, 0)


def misses_a_label(patch):
    real = _head.head_loss
    patch(_step, "head_loss", lambda h, x, t: real(h, x[1:], t[1:]))


def labels_one_place_off(patch):
    real = layouts._rest

    def rest(row, depth, before):
        return dataclasses.replace(real(row, depth, before), targets=row.labels[depth:])

    patch(layouts, "_rest", rest)


def rows_see_each_other(patch):
    class Joined(_attention.Pieces):
        def __init__(self, laid, device, **others):
            super().__init__(laid, device, **others)
            self.lengths, self.before, self.masks = [sum(self.lengths)], [()], [None]

    patch(_attention, "Pieces", Joined)


def positions_begin_at_0(patch):
    real = layouts._rest
    patch(layouts, "_rest", lambda *given: dataclasses.replace(real(*given), start=0))


def shared_part_not_looked_at(patch):
    class Alone(_attention.Pieces):
        def __init__(self, laid, device, **others):
            super().__init__(laid, device, **others)
            self.before, self.masks = [()] * len(laid), [None] * len(laid)

    patch(_attention, "Pieces", Alone)


def padding_shifts_labels(patch):
    real = _step.padded

    def shifted(rows, longest):
        ids, mask, targets = real(rows, longest)
        return ids, mask, targets.roll(1, 1)

    patch(_step, "padded", shifted)


def the_adapter_is_scaled_twice(patch):
    real = _lora._Adapted.backward
    patch(
        _lora._Adapted,
        "backward",
        staticmethod(lambda ctx, grad: (*real(ctx, grad)[:5], real(ctx, grad)[5] * 2, None)),
    )


def passes_weigh_alike(patch):
    patch(_step, "_backward", lambda sums, *_: (sums.loss / sums.tokens).backward())


PLANTED = [
    (misses_a_label, "label_only_head"),
    (labels_one_place_off, "packing"),
    (rows_see_each_other, "packing"),
    (positions_begin_at_0, "shared_prefix"),
    (shared_part_not_looked_at, "shared_prefix"),
    (padding_shifts_labels, "length_bucketing"),
    (the_adapter_is_scaled_twice, "fused_lora"),
    (passes_weigh_alike, "all, in several passes"),
]


@pytest.mark.parametrize(("error", "name"), PLANTED)
def test_a_planted_error_is_noticed(monkeypatch, model, rows, error, name):
    error(monkeypatch.setattr)
    assert not exact(model, rows, dataclasses.replace(OFF, **ALONE[name]))


@pytest.mark.parametrize(("error", "name"), [p for p in PLANTED if p[1] != "length_bucketing"])
def test_the_self_check_notices_it_as_well(monkeypatch, rows, error, name):
    """Those of padding aside, which the plain path has too."""
    model = make_model("qwen3")
    ways = dataclasses.replace(OFF, **ALONE[name])
    before = torch.random.get_rng_state()
    assert check(model, Steps(model, ways), rows, rows_a_pass=2).passed
    error(monkeypatch.setattr)
    model = make_model("qwen3")
    assert not check(model, Steps(model, ways), rows, rows_a_pass=2).passed
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_a_label_that_a_shared_position_predicts_would_be_lost(monkeypatch):
    """Two rows that are alike into their answers: what each learns there is counted for each."""
    rows = make_rows()
    twin = Row([*rows[3].tokens[:-2], 7, 8], [*rows[3].labels[:-2], 7, 8])
    model, ways = make_model("qwen3"), dataclasses.replace(OFF, **ALONE["all"])
    assert exact(model, [rows[3], twin], ways)
    monkeypatch.setattr(Row, "shareable", property(lambda row: len(row.tokens) - 3))
    assert not exact(model, [rows[3], twin], ways)
