"""The export stage: writes each type, proves it, and writes the Modelfile."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, ExportSection, QuantizationType
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.export._ends import boundary_faults
from tunewright.export._gguf import Card
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
from tunewright.export._writing import bytes_of, way_of, write
from tunewright.export.modelfile import GOLDEN_CHATS, Turns, modelfile, turns_of
from tunewright.machine import require_space
from tunewright.models._llama import endpoint
from tunewright.models._load import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, encode, messages_of, render

ROWS = 8
POSITIONS = 48
MAX_PREFIX = 512


@dataclass(frozen=True)
class Evidence:
    """What every file is held against.

    Attributes:
        tokenizer: The merged model's.
        reference: Cuts texts as llama.cpp shall.
        ends: Tokens that end an answer beside eos.
        texts: Hard texts.
        chats: Golden chats and held-out rows.
        positions: Where the next token is compared.
    """

    tokenizer: PreTrainedTokenizerFast
    reference: PreTrainedTokenizerFast
    ends: Sequence[int]
    texts: Sequence[str]
    chats: Sequence[Sequence[Message]]
    positions: Sequence[Position]


def export_model(
    config: Config, merged: Artifact, dataset: Artifact, *, listener: Listener
) -> Artifact:
    """Return the exported artifact; see `tunewright.export.export`."""
    options, model = config.export, merged.path
    tokenizer = load_tokenizer(model)
    checkout = Path(options.llama_cpp) if options.llama_cpp else None
    card = Card(config.name, config.model.model_name_or_path)
    way = way_of(model, tokenizer, card, checkout)
    for note in way.notes:
        listener.said(note)
    target = Path(config.run_dir) / "exported"
    settings = settings_of(config, "exported")
    parents = {"merged": merged, "dataset": dataset}
    sizes = {name: bytes_of(way, name) for name in options.quantization}
    require_space(target, sum(sizes.values()))
    with writing(target, "exported", settings=settings, parents=parents) as draft:
        turns = _chat_format(tokenizer, listener)
        served = f"{config.name}-{options.quantization[-1]}.gguf"
        text = _modelfile(served, turns, tokenizer, options, way.context_length)
        (draft.path / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
        evidence = _evidence(
            model, tokenizer, way.reference, _held_out(dataset.path / "eval.jsonl")
        )
        files: dict[str, dict[str, Any]] = {}
        gates: list[dict[str, Any]] = []
        for type_name in dict.fromkeys(options.quantization):
            file = draft.path / f"{config.name}-{type_name}.gguf"
            listener.started(f"export {type_name}", sizes[type_name], "bytes")
            write(way, file, type_name, listener.advanced)
            listener.started(f"prove {type_name}", POSITIONS, "positions")
            facts, outcome = _proven(file, type_name, evidence, options=options, listener=listener)
            files[type_name] = facts
            gates += outcome
        _require_passed(gates)
        draft.facts.update(
            files=files,
            served=served,
            context_length=way.context_length,
            ollama_template=turns is not None,
            gates=gates,
        )
    return load_artifact(target, "exported")


def _proven(
    file: Path,
    type_name: QuantizationType,
    evidence: Evidence,
    *,
    options: ExportSection,
    listener: Listener,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the facts and gates of one file."""
    longest = max(len(position.prefix) for position in evidence.positions)
    with endpoint(file, ctx=longest + 8, exact=True) as url:
        texts = compare_tokens(url, evidence.reference, evidence.texts)
        faults = boundary_faults(url, evidence.reference, evidence.ends)
        chats = compare_chats(url, evidence.tokenizer, evidence.chats)
        far = divergence(url, evidence.positions, lambda done: listener.advanced(done, file.name))
    facts = {
        "file": file.name,
        "bytes": file.stat().st_size,
        **asdict(far),
        "texts": texts.compared,
    }
    return facts, [
        _equal(f"{type_name}: token ids of hard texts", texts),
        _equal(f"{type_name}: chats as in training", chats),
        {
            "gate": f"{type_name}: begins and ends as in training",
            "value": "; ".join(faults) or "as the tokenizer does",
            "limit": "as the tokenizer does",
            "passed": not faults,
        },
        *_close(type_name, far, options),
    ]


