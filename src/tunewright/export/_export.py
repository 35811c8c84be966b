"""The export stage: writes each type, proves it, and writes the Modelfile."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, ExportSection, QuantizationType
from tunewright.errors import CODES, Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.export._converter import TYPES as CONVERTED
from tunewright.export._gguf import Card
from tunewright.export._kquants import source_type, write_k_quant
from tunewright.export._ollama import ChatFormat, chat_format, create, write_modelfile
from tunewright.export._proof import Evidence, Gate, Limits, gather_evidence, prove
from tunewright.export._weights import uneven_matrices
from tunewright.export._writing import Way, bytes_of, way_of, write
from tunewright.machine import require_space
from tunewright.models._folders import TINY
from tunewright.models._llama import EndpointError
from tunewright.models._room import require_ram
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.gguf_types import BITS, K_QUANTS, block_of, missing_quantizer

REJECTED = "exported.rejected"
"""Folder beside `exported` for files that failed; the next export replaces it."""
_UNROUNDED = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class _Job:
    """What the files of an export have in common.

    Attributes:
        way: How they are written.
        name: Of the config; files are called by it.
        folder: Where they are written.
        listener: Is told of progress.
    """

    way: Way
    name: str
    folder: Path
    listener: Listener

    def file(self, type_name: str) -> Path:
        """Return the file of a type."""
        return self.folder / f"{self.name}-{type_name}.gguf"


def export_model(
    config: Config, merged: Artifact, dataset: Artifact, *, listener: Listener
) -> Artifact:
    """Return the exported artifact; see `tunewright.export.export`."""
    options, model = config.export, merged.path
    types = tuple(dict.fromkeys(options.quantization))
    missing = missing_quantizer(types)
    if missing:
        raise TunewrightError(missing)
    tokenizer = load_tokenizer(model)
    checkout = Path(options.llama_cpp) if options.llama_cpp else None
    card = Card(config.name, _hub_name(config.model.model_name_or_path))
    way = way_of(model, tokenizer, card, checkout)
    _require_types(way, types)
    for note in way.notes:
        listener.said(note)
    target = Path(config.run_dir) / "exported"
    rejected = target.with_name(REJECTED)
    settings = settings_of(config, "exported")
    parents = {"merged": merged, "dataset": dataset}
    _warn_of_fallback(model, types, listener)
    with writing(target, "exported", settings=settings, parents=parents) as draft:
        shutil.rmtree(rejected, ignore_errors=True)
        require_space(target, _bytes_needed(way, types))
        whole = bytes_of(way, "F32")
        require_ram(whole, "The proof, which holds the merged model in 32 bits,", target)
        job = _Job(way, config.name, draft.path, listener)
        served = job.file(options.quantization[-1]).name
        chats = _told(chat_format(tokenizer), listener)
        write_modelfile(
            draft.path,
            served,
            found=chats,
            tokenizer=tokenizer,
            parameters={
                "temperature": options.temperature,
                "top_p": options.top_p,
                "num_ctx": min(options.num_ctx, way.context_length),
            },
            system=options.system,
        )
        held_out = dataset.path / "eval.jsonl"
        evidence = gather_evidence(way, tokenizer, held_out, turns=chats.turns)
        _write_files(job, types)
        files, gates = _proven(job, types, evidence, options)
        _require_passed(gates, job, rejected)
        draft.facts.update(
            files=files,
            served=served,
            context_length=way.context_length,
            ollama_template=chats.turns is not None,
            gates=[gate for of_type in gates.values() for gate in of_type],
        )
    exported = load_artifact(target, "exported")
    if options.ollama_create:
        # A name space of ours: no model that the user has pulled is replaced.
        create(exported.path, f"tunewright/{config.name.lower()}", listener)
    return exported


def _hub_name(base: str) -> str | None:
    """Return the base's name if it is one of the Hub."""
    return None if base == TINY or Path(base).is_dir() else base


