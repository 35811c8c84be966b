"""The command that serves a model with vLLM, and what vLLM cannot serve. Pure.

Source: vLLM's documentation of `vllm serve` and of LoRA adapters: https://docs.vllm.ai
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.models.lora import vllm_faults, vllm_rank
from tunewright.serve.servable import AdapterModel, FolderModel

TEMPLATE = "chat_template.jinja"
KEY = "VLLM_API_KEY"
"""Environment variable from which vLLM takes its key: a command line can be read by others."""


@dataclass(frozen=True)
class Place:
    """Where, how long, and how answers are sampled.

    Attributes:
        host: Address to bind.
        port: Port to bind.
        context: Tokens of question and answer together.
        temperature: Where a request does not say.
        top_p: Likewise.
    """

    host: str
    port: int
    context: int
    temperature: float
    top_p: float


def command(
    model: AdapterModel | FolderModel, settings: Mapping[str, Any], place: Place
) -> list[str]:
    """Return the words of the command; the base's folder or Hub name comes first.

    The tokenizer and the chat template are those of training, whatever the base has.

    Args:
        model: An adapter, or a model in a folder.
        settings: The adapter's `adapter_config.json`; empty for a folder.
        place: Where it is served.
    """
    if isinstance(model, AdapterModel):
        return command_of_agents([model], [settings], place)
    words = ["vllm", "serve", str(model.path), "--served-model-name", model.name]
    return [*words, *_options(model.path, place)]


def command_of_agents(
    models: Sequence[AdapterModel], settings: Sequence[Mapping[str, Any]], place: Place
) -> list[str]:
    """Return the words of a command that serves several adapters of one base, which read the same template and tokens.

    Args:
        models: The adapters, at least one.
        settings: The `adapter_config.json` of each.
        place: Where they are served.
    """
    return ["vllm", "serve", *_adapters(models, settings), *_options(models[0].path, place)]


def _options(folder: Path, place: Place) -> Iterator[str]:
    """Yield the words that say how is answered, and to whom; the template is that of the folder."""
    template = folder / TEMPLATE
    if template.is_file():
        yield from ("--chat-template", str(template))
    yield from ("--max-model-len", str(place.context))
    sampling = {"temperature": place.temperature, "top_p": place.top_p}
    yield from ("--override-generation-config", json.dumps(sampling))
    # Without these, any page may read the answers, and anyone the interface.
    yield from ("--allowed-origins", "[]", "--disable-fastapi-docs")
    yield from ("--host", place.host, "--port", str(place.port))


def _adapters(
    models: Sequence[AdapterModel], settings: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the words that name adapters, after the base of the first."""
    first = models[0]
    yield from (first.base, "--tokenizer", str(first.path))
    if first.revision:
        yield from ("--revision", first.revision)
    yield from ("--enable-lora", "--max-lora-rank", str(max(map(vllm_rank, settings))))
    if len(models) > 1:
        yield from ("--max-loras", str(len(models)))
    yield from ("--lora-modules", *(f"{model.name}={model.path}" for model in models))
    if first.in_4_bits:
        yield from ("--quantization", "bitsandbytes")


def unfit(model: AdapterModel | FolderModel, settings: Mapping[str, Any]) -> list[str]:
    """Return what of a model vLLM cannot serve, in words; nothing: it can.

    Args:
        model: An adapter, or a model in a folder.
        settings: The adapter's `adapter_config.json`; empty for a folder.
    """
    if isinstance(model, FolderModel):
        return []
    checkpoint = "A checkpoint of a training is no folder that vLLM can load"
    return [*([checkpoint] if model.checkpoint else []), *vllm_faults(settings)]
