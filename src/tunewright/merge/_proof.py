"""Proof that every tensor of a merged model is that of its base with what PEFT makes of it.

The reference is PEFT itself, not our arithmetic: a model without weights gets the adapter, so that PEFT decides which
modules it changes and with what scale; then one module at a time gets the base's weight and merges it, some rows at a
time.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import Embedding as LoraEmbedding
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.models._shards import (
    DTYPES,
    Place,
    mean_row,
    places_in,
    raw_chunks,
    read_rows,
    shards_of,
)
from tunewright.models._weights import ADAPTER
from tunewright.models.changes import EMBEDDING, HEAD, replaced_by
from tunewright.models.lora import PREFIX

NAME = "default"
BLOCK = 2**20
"""Values compared at once: 4 MB of float32."""
NOISE = 2.0**-20
"""Of a tensor's largest value: what float32 may lose in another order of the same sums."""
Expected = Callable[[torch.Tensor, int, int], torch.Tensor]
"""From rows of the base's weight, and the numbers of the first and of the one after the last, to what they become."""


@dataclass(frozen=True)
class Reference:
    """What PEFT makes of a tensor.

    Attributes:
        rows: Gives its rows in float32.
        loaded: Its weight below the adapter where that comes with the adapter; else it is the base's.
        whole: All rows must be given at once.
    """

    rows: Expected
    loaded: torch.Tensor | None = None
    whole: bool = False


def tensor_differences(base: Path, adapter: Path, merged: Path) -> list[tuple[str, str]]:
    """Return (tensor, what is wrong) for every tensor of the merged model that is not as it must be.

    A tensor that the adapter does not touch must be identical to the base's; another must be, value by value,
    what PEFT makes of the base's, rounded once. A head that is not stored is the embedding.
    """
    settings = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    before, found = places_in(shards_of(base)), places_in(shards_of(merged))
    references = _references(merged, adapter, base)
    problems = _names_and_forms(before, found, references, settings)
    wrong = {name for name, _ in problems}
    for name in sorted(found.keys() - wrong):
        source = name if name in before else EMBEDDING
        if source in before and (
            reason := _fault(found[name], before[source], references.get(name))
        ):
            problems.append((name, reason))
    if settings.get("tie_word_embeddings") and EMBEDDING in found and HEAD not in wrong:
        # What the head must be, the one tensor must be too.
        reason = _fault(found[EMBEDDING], before[EMBEDDING], references.get(HEAD))
        problems += [(HEAD, f"is the embedding, which {reason}")] if reason else []
    return problems


