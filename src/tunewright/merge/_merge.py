"""The merge stage: shard by shard, so that memory is a stretch of rows and not the model."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tunewright.artifacts import Artifact, Draft, load_artifact, sha256, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import Listener
from tunewright.machine import require_space
from tunewright.merge._logits import Agreement, FourBits, agreements, held_out_ids, memory_bytes
from tunewright.merge._proof import tensor_differences
from tunewright.merge._write import Work, work_of, write_weights
from tunewright.merge.choice import Candidate, Choice, choose
from tunewright.merge.portable import default_template, portable_config, portable_tokenizer
from tunewright.models._folders import resolve_model
from tunewright.models._room import require_ram
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models._weights import check_adapter, shapes_of
from tunewright.models.changes import EMBEDDING
from tunewright.models.lora import read_lora

CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def merge(
    config: Config,
    adapter: Artifact,
    dataset: Artifact,
    listener: Listener,
    checkpoints: Sequence[Candidate],
) -> Artifact:
    """Merge and prove; see the facade."""
    adapter = load_artifact(adapter.path, "adapter", verify=True)
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    _same_base(base, adapter)
    own = Candidate(adapter.facts["best_step"], adapter.facts["best_eval_loss"])
    choice = choose(config.merge.checkpoint, own, checkpoints, where=adapter.path.parent)
    listener.said(f"Merging the state of step {choice.candidate.step}: {choice.reason}")
    path = Path(config.run_dir) / "merged"
    require_space(path, sum(shard.stat().st_size for shard in base.glob("*.safetensors")))
    rows = dataset.path / "eval.jsonl"
    positions = sum(map(len, held_out_ids(rows, adapter.path, config.train.max_length)))
    require_ram(memory_bytes(base, positions), "The proof, which holds the model in 32 bits,", path)
    settings = settings_of(config, "merged")
    parents = {"adapter": adapter, "dataset": dataset}
    with writing(path, "merged", settings=settings, parents=parents) as draft:
        # Beside the merged folder's files, and gone before they are counted.
        weights = draft.path / ".adapter"
        folder = _adapter_of(choice, adapter.path, weights)
        work = merge_folder(base, folder, draft.path, listener, tokenizer=adapter.path)
        listener.started("merge: proof", None, "rows")
        found, moved = prove(base, folder, draft.path, rows, config, where=path)
        shutil.rmtree(weights, ignore_errors=True)
        _note(draft, config, (found, moved), choice, work)
        if moved:
            listener.said(in_words(moved))
    return load_artifact(path, "merged")


def merge_folder(
    base: Path, adapter: Path, out: Path, listener: Listener, *, tokenizer: Path | None = None
) -> Work:
    """Write the merged model of two folders into a third; return what has been done.

    Args:
        base: Folder of the base.
        adapter: Folder with the adapter's weights and settings.
        out: Where to; it is there.
        listener: Told how many bytes are written.
        tokenizer: Folder of the tokenizer that the training used; unset: the adapter's.

    Raises:
        TunewrightError: E_ARTIFACT_INVALID, for everything of the adapter that does not fit the base or that
            merging does not know. E_MODEL, the base is not in plain floats, or has too few rows for the
            tokenizer.
    """
    settings = _base_config(base)
    read_lora(adapter)
    check_adapter(adapter, shapes_of(base))
    work = work_of(base, adapter, tied=bool(settings.get("tie_word_embeddings")))
    _require_rows(work, [tokenizer or adapter, base])
    write_weights(work, out, listener)
    tied = bool(settings.get("tie_word_embeddings")) and not work.changes.unties
    rows = work.changes.rows or settings["vocab_size"]
    # Not every architecture calls its embedding so.
    typical = work.base.get(EMBEDDING, next(iter(work.base.values())))
    dtype = NAMES.get(typical.stored.dtype, "bfloat16")
    _write_json(out / CONFIG, portable_config(settings, vocab_size=rows, tied=tied, dtype=dtype))
    _carry([tokenizer or adapter, base], base, out)
    return work


def prove(
    base: Path,
    adapter: Path,
    merged: Path,
    rows: Path,
    config: Config,
    *,
    where: Path | None = None,
) -> tuple[Agreement, Agreement | None]:
    """Return how well the merged model agrees with base and adapter, and with them in 4 bits if so trained.

    Args:
        base: Folder of the base.
        adapter: Of the adapter.
        merged: Of the merged model.
        rows: Held-out rows.
        config: For limits and length.
        where: What errors call the merged model, if not its folder.

    Raises:
        TunewrightError: E_GATE_MERGE with every tensor that differs, or the figures.
    """
    wrong = tensor_differences(base, adapter, merged)
    if wrong:
        raise TunewrightError(
            Problem(
                "E_GATE_MERGE",
                f"'{name}' {reason}.",
                str(where or merged),
                "Merge again; if it fails again, serve the adapter unmerged: `tunewright serve RUN --what adapter`.",
            )
            for name, reason in wrong
        )
    options, limits = config.train, config.merge
    ids = held_out_ids(rows, merged, options.max_length)
    stored = FourBits(options.bnb_4bit_quant_type, options.bnb_4bit_use_double_quant)
    found, moved = agreements(base, adapter, merged, ids, stored if options.load_in_4bit else None)
    if not _agrees(found, config):
        raise failure(
            "E_GATE_MERGE",
            f"Mean KL {found.mean_kl:.2e} nats (limit {limits.max_mean_kl:.0e}), top-1 agreement "
            f"{found.top1_agreement:.2%} (limit {limits.min_top1_agreement:.0%}).",
            where=where or merged,
        )
    return found, moved


def in_words(moved: Agreement) -> str:
    """Return how far the merged model is from what was trained in 4 bits, as it is said."""
    return (
        "trained on a base in 4 bits, merged into the one in 16: against the former, mean KL "
        f"{moved.mean_kl:.1e} nats, the same most likely token at {moved.top1_agreement:.1%} of positions"
    )


def _adapter_of(choice: Choice, adapter: Path, scratch: Path) -> Path:
    """Return the folder of the adapter that is merged, written first where it is a checkpoint's."""
    if choice.candidate.write is None:
        return adapter
    scratch.mkdir()
    choice.candidate.write(scratch)
    return scratch


