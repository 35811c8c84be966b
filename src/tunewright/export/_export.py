"""The export stage: writes each type, proves it, and writes the Modelfile."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, ExportSection, QuantizationType
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.export._gguf import gguf_tokenizer, size_bytes, write_gguf
from tunewright.export._ollama import (
    ChatFormat,
    chat_format,
    compare_turns,
    create,
    write_modelfile,
)
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
from tunewright.export.architecture import Shape, shape_of
from tunewright.export.modelfile import GOLDEN_CHATS
from tunewright.machine import require_space
from tunewright.models._llama import endpoint
from tunewright.models._load import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, encode, messages_of

ROWS = 8
POSITIONS = 48
MAX_PREFIX = 512


@dataclass(frozen=True)
class Evidence:
    """What every file is held against.

    Attributes:
        tokenizer: The merged model's.
        texts: Hard texts.
        chats: Golden chats and held-out rows.
        format: What the Modelfile's template says.
        positions: Where the next token is compared.
    """

    tokenizer: PreTrainedTokenizerFast
    texts: Sequence[str]
    chats: Sequence[Sequence[Message]]
    format: ChatFormat
    positions: Sequence[Position]


def export_model(
    config: Config, merged: Artifact, dataset: Artifact, *, listener: Listener
) -> Artifact:
    """Return the exported artifact; see `tunewright.export.export`."""
    options, model = config.export, merged.path
    shape = _shape(model)
    tokenizer = load_tokenizer(model)
    packed = gguf_tokenizer(tokenizer, shape.vocabulary)
    target = Path(config.run_dir) / "exported"
    settings = settings_of(config, "exported")
    parents = {"merged": merged, "dataset": dataset}
    require_space(target, sum(size_bytes(model, shape, name) for name in options.quantization))
    with writing(target, "exported", settings=settings, parents=parents) as draft:
        served = f"{config.name}-{options.quantization[-1]}.gguf"
        chats = _told(chat_format(tokenizer), listener)
        write_modelfile(
            draft.path,
            served,
            found=chats,
            tokenizer=tokenizer,
            parameters={
                "temperature": options.temperature,
                "top_p": options.top_p,
                "num_ctx": min(options.num_ctx, shape.context_length),
            },
            system=options.system,
        )
        evidence = _evidence(model, tokenizer, chats, _held_out(dataset.path / "eval.jsonl"))
        files: dict[str, dict[str, Any]] = {}
        gates: list[dict[str, Any]] = []
        for type_name in dict.fromkeys(options.quantization):
            file = draft.path / f"{config.name}-{type_name}.gguf"
            listener.started(f"export {type_name}", None, "tensors")
            write_gguf(
                file,
                model=model,
                shape=shape,
                tokenizer=packed,
                type_name=type_name,
                advanced=listener.advanced,
            )
            listener.started(f"prove {type_name}", POSITIONS, "positions")
            facts, outcome = _proven(file, type_name, evidence, options=options, listener=listener)
            files[type_name] = facts
            gates += outcome
        _require_passed(gates)
        draft.facts.update(
            files=files,
            served=served,
            context_length=shape.context_length,
            ollama_template=chats.turns is not None,
            gates=gates,
        )
    exported = load_artifact(target, "exported")
    if options.ollama_create:
        create(exported.path, config.name.lower(), listener)
    return exported


def _shape(model: Path) -> Shape:
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise failure("E_MODEL", f"config.json cannot be used: {reason}", where=model) from error
    return shape_of(config.to_dict())


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
    with endpoint(file, ctx=longest + 8) as url:
        texts = compare_tokens(url, evidence.tokenizer, evidence.texts)
        chats = compare_chats(url, evidence.tokenizer, evidence.chats)
        turns = evidence.format.turns
        ollama = compare_turns(url, evidence.tokenizer, turns) if turns else None
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
        *([_equal(f"{type_name}: Ollama's template as in training", ollama)] if ollama else []),
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
    chats: ChatFormat,
    rows: Sequence[Sequence[Message]],
) -> Evidence:
    vocabulary = vocabulary_of(tokenizer)
    encoded = [encode(row, vocabulary).input_ids for row in rows]
    return Evidence(
        tokenizer=tokenizer,
        texts=hard_texts(tokenizer),
        chats=[*GOLDEN_CHATS, *rows],
        format=chats,
        positions=positions_of(model, encoded, count=POSITIONS, max_prefix=MAX_PREFIX),
    )


def _told(found: ChatFormat, listener: Listener) -> ChatFormat:
    """Say what Ollama will not do as in training."""
    if found.turns is None:
        listener.said(
            f"No Modelfile is written: Ollama's language cannot say the chat template ({found.reason}). "
            "`tunewright serve` uses the template itself."
        )
    elif found.peculiar:
        listener.said(f"Ollama will not write as in training: {'; '.join(found.peculiar)}.")
    return found
