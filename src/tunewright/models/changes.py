"""What PEFT's LoRA adapters hold, and what becomes of each tensor of the base. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.errors import TunewrightError
from tunewright.models.lora import PREFIX, Lora, invalid

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
_TOKENS = "token_adapter.trainable_tokens_delta"
_MAGNITUDE = "lora_magnitude_vector"
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)(?:\.weight)?"
)


@dataclass(frozen=True)
class Change:
    """What becomes of one tensor of the base; names are those of the adapter's tensors.

    In this order: W is replaced by `whole`; s B A is added; with a magnitude m, V = W + s B A becomes
    m V / |V|; s times `bias` is added; the rows `rows` are replaced by `delta`.

    Attributes:
        source: Tensor of the base that it is made from: the embedding, for a head that was tied to it.
        whole: Replaces it.
        pair: A and B.
        scale: s.
        embeds: A and B are an embedding's: (r, rows) and (width, r), so that the update is (B A)^T, and
            the magnitudes are those of columns.
        magnitude: m, DoRA's.
        bias: Of B, for a tensor that is a bias.
        rows: Numbers of rows.
        delta: What they become.
    """

    source: str
    whole: str | None = None
    pair: tuple[str, str] | None = None
    scale: float = 1.0
    embeds: bool = False
    magnitude: str | None = None
    bias: str | None = None
    rows: tuple[int, ...] = ()
    delta: str | None = None

    @property
    def used(self) -> tuple[str, ...]:
        """The adapter's tensors that it takes."""
        names = (self.whole, *(self.pair or ()), self.magnitude, self.bias, self.delta)
        return tuple(name for name in names if name)


@dataclass(frozen=True)
class Changes:
    """What an adapter makes of a base.

    Attributes:
        tensors: Each that changes, by its name in the merged model.
        rows: Of embedding and head.
        unties: The head was the embedding, and is no more.
        alike: Pairs of the adapter's tensors that must be the same, the second transposed if so told:
            parts of what is one tensor of the base.
    """

    tensors: Mapping[str, Change]
    rows: int
    unties: bool
    alike: tuple[tuple[str, str, bool], ...] = ()


def changes_of(lora: Lora, adapter: Shapes, base: Shapes, *, tied: bool, where: Path) -> Changes:
    """Return what becomes of every tensor that an adapter changes.

    Args:
        lora: What its settings say.
        adapter: Shape of each of its tensors.
        base: Shape of each tensor of the base as it is stored.
        tied: The base's head is its embedding.
        where: The adapter's file, for messages.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID for everything that does not fit.
    """
    found, reasons = _found(lora, adapter)
    embedding = base.get(EMBEDDING)
    known = dict(base) | ({HEAD: embedding} if tied and embedding else {})
    rows = _rows(found, adapter, embedding[0] if embedding else 0)
    for tensor, change in found.items():
        wanted = known.get(tensor)
        if wanted is None:
            reasons.append(f"'{tensor}' is changed by the adapter, and is no tensor of the base")
            continue
        if tensor in (EMBEDDING, HEAD):
            wanted = (max(rows, wanted[0]), *wanted[1:])
        reasons += _misfits(tensor, change, adapter, wanted)
    if reasons:
        fix = "Merge into the base that the adapter was trained on."
        raise TunewrightError(invalid(f"{reason}.", where, fix) for reason in reasons)
    if not tied or not embedding:
        return Changes(found, rows, unties=False)
    made = _of_tied(lora, found, rows)
    if HEAD not in base or EMBEDDING not in made.tensors or made.unties:
        return made
    # Some files hold the one tensor twice.
    twice = {HEAD: replace(made.tensors[EMBEDDING], source=HEAD)}
    return replace(made, tensors={**made.tensors, **twice})


def rows_of(adapter: Shapes, lora: Lora, have: int) -> int:
    """Return how many rows an embedding of `have` rows must have for an adapter.

    The adapter's own where it holds a whole one, or LoRA's for one; where it holds single rows beyond the
    base's, a multiple of 64 or 8 where the base's is one, since kernels are faster then.
    """
    return _rows(_found(lora, adapter)[0], adapter, have)


def _found(lora: Lora, adapter: Shapes) -> tuple[dict[str, Change], list[str]]:
    """Return the change of each tensor that the adapter names, and what is wrong with the adapter itself."""
    modules, plain, reasons = _sorted_out(adapter)
    found = {tensor: Change(tensor, whole=name) for tensor, name in plain.items()}
    for module, parts in modules.items():
        changes, wrong = _of_module(lora, module, parts, adapter, found)
        found |= changes
        reasons += wrong
    return found, reasons


