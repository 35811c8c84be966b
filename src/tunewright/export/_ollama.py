"""What Ollama needs: a Modelfile whose template is proven, and `ollama create` where Ollama is installed."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tunewright.errors import TunewrightError
from tunewright.events import Listener
from tunewright.export._parity import Comparison, normalised
from tunewright.export.modelfile import (
    GOLDEN_CHATS,
    Render,
    Turns,
    UntranslatableError,
    modelfile,
    peculiarities,
    turns_of,
)
from tunewright.models._llama import post
from tunewright.models._tokenizer import vocabulary_of
from tunewright.models.chat import Message, Vocabulary, encode, render

CREATE_SECONDS = 600
"""Ollama copies the file, and reads it once more to name it by its digest."""


@dataclass(frozen=True)
class ChatFormat:
    """What Ollama's language can say of a chat template.

    Attributes:
        turns: The format, or None.
        reason: Why there is none.
        peculiar: Kinds of chat that the training template writes differently.
    """

    turns: Turns | None
    reason: str = ""
    peculiar: Sequence[str] = ()


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    """Return what can be said of the tokenizer's template."""
    written = _written(vocabulary_of(tokenizer))
    try:
        turns = turns_of(written)
    except (UntranslatableError, TunewrightError) as error:
        return ChatFormat(None, str(error))
    return ChatFormat(turns, peculiar=peculiarities(turns, written))


def write_modelfile(
    folder: Path,
    file: str,
    *,
    found: ChatFormat,
    tokenizer: PreTrainedTokenizerFast,
    parameters: Mapping[str, float],
    system: str | None,
) -> bool:
    """Write `folder/Modelfile` and return True; return False where the template cannot be said.

    Raises:
        TunewrightError: E_CONFIG_VALUE, the system message cannot be written.
    """
    if found.turns is None:
        return False
    vocabulary = vocabulary_of(tokenizer)
    text = modelfile(
        file,
        turns=found.turns,
        stop=[text for text, token in vocabulary.special.items() if token in vocabulary.ends],
        parameters=parameters,
        system=system,
        remarks=[f"Not written as in training: {kind}." for kind in found.peculiar],
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
    return True


def compare_turns(url: str, tokenizer: PreTrainedTokenizerFast, turns: Turns) -> Comparison:
    """Return whether what Ollama would give llama.cpp has the token ids of the training, chat by chat."""
    vocabulary = vocabulary_of(tokenizer)
    differing: list[str] = []
    compared = changed = 0
    for chat in GOLDEN_CHATS:
        if chat[0]["role"] == "system" and not turns.takes_system:
            continue
        text = turns.render(chat)
        plain = normalised(tokenizer, text)
        body = {"content": plain, "add_special": True, "parse_special": True}
        compared, changed = compared + 1, changed + (plain != text)
        ids = encode(chat, vocabulary, add_generation_prompt=True).input_ids
        if post(url, "/tokenize", body)["tokens"] != ids:
            differing.append(text)
    return Comparison(compared, differing, changed)


def create(folder: Path, name: str, listener: Listener) -> None:
    """Make the model known to Ollama, if it is installed; a refusal is said and changes nothing."""
    program = shutil.which("ollama")
    if program is None or not (folder / "Modelfile").is_file():
        return
    listener.started("ollama create", None, "files")
    try:
        done = subprocess.run(
            [program, "create", name, "-f", "Modelfile"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CREATE_SECONDS,
            check=False,
        )
        reason = "" if done.returncode == 0 else _last_line(done.stderr or done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        listener.said(
            f"Ollama did not take the model ({reason}). Once it runs: "
            f"cd {folder} && ollama create {name} -f Modelfile"
        )
    else:
        listener.said(f"Ollama has the model: ollama run {name}")


def _written(vocabulary: Vocabulary) -> Render:
    def written(messages: Sequence[Message], question: bool) -> str:  # noqa: FBT001 - Render
        text = render(messages, vocabulary, add_generation_prompt=question)
        return text.removeprefix(vocabulary.bos_token) if vocabulary.adds_bos else text

    return written


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
