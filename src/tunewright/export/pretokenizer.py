"""Which of llama.cpp's pre-tokenizers a tokenizer.json describes: recognised by its definition."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tunewright.errors import failure
from tunewright.export.architecture import LLAMA_CPP

NUMBER = r"\p{N}"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MINICPM5 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = TEKKEN.replace(rf"{_LOWER}+|", rf"{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|").replace(
    rf"{_LOWER}*|\p{{N}}|", rf"{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{{N}}{{1,3}}|"
)
DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    NUMBER,
)
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((NUMBER, GPT2), False): "smollm",
    ((QWEN2,), False): "qwen2",
    ((QWEN35,), False): "qwen35",
    ((SEED,), False): "seed-coder",
    ((LLAMA3,), False): "smaug-bpe",
    ((LLAMA3,), True): "llama-bpe",
    ((r"\p{N}{1,3}", MINICPM5), True): "minicpm5",
    (DEEPSEEK_CODER, False): "deepseek-coder",
    (DEEPSEEK3, False): "deepseek-v3",
}
"""(regular expressions that split one after the other, whole words skip the merges) -> llama.cpp's name.

Several names mean the same there: starcoder, refact and command-r are smollm, olmo and mpt are gpt-2,
stablelm2 and deepseek-r1-qwen are qwen2, dbrx is smaug-bpe.

Source: llama.cpp, src/llama-vocab.cpp, `llm_tokenizer_bpe` and `impl::load`.
"""

_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_ALPHABET = "".join(map(chr, _VISIBLE)) + "".join(chr(256 + n) for n in range(256 - len(_VISIBLE)))
"""What stands for each byte in a token. Source: GPT-2, encoder.py, `bytes_to_unicode`."""

INEXACT: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((TEKKEN,), True): "tekken",
    ((GPT4O,), False): "gpt-4o",
}
"""Those that llama.cpp has and that leave out combining marks there, and take capitals with accents for small."""

_SPELLINGS = (
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "CONTRACTION"),
    (r"'(?i:[sdmt]|ll|ve|re)", "CONTRACTION"),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", "CONTRACTION"),
    ("CONTRACTION", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
    (r"[^\r\n\p{L}\p{N}]?+", r"[^\r\n\p{L}\p{N}]?"),
    (r"[^\s\p{L}\p{N}]++", r"[^\s\p{L}\p{N}]+"),
    (r"\p{N}{1}|", r"\p{N}|"),
)
"""Other ways to write parts of the expressions above, which match the same."""


def pretokenizer_of(definition: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a tokenizer.json with byte-level BPE.

    Raises:
        TunewrightError: E_MODEL, it is not byte-level BPE, or llama.cpp has no such pre-tokenizer.
    """
    model = as_object(definition.get("model"))
    reasons: list[str] = []
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        reasons.append(f"its model is {kind_of(model)}, not byte-level BPE")
    reasons += [
        f"its model has '{name}'"
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        if model.get(name)
    ]
    if not _normalizer_is_nfc(definition.get("normalizer")):
        reasons.append(f"its normalizer is {kind_of(definition.get('normalizer'))}, not NFC")
    steps, wrong = _steps(definition.get("pre_tokenizer"))
    key = (tuple(steps), bool(model.get("ignore_merges")))
    name = NAMES.get(key)
    if wrong:
        reasons.append(f"its pre-tokenizer {wrong}")
    elif name is None:
        reasons.append(f"its pre-tokenizer {_otherwise(key)}")
    missing = sum(character not in model.get("vocab", ()) for character in _ALPHABET)
    if missing and not reasons:
        reasons.append(f"{missing} of the 256 bytes are no tokens")
    if name is None or reasons:
        raise unwritable(reasons)
    return name


def _otherwise(key: tuple[tuple[str, ...], bool]) -> str:
    """Return what a pre-tokenizer does that llama.cpp does not."""
    steps, whole_words = key
    if key in INEXACT:
        return f"is {INEXACT[key]}, and llama.cpp's cuts words with combining marks otherwise"
    skips = ", and takes words that are tokens whole" if whole_words else ""
    shown = " then ".join(map(repr, steps)) or "nothing"
    return f"splits by {shown}{skips}, which llama.cpp does not"


def unwritable(reasons: Sequence[str]) -> Exception:
    """Return the refusal of a tokenizer."""
    return failure(
        "E_MODEL",
        f"The tokenizer cannot be written as GGUF: {'; '.join(reasons)}.",
        where="tokenizer.json",
        fix=LLAMA_CPP,
    )


def _steps(value: object) -> tuple[list[str], str]:
    """Return the regular expressions that split the text one after the other, and what else is done."""
    outer = as_object(value)
    listed = outer.get("pretokenizers") if outer.get("type") == "Sequence" else [outer]
    parts = [as_object(step) for step in cast("list[object]", listed or [])]
    if not parts or parts[-1].get("type") != "ByteLevel":
        return [], "does not end at byte level"
    if parts[-1].get("add_prefix_space"):
        return [], "puts a space before the text"
    steps: list[str] = []
    for part in parts[:-1]:
        expression = _expression(part, alone=len(parts) == 2)
        if expression is None:
            return [], f"has a step of type {kind_of(part)} that llama.cpp cannot do"
        steps.append(expression)
    if parts[-1].get("use_regex", True):
        steps.append(GPT2)
    return steps, ""


def _expression(part: Mapping[str, Any], *, alone: bool) -> str | None:
    """Return what a step splits by, if what it finds and what is between are kept, each by itself."""
    if part.get("type") == "Digits":
        return NUMBER if part.get("individual_digits") else NUMBER + "+"
    pattern = as_object(part.get("pattern")).get("Regex")
    if part.get("type") != "Split" or not isinstance(pattern, str):
        return None
    # The expressions that stand alone match every text from end to end, so that nothing is between.
    kept = (part.get("behavior"), bool(part.get("invert")))
    if kept != ("Isolated", False) and not (alone and kept == ("Removed", True)):
        return None
    for spelling, same in _SPELLINGS:
        pattern = pattern.replace(spelling, same)
    return pattern


def _normalizer_is_nfc(value: object) -> bool:
    if value is None:
        return True
    normalizer = as_object(value)
    if normalizer.get("type") == "Sequence":
        steps = cast("list[object]", normalizer.get("normalizers") or [])
        return all(_normalizer_is_nfc(step) for step in steps)
    return normalizer.get("type") == "NFC"


def as_object(value: object) -> Mapping[str, Any]:
    """Return a JSON object, an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def kind_of(value: object) -> str:
    """Return the type that a part of a tokenizer.json names."""
    return str(as_object(value).get("type", "missing"))