def replaced_by(name: str) -> str | None:
    """Return the base's tensor that a whole tensor of an adapter replaces.

    None for what PEFT saves once more where it finds that the vocabulary has grown: the copy that is trained
    whole is there under its module's own name, and what it is a copy of is not used.
    """
    own = name.removeprefix(PREFIX)
    if ".original_module." in own or ".modules_to_save." in own:
        return None
    return own.replace(".token_adapter.base_layer.", ".").replace(".base_layer.", ".")


def _sorted_out(
    adapter: Shapes,
) -> tuple[dict[str, dict[str, str]], dict[str, str], list[str]]:
    """Return the adapter's tensors by module and part, those that are whole by the base's name, and faults."""
    modules: dict[str, dict[str, str]] = {}
    plain: dict[str, str] = {}
    reasons: list[str] = []
    for name in adapter:
        own = name.removeprefix(PREFIX)
        if own == name:
            reasons.append(f"'{name}' is no name of an adapter's tensor")
        elif match := _PART.fullmatch(own):
            modules.setdefault(match["module"], {})[match["part"]] = name
        elif "lora_" in own:
            reasons.append(f"'{name}' is a part of LoRA that merging does not know")
        else:
            tensor = replaced_by(name)
            plain |= {tensor: name} if tensor else {}
    return modules, plain, reasons


def _of_module(
    lora: Lora,
    module: str,
    parts: Mapping[str, str],
    shapes: Shapes,
    before: Mapping[str, Change],
) -> tuple[dict[str, Change], list[str]]:
    """Return what the parts make of a module's weight and bias, and what is wrong with them."""
    reasons: list[str] = []
    weight, bias = f"{module}.weight", f"{module}.bias"
    change = before.get(weight, Change(weight))
    embeds = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    names = (
        ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A.weight", "lora_B.weight")
    )
    if all(name in parts for name in names):
        a, b = parts[names[0]], parts[names[1]]
        change = replace(change, pair=(a, b), scale=lora.scale_of(module), embeds=embeds)
        ranks = (shapes[a][0], shapes[b][-1])
        if len(shapes[a]) != 2 or len(shapes[b]) != 2 or ranks[0] != ranks[1]:
            reasons.append(
                f"'{module}' has A {list(shapes[a])} and B {list(shapes[b])}, which make no product"
            )
        elif ranks[0] != lora.rank_of(module):
            reasons.append(
                f"'{module}' has rank {ranks[0]}, and adapter_config.json says {lora.rank_of(module)}"
            )
    elif parts.keys() - {_TOKENS}:
        reasons.append(f"'{module}' has {' and '.join(sorted(parts))}, and not A and B")
    if change.pair and lora.use_dora != (_MAGNITUDE in parts):
        reasons.append(
            f"'{module}' has {'no' if lora.use_dora else 'a'} magnitude, and adapter_config.json says otherwise"
        )
    if _MAGNITUDE in parts:
        change = replace(change, magnitude=parts[_MAGNITUDE])
    if _TOKENS in parts:
        # A tied head has the embedding's, which are saved twice where the vocabulary has grown.
        own = lora.tokens_of(module) or lora.tokens_of(_module(EMBEDDING))
        change = replace(change, rows=own, delta=parts[_TOKENS])
        if change.pair:
            reasons.append(f"'{module}' has LoRA and single rows, which PEFT does not combine")
    found = {weight: change}
    if "lora_B.bias" in parts:
        given = before.get(bias, Change(bias))
        found[bias] = replace(given, bias=parts["lora_B.bias"], scale=lora.scale_of(module))
    return found, reasons


def _shape_of(change: Change, shapes: Shapes) -> Shape | None:
    """Return the shape of the tensor that a change needs; None: any."""
    if change.pair:
        a, b = (shapes[name] for name in change.pair)
        return (a[-1], b[0]) if change.embeds else (b[0], a[-1])
    if change.bias:
        return shapes[change.bias]
    return shapes[change.whole] if change.whole else None