def _require_types(way: Way, types: Iterable[str]) -> None:
    """Refuse what the converter does not write, before any work.

    Raises:
        TunewrightError: E_CONFIG_VALUE.
    """
    other = [name for name in types if name not in CONVERTED and name not in K_QUANTS]
    if way.checkout is not None and other:
        raise failure(
            "E_CONFIG_VALUE",
            f"llama.cpp's converter does not write {', '.join(other)}.",
            where="export.quantization",
            fix=f"Ask for {', '.join(CONVERTED)}, or a K-quant.",
        )


def _warn_of_fallback(model: Path, types: Iterable[str], listener: Listener) -> None:
    """Say for which types llama.cpp takes another one in places, before anything is written."""
    told: set[int] = set()
    for name in types:
        block = block_of(name)
        uneven, matrices = uneven_matrices(model, name)
        if uneven and block not in told:
            told.add(block)
            listener.said(
                f"{name}: {uneven} of {matrices} matrices have rows that are no multiple of {block} values; "
                "those are stored as another, larger type."
            )


def _bytes_needed(way: Way, types: Sequence[str]) -> int:
    """Return what the files take, and the one that K-quants are made of where it is none of them."""
    whole = bytes_of(way, "F32")
    need = sum(
        whole * BITS[name] / BITS["F32"] if name in K_QUANTS else bytes_of(way, name)
        for name in types
    )
    if _needs_source(types):
        need += bytes_of(way, source_type(way.model))
    return int(need)


def _needs_source(types: Sequence[str]) -> bool:
    return any(name in K_QUANTS for name in types) and not set(types) & set(_UNROUNDED)


def _write_files(job: _Job, types: Sequence[str]) -> None:
    """Write a file for each type: those that are written here first, K-quants are made of one of them."""
    for name in types:
        if name not in K_QUANTS:
            _write(job, job.file(name), name)
    wanted = [name for name in types if name in K_QUANTS]
    if not wanted:
        return
    exact = source_type(job.way.model)
    there = [name for name in (exact, *_UNROUNDED) if name in types]
    source = job.file(there[0]) if there else job.folder / f"{job.name}.source.gguf"
    if not there:
        _write(job, source, exact)
    for number, name in enumerate(wanted, 1):
        job.listener.started(f"export {name}", len(wanted), "files")
        write_k_quant(source, job.file(name), name)
        job.listener.advanced(number, job.file(name).name)
    if not there:
        source.unlink()


def _write(job: _Job, file: Path, type_name: str) -> None:
    job.listener.started(f"export {type_name}", bytes_of(job.way, type_name), "bytes")
    write(job.way, file, type_name, job.listener.advanced)


def _proven(
    job: _Job, types: Sequence[QuantizationType], evidence: Evidence, options: ExportSection
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Gate]]]:
    """Return the facts and gates of each type."""
    files: dict[str, dict[str, Any]] = {}
    gates: dict[str, list[Gate]] = {}
    for name in types:
        file = job.file(name)
        limits = Limits(
            options.max_mean_kl[name],
            options.max_kl[name],
            options.min_top1_agreement[name],
            options.max_perplexity_change[name],
        )
        try:
            files[name], gates[name] = prove(file, name, evidence, limits, job.listener)
        except (EndpointError, TunewrightError) as error:
            reads = {"gate": f"{name}: llama.cpp reads the file", "value": str(error)}
            gates[name] = [{**reads, "limit": "read and computed", "passed": False}]
    return files, gates


def _require_passed(gates: Mapping[str, Sequence[Gate]], job: _Job, rejected: Path) -> None:
    """Put files that failed aside and refuse the export.

    Raises:
        TunewrightError: E_GATE_EXPORT, for each gate that failed.
    """
    failed = {
        name: found for name, of in gates.items() if (found := [g for g in of if not g["passed"]])
    }
    if not failed:
        return
    rejected.mkdir()
    problems: list[Problem] = []
    for type_name, of_type in failed.items():
        file = job.file(type_name)
        aside = rejected / f"{file.name}.rejected"
        file.rename(aside)
        problems += [
            Problem(
                "E_GATE_EXPORT",
                f"{gate['gate']}: {gate['value']}, must be {gate['limit']}.",
                str(aside),
                CODES["E_GATE_EXPORT"].fix,
            )
            for gate in of_type
        ]
    raise TunewrightError(problems)


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
