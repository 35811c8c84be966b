"""Opens what is to be served: loads it into the engine that was chosen."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.models._load import (
    device,
    load_tokenizer,
    load_tuned,
    resolve_model,
    vocabulary_of,
)
from tunewright.models._place import load_alone, loading, put_on
from tunewright.models._weights import SETTINGS
from tunewright.serve import vllm
from tunewright.serve._llama_cpp import loaded
from tunewright.serve._transformers import Local
from tunewright.serve.engine import Engine, EngineName, Here, chosen
from tunewright.serve.servable import AdapterModel, GgufModel, Servable


def choice(config: Config, model: Servable) -> tuple[EngineName, str]:
    """Return the engine that serves a model, and why; nothing is loaded yet.

    Raises:
        TunewrightError: E_ENGINE, see `chosen`.
    """
    here = Here(shutil.which("vllm") is not None, device() == "cuda")
    unfit = [] if isinstance(model, GgufModel) else vllm.unfit(model, settings_of(model))
    return chosen(config.serve.engine, model, here, unfit)


def settings_of(model: Servable) -> dict[str, Any]:
    """Return an adapter's `adapter_config.json`; of anything else nothing."""
    if not isinstance(model, AdapterModel):
        return {}
    return json.loads((model.path / SETTINGS).read_text(encoding="utf-8"))


def context_of(config: Config, folder: Path | None = None) -> int:
    """Return the tokens of context: as the options say, and not more than the model was made for."""
    wanted = config.serve.max_model_len or config.export.num_ctx
    if folder is None:
        return wanted
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return min(wanted, int(about.get("max_position_embeddings") or wanted))


@contextmanager
def opened(config: Config, model: Servable) -> Generator[Engine]:
    """Give an engine of this process that has a model loaded; it is let go with the block.

    Raises:
        TunewrightError: E_MODEL, E_ARTIFACT_INVALID, E_NOT_FOUND: the model cannot be loaded.
    """
    if isinstance(model, GgufModel):
        with loaded(model.path, model.tokenizer, context_of(config)) as engine:
            yield engine
    elif isinstance(model, AdapterModel):
        yield _adapted(config, model)
    else:
        yield _alone(config, model.path, model.path)


@contextmanager
def opened_pair(config: Config, model: Servable) -> Generator[tuple[Engine, Engine]]:
    """Give base and tuned model; of an adapter, both are one base, on which it is switched off and on.

    Raises:
        TunewrightError: E_USAGE, it is not known what the base is; else as `opened`.
    """
    if isinstance(model, AdapterModel):
        tuned = _adapted(config, model)
        yield replace(tuned, adapted=False), tuned
        return
    if model.base is None:
        message = "It is not known which base this was made from."
        fix = "Name the run, or an adapter: they know their base."
        raise failure("E_USAGE", message, where=model.path, fix=fix)
    folder = resolve_model(model.base, model.revision)
    reads = model.tokenizer if isinstance(model, GgufModel) else model.path
    plain = _alone(config, folder, reads or folder)
    with opened(config, model) as tuned:
        yield plain, tuned


def _adapted(config: Config, model: AdapterModel) -> Local:
    base = resolve_model(model.base, model.revision)
    options = config.train.model_copy(update={"load_in_4bit": model.in_4_bits})
    tuned = load_tuned(base, model.path, **loading(base, options))
    if model.checkpoint:
        put_on(tuned, model.checkpoint)
    tokenizer = load_tokenizer(model.path)
    return Local(tuned, tokenizer, vocabulary_of(tokenizer), context_of(config, base))


def _alone(config: Config, folder: Path, tokenizer: Path) -> Local:
    """Return a model without an adapter, which reads as the tokenizer of another folder may."""
    resolve_model(str(folder))
    options = config.train.model_copy(update={"load_in_4bit": False})
    own, reads = load_alone(folder, tokenizer, **loading(folder, options))
    return Local(own, reads, vocabulary_of(reads), context_of(config, folder))
