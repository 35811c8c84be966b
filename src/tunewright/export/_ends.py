"""Proof that a GGUF file begins and ends texts as the tokenizer does, and stops at the tokens that end answers."""

from collections.abc import Iterable, Mapping

from transformers import PreTrainedTokenizerFast

from tunewright.models._llama import post

_TEXTS = ("a", "Hello, world!", "x = 1\n\ny = 2")


def named_otherwise(
    metadata: Mapping[str, object], tokenizer: PreTrainedTokenizerFast
) -> list[str]:
    """Return which of bos and eos a GGUF file's metadata has as another token, in sentences."""
    faults: list[str] = []
    for name in ("bos", "eos"):
        there = metadata.get(f"tokenizer.ggml.{name}_token_id")
        wanted = getattr(tokenizer, f"{name}_token_id")
        if wanted is not None and there != wanted:
            faults.append(f"{name} is token {there}, not {wanted}")
    return faults


def boundary_faults(
    url: str, tokenizer: PreTrainedTokenizerFast, ends: Iterable[int] = ()
) -> list[str]:
    """Return what an endpoint does otherwise at the ends of texts and answers, in sentences.

    Args:
        url: The endpoint.
        tokenizer: Cuts texts as llama.cpp shall.
        ends: Tokens that end an answer beside its eos.
    """
    faults: list[str] = []
    for text in _TEXTS:
        inner = tokenizer(text, add_special_tokens=False)["input_ids"]
        wanted = tokenizer(text)["input_ids"]
        found = post(url, "/tokenize", {"content": text, "add_special": True})["tokens"]
        if found != wanted:
            more = f"{len(found) - len(inner)} tokens around a text, not {len(wanted) - len(inner)}"
            faults.append(
                f"it puts {more}" if len(found) != len(wanted) else f"it cuts {text!r} otherwise"
            )
            break
    for token in dict.fromkeys([_eos(tokenizer), *ends]):
        # The token is sampled always, so that an answer of more than it is one that it did not end.
        forced = {"prompt": [token], "n_predict": 2, "temperature": 0, "logit_bias": [[token, 1e4]]}
        if post(url, "/completion", forced).get("stop_type") != "eos":
            faults.append(f"an answer does not end at {tokenizer.convert_ids_to_tokens(token)!r}")
    return faults


def _eos(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the token that ends a sequence, which every tokenizer that we load has."""
    found = tokenizer.eos_token_id
    return found if isinstance(found, int) else -1
