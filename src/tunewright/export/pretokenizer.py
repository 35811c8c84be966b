"""Which of llama.cpp's pre-tokenizers a tokenizer.json describes: recognised by its definition."""

from collections.abc import Mapping
from typing import Any, cast

from tunewright.errors import failure

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_NAMES: Mapping[tuple[str, bool], str] = {
    (QWEN2, False): "qwen2",
    (LLAMA3, True): "llama-bpe",
    (LLAMA3, False): "smaug-bpe",
    (GPT2, False): "gpt-2",
}
"""(regular expression, whole words skip the merges) -> llama.cpp's name.

Source: llama.cpp, src/llama-vocab.cpp, `llm_tokenizer_bpe` and `impl::load`.
"""


def pretokenizer_of(definition: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a tokenizer.json.

    Raises:
        TunewrightError: E_MODEL, it is not byte-level BPE, or llama.cpp has no such pre-tokenizer.
    """
    model = _object(definition.get("model"))
    reasons: list[str] = []
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        reasons.append(f"its model is {_kind(model)}, not byte-level BPE")
    if not _normalizer_is_nfc(definition.get("normalizer")):
        reasons.append(f"its normalizer is {_kind(definition.get('normalizer'))}, not NFC")
    pattern = _pattern(definition.get("pre_tokenizer"))
    if pattern is None:
        reasons.append("its pre-tokenizer is not one regular expression and byte level")
    name = _NAMES.get((pattern or "", bool(model.get("ignore_merges"))))
    if pattern is not None and name is None:
        reasons.append(f"its pre-tokenizer splits by {pattern!r}")
    if name is None or reasons:
        raise failure(
            "E_MODEL",
            f"The tokenizer cannot be written as GGUF: {'; '.join(reasons)}.",
            where="tokenizer.json",
            fix="Use a base of the Qwen3 or Llama 3 family, or stop before the export "
            "(`--until merge`) and serve the merged folder.",
        )
    return name


def _pattern(value: object) -> str | None:
    """Return the regular expression that the text is split by before byte-level BPE."""
    outer = _object(value)
    steps = outer.get("pretokenizers") if outer.get("type") == "Sequence" else [outer]
    parts = [_object(step) for step in cast("list[object]", steps or [])]
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    if len(parts) == 1:
        return GPT2 if parts[0].get("use_regex", True) else None
    split = parts[0]
    pattern = _object(split.get("pattern")).get("Regex")
    plain = (
        len(parts) == 2
        and split.get("type") == "Split"
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and not parts[1].get("use_regex", True)
    )
    return pattern if plain and isinstance(pattern, str) else None


def _normalizer_is_nfc(value: object) -> bool:
    if value is None:
        return True
    normalizer = _object(value)
    if normalizer.get("type") == "Sequence":
        steps = cast("list[object]", normalizer.get("normalizers") or [])
        return all(_normalizer_is_nfc(step) for step in steps)
    return normalizer.get("type") == "NFC"


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _kind(value: object) -> str:
    return str(_object(value).get("type", "missing"))
