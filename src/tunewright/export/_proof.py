"""The proof of a GGUF file: what it is held against, and the gates it must pass."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.errors import failure
from tunewright.export._ends import boundary_faults, named_otherwise
from tunewright.export._ollama import compare_turns
from tunewright.export._parity import (
    Comparison,
    Divergence,
    Position,
    compare_chats,
    compare_tokens,
    divergence,
    hard_texts,
    positions_of,
)
from tunewright.export._vocabulary import ends_of
from tunewright.export._weights import WeightProof, layout_of, prove_weights, stored_facts
from tunewright.export._writing import Way
from tunewright.export.modelfile import GOLDEN_CHATS, Turns
from tunewright.models._llama import endpoint
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, encode, messages_of

ROWS = 8
POSITIONS = 64
MAX_PREFIX = 512
Gate = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What every file is held against.

    Attributes:
        way: How the files are written; of a converter's, only what llama.cpp does with them is proven.
        tokenizer: The merged model's.
        texts: Hard texts.
        chats: Golden chats and held-out rows.
        positions: Where the next token is compared.
        turns: What Ollama's template says, or None.
    """

    way: Way
    tokenizer: PreTrainedTokenizerFast
    texts: Sequence[str]
    chats: Sequence[Sequence[Message]]
    positions: Sequence[Position]
    turns: Turns | None


@dataclass(frozen=True)
class Limits:
    """What a type may differ by.

    Attributes:
        mean_kl: Nats a token.
        max_kl: Nats.
        top1_agreement: Least share of positions with the same most likely token.
        perplexity_change: Share.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    perplexity_change: float


def gather_evidence(
    way: Way,
    tokenizer: PreTrainedTokenizerFast,
    held_out: Path,
    *,
    turns: Turns | None,
) -> Evidence:
    """Return what files made of a model are held against.

    Raises:
        TunewrightError: E_DATA_EMPTY, there are no held-out rows.
    """
    rows, vocabulary = _rows_of(held_out), vocabulary_of(tokenizer)
    encoded = [encode(row, vocabulary).input_ids for row in rows]
    return Evidence(
        way=way,
        tokenizer=tokenizer,
        texts=hard_texts(tokenizer),
        chats=[*GOLDEN_CHATS, *rows],
        positions=positions_of(way.model, encoded, count=POSITIONS, max_prefix=MAX_PREFIX),
        turns=turns,
    )


def prove(
    file: Path,
    type_name: str,
    evidence: Evidence,
    limits: Limits,
    advanced: Callable[[int], None],
) -> tuple[dict[str, Any], list[Gate]]:
    """Return the facts and the gates of a file."""
    way, layout = evidence.way, layout_of(file)
    longest = max(len(position.prefix) for position in evidence.positions)
    ends = (*vocabulary_of(evidence.tokenizer).ends, *ends_of(way.model))
    faults = named_otherwise(layout.metadata, evidence.tokenizer)
    with endpoint(file, ctx=longest + 8, exact=True) as url:
        texts = compare_tokens(url, way.reference, evidence.texts)
        chats = compare_chats(url, evidence.tokenizer, evidence.chats)
        turns = evidence.turns
        ollama = compare_turns(url, evidence.tokenizer, turns) if turns else None
        faults += boundary_faults(url, way.reference, ends)
        far = divergence(url, evidence.positions, advanced)
    gates = [
        _equal(f"{type_name}: token ids of hard texts", texts),
        _equal(f"{type_name}: chats as in training", chats),
        _special(f"{type_name}: special tokens", faults),
        *_close(type_name, far, limits),
    ]
    if ollama is not None:
        gates.insert(2, _equal(f"{type_name}: Ollama's template as in training", ollama))
    if way.ours is not None:
        weights = prove_weights(file, layout, way.model, way.ours[0])
        gates.insert(-4, _held(f"{type_name}: weights", weights))
    facts = {
        "file": file.name,
        "bytes": file.stat().st_size,
        **asdict(far),
        "texts": texts.compared,
        **stored_facts(layout, type_name),
    }
    return facts, gates


def _special(name: str, faults: Sequence[str]) -> Gate:
    value = "; ".join(faults) or "begin and end texts as in training"
    return {"gate": name, "value": value, "limit": "as in training", "passed": not faults}


def _held(name: str, found: WeightProof) -> Gate:
    right = found.tensors - len(found.faults)
    value = f"{max(right, 0)} of {found.tensors} tensors read back within rounding"
    if found.faults:
        value += f"; {'; '.join(found.faults[:3])}"
    return {"gate": name, "value": value, "limit": "all", "passed": not found.faults}


def _equal(name: str, found: Comparison) -> Gate:
    """Return the gate that all are equal, and that there are any."""
    value = f"{found.compared - len(found.differing)} of {found.compared} equal"
    if found.normalised:
        value += f" ({found.normalised} after Unicode normalisation, which llama.cpp leaves out)"
    if found.differing:
        value += f", first other: {found.differing[0][:60]!r}"
    passed = found.compared > 0 and not found.differing
    return {"gate": name, "value": value, "limit": "all equal", "passed": passed}


def _close(type_name: str, far: Divergence, limits: Limits) -> list[Gate]:
    """Return the gates on distributions; NaN passes none."""
    return [
        {
            "gate": f"{type_name}: mean KL against the merged model",
            "value": f"{far.mean_kl:.1e} nats at {far.positions} positions",
            "limit": f"at most {limits.mean_kl:.1e} nats",
            "passed": far.mean_kl <= limits.mean_kl,
        },
        {
            "gate": f"{type_name}: largest KL of a position",
            "value": f"{far.max_kl:.1e} nats",
            "limit": f"at most {limits.max_kl:.1e} nats",
            "passed": far.max_kl <= limits.max_kl,
        },
        {
            "gate": f"{type_name}: same most likely token",
            "value": f"{far.top1_agreement:.0%}",
            "limit": f"at least {limits.top1_agreement:.0%}",
            "passed": far.top1_agreement >= limits.top1_agreement,
        },
        {
            "gate": f"{type_name}: perplexity of held-out tokens",
            "value": f"{far.perplexity:.2f}, merged {far.merged_perplexity:.2f} "
            f"({far.perplexity_change:+.3%})",
            "limit": f"within {limits.perplexity_change:.2%}",
            "passed": abs(far.perplexity_change) <= limits.perplexity_change,
        },
    ]


def _rows_of(file: Path) -> list[list[Message]]:
    """Return a few conversations spread evenly over a dataset's file."""
    with file.open(encoding="utf-8") as stream:
        total = sum(1 for _ in stream)
    wanted = {index * total // min(ROWS, total) for index in range(min(ROWS, total))}
    if not total:
        raise failure("E_DATA_EMPTY", "There are no held-out rows to compare on.", where=file)
    with file.open(encoding="utf-8") as stream:
        rows: list[Mapping[str, Any]] = [
            json.loads(row) for n, row in enumerate(stream) if n in wanted
        ]
    return [messages_of(row) for row in rows]