def _misfits(tensor: str, change: Change, shapes: Shapes, base: Shape) -> Iterator[str]:
    """Give what of a change does not fit a tensor of the base of this shape."""
    wanted = [shape for shape in (_shape_of(change, shapes), _whole_shape(change, shapes)) if shape]
    for shape in dict.fromkeys(wanted):
        if shape != base:
            yield f"'{tensor}' is {list(base)} in the base, {list(shape)} in the adapter"
    if change.magnitude and len(base) == 2:
        sizes = shapes[change.magnitude]
        if math.prod(sizes) != base[1 if change.embeds else 0]:
            yield f"'{change.magnitude}' is {list(sizes)} for a weight of {list(base)}"
    if change.delta:
        if shapes[change.delta] != (len(change.rows), *base[1:]):
            yield (
                f"'{change.delta}' is {list(shapes[change.delta])} for {len(change.rows)} rows of {list(base)}"
            )
        wrong = [row for row in change.rows if not 0 <= row < base[0]]
        if wrong:
            yield f"'{tensor}' has {base[0]} rows, and the adapter trains row {wrong[0]}"


def _whole_shape(change: Change, shapes: Shapes) -> Shape | None:
    return shapes[change.whole] if change.whole else None


def _rows(found: Mapping[str, Change], shapes: Shapes, have: int) -> int:
    ends = [found[name] for name in (EMBEDDING, HEAD) if name in found]
    own = [shape[0] for change in ends if (shape := _shape_of(change, shapes))]
    if own:
        return max(have, *own)
    last = max((row for change in ends for row in change.rows), default=-1)
    if last < have:
        return have
    multiple = next(m for m in (64, 8, 1) if have % m == 0)
    return -(-(last + 1) // multiple) * multiple


def _of_tied(lora: Lora, found: Mapping[str, Change], rows: int) -> Changes:
    """Return the changes where the base's head is its embedding: of one tensor, or of two from now on.

    It is as the model computes with the adapter on it. PEFT's `merge_and_unload` adds an update of one to
    both, or twice to both.
    """
    one, head = found.get(EMBEDDING), found.get(HEAD)
    others = {name: change for name, change in found.items() if name not in (EMBEDDING, HEAD)}
    if one is None and head is None:
        return Changes(found, rows, unties=False)
    alike = _shared(lora, one, head)
    if alike is not None:
        change = one or replace(head or Change(HEAD), source=EMBEDDING)
        return Changes(others | {EMBEDDING: change}, rows, unties=False, alike=alike)
    # What came as the weight below an adapter is the weight of both; what was trained whole is a copy.
    loaded = [
        c.whole for c in (one, head) if c and c.whole and not lora.is_whole(_module(c.source))
    ]
    start = Change(EMBEDDING, whole=loaded[0] if loaded else None)
    ends = {
        name: start if change is None else replace(change, source=EMBEDDING)
        for name, change in ((EMBEDDING, one), (HEAD, head))
    }
    ends = {n: c if c.whole else replace(c, whole=start.whole) for n, c in ends.items()}
    changed = {name: c for name, c in ends.items() if c != Change(EMBEDDING) or name == HEAD}
    return Changes(others | changed, rows, unties=True)


def _module(tensor: str) -> str:
    return tensor.removesuffix(".weight")


def _shared(
    lora: Lora, one: Change | None, head: Change | None
) -> tuple[tuple[str, str, bool], ...] | None:
    """Return what must be alike if embedding and head stay one tensor; None: they become two."""
    if one is not None and head is not None:
        return _both(lora, one, head)
    only = one or head
    if only is None or only.pair:
        return None
    if only.delta:
        return () if only is one else None
    copied = lora.is_whole(_module(only.source))
    return () if lora.keeps_tied or not copied else None


def _both(lora: Lora, one: Change, head: Change) -> tuple[tuple[str, str, bool], ...] | None:
    alike: list[tuple[str, str, bool]] = []
    if one.whole and head.whole:
        alike.append((one.whole, head.whole, False))
    if one.pair and head.pair:
        if not lora.keeps_tied or lora.use_dora or one.scale != head.scale:
            return None
        (a, b), (head_a, head_b) = one.pair, head.pair
        return (*alike, (a, head_b, True), (b, head_a, True))
    if one.delta and head.delta and one.rows == head.rows:
        return (*alike, (one.delta, head.delta, False))
    if one.pair or head.pair or one.delta or head.delta:
        return None
    copied = lora.is_whole(_module(EMBEDDING)) or lora.is_whole(_module(HEAD))
    return tuple(alike) if lora.keeps_tied or not copied else None
