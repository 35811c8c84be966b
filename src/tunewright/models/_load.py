"""Loading of tokenizers, bases and adapters. Weights come from safetensors only; no remote code."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from httpx import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import PeftModel
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tunewright.errors import failure
from tunewright.models.chat import Vocabulary

TINY = "tunewright/tiny"
_WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
_SMALL_PATTERNS = ["*.json", "*.jinja", "*.model", "README.md"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_model(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a model: the bundled base, a folder, or a Hub snapshot that is fetched.

    Raises:
        TunewrightError: E_MODEL, the folder lacks files. E_UNSAFE_FORMAT, weights only as pickle.
            E_HUB, it cannot be fetched.
    """
    if name == TINY:
        with resources.as_file(resources.files("tunewright.models") / "assets" / "tiny") as path:
            folder = path
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise failure("E_MODEL", "There is no such model folder.", where=name)
    else:
        folder = _fetch(name, revision, weights=weights)
    _require(folder, weights=weights)
    return folder


def _fetch(name: str, revision: str | None, *, weights: bool) -> Path:
    patterns = _SMALL_PATTERNS + (_WEIGHT_PATTERNS if weights else [])
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = _reason(error)
        raise failure("E_HUB", f"'{name}' cannot be fetched: {reason}", where=name) from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _require(folder: Path, *, weights: bool) -> None:
    names = {p.name for p in folder.iterdir()}
    missing = [n for n in ("config.json", "tokenizer.json") if n not in names]
    if weights and not any(n.endswith(".safetensors") for n in names):
        if any(n.endswith((".bin", ".pt", ".pth", ".ckpt")) for n in names):
            raise failure("E_UNSAFE_FORMAT", "The weights are pickled.", where=folder)
        missing.append("*.safetensors")
    if missing:
        raise failure("E_MODEL", f"The folder has no {', '.join(missing)}.", where=folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise failure(
            "E_MODEL", "config.json is not JSON.", where=folder / "config.json"
        ) from error
    if "auto_map" in config:
        raise failure(
            "E_UNSAFE_FORMAT",
            "config.json asks to run code ('auto_map').",
            where=folder / "config.json",
        )


def _require_tokenizer(file: Path) -> None:
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:
        raise failure(
            "E_MODEL", f"tokenizer.json is damaged: {_reason(error)}.", where=file
        ) from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder.

    Raises:
        TunewrightError: E_MODEL, it is not a fast tokenizer or has no chat template.
    """
    _require_tokenizer(folder / "tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = _reason(error)
        raise failure(
            "E_MODEL", f"The tokenizer cannot be loaded: {reason}", where=folder
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise failure("E_MODEL", "The tokenizer has no tokenizer.json.", where=folder)
    if not isinstance(tokenizer.chat_template, str):
        raise failure(
            "E_MODEL",
            "The tokenizer has no chat template.",
            where=folder,
            fix="Use the instruct variant of the model.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """Return what chat.py needs to know of a tokenizer."""

    def tokenize(text: str) -> list[tuple[int, int, int]]:
        encoding = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        return [(i, start, end) for i, (start, end) in zip(ids, offsets, strict=True)]

    template = tokenizer.chat_template
    return Vocabulary(
        template=template if isinstance(template, str) else "",
        tokenize=tokenize,
        special={
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special
        },
        bos_token=str(tokenizer.bos_token or ""),
        eos_token=str(tokenizer.eos_token or ""),
    )


def device() -> Literal["cuda", "mps", "cpu"]:
    """Return the best device here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_model(folder: Path, dtype: str = "float32", **options: Any) -> PreTrainedModel:
    """Return the causal language model of a folder in evaluation mode.

    Raises:
        TunewrightError: E_MODEL, the files are not a model that Transformers knows.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        raise failure("E_MODEL", f"The model cannot be loaded: {reason}", where=folder) from error
    return model.eval()


def load_tuned(base: Path, adapter: Path, dtype: str = "float32") -> PeftModel:
    """Return the base with the adapter on it; `with model.disable_adapter()` gives the base."""
    try:
        return PeftModel.from_pretrained(load_model(base, dtype), adapter).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"The adapter cannot be loaded: {_reason(error)}"
        raise failure("E_ARTIFACT_INVALID", message, where=adapter) from error
