"""Chat templates: three of our own, a user's file, and the model's made deterministic."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from tunewright.errors import TunewrightError, failure
from tunewright.models import frames
from tunewright.models.messages import Message
from tunewright.models.rendering import MOST_CHARACTERS, render
from tunewright.models.templating import TODAY, Refused

NAMES: Mapping[str, str] = {
    "alpaca": "alpaca.jinja",
    "style-prompt": "style_prompt.jinja",
    "plain": "plain.jinja",
}
CHOICE = f"{', '.join(f'`{name}`' for name in NAMES)}, or the path of a Jinja file"

_GOLDEN: tuple[tuple[Message, ...], ...] = (
    (
        Message(role="user", content="Which way is north?"),
        Message(role="assistant", content="Up the river.\nLook for the pole star."),
    ),
    (
        Message(role="user", content="One {{ two }}"),
        Message(role="assistant", content="three"),
        Message(role="user", content="four — five"),
        Message(role="assistant", content="six."),
    ),
)
_NOW = re.compile(r"""strftime_now\(\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\)""")


def template_text(name_or_path: str) -> str:
    """Return a template's Jinja text: one of ours by name, else a file, which is checked.

    Raises:
        TunewrightError: E_NOT_FOUND, it is neither a name nor a file. E_CONFIG_VALUE, the file is no
            Jinja text. E_TEMPLATE, it is one that does not write a chat with its contents as they are,
            or that does what a template may not.
    """
    if name_or_path in NAMES:
        file = resources.files("tunewright.models.templates") / NAMES[name_or_path]
        return file.read_text(encoding="utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        raise failure(
            "E_NOT_FOUND",
            f"'{name_or_path}' is neither a chat template's name nor a file.",
            where="model.chat_template",
            fix=f"Set model.chat_template to {CHOICE}.",
        )
    text = _read(path)
    _require_usable(text, path)
    return text


def frozen(template: str) -> str:
    """Return the template with the date of `templating.TODAY` wherever it asks for today's.

    A prompt in use then has the date of training, whoever renders it.
    """
    return _NOW.sub(lambda call: repr(TODAY.strftime(call[1] or call[2] or "")), template)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_CHARACTERS:
            raise failure(
                "E_CONFIG_VALUE",
                f"The file is larger than a chat template may be ({MOST_CHARACTERS:,} bytes).",
                where=path,
                fix=f"Set model.chat_template to {CHOICE}.",
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise failure(
            "E_CONFIG_VALUE",
            "The chat template is not UTF-8.",
            where=f"{path}:{line}",
            fix="Save it as UTF-8.",
        ) from error
    except OSError as error:
        raise failure("E_IO", f"It cannot be read: {error.strerror}.", where=path) from error


def _require_usable(text: str, path: Path) -> None:
    try:
        render(text, None)
    except Refused as error:
        if error.kind != "syntax":
            code, what = frames.REFUSALS[error.kind]
            raise failure(code, f"The chat template {what}: {error}.", where=path) from error
        raise failure(
            "E_CONFIG_VALUE",
            f"The chat template is not Jinja: {error}.",
            where=path if error.line is None else f"{path}:{error.line}",
            fix="Correct the named line." if error.line else "Write it with fewer levels.",
        ) from error
    form = frames.Format(text, "<bos>", "<eos>", adds_bos=False)
    for chat in _GOLDEN:
        try:
            frames.filled(form, chat, add_generation_prompt=False)
            frames.filled(form, chat[:-1], add_generation_prompt=True)
        except TunewrightError as error:
            (problem,) = error.problems
            ours = problem.code == "E_TEMPLATE"
            fix = "Write each message's content as it is; see the templates' README."
            raise failure(
                problem.code, problem.message, where=path, fix=fix if ours else problem.fix
            ) from error
