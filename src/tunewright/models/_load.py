"""Loading of tokenizers, bases and adapters. Weights come from safetensors only; no remote code."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tunewright.errors import failure
from tunewright.models._shared import sharing, written
from tunewright.models._weights import (
    ADAPTER,
    as_os_errors,
    check_adapter,
    check_base,
    shapes_in,
)
from tunewright.models.changes import rows_of
from tunewright.models.chat import Vocabulary
from tunewright.models.headers import read_header
from tunewright.models.lora import lora_of
from tunewright.models.programs import is_pickled, pickled_weights, refuse_programs
from tunewright.models.templates import CHOICE, frozen, template_text

TINY = "tunewright/tiny"
_WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
_SMALL_PATTERNS = ["*.json", "*.jinja", "*.model", "README.md"]
_KEPT: ContextVar[dict[tuple[Path, str, str], PreTrainedModel] | None] = ContextVar(
    "_KEPT", default=None
)
"""The model whose weights are shared, by how it was loaded; None: each is read anew."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_model(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a model: the bundled base, a folder, or a Hub snapshot that is fetched.

    Raises:
        TunewrightError: E_MODEL, the folder lacks files, or one is damaged. E_UNSAFE_FORMAT, weights only
            as pickle. E_UNSAFE_PATH, its index leads out of it. E_HUB, it cannot be fetched.
    """
    if name == TINY:
        with resources.as_file(resources.files("tunewright.models") / "assets" / "tiny") as path:
            folder = path
    elif Path(name).is_dir():
        folder = Path(name)
    elif is_pickled(name):
        raise pickled_weights(name)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise failure("E_MODEL", "There is no such model folder.", where=name)
    else:
        folder = _fetch(name, revision, weights=weights)
        _require(folder, weights=weights, hub_id=name)
        return folder
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


def _require(folder: Path, *, weights: bool, hub_id: str | None = None) -> None:
    names = {p.name for p in folder.iterdir()}
    missing = [n for n in ("config.json", "tokenizer.json") if n not in names]
    if weights and not any(n.endswith(".safetensors") for n in names):
        if any(map(is_pickled, names)):
            raise pickled_weights(folder)
        missing.append("*.safetensors")
    if missing and hub_id:
        message = f"'{hub_id}' on the Hub has no {', '.join(missing)}."
        fix = (
            "Take a repository with safetensors; or fetch it whole and rewrite its weights: "
            f"hf download {hub_id} --local-dir OLD, then tunewright convert OLD NEW"
        )
        raise failure("E_MODEL", message, where=hub_id, fix=fix)
    if missing:
        raise failure("E_MODEL", f"The folder has no {', '.join(missing)}.", where=folder)
    refuse_programs(folder)
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise failure(
            "E_MODEL", "config.json is not JSON.", where=folder / "config.json"
        ) from error
    if weights:
        check_base(folder)


def _require_tokenizer(file: Path) -> None:
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:
        raise failure(
            "E_MODEL", f"tokenizer.json is damaged: {_reason(error)}.", where=file
        ) from error


def load_tokenizer(
    folder: Path, chat_template: str | None = None, extra_special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder.

    Args:
        folder: The model's, or an adapter's.
        chat_template: Name or file of a template to use in place of its own.
        extra_special_tokens: Special tokens that it is given beside its own.

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
    new = [token for token in extra_special_tokens if token not in tokenizer.all_special_tokens]
    if new:
        tokenizer.add_tokens([AddedToken(token, special=True) for token in new])
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


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files into a folder.

    Raises:
        OSError: The system refused.
    """
    with as_os_errors(folder / "tokenizer.json"):
        tokenizer.save_pretrained(folder)


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


def load_model(
    folder: Path, dtype: str = "float32", *, shared: bool = True, **options: Any
) -> PreTrainedModel:
    """Return the causal language model of a folder in evaluation mode.

    Args:
        folder: The model's.
        dtype: Of its weights.
        shared: Its weights may be those of other models, while they are kept; false for one that writes into them.
        options: As Transformers takes them.

    Raises:
        TunewrightError: E_MODEL, the files are not a model that Transformers knows.
    """
    kept = _KEPT.get()
    if kept is None or not shared or "quantization_config" in options:
        return _loaded(folder, dtype, options)
    key = (folder.resolve(), dtype, repr(options))
    if key not in kept or written(kept[key]):
        kept.clear()
        kept[key] = _loaded(folder, dtype, options)
    return sharing(kept[key])


def _loaded(folder: Path, dtype: str, options: Mapping[str, Any]) -> PreTrainedModel:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        raise failure("E_MODEL", f"The model cannot be loaded: {reason}", where=folder) from error
    return model.eval()


@contextmanager
def weights_kept() -> Generator[None]:
    """Have models share weights, see `models.weights_kept`."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def in_4_bits(
    quant_type: str, *, compute_dtype: str, double_quantisation: bool
) -> BitsAndBytesConfig:
    """Return how bitsandbytes stores the linears of a model's layers in 4 bits."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quantisation,
        bnb_4bit_compute_dtype=DTYPES[compute_dtype],
    )


def load_tuned(base: Path, adapter: Path, dtype: str = "float32", **options: Any) -> PeftModel:
    """Return the base with the adapter on it; `with model.disable_adapter()` gives the base.

    The embedding grows where the adapter was trained with more tokens than the base has rows for.

    Raises:
        TunewrightError: E_MODEL, see `load_model`. E_ARTIFACT_INVALID or E_UNSAFE_FORMAT, see
            `check_adapter`.
    """
    try:
        model = load_model(base, dtype, **options)
        check_adapter(adapter, shapes_in(model))
        fit_rows(model, adapter)
        return PeftModel.from_pretrained(model, adapter).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"The adapter cannot be loaded: {_reason(error)}"
        raise failure("E_ARTIFACT_INVALID", message, where=adapter) from error


def fit_rows(model: PreTrainedModel, adapter: Path) -> None:
    """Give embedding and head as many rows as an adapter was trained with, as far as its files tell."""
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    stored = read_header(adapter / ADAPTER)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    _grow_to(model, rows_of(shapes, lora_of(settings), _ends(model)[0].shape[0]))


def grow(model: PreTrainedModel, rows: int) -> None:
    """Give embedding and head at least `rows` rows; a new row is the mean of those there are.

    The number stays a multiple of 64 or 8 where the base's is one, since kernels are faster then. It is
    the same rows each time, so that an adapter finds the embedding that it was trained on.
    """
    have = _ends(model)[0].shape[0]
    multiple = next(m for m in (64, 8, 1) if have % m == 0)
    _grow_to(model, -(-rows // multiple) * multiple)


def _grow_to(model: PreTrainedModel, rows: int) -> None:
    have = _ends(model)[0].shape[0]
    if rows > have:
        model.resize_token_embeddings(rows, mean_resizing=False)
        set_to_mean(model, list(range(have, rows)), have)


@torch.no_grad()
def set_to_mean(model: PreTrainedModel, rows: Sequence[int], known: int) -> None:
    """Set rows of embedding and head to the mean of the first `known` ones."""
    for weight in _ends(model):
        weight[rows] = weight[:known].mean(dim=0, dtype=torch.float32).to(weight.dtype)


def _ends(model: PreTrainedModel) -> Sequence[torch.Tensor]:
    """Return the weights of embedding and head; one where they are tied."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [layer.get_parameter("weight") for layer in layers if layer is not None]
    return weights[:1] if weights[0] is weights[-1] else weights
