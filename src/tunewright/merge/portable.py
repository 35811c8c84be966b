"""Config and tokenizer settings that Transformers 4 and 5 read alike. Pure.

The two write the same facts under other names, and each reads only some of the other's: version 4 takes a rope base
that it does not find for 10,000, and version 5 names a tokenizer class that version 4 does not have.
"""

from collections.abc import Mapping
from typing import Any, cast

ROPE_THETA = 10_000.0
"""Base of the rotary embedding where a config names none. Source: the models' configs in Transformers."""
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""What both versions know for a tokenizer that is just its tokenizer.json."""
_OF_THE_LOADER = ("backend", "is_local", "local_files_only", "name_or_path", "processor_class")
"""How the tokenizer was loaded on the machine that saved it."""


def portable_config(
    config: Mapping[str, Any], *, vocab_size: int, tied: bool, dtype: str
) -> dict[str, Any]:
    """Return a model's config.json under the names of both versions.

    Args:
        config: The base's.
        vocab_size: Rows of the merged embedding.
        tied: The merged head is the embedding.
        dtype: Precision of the weights: bfloat16, float16, float32.
    """
    rope = _rope(config)
    return {
        **config,
        "vocab_size": vocab_size,
        "tie_word_embeddings": tied,
        "dtype": dtype,
        "torch_dtype": dtype,
        **rope,
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return rotary settings as both versions name them.

    Version 4: `rope_theta`, and `rope_scaling` where it is scaled. Version 5: `rope_parameters` with all of it.
    """
    found = config.get("rope_parameters")
    if found is None:
        scaling = dict(config.get("rope_scaling") or {})
        kind = scaling.pop("type", None)
        base = config.get("rope_theta", ROPE_THETA)
        found = {"rope_type": kind or "default", **scaling, "rope_theta": base}
    own = cast("dict[str, Any]", found)
    if not isinstance(own.get("rope_type", "default"), str) or "rope_theta" not in own:
        return {}
    scaled = {key: value for key, value in own.items() if key != "rope_theta"}
    plain = own.get("rope_type", "default") == "default"
    return {
        "rope_parameters": dict(own),
        "rope_theta": own["rope_theta"],
        "rope_scaling": None if plain else scaled,
    }


def portable_tokenizer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer_config.json that both versions read.

    A list of more special tokens is called `additional_special_tokens` in version 4, and `extra_special_tokens`
    in version 5, which reads the old name as well; in version 4 that is a table of named tokens, and a list there
    is an error. The chat template is a file of its own, which both read.
    """
    made = {k: v for k, v in settings.items() if k not in (*_OF_THE_LOADER, "chat_template")}
    extra = made.get("extra_special_tokens")
    if not isinstance(extra, dict):
        made.pop("extra_special_tokens", None)
        before = made.get("additional_special_tokens") or []
        tokens = [*before, *(token for token in extra or [] if token not in before)]
        made |= {"additional_special_tokens": tokens} if tokens else {}
    made["tokenizer_class"] = TOKENIZER_CLASS
    made["model_input_names"] = ["input_ids", "attention_mask"]
    return made


def default_template(settings: Mapping[str, Any]) -> str | None:
    """Return the chat template that a tokenizer_config.json holds: of several, the default one."""
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = cast("list[dict[str, str]]", found)
        found = {one.get("name", ""): one.get("template", "") for one in named}
    if isinstance(found, dict):
        return cast("dict[str, str]", found).get("default")
    return found if isinstance(found, str) else None