def _equal(name: str, found: Comparison) -> dict[str, Any]:
    """Return the gate that all are equal, and that there are any."""
    value = f"{found.compared - len(found.differing)} of {found.compared} equal"
    if found.normalised:
        value += f" ({found.normalised} after Unicode normalisation, which llama.cpp leaves out)"
    if found.differing:
        value += f", first other: {found.differing[0][:60]!r}"
    passed = found.compared > 0 and not found.differing
    return {"gate": name, "value": value, "limit": "all equal", "passed": passed}


def _close(
    type_name: QuantizationType, far: Divergence, options: ExportSection
) -> list[dict[str, Any]]:
    """Return the two gates on distributions; NaN passes neither."""
    limit, share = options.max_mean_kl[type_name], options.min_top1_agreement
    return [
        {
            "gate": f"{type_name}: mean KL against the merged model",
            "value": f"{far.mean_kl:.1e} nats at {far.positions} positions",
            "limit": f"at most {limit:.1e} nats",
            "passed": far.mean_kl <= limit,
        },
        {
            "gate": f"{type_name}: same most likely token",
            "value": f"{far.top1_agreement:.0%}",
            "limit": f"at least {share:.0%}",
            "passed": far.top1_agreement >= share,
        },
    ]


def _require_passed(gates: Sequence[Mapping[str, Any]]) -> None:
    failed = [gate for gate in gates if not gate["passed"]]
    if failed:
        raise TunewrightError(
            Problem(
                "E_GATE_EXPORT",
                f"{gate['gate']}: {gate['value']}, must be {gate['limit']}.",
                "exported",
                "Look at the figures; a larger type passes where a smaller one fails.",
            )
            for gate in failed
        )


def _held_out(file: Path) -> list[list[Message]]:
    """Return a few conversations spread evenly over a dataset's file."""
    with file.open(encoding="utf-8") as stream:
        total = sum(1 for _ in stream)
    wanted = {index * total // min(ROWS, total) for index in range(min(ROWS, total))}
    if not total:
        raise failure("E_DATA_EMPTY", "There are no held-out rows to compare on.", where=file)
    with file.open(encoding="utf-8") as stream:
        return [messages_of(json.loads(row)) for n, row in enumerate(stream) if n in wanted]


def _evidence(
    model: Path,
    tokenizer: PreTrainedTokenizerFast,
    reference: PreTrainedTokenizerFast,
    rows: Sequence[Sequence[Message]],
) -> Evidence:
    vocabulary = vocabulary_of(tokenizer)
    encoded = [encode(row, vocabulary).input_ids for row in rows]
    return Evidence(
        tokenizer=tokenizer,
        reference=reference,
        ends=ends_of(model),
        texts=hard_texts(tokenizer),
        chats=[*GOLDEN_CHATS, *rows],
        positions=positions_of(model, encoded, count=POSITIONS, max_prefix=MAX_PREFIX),
    )


def _chat_format(tokenizer: PreTrainedTokenizerFast, listener: Listener) -> Turns | None:
    vocabulary = vocabulary_of(tokenizer)

    def written(messages: Sequence[Message], question: bool) -> str:  # noqa: FBT001 - Render
        text = render(messages, vocabulary, add_generation_prompt=question)
        return text.removeprefix(vocabulary.bos_token)

    turns = turns_of(written)
    if turns is None:
        listener.said(
            "The Modelfile has no TEMPLATE: the chat template does more than Ollama's language says. "
            "Ollama takes the GGUF's own where it knows it; compare an answer before you rely on it."
        )
    return turns


def _modelfile(
    served: str,
    turns: Turns | None,
    tokenizer: PreTrainedTokenizerFast,
    options: ExportSection,
    context_length: int,
) -> str:
    vocabulary = vocabulary_of(tokenizer)
    return modelfile(
        served,
        turns=turns,
        stop=[text for text, token in vocabulary.special.items() if token in vocabulary.ends],
        parameters={
            "temperature": options.temperature,
            "top_p": options.top_p,
            "num_ctx": min(options.num_ctx, context_length),
        },
        system=options.system,
    )