def _names_and_forms(
    before: Mapping[str, Place],
    found: Mapping[str, Place],
    references: Mapping[str, Reference],
    settings: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Return what is wrong with names, shapes, types and the sum of all bytes."""
    wrong = [(name, "is missing") for name in sorted(before.keys() - found.keys())]
    untied = HEAD in found and HEAD not in before and not settings.get("tie_word_embeddings")
    extra = found.keys() - before.keys() - ({HEAD} if untied else set())
    wrong += [(name, "is not in the base") for name in sorted(extra)]
    rows = settings["vocab_size"]
    expected_bytes = 0
    for name in sorted(found.keys() - extra):
        have, want = found[name].stored, before[name if name in before else EMBEDDING].stored
        shape = (rows, *want.shape[1:]) if name in (EMBEDDING, HEAD) else want.shape
        if (have.dtype, have.shape) != (want.dtype, shape):
            wrong.append(
                (name, f"is {have.dtype} {list(have.shape)}, not {want.dtype} {list(shape)}")
            )
        bits = (want.end - want.begin) * 8 // max(1, _count(want.shape))
        expected_bytes += _count(shape) * bits // 8
    total = sum(place.size_bytes for place in found.values())
    if not wrong and total != expected_bytes:
        wrong.append(("all tensors", f"have {total:,} bytes, not {expected_bytes:,}"))
    lost = sorted(name for name in references if name not in found and name != HEAD)
    return wrong + [(name, "is changed by the adapter, and is missing") for name in lost
                    if (name, "is missing") not in wrong]  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _fault(got: Place, base: Place, reference: Reference | None) -> str | None:
    """Return what is wrong with the values of a tensor."""
    if reference is None and got.stored.shape == base.stored.shape:
        with got.file.open("rb") as a, base.file.open("rb") as b:
            same = all(x == y for x, y in zip(raw_chunks(a, got), raw_chunks(b, base), strict=True))
        return None if same else "differs from the base, and the adapter does not touch it"
    reference = reference or Reference(lambda weight, first, end: weight)
    wrong = sum(_strangers(got, base, reference))
    if not wrong:
        return None
    return f"is not what PEFT makes of the base in {wrong:,} of {_count(got.stored.shape):,} places"


def _strangers(got: Place, base: Place, reference: Reference) -> Iterator[int]:
    """Give, for some rows at a time, how many values are not the expected one, rounded once."""
    width = _count(got.stored.shape[1:])
    step = got.rows if reference.whole else max(1, BLOCK // max(1, width))
    with got.file.open("rb") as merged, base.file.open("rb") as before:
        mean = mean_row(before, base) if got.rows > base.rows else None
        for first in range(0, got.rows, step):
            end = min(first + step, got.rows)
            if reference.loaded is not None:
                weight = reference.loaded[first:end].float()
            else:
                weight = _base_rows(before, base, first, end, mean)
            exact = reference.rows(weight, first, end)
            yield _unlike(read_rows(merged, got, first, end), exact)


def _base_rows(
    stream: Any, base: Place, first: int, end: int, mean: torch.Tensor | None
) -> torch.Tensor:
    known = read_rows(stream, base, min(first, base.rows), min(end, base.rows)).float()
    if end <= base.rows or mean is None:
        return known
    dtype = DTYPES[base.stored.dtype]
    return torch.cat([known, mean.to(dtype).float().expand(end - max(first, base.rows), -1)])


def _unlike(got: torch.Tensor, exact: torch.Tensor) -> int:
    """Return how many values lie outside what rounding the exact one once can give."""
    noise = NOISE * float(exact.abs().amax()) if exact.numel() else 0.0
    low, high = (exact - noise).to(got.dtype), (exact + noise).to(got.dtype)
    return int((~((low <= got) & (got <= high))).sum())


def _references(merged: Path, adapter: Path, base: Path) -> dict[str, Reference]:
    """Return what PEFT makes of each tensor that it changes, by the tensor's name in the base."""
    model = _without_weights(merged, adapter, base)
    found: dict[str, Reference] = {}
    for name, module in model.named_modules():
        path = name.removeprefix(PREFIX)
        if isinstance(module, LoraLayer):
            found |= _of_lora(path, module)
        elif isinstance(module, ModulesToSaveWrapper):
            copy = module.modules_to_save[NAME]
            found |= {f"{path}.{key}": _given(value) for key, value in copy.state_dict().items()}
        elif isinstance(module, TrainableTokensWrapper):
            found[f"{path}.weight"] = _of_tokens(module)
    for name, value in model.named_parameters(remove_duplicate=False):
        # Weights of the base's own modules are there only if the adapter brought them.
        plain = replaced_by(name)
        if plain and not _is_absent(value) and "lora_" not in name and "." + NAME not in name:
            found.setdefault(plain, _given(value))
    return found | _tied(model, found)


def _tied(model: PeftModel, found: Mapping[str, Reference]) -> dict[str, Reference]:
    """Return references of embedding and head where the weight of both came with the adapter of one."""
    ends = {EMBEDDING: model.get_input_embeddings(), HEAD: model.get_output_embeddings()}
    own = {n: found[n].loaded for n, m in ends.items()
           if n in found and not isinstance(m, ModulesToSaveWrapper)}  # fmt: skip
    given = next((weight for weight in own.values() if weight is not None), None)
    if given is None or not model.config.tie_word_embeddings:
        return {}
    return {
        name: replace(found.get(name, _given(given)), loaded=given)
        for name, module in ends.items()
        if not isinstance(module, ModulesToSaveWrapper)
    }


def _without_weights(merged: Path, adapter: Path, base: Path) -> PeftModel:
    """Return the base without weights and with the adapter."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    rows = json.loads((merged / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config.vocab_size = rows
    settings = PeftConfig.from_pretrained(str(adapter))
    settings.inference_mode = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        # One zero in every place: PEFT would take its own weights away again from a base that has none.
        places = {name: torch.zeros(()).expand(x.shape) for name, x in model.state_dict().items()}
        model.load_state_dict(places, assign=True)
        model.tie_weights()
        tuned = PeftModel(model, settings, low_cpu_mem_usage=True)
        tensors = load_file(adapter / ADAPTER)
        # PEFT turns the rest of a layer's adapter into the precision of a weight that comes with it.
        tensors = {n: x.float() if ".base_layer." in n else x for n, x in tensors.items()}
        set_peft_model_state_dict(tuned, tensors, low_cpu_mem_usage=True)
    return tuned.eval()


def _is_absent(weight: torch.Tensor) -> bool:
    """Tell whether a weight only holds a place."""
    return weight.is_meta or weight.untyped_storage().nbytes() < weight.nbytes


def _given(value: torch.Tensor) -> Reference:
    """Return the reference of a tensor that came with the adapter."""
    return Reference(lambda weight, first, end: weight, loaded=value.detach())


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


def _of_lora(path: str, layer: Any) -> dict[str, Reference]:
    inner = layer.get_base_layer()
    own = None if _is_absent(inner.weight) else inner.weight.detach()
    dora = bool(layer.use_dora.get(NAME))
    embeds = isinstance(layer, LoraEmbedding)
    make = _embedding_rows(layer) if embeds else _linear_rows(layer)
    found = {f"{path}.weight": Reference(make, loaded=own, whole=embeds and dora)}
    if layer.lora_bias.get(NAME):
        bias = None if _is_absent(inner.bias) else inner.bias.detach()
        found[f"{path}.bias"] = Reference(_bias_rows(layer), loaded=bias)
    return found


@torch.no_grad()
def _merged(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return what the layer's own merge makes of a weight, which the layer does not keep."""
    inner = layer.get_base_layer()
    place, inner.weight = inner.weight, _parameter(weight.clone())
    layer.merged_adapters.clear()
    try:
        layer.merge(adapter_names=[NAME])
        return inner.weight.detach()
    finally:
        inner.weight = place


def _linear_rows(layer: Any) -> Expected:
    b_OR = layer.lora_B[NAME].weight.detach().float()
    a_RI = layer.lora_A[NAME].weight.detach().float()
    magnitudes = layer.lora_magnitude_vector
    m_O = magnitudes[NAME].weight.detach().float() if NAME in magnitudes else None
    with_bias = dict(layer.lora_bias)

    def rows(weight: torch.Tensor, first: int, end: int) -> torch.Tensor:
        layer.lora_A[NAME].weight = _parameter(a_RI)
        layer.lora_B[NAME].weight = _parameter(b_OR[first:end])
        if m_O is not None:
            magnitudes[NAME].weight = _parameter(m_O[first:end])
        layer.lora_bias[NAME] = False
        try:
            return _merged(layer, weight)
        finally:
            layer.lora_bias.update(with_bias)

    return rows


def _embedding_rows(layer: Any) -> Expected:
    a_RV = layer.lora_embedding_A[NAME].detach().float()
    b_OR = layer.lora_embedding_B[NAME].detach().float()
    magnitudes = layer.lora_magnitude_vector
    m_O = magnitudes[NAME].weight.detach().float() if NAME in magnitudes else None

    def rows(weight: torch.Tensor, first: int, end: int) -> torch.Tensor:
        layer.lora_embedding_A[NAME] = _parameter(a_RV[:, first:end])
        layer.lora_embedding_B[NAME] = _parameter(b_OR)
        if m_O is not None:
            magnitudes[NAME].weight = _parameter(m_O)
        return _merged(layer, weight)

    return rows


def _bias_rows(layer: Any) -> Expected:
    update_O = layer.lora_B[NAME].bias.detach().float() * layer.scaling[NAME]
    return lambda weight, first, end: weight + update_O[first:end]


def _of_tokens(wrapper: Any) -> Reference:
    layer = wrapper.token_adapter
    numbers = list(layer.token_indices[NAME])
    delta = layer.trainable_tokens_delta[NAME].detach().float()
    inner = layer.get_base_layer()
    own = None if _is_absent(inner.weight) else inner.weight.detach()

    def rows(weight: torch.Tensor, first: int, end: int) -> torch.Tensor:
        here = [at for at, number in enumerate(numbers) if first <= number < end]
        if not here:
            return weight
        layer.token_indices[NAME] = [numbers[at] - first for at in here]
        layer.trainable_tokens_delta[NAME] = _parameter(delta[here])
        return _merged(layer, weight)

    return Reference(rows, loaded=own)
