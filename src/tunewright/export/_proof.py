"""The proof of a GGUF file: what it is held against, and the gates it must pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.export._ends import boundary_faults, named_otherwise
from tunewright.export._ollama import compare_turns
from tunewright.export._parity import (
    Comparison,
    Divergence,
    Places,
    compare_chats,
    compare_tokens,
    divergence,
    hard_texts,
    places_of,
)
from tunewright.export._perplexity import Perplexity, ask
from tunewright.export._vocabulary import ends_of
from tunewright.export._weights import WeightProof, layout_of, prove_weights, stored_facts
from tunewright.export._writing import Way
from tunewright.export.modelfile import GOLDEN_CHATS, Turns
from tunewright.models._llama import endpoint
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, Vocabulary, encode_many, messages_of
from tunewright.models.tokens import Encoded

ROWS, MAX_ROWS = 8, 64
"""Held-out rows: as many as there are, and more where the answers of a few are short of the positions."""
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
        places: Where the next token is compared.
        turns: What Ollama's template says, or None.
    """

    way: Way
    tokenizer: PreTrainedTokenizerFast
    texts: Sequence[str]
    chats: Sequence[Sequence[Message]]
    places: Places
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
        TunewrightError: E_DATA_EMPTY, there are no held-out rows, or no answers in them.
    """
    rows, encoded = _material(held_out, vocabulary_of(tokenizer))
    places = places_of(way.model, encoded, count=POSITIONS, max_prefix=MAX_PREFIX)
    if not places.positions:
        message = "The held-out rows have no answers to compare on."
        raise failure("E_DATA_EMPTY", message, where=held_out)
    return Evidence(
        way=way,
        tokenizer=tokenizer,
        texts=hard_texts(tokenizer),
        chats=[*GOLDEN_CHATS, *rows],
        places=places,
        turns=turns,
    )


def prove(
    file: Path,
    type_name: str,
    evidence: Evidence,
    limits: Limits,
    listener: Listener,
) -> tuple[dict[str, Any], list[Gate]]:
    """Return the facts and the gates of a file."""
    way, layout, places = evidence.way, layout_of(file), evidence.places
    prefixes = (place.prefix for batch in (places.positions, *places.more) for place in batch)
    longest = max(len(prefix) for prefix in prefixes)
    ends = (*vocabulary_of(evidence.tokenizer).ends, *ends_of(way.model))
    faults = named_otherwise(layout.metadata, evidence.tokenizer)
    with endpoint(file, ctx=longest + 8, exact=True) as url:
        texts = compare_tokens(url, way.reference, evidence.texts)
        chats = compare_chats(url, evidence.tokenizer, evidence.chats)
        turns = evidence.turns
        ollama = compare_turns(url, evidence.tokenizer, turns) if turns else None
        faults += boundary_faults(url, way.reference, ends)
        listener.started(f"prove {type_name}", len(places.positions), "positions")
        far = divergence(url, places.positions, lambda done: listener.advanced(done, file.name))
        perplexity = far.perplexity
        for batch in places.more:
            if perplexity.is_clear_of(limits.perplexity_change):
                break
            listener.started(f"prove {type_name}: perplexity", len(batch), "tokens")
            perplexity += ask(url, batch, lambda done: listener.advanced(done, file.name))
    gates = [
        _equal(f"{type_name}: token ids of hard texts", texts),
        _equal(f"{type_name}: chats as in training", chats),
        _special(f"{type_name}: special tokens", faults),
        *_close(type_name, far, limits),
        _perplexity_gate(type_name, perplexity, limits.perplexity_change),
    ]
    if ollama is not None:
        gates.insert(2, _equal(f"{type_name}: Ollama's template as in training", ollama))
    if way.ours is not None:
        weights = prove_weights(file, layout, way.model, way.ours[0])
        gates.insert(-4, _held(f"{type_name}: weights", weights))
    facts = {
        "file": file.name,
        "bytes": file.stat().st_size,
        "mean_kl": far.mean_kl,
        "max_kl": far.max_kl,
        "top1_agreement": far.top1_agreement,
        "positions": far.positions,
        "perplexity": perplexity.gguf,
        "merged_perplexity": perplexity.merged,
        "perplexity_tokens": len(perplexity.log_qs),
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
    ]


def _perplexity_gate(type_name: str, found: Perplexity, limit: float) -> Gate:
    """Return the gate on the perplexity; NaN does not pass it."""
    low, high = found.interval
    return {
        "gate": f"{type_name}: perplexity of held-out tokens",
        "value": f"{found.gguf:.2f}, merged {found.merged:.2f} ({found.change:+.3%}, 95 % interval "
        f"{low:+.2%} to {high:+.2%}, at {len(found.log_qs)} tokens)",
        "limit": f"within {limit:.2%}",
        "passed": abs(found.change) <= limit,
    }


def _material(held_out: Path, vocabulary: Vocabulary) -> tuple[list[list[Message]], list[Encoded]]:
    """Return some held-out rows, and the same as tokens."""
    count = ROWS
    while True:
        rows = _rows_of(held_out, count)
        encoded = encode_many(rows, vocabulary)
        enough = sum(sum(row.mask) for row in encoded) >= POSITIONS
        if enough or len(rows) < count or count >= MAX_ROWS:
            return rows, encoded
        count *= 2


def _rows_of(file: Path, count: int) -> list[list[Message]]:
    """Return up to `count` conversations spread evenly over a dataset's file."""
    with file.open(encoding="utf-8") as stream:
        total = sum(1 for _ in stream)
    count = min(count, total)
    wanted = {index * total // count for index in range(count)}
    if not total:
        raise failure("E_DATA_EMPTY", "There are no held-out rows to compare on.", where=file)
    with file.open(encoding="utf-8") as stream:
        rows: list[Mapping[str, Any]] = [
            json.loads(row) for n, row in enumerate(stream) if n in wanted
        ]
    return [messages_of(row) for row in rows]
