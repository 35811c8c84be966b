"""The tokenizer of a model, and what chat.py needs to know of it."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer, pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from tunewright.errors import failure, first_line
from tunewright.models._weights import as_os_errors
from tunewright.models.chat import Vocabulary
from tunewright.models.templates import CHOICE, frozen, template_text


def _require_tokenizer(file: Path) -> None:
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:
        raise failure(
            "E_MODEL", f"tokenizer.json is damaged: {first_line(error)}.", where=file
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
        reason = first_line(error)
        raise failure(
            "E_MODEL", f"The tokenizer cannot be loaded: {reason}.", where=folder
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
