"""Opens what is to be served: loads it into the engine that was chosen."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.models._folders import resolve_model
from tunewright.models._room import device
from tunewright.models._weights import SETTINGS
from tunewright.serve import vllm
from tunewright.serve._llama_cpp import loaded
from tunewright.serve.engine import Engine, EngineName, Here, chosen, context_of
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


@contextmanager
def opened(config: Config, model: Servable) -> Generator[Engine]:
    """Give an engine of this process that has a model loaded; it is let go with the block.

    Raises:
        TunewrightError: E_MODEL, E_ARTIFACT_INVALID, E_NOT_FOUND: the model cannot be loaded.
    """
    if isinstance(model, GgufModel):
        with loaded(model.path, model.tokenizer, context_of(config)) as engine:
            yield engine
        return
    # Transformers with PEFT takes seconds to load, and a GGUF file does not need it.
    from tunewright.serve._transformers import load_adapted, load_as_it_is  # noqa: PLC0415

    if isinstance(model, AdapterModel):
        yield load_adapted(config, model)
    else:
        yield load_as_it_is(config, model.path, model.path)


@contextmanager
def opened_pair(config: Config, model: Servable) -> Generator[tuple[Engine, Engine]]:
    """Give base and tuned model; of an adapter, both are one base, on which it is switched off and on.

    Raises:
        TunewrightError: E_USAGE, it is not known what the base is; else as `opened`.
    """
    from tunewright.serve._transformers import load_adapted, load_as_it_is  # noqa: PLC0415

    if isinstance(model, AdapterModel):
        tuned = load_adapted(config, model)
        yield replace(tuned, adapted=False), tuned
        return
    if model.base is None:
        message = "It is not known which base this was made from."
        fix = "Name the run, or an adapter: they know their base."
        raise failure("E_USAGE", message, where=model.path, fix=fix)
    folder = resolve_model(model.base, model.revision)
    reads = model.tokenizer if isinstance(model, GgufModel) else model.path
    plain = load_as_it_is(config, folder, reads or folder)
    with opened(config, model) as tuned:
        yield plain, tuned
