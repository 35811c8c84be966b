"""How much memory a training step takes, part by part. Pure arithmetic.

Everything here is a count of tensors, not a fit to measurements: parameters and optimizer states as they are
stored, and what autograd keeps of a decoder layer, read off the code of Transformers, PEFT and TRL and tested
against the tensors that are really saved.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tunewright.config.schema import Recomputed
from tunewright.models.families import EMBEDDING, HEAD, Shape
from tunewright.train.methods import FLOAT, Method

TILE_ROWS, TILE_WIDTH = 4096, 32768
"""Positions and vocabulary entries whose logits exist at once. Source: TRL's chunked log-probabilities."""
TILE_COPIES = 7
"""Float32 tensors of a tile's size that its backward holds without Triton; one of booleans beside them."""
WORKSPACE: Mapping[str, int] = {"cuda": 64 << 20, "mps": 64 << 20, "cpu": 16 << 20}
"""What libraries keep once they have computed: cuBLAS handles, oneDNN's and the allocator's buffers."""
HEAP_BLOCK = 32 << 20
"""Larger blocks come from the system and go back to it. Source: glibc's mallopt(3), M_MMAP_THRESHOLD."""
HELD_BACK = {False: (1.8, 0.45), True: (0.33, 0.48)}
"""What glibc's heap holds back, without and with recomputation: shares of the activations of all layers, and of
what the head has in smaller blocks.

With recomputation freed memory is given back twice a forward pass. Measured by benchmarks/memory_fit.py with glibc
2.36, not derived.
"""
HELD_BACK_16_BITS = 0.6
"""Share of that on weights in 16 bits. Measured in the same way."""
BLOCK_4BIT, BLOCK_SCALES = 64, 256
"""Weights that share a scale, and scales that share one. Source: Dettmers et al. 2023, "QLoRA", section 3."""
BLOCK_8BIT, SMALLEST_8BIT = 256, 4096
"""Elements that share a scale, and tensors below which states stay float32. Source: bitsandbytes' optimizers."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    Attributes:
        weights: The base.
        adapter: What is trained.
        gradients: Of what is trained.
        optimizer: Its states.
        activations: What the forward pass keeps for the backward pass.
        logits: The output head at work.
        workspace: What one layer takes beyond that in its backward pass, and what libraries keep.
        allocator: Freed memory that the C library holds back in pieces that do not fit what is asked for next.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    allocator: int

    @property
    def total(self) -> int:
        """Sum of all parts: the peak."""
        return sum(vars(self).values())


def training_memory(
    shape: Shape, method: Method, *, rows: int, length: int, checkpointing: Recomputed
) -> Memory:
    """Return the peak of a step over `rows` rows of `length` tokens, padding included.

    Source: without checkpointing the peak is in the backward pass of the head, when everything is kept; with it,
    it is there or in the layer that is being recomputed (Chen et al. 2016, "Training Deep Nets with Sublinear
    Memory Cost").
    """
    tokens = rows * length
    layer = layer_activations(shape, method, rows=rows, length=length)
    working = _layer_working(shape, method, rows=rows, length=length)
    ends = tokens * (FLOAT + method.width) * shape.hidden
    ends += 2 * length * shape.head * method.width + _mask(method, rows=rows, length=length)
    head = head_memory(shape, method, tokens=rows * (length - 1))
    if checkpointing:
        own = dear_outputs(shape, method, tokens=tokens) if checkpointing == "selective" else 0
        kept = ends + shape.layers * (tokens * method.width * shape.hidden + own)
        working += max(0, layer - own)
    else:
        kept = ends + shape.layers * layer - int(tokens * _spared(shape, method))
    trained = FLOAT * trainable_parameters(shape, method) // method.shards
    return Memory(
        weights=_held(shape, method),
        adapter=trained,
        gradients=trained,
        optimizer=optimizer_bytes(shape, method) // method.shards,
        activations=kept,
        logits=head,
        workspace=max(0, working - head) + WORKSPACE[method.device],
        allocator=_held_back(
            shape,
            method,
            tokens=rows * (length - 1),
            head=head,
            layer=layer,
            checkpointing=checkpointing,
        ),
    )


def _held(shape: Shape, method: Method) -> int:
    """Return the bytes of the weights that a process has at once: its share, and what it is computing with.

    Source: Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel"; the layer after
    the current one is gathered meanwhile.
    """
    total = weight_bytes(shape, method)
    if method.shards == 1:
        return total
    end = method.width * shape.vocabulary * shape.hidden
    layers = 2 * (total - end * (1 if shape.tied else 2)) // shape.layers
    return total // method.shards + max(end, layers)


def _held_back(
    shape: Shape, method: Method, *, tokens: int, head: int, layer: int, checkpointing: Recomputed
) -> int:
    """Return the bytes of freed memory that the C library's heap has at the peak, on a CPU."""
    if method.device != "cpu":
        return 0
    of_layers, of_head = HELD_BACK[bool(checkpointing)]
    in_heap = FLOAT * _tile(shape, tokens) < HEAP_BLOCK
    held = of_layers * shape.layers * layer + of_head * (head if in_heap else 0)
    return int(held if method.width == FLOAT else HELD_BACK_16_BITS * held)


def weight_bytes(shape: Shape, method: Method) -> int:
    """Return the bytes of the base's weights; norms, embedding, head and biases are never in 4 bits."""
    total = -method.width * shape.vocabulary * shape.hidden if shape.tied else 0
    for module in shape.modules:
        if method.load_in_4bit and module.is_layer_linear:
            total += bytes_4bit(module.elements, double_quant=method.double_quant)
            total += method.width * module.bias
        else:
            total += method.width * module.parameters
    return total


def bytes_4bit(elements: int, *, double_quant: bool) -> int:
    """Return the bytes of a matrix in 4 bits, with its scales and the table of the 16 values.

    With double quantisation a scale is a byte, 256 of them share a float, and each matrix has the offset of its
    scales and the table of the 256 values that they stand for.
    """
    blocks = math.ceil(elements / BLOCK_4BIT)
    nested = blocks + FLOAT * (math.ceil(blocks / BLOCK_SCALES) + 1 + 256)
    return (elements + 1) // 2 + FLOAT * 16 + (nested if double_quant else FLOAT * blocks)


def trained_tensors(shape: Shape, method: Method) -> list[tuple[int, ...]]:
    """Return the sizes of all tensors that are trained; they are float32 over any base."""
    whole = shape.saved_whole(method.whole)
    names = {module.name for module in whole}
    tensors: list[tuple[int, ...]] = []
    for module in shape.targeted(method.targets):
        outputs, inputs = module.weight
        tensors += [(method.r, inputs), (outputs, method.r)]
        tensors += [(outputs,)] if method.dora else []
    for module in whole:
        # A tied table that is trained stays one.
        if not (shape.tied and module.name == HEAD and EMBEDDING in names):
            tensors += [module.weight, *([(module.bias,)] if module.bias else [])]
    return tensors + _added(shape, method, names)


def _added(shape: Shape, method: Method, whole: set[str]) -> list[tuple[int, ...]]:
    """Return the rows that are trained of the tables that are not trained whole."""
    if not method.added_tokens or (shape.tied and whole & {EMBEDDING, HEAD}):
        return []
    tables = {EMBEDDING} if shape.tied else {EMBEDDING, HEAD}
    return [(method.added_tokens, shape.hidden)] * len(tables - whole)


def trainable_parameters(shape: Shape, method: Method) -> int:
    """Return the parameters that are trained."""
    return sum(map(math.prod, trained_tensors(shape, method)))


def optimizer_bytes(shape: Shape, method: Method) -> int:
    """Return the bytes of the optimizer's states.

    They are float32, as what is trained is. Source: Kingma and Ba 2014, "Adam" (two states); Dettmers et al. 2021,
    "8-bit Optimizers" (a byte a state, a float a block); Shazeer and Stern 2018, "Adafactor" (a row and a column).
    """
    tensors = trained_tensors(shape, method)
    lengths = [math.prod(tensor) for tensor in tensors]
    if method.optimizer == "sgd":
        return 0
    if method.optimizer == "adafactor":
        return FLOAT * sum(sum(tensor) for tensor in tensors)
    if method.optimizer in ("adamw_bnb_8bit", "paged_adamw_8bit"):
        return 2 * sum(map(_state_8bit, lengths))
    return 2 * FLOAT * sum(lengths)


def _state_8bit(elements: int) -> int:
    if elements < SMALLEST_8BIT:
        return FLOAT * elements
    return elements + FLOAT * math.ceil(elements / BLOCK_8BIT)


def _mask(method: Method, *, rows: int, length: int) -> int:
    """Return the bytes of the mask that rows of unequal length have: booleans, or numbers for eager attention."""
    if method.attention == "eager":
        return rows * length * length * method.width
    return rows * length * length if rows > 1 and method.attention == "sdpa" else 0


def layer_activations(shape: Shape, method: Method, *, rows: int, length: int) -> int:
    """Return the bytes that one layer keeps for its backward pass, with rows of unequal length if several.

    Kept are: what the norms read (in float32), what attention and the gated MLP multiply, what the adapters read
    and their inner products. A frozen linear keeps nothing.
    """
    tokens, width = rows * length, method.width
    norms = FLOAT * (2 * shape.hidden + 2)
    if shape.head_norms:
        norms += FLOAT * (1 + 1 / shape.head) * (shape.query + shape.key_value)
    gated = 3 * width * shape.intermediate
    attention = _attention_kept(shape, method, rows=rows, length=length)
    return int(tokens * (norms + gated + _adapters_kept(shape, method)) + attention)


def dear_outputs(shape: Shape, method: Method, *, tokens: int) -> int:
    """Return the bytes that one layer keeps where only the rest is recomputed: see `accel._recompute`.

    They are the outputs of its linears, of the adapters' way down, and of attention.
    """
    width, sizes = method.width, shape.linear_sizes()
    each: float = sum(width * outputs for _, outputs in sizes.values())
    each += sum(FLOAT * method.r * _share(shape, method, name) for name in sizes)
    if method.attention == "sdpa":
        each += width * shape.query + FLOAT * shape.query // shape.head
    return int(tokens * each)


def _attention_kept(shape: Shape, method: Method, *, rows: int, length: int) -> float:
    """Return the bytes attention keeps: with a mask, keys and values are repeated for all query heads.

    The mask, one a row, is kept as numbers by each layer; rows of equal length need none.
    Source: Transformers' `sdpa_attention_forward`, PyTorch's `scaled_dot_product_attention`.
    """
    tokens, width, heads = rows * length, method.width, shape.query // shape.head
    several = rows > 1 and method.attention != "flash_attention_2"
    keys = shape.query if several or method.attention == "eager" else shape.key_value
    kept = tokens * width * (2 * shape.query + 2 * keys)
    if method.attention == "eager":
        probabilities = FLOAT + (width if width != FLOAT else 0)
        return kept + tokens * probabilities * heads * length
    return kept + tokens * FLOAT * heads + (tokens * width * length if several else 0)


def _adapters_kept(shape: Shape, method: Method) -> float:
    """Return the bytes a token that the adapters of one layer keep.

    Adapters that read the same tensor share it, unless each casts or drops out its own copy.
    """
    sizes = shape.linear_sizes()
    share = {name: _share(shape, method, name) for name in sizes}
    copied = method.width != FLOAT and not method.fused
    own, mask = method.dropout or copied, _dropout_mask(method)
    total = 0.0
    for name, (inputs, outputs) in sizes.items():
        each = FLOAT * method.r + (FLOAT * inputs if own else 0) + mask * inputs
        each += 2 * FLOAT * outputs if method.dora else 0
        total += share[name] * each
    if not own:
        # What o_proj reads is the output of attention, which is kept anyway.
        shared = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",))
        each = [sizes[names[0]][0] * max(share[n] for n in names) for names in shared]
        total += method.width * sum(each)
    return total


def _dropout_mask(method: Method) -> int:
    """Return the bytes of dropout's mask for each input: booleans on CUDA, numbers elsewhere."""
    if not method.dropout:
        return 0
    return 1 if method.device == "cuda" else FLOAT


def _spared(shape: Shape, method: Method) -> float:
    """Return the bytes a token that the first layer does not keep: the embedding it reads needs no gradient."""
    masks = sum(_share(shape, method, name) for name in ("q_proj", "k_proj", "v_proj"))
    return shape.hidden * (FLOAT + masks * _dropout_mask(method))


def _share(shape: Shape, method: Method, name: str) -> float:
    """Return in which share of the layers the linear of that name has an adapter."""
    found = [m for m in shape.targeted(method.targets) if m.name.endswith(f".{name}")]
    return len(found) / shape.layers


def _layer_working(shape: Shape, method: Method, *, rows: int, length: int) -> int:
    """Return the bytes that come and go in a layer's backward pass.

    The widest point is the MLP's: the gradient of its product through the base and through the adapter, and their
    sum, less the product itself; beside it a 4-bit weight unpacked, or DoRA's norm of a weight.
    """
    tokens, width = rows * length, method.width
    total = tokens * ((width + FLOAT) * shape.intermediate + (width + FLOAT) * shape.hidden)
    if method.attention == "eager":
        # The gradients of the probabilities come when what the MLP kept is gone.
        scores = 2 * FLOAT * length * (shape.query // shape.head)
        total = max(total, tokens * (scores - 3 * width * shape.intermediate))
    largest = max(a * b for a, b in shape.linear_sizes().values())
    if method.load_in_4bit:
        total += width * largest
    if method.dora and method.targets:
        widest = max(inputs for inputs, _ in shape.linear_sizes().values())
        total = max(total, FLOAT * (widest**2 + 3 * largest))
    return total


def head_memory(shape: Shape, method: Method, *, tokens: int) -> int:
    """Return the bytes of the output head in its backward pass over `tokens` positions.

    TRL makes the logits tile by tile and makes them again in the backward pass: on CUDA in place, with Triton's
    kernels, elsewhere with copies of the tile. The gradient of the hidden states is float32.
    """
    hidden = tokens * FLOAT * shape.hidden
    table = shape.vocabulary * shape.hidden
    trained = FLOAT * table if _trains_head(shape, method) else 0
    # Added tokens are set into a copy of each table.
    trained += (1 if shape.tied else 2) * method.width * table if method.added_tokens else 0
    if method.device == "cuda":
        return hidden + trained + min(tokens, TILE_ROWS) * TILE_WIDTH * method.width
    return hidden + trained + _tile(shape, tokens) * (method.width + TILE_COPIES * FLOAT + 1)


def _tile(shape: Shape, tokens: int) -> int:
    """Return how many logits exist at once without Triton."""
    return min(tokens, TILE_ROWS) * min(shape.vocabulary, TILE_WIDTH)


def _trains_head(shape: Shape, method: Method) -> bool:
    return any(module.name == HEAD for module in shape.saved_whole(method.whole))
