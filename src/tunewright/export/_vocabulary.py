"""A model's tokenizer as GGUF holds it."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gguf import TokenType
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunewright.errors import TunewrightError, failure
from tunewright.export.pretokenizer import pretokenizer_of
from tunewright.export.sentencepiece import BYTES, SPACE, Pieces, is_sentencepiece, pieces_of
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, render

UNUSED_SCORE = -10000.0
ADDED_SCORE = -1000.0
"""Source: llama.cpp, conversion/base.py, `_create_vocab_sentencepiece`."""
_ENDS_BY_TEXT = frozenset(
    [
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>",
        "<EOT>", "<|end_of_text|>", "<eos>",
    ]
)  # fmt: skip
"""Texts of tokens at which llama.cpp ends an answer by itself. Source: src/llama-vocab.cpp, `impl::load`."""


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer as GGUF holds it.

    Attributes:
        model: llama.cpp's name of the kind: byte-level BPE, or SentencePiece.
        tokens: Text of each id; of byte-level BPE byte-level encoded unless added.
        types: llama.cpp's token type of each id.
        scores: Of each id; None for byte-level BPE.
        merges: Two tokens with a space between; empty for SentencePiece.
        pretokenizer: llama.cpp's name.
        special: "bos", "eos", "eot", "eom", "unk" and "pad" to their ids, where there are such.
        adds_bos: Whether it puts bos before a text by itself.
        adds_eos: Whether it puts eos after it.
        adds_space: Whether it puts a space before a text; None for byte-level BPE.
        chat_template: Jinja.
        notes: What llama.cpp does otherwise outside of chats, in sentences.
    """

    model: Literal["gpt2", "llama"]
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str]
    pretokenizer: str
    special: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    adds_space: bool | None
    chat_template: str
    notes: tuple[str, ...] = ()


def gguf_tokenizer(
    tokenizer: PreTrainedTokenizerFast, rows: int, ends: Sequence[int] = ()
) -> GgufTokenizer:
    """Return the tokenizer's tokens, padded with unused ones to the embedding's rows.

    Args:
        tokenizer: The model's.
        rows: Of the embedding.
        ends: Tokens that end an answer beside eos, as `ends_of` gives them.

    Raises:
        TunewrightError: E_MODEL, it has more tokens than the embedding has rows, or is of no kind that
            llama.cpp knows.
    """
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = pieces_of(definition) if is_sentencepiece(definition) else None
    pretokenizer = pretokenizer_of(definition) if pieces is None else "default"
    ids = tokenizer.get_vocab()
    if max(ids.values()) >= rows:
        raise failure(
            "E_MODEL",
            f"The tokenizer has {max(ids.values()) + 1} tokens and the embedding {rows} rows.",
            where="tokenizer.json",
            fix="Resize the base's embedding to the tokenizer before training.",
        )
    tokens, types = _listed(tokenizer, ids, rows)
    special = {
        name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")
    }
    others = [end for end in ends if end != special["eos"] and tokens[end] not in _ENDS_BY_TEXT]
    special |= dict(zip(("eot", "eom"), others, strict=False))
    around = tokenizer("a")["input_ids"]
    packed = GgufTokenizer(
        model="gpt2",
        tokens=tokens,
        types=types,
        scores=None,
        merges=[],
        pretokenizer=pretokenizer,
        special={name: index for name, index in special.items() if index is not None},
        adds_bos=around[0] == special["bos"],
        adds_eos=around[-1] == special["eos"],
        adds_space=None,
        chat_template=_template(tokenizer),
    )
    if pieces is not None:
        return _with_pieces(packed, pieces, tokenizer)
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"]["merges"]]
    return replace(packed, merges=merges)


def ends_of(model: Path) -> list[int]:
    """Return the tokens that end an answer as generation_config.json says, none without it."""
    try:
        settings = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = settings.get("eos_token_id") if isinstance(settings, dict) else None
    return [end for end in (found if isinstance(found, list) else [found]) if isinstance(end, int)]


def as_written(
    tokenizer: PreTrainedTokenizerFast, packed: GgufTokenizer
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that cuts texts as llama.cpp shall; the notes say how it is another one.

    Chats are to be held against the model's own.
    """
    found = copy.deepcopy(tokenizer)
    backend = found.backend_tokenizer
    step = backend.pre_tokenizer
    if not isinstance(step, pre_tokenizers.Metaspace):
        return tokenizer
    if packed.adds_space:
        # Metaspace puts no space before a text that begins with one, llama.cpp does.
        parts = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        backend.normalizer = normalizers.Sequence(parts)
    step.prepend_scheme = "never"
    backend.pre_tokenizer = step
    return found


def _listed(
    tokenizer: PreTrainedTokenizerFast, ids: Mapping[str, int], rows: int
) -> tuple[list[str], list[int]]:
    """Return text and type of each id."""
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for token, index in ids.items():
        tokens[index], types[index] = token, int(TokenType.NORMAL)
    for index, added in tokenizer.added_tokens_decoder.items():
        types[index] = int(TokenType.CONTROL if added.special else TokenType.USER_DEFINED)
    return tokens, types


def _with_pieces(
    packed: GgufTokenizer, pieces: Pieces, tokenizer: PreTrainedTokenizerFast
) -> GgufTokenizer:
    """Return it as of the SentencePiece kind: bytes and the unknown token have types of their own."""
    tokens, types = list(packed.tokens), list(packed.types)
    own = {text: int(TokenType.BYTE) for text in BYTES}
    own |= {pieces.unknown: int(TokenType.UNKNOWN)} if pieces.unknown else {}
    added = tokenizer.added_tokens_decoder
    scores: list[float] = []
    for index, text in enumerate(tokens):
        if text in own:
            types[index] = own[text]
            scores.append(0.0)
        elif types[index] == TokenType.UNUSED:
            scores.append(UNUSED_SCORE)
        elif index in added:
            scores.append(ADDED_SCORE)
            if types[index] == TokenType.USER_DEFINED:
                tokens[index] = text.replace(SPACE, " ")
        else:
            scores.append(pieces.scores.get(text, UNUSED_SCORE))
    adds_space = _adds_space(pieces, tokenizer)
    return replace(
        packed,
        model="llama",
        tokens=tokens,
        types=types,
        scores=scores,
        adds_space=adds_space,
        notes=_notes(tokenizer, pieces, adds_space=adds_space),
    )


def _notes(
    tokenizer: PreTrainedTokenizerFast, pieces: Pieces, *, adds_space: bool
) -> tuple[str, ...]:
    exact = not isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.Metaspace)
    if exact or pieces.prefix == "never":
        return ()
    if adds_space:
        where = "" if pieces.prefix == "always" else ", and after special tokens,"
        return (
            f"llama.cpp puts a space also before a text that begins with one{where} where the model's "
            "tokenizer puts none.",
        )
    return (
        "llama.cpp puts no space before a text outside of a chat, where the model's tokenizer puts one: "
        "begin such a text with a space.",
    )


def _adds_space(pieces: Pieces, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether llama.cpp shall put a space before each stretch of text between special tokens."""
    if pieces.prefix != "first":
        return pieces.prefix == "always"
    vocabulary = vocabulary_of(tokenizer)
    try:
        text = render([Message(role="user", content="a")], vocabulary)
    except TunewrightError:
        return True
    return not text.startswith(tuple(vocabulary.special))


def _template(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the chat template; without a BOS token, llama.cpp would write its token 11 in its place."""
    template = str(tokenizer.chat_template)
    if tokenizer.bos_token is None and "bos_token" in template:
        return "{% set bos_token = '' %}" + template
    return template
