"""The plan stage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import PreTrainedTokenizerFast

from tunewright import accel
from tunewright.accel import Choice
from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, TrainSection
from tunewright.counting import counted
from tunewright.errors import CODES, Problem, TunewrightError
from tunewright.events import Listener, in_words
from tunewright.machine import disk_space, process_count
from tunewright.models._folders import TINY, resolve_model
from tunewright.models._room import device, memory_free, ram_free
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.families import Shape, read_shape
from tunewright.models.gguf_types import missing_quantizer
from tunewright.models.lengths import Fitted, excess
from tunewright.models.tokens import runs_of
from tunewright.train._choices import choose
from tunewright.train._rows import as_token_rows, fitted_rows, read_side
from tunewright.train._speed import checkpointing_of, method_for, rows_in_memory
from tunewright.train._trial import Trial, run_trial
from tunewright.train.fit import largest_batch
from tunewright.train.memory import trainable_parameters, training_memory
from tunewright.train.methods import BYTES, Method, method_of
from tunewright.train.needs import disk_need, ram_need
from tunewright.train.refusals import (
    Place,
    megabytes,
    problems_of,
    settings_problems,
    still_needed,
)
from tunewright.train.timing import Work, seconds

FEW_ROWS, FEW_HELD_OUT = 50, 10
SAMPLES = 3
Rows = Sequence[Mapping[str, Any]]


def plan(config: Config, dataset: Artifact, listener: Listener, *, load_model: bool) -> Artifact:
    """Make the plan; see the facade."""
    options, where = config.train, device()
    base = base_of(config, where)
    tokenizer = load_tokenizer(base, config.model.chat_template, config.model.extra_special_tokens)
    shape = read_shape(base)
    problems = [
        *wrong(config, shape, tokenizer, where),
        *missing_quantizer(config.export.quantization),
    ]
    shape = shape.grown(1 + max(tokenizer.get_vocab().values()))
    try:
        fitted, rows = _rows(dataset, tokenizer, options)
        choices = choose(config, shape, rows["train"], where)
    except TunewrightError as error:
        raise TunewrightError([*problems, *error.problems]) from error
    if problems:
        raise TunewrightError(problems)
    steps = total_steps(len(rows["train"]), options)
    count = len(rows["train"])
    expected = expectation(count, len(rows["eval"]), steps / _an_epoch(count, options))
    method = method_for(
        config,
        dtype=choices["dtype"].value,
        device=where,
        attention=choices["attn_implementation"].value,
    )
    trial = (
        run_trial(config, choices, tokenizer, rows["train"], device=where) if load_model else None
    )
    facts = (
        {
            "device": where,
            "model": config.model.model_name_or_path,
            "base_parameters": shape.parameters(),
            "trainable_parameters": trainable_parameters(shape, method),
            "steps": steps,
            **_course(config, steps, count),
            "choices": [asdict(choice) for choice in choices.values()],
        }
        | _data(rows, fitted)
        | _sizes(config, shape, method, choices, rows)
        | _time(shape, method, choices, rows, options, trial)
        | {"samples": _samples(fitted, tokenizer, dataset.path / "train.jsonl"), "expect": expected}
    )
    facts["gates"] = _gates(config, facts)
    _tell(listener, facts)
    path, settings = Path(config.run_dir) / "plan", settings_of(config, "plan")
    with writing(path, "plan", settings=settings, parents={"dataset": dataset}) as draft:
        draft.facts |= facts
    return load_artifact(path, "plan")


def base_of(config: Config, where: str) -> Path:
    """Return the folder of the base; of one that is on the Hub no weights are fetched.

    Raises:
        TunewrightError: What `resolve_model` refuses, with what is wrong whatever the base is.
    """
    name = config.model.model_name_or_path
    here = name == TINY or Path(name).is_dir()
    try:
        return resolve_model(name, config.model.revision, weights=here)
    except TunewrightError as error:
        others = settings_problems(config.train, _place(where))
        raise TunewrightError([*error.problems, *others]) from error


def wrong(
    config: Config, shape: Shape, tokenizer: PreTrainedTokenizerFast, where: str
) -> list[Problem]:
    """Return everything for which a run cannot end well.

    Args:
        config: What is asked for.
        shape: The base, as it came.
        tokenizer: With the added tokens.
        where: Kind of device.
    """
    added = config.model.extra_special_tokens
    highest = max(index for token, index in tokenizer.get_vocab().items() if token not in added)
    method = method_of(config.train, dtype="float32", device=where, added_tokens=len(added))
    need = still_needed(disk_need(config, shape, method), Path(config.run_dir))
    return [
        *problems_of(config, shape, highest, _place(where, need.total)),
        *_download(config, shape),
    ]


def refuse(config: Config, shape: Shape, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    """Refuse a run that cannot end well; takes what `wrong` takes.

    Raises:
        TunewrightError: Everything that is wrong, at once.
    """
    problems = wrong(config, shape, tokenizer, where)
    if problems:
        raise TunewrightError(problems)


def _rows(
    dataset: Artifact, tokenizer: PreTrainedTokenizerFast, options: TrainSection
) -> tuple[list[Fitted], dict[str, Rows]]:
    """Return the rows to train on with what the limit costs them, and the token rows of both sides."""
    limits = {"train": options.max_train_samples, "eval": options.max_eval_samples}
    fitted = {
        side: fitted_rows(read_side(dataset.path / f"{side}.jsonl", n), tokenizer, options)
        for side, n in limits.items()
    }
    rows: dict[str, Rows] = {side: as_token_rows(found) for side, found in fitted.items()}
    require_rows(rows, dataset.path)
    return fitted["train"], rows


def require_rows(sides: Mapping[str, Rows], folder: Path) -> None:
    """Refuse a dataset of which no row is left to train on, or none to evaluate.

    Args:
        sides: Token rows of `train` and `eval`.
        folder: Of the dataset.

    Raises:
        TunewrightError: E_NOTHING_TO_LEARN for each such side.
    """
    code, names = "E_NOTHING_TO_LEARN", {"train": "row to train on", "eval": "held-out row"}
    problems = [
        Problem(
            code, f"No {name} has an answer left.", str(folder / f"{side}.jsonl"), CODES[code].fix
        )
        for side, name in names.items()
        if not sides[side]
    ]
    if problems:
        raise TunewrightError(problems)


def _place(where: str, disk_bytes: int = 0) -> Place:
    has = where != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return Place(where, has_bfloat16=has, disk_bytes=disk_bytes)


def _download(config: Config, shape: Shape) -> list[Problem]:
    """Return a problem if the weights of a base on the Hub would not fit where they are kept."""
    name = config.model.model_name_or_path
    if name == TINY or Path(name).is_dir():
        return []
    cache = Path(constants.HF_HUB_CACHE)
    folder = cache / f"models--{name.replace('/', '--')}"
    here = sum(f.stat().st_size for f in folder.glob("blobs/*") if f.is_file())
    missing = shape.parameters() * BYTES.get(shape.dtype, 2) - here
    space = disk_space(cache)
    if missing <= space.free_bytes:
        return []
    more, free = megabytes(missing, space.free_bytes)
    message = f"The base takes {more} MB more, and {free} MB are free."
    fix = "Free space, or set HF_HOME to a folder on a larger disk."
    return [Problem("E_DISK_SPACE", message, str(space.path), fix)]


def total_steps(rows: int, options: TrainSection) -> int:
    """Return the optimizer steps of a run over `rows` rows, all processes together."""
    return options.max_steps or math.ceil(_an_epoch(rows, options) * options.num_train_epochs)


def _an_epoch(rows: int, options: TrainSection) -> int:
    step = options.per_device_train_batch_size * options.gradient_accumulation_steps
    return max(1, math.ceil(rows / (step * process_count())))


def eval_interval(steps: int, rows: int, options: TrainSection) -> int:
    """Return the steps between evaluations: as asked, or a twentieth of the run, at most an epoch."""
    if options.eval_steps:
        return min(options.eval_steps, steps)
    return max(1, min(math.ceil(steps / 20), _an_epoch(rows, options)))


def expectation(rows: int, held_out: int, epochs: float) -> str | None:
    """Return what to expect of little data, in words; None where there is enough."""
    texts: list[str] = []
    if rows < FEW_ROWS:
        texts.append(
            f"With {rows} row{'s' * (rows != 1)} and {epochs:.3g} epoch{'s' * (epochs != 1)} the model learns the answers by "
            "heart rather than the way they are written: good for seeing how it works; for use, 50 rows "
            "and more."
        )
    if held_out < FEW_HELD_OUT:
        texts.append(
            f"The held-out loss is that of {held_out} row{'s' * (held_out != 1)}, so it says little: it may "
            "rise while the model still improves, and training then stops early."
        )
    return " ".join(texts) or None


def _course(config: Config, steps: int, rows: int) -> dict[str, Any]:
    interval = eval_interval(steps, rows, config.train)
    return {
        "eval_steps": interval,
        "save_steps": min(config.train.save_steps or interval, steps),
    }


def _data(rows: Mapping[str, Rows], fitted: Sequence[Fitted]) -> dict[str, Any]:
    cost = excess(fitted)
    return {
        "rows": len(rows["train"]),
        "held_out_rows": len(rows["eval"]),
        "longest_row": max(_lengths(rows["train"])),
        "tokens_an_epoch": cost.tokens,
        "trained_tokens_an_epoch": cost.trained_tokens,
        "rows_cut": cost.rows_too_long,
        "rows_dropped": cost.rows_unlearned,
        "tokens_lost": cost.tokens_lost,
    }


def _lengths(rows: Rows) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


def _sizes(
    config: Config,
    shape: Shape,
    method: Method,
    choices: Mapping[str, Choice],
    rows: Mapping[str, Rows],
) -> dict[str, Any]:
    options = config.train
    longest, free = max(_lengths(rows["train"])), memory_free(method.device)
    checkpointing = checkpointing_of(choices)
    rows_a_pass = rows_in_memory(choices, longest)
    memory = training_memory(
        shape, method, rows=rows_a_pass, length=longest, checkpointing=checkpointing
    )
    largest = None
    if free is not None:
        step = options.per_device_train_batch_size * options.gradient_accumulation_steps
        largest = largest_batch(
            shape,
            method,
            step=step,
            longest=longest,
            memory_free=free,
            checkpointing=checkpointing,
        )
    disk = disk_need(config, shape, method)
    return {
        "memory_bytes": asdict(memory) | {"total": memory.total},
        "memory_free_bytes": free,
        "largest_micro_batch": largest,
        "disk_bytes": asdict(disk) | {"total": disk.total},
        "disk_left_bytes": still_needed(disk, Path(config.run_dir)).total,
        "ram_bytes": asdict(ram_need(config, shape, sum(_lengths(rows["eval"])))),
        "ram_free_bytes": ram_free(),
    }


def _time(
    shape: Shape,
    method: Method,
    choices: Mapping[str, Choice],
    rows: Mapping[str, Rows],
    options: TrainSection,
    trial: Trial | None,
) -> dict[str, Any]:
    speed = accel.measure_speeds(method.device).of(method.dtype)
    work = work_of(rows, options, micro=int(choices["per_device_train_batch_size"].value))
    checkpointing = checkpointing_of(choices)
    estimate = seconds(shape, method, work, checkpointing=checkpointing, gigaflops=speed)
    facts: dict[str, Any] = {
        "seconds": round(estimate / float(choices["predicted_gain"].value), 1),
        "seconds_from": f"{speed:,.0f} GFLOP/s measured in {method.dtype} on {method.device}",
    }
    if trial is not None:
        # A forward pass is a third of a forward and a backward one.
        measured = trial.seconds / trial.tokens * (work.tokens + work.eval_tokens / 3)
        facts |= {"measured": asdict(trial), "seconds": round(measured, 1)}
        facts["seconds_from"] = f"a step of {trial.tokens:,} tokens in {trial.seconds:.2f} s"
    return facts


def work_of(rows: Mapping[str, Rows], options: TrainSection, *, micro: int) -> Work:
    """Return what a training passes through the model, its evaluations included."""
    count = len(rows["train"])
    steps = total_steps(count, options)
    epochs = steps / _an_epoch(count, options)
    lengths, held = sorted(_lengths(rows["train"])), sorted(_lengths(rows["eval"]))
    evaluations = 1 + math.ceil(steps / eval_interval(steps, count, options))
    at_once = options.per_device_eval_batch_size or micro
    return Work(
        tokens=int(epochs * sum(lengths)),
        length=sum(length**2 for length in lengths) / sum(lengths),
        passes=math.ceil(epochs * math.ceil(count / micro)),
        steps=steps,
        eval_tokens=evaluations * sum(held),
        eval_passes=evaluations * math.ceil(len(held) / at_once),
    )


def _samples(
    fitted: Sequence[Fitted], tokenizer: PreTrainedTokenizerFast, file: Path
) -> list[dict[str, Any]]:
    """Return the first, the middle and the last row as they are trained on, in runs of text."""
    numbers = [number for number, row in enumerate(fitted) if row.rows]
    chosen = dict.fromkeys((numbers[0], numbers[len(numbers) // 2], numbers[-1]))
    return [
        {
            "where": f"{file.name}:{number + 1}",
            "tokens_lost": fitted[number].tokens_lost if fitted[number].too_long else 0,
            "runs": [
                {"text": text, "learned": learned, "piece": piece}
                for piece, encoded in enumerate(fitted[number].rows)
                for text, learned in runs_of(encoded, lambda ids: str(tokenizer.decode(ids)))
            ],
        }
        for number in chosen
    ]


def _gates(config: Config, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    free = disk_space(Path(config.run_dir)).free_bytes
    gates = [
        {
            "gate": "the disk holds run, merged model and exports",
            "value": f"{facts['disk_left_bytes'] / 1e6:,.0f} MB needed",
            "limit": f"{free / 1e6:,.0f} MB free",
            "passed": True,
        }
    ]
    if facts["memory_free_bytes"] is not None:
        gates.append(
            {
                "gate": f"a step fits in the memory of the {facts['device']} device",
                "value": f"{facts['memory_bytes']['total'] / 1e6:,.0f} MB needed",
                "limit": f"{facts['memory_free_bytes'] / 1e6:,.0f} MB free",
                "passed": facts["memory_bytes"]["total"] <= facts["memory_free_bytes"],
            }
        )
    return gates


def _tell(listener: Listener, facts: Mapping[str, Any]) -> None:
    listener.said(
        f"{counted(facts['steps'], 'step')}, {facts['trainable_parameters']:,} trained parameters, "
        f"{facts['memory_bytes']['total'] / 1e6:,.0f} MB, about {facts['seconds']:,.0f} s"
    )
    for choice in facts["choices"]:
        listener.said(in_words(choice))