def _note(
    draft: Draft,
    config: Config,
    proof: tuple[Agreement, Agreement | None],
    choice: Choice,
    work: Work,
) -> None:
    """Fill in what the manifest says."""
    found, moved = proof
    changed = work.changes.tensors
    draft.facts |= asdict(found) | {
        "step": choice.candidate.step,
        "eval_loss": choice.candidate.eval_loss,
        "choice": {"asked": config.merge.checkpoint, "reason": choice.reason},
        "tensors_merged": len(changed),
        "tensors": sum(map(len, work.files.values())),
        "bytes": work.total_bytes,
        "rows": work.changes.rows,
        "unties": work.changes.unties,
        "from_4_bits": asdict(moved) if moved else None,
        "gates": _gates(found, len(changed), config),
    }


def _base_config(base: Path) -> dict[str, Any]:
    settings = json.loads((base / CONFIG).read_text(encoding="utf-8"))
    if settings.get("quantization_config"):
        raise failure(
            "E_MODEL",
            "The base is stored quantised, and rounding an update to that would lose most of it.",
            where=base / CONFIG,
            fix="Merge into the original model in 16 bits, of which this one was made.",
        )
    return settings


def _require_rows(work: Work, folders: Sequence[Path]) -> None:
    """Refuse a tokenizer that has ids for which the merged embedding has no row."""
    file = next((f / TOKENIZER for f in folders if (f / TOKENIZER).is_file()), None)
    if file is None:
        return
    highest = max(Tokenizer.from_file(str(file)).get_vocab().values(), default=-1)
    rows = work.changes.rows
    # An embedding of another name has no rows here: nothing of it is changed.
    if rows and highest >= rows:
        raise failure(
            "E_MODEL",
            f"The tokenizer has ids up to {highest}, the merged embedding has {rows} rows.",
            where=file,
            fix="Use the tokenizer that the adapter was trained with.",
        )


def _same_base(base: Path, adapter: Artifact) -> None:
    expected: dict[str, str] = adapter.facts["base_files"]
    problems = [
        Problem(
            "E_ARTIFACT_INVALID",
            "The base has changed since the adapter was trained on it.",
            str(base / name),
            "Restore the base, or train again.",
        )
        for name, digest in expected.items()
        # A commit's name stands among the files; they themselves are compared.
        if name != "revision" and (not (base / name).is_file() or sha256(base / name) != digest)
    ]
    if problems:
        raise TunewrightError(problems)


def _carry(folders: Sequence[Path], base: Path, out: Path) -> None:
    """Write tokenizer, template and generation settings; the tokenizer is the first folder's that has one."""
    folder = next((f for f in folders if (f / TOKENIZER).is_file()), None)
    if folder is not None:
        shutil.copyfile(folder / TOKENIZER, out / TOKENIZER)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        _write_json(out / SETTINGS, portable_tokenizer(settings))
        template = default_template(settings)
        if (folder / TEMPLATE).is_file():
            shutil.copyfile(folder / TEMPLATE, out / TEMPLATE)
        elif template is not None:
            (out / TEMPLATE).write_text(template, encoding="utf-8")
    _carry_generation(base, out)


def _carry_generation(base: Path, out: Path) -> None:
    """Copy how the base answers; the tokens that ended a turn in training end an answer, too."""
    settings: dict[str, Any] = {}
    if (base / GENERATION).is_file():
        settings = json.loads((base / GENERATION).read_text(encoding="utf-8"))
    known: Any = settings.get("eos_token_id")
    ends: set[int] = set(known if isinstance(known, list) else [] if known is None else [known])
    if (out / TEMPLATE).is_file():
        ends |= vocabulary_of(load_tokenizer(out)).ends
    if ends:
        settings["eos_token_id"] = sorted(ends) if len(ends) > 1 else min(ends)
    if settings:
        _write_json(out / GENERATION, settings)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _agrees(found: Agreement, config: Config) -> bool:
    """Tell whether the figures keep to the limits; a figure that is no number does not."""
    limits = config.merge
    return found.mean_kl <= limits.max_mean_kl and found.top1_agreement >= limits.min_top1_agreement


def _gates(found: Agreement, changed: int, config: Config) -> list[dict[str, Any]]:
    return [
        {
            "gate": "every merged tensor is what PEFT makes of the base",
            "value": f"{changed} changed, the rest identical",
            "limit": "one rounding",
            "passed": True,
        },
        {
            "gate": "merged computes what base with adapter computes",
            "value": f"mean KL {found.mean_kl:.1e} nats, top-1 {found.top1_agreement:.1%}",
            "limit": f"{config.merge.max_mean_kl:.0e}, {config.merge.min_top1_agreement:.0%}",
            "passed": _agrees(found, config),
        },
    ]
