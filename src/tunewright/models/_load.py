"""Loading of tokenizers, bases and adapters. Weights come from safetensors only; no remote code."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from httpx import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import PeftModel
from safetensors import SafetensorError
from tokenizers import Encoding, Tokenizer, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tunewright.errors import failure
from tunewright.models.chat import Vocabulary
from tunewright.models.templates import CHOICE, frozen, template_text

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


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder.

    Args:
        folder: The model's, or an adapter's.
        chat_template: Name or file of a template to use in place of its own.

    Raises:
        TunewrightError: E_MODEL, it is not a fast tokenizer, has no chat template or no end of sequence.
            E_NOT_FOUND or E_TEMPLATE, see `template_text`.
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
    if tokenizer.eos_token is None:
        raise failure(
            "E_MODEL",
            "The tokenizer has no end-of-sequence token, so that answers would never stop.",
            where=folder,
            fix="Name one as `eos_token` in tokenizer_config.json.",
        )
    template = template_text(chat_template) if chat_template else _own_template(tokenizer, folder)
    tokenizer.chat_template = frozen(template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _own_template(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        names = ", ".join(sorted(own))
        own = own.get("default")
        message = f"None of the tokenizer's chat templates ({names}) is the default."
    else:
        message = "The tokenizer has no chat template."
    if not own:
        raise failure(
            "E_MODEL",
            message,
            where=folder,
            fix=f"`--set model.chat_template=alpaca`: {CHOICE}; or use the instruct variant of the model.",
        )
    return own


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, *, allow_special: bool = False) -> Vocabulary:
    """Return what chat.py needs to know of a tokenizer.

    Args:
        tokenizer: With its chat template.
        allow_special: Special tokens in the text of messages act as such; by default they are text.
    """
    # Copies, because the settings of a backend are shared by all who use it.
    opening = _backend(tokenizer, allow_special=allow_special)
    inner = _backend(tokenizer, allow_special=allow_special)
    _never_prepend(inner)

    def tokenize(text: str) -> list[tuple[int, int, int]]:
        found = opening.encode(text, add_special_tokens=False)
        return [(i, first, end) for i, (first, end) in zip(found.ids, found.offsets, strict=True)]

    def tokenize_many(stretches: Sequence[tuple[str, bool]]) -> list[Encoding]:
        found: dict[int, Encoding] = {}
        for backend, opens in ((opening, True), (inner, False)):
            numbers = [n for n, stretch in enumerate(stretches) if stretch[1] == opens]
            texts = [stretches[n][0] for n in numbers]
            encodings = backend.encode_batch(texts, add_special_tokens=False)
            found |= zip(numbers, encodings, strict=True)
        return [found[n] for n in range(len(stretches))]

    template = tokenizer.chat_template
    return Vocabulary(
        template=template if isinstance(template, str) else "",
        tokenize=tokenize,
        special=_special(tokenizer),
        bos_token=str(tokenizer.bos_token or ""),
        eos_token=str(tokenizer.eos_token or ""),
        adds_bos=_adds_bos(tokenizer),
        tokenize_many=tokenize_many,
    )


def _backend(tokenizer: PreTrainedTokenizerFast, *, allow_special: bool) -> Tokenizer:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    # What it adds is added by chat.py; some also cut the space that a token begins with off its offsets.
    backend.post_processor = None  # pyright: ignore[reportAttributeAccessIssue]
    backend.encode_special_tokens = not allow_special
    return backend


def _never_prepend(backend: Tokenizer) -> None:
    """Set that no space is put before a text, where that is done to the first of a sequence only."""
    steps = backend.pre_tokenizer
    for step in steps if isinstance(steps, pre_tokenizers.Sequence) else [steps]:
        if isinstance(step, pre_tokenizers.Metaspace) and step.prepend_scheme == "first":
            step.prepend_scheme = "never"


def _special(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return special tokens; the ones that begin and end a sequence are, whatever they are said to be."""
    added = tokenizer.added_tokens_decoder.items()
    special = {token.content: index for index, token in added if token.special}
    for token in (tokenizer.bos_token, tokenizer.eos_token):
        index = tokenizer.backend_tokenizer.token_to_id(str(token))
        if token is not None and index is not None:
            special[str(token)] = index
    return special


def _adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether the tokenizer by itself begins a text with its BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("x")["input_ids"][:1] == [bos]


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
