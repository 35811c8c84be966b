"""Chat templates are read and rendered in the sandbox that Transformers renders them in. Pure."""

from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, Literal

import jinja2
from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

TODAY = date(2024, 7, 26)
"""The date in every text: Llama 3.1's own default. A date that moves would give another dataset every day."""


Kind = Literal["syntax", "fails", "unsafe", "limit"]


class Refused(Exception):
    """A template cannot be rendered.

    Attributes:
        kind: syntax, it cannot be read; fails; unsafe, it reaches for what the sandbox forbids; limit, it takes
            too much.
        line: Of the template, where that is known.
    """

    def __init__(self, kind: Kind, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.kind, self.line = kind, line


def rendered(template: str, values: Mapping[str, Any] | None) -> str:
    """Return what a template writes.

    Args:
        template: Jinja.
        values: Names that it may use; None: it is only read, which may take as much as rendering.

    Raises:
        Refused: It cannot be read, fails, reaches for something forbidden, or runs out of memory.
    """
    try:
        made = _compiled(template)
        return "" if values is None else made.render(**values)
    except jinja2.TemplateSyntaxError as error:
        raise Refused("syntax", str(error.message).rstrip("."), error.lineno) from error
    except SecurityError as error:
        raise Refused("unsafe", str(error)) from error
    except MemoryError as error:
        raise Refused("limit", "it takes more memory than a chat template may") from error
    except RecursionError as error:
        kind = "syntax" if values is None else "fails"
        raise Refused(kind, "its brackets, blocks or macros are nested too deeply") from error
    except (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        LookupError,
    ) as error:
        raise Refused("fails", str(error)) from error


class _Generation(Extension):
    """Accepts `{% generation %}` markers, which some templates carry, and passes their content on."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller: Callable[[], str]) -> str:
        return caller()


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    """Return the template in the sandbox; it may raise whatever reading its constants raises."""
    return _environment().from_string(template)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Says at once what is forbidden, where Jinja's own would go on with nothing in its place."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse an attribute.

        Raises:
            SecurityError: Always.
        """
        raise SecurityError(f"it reaches for '{attribute}' of a {type(obj).__name__}")


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the sandbox, with the names that Transformers gives templates."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
