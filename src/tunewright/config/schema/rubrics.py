"""Options of rubrics: what a structured answer must look like."""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tunewright.config.schema.base import Name, Section

BundledRubric = Literal["style-prompt", "comfyui", "ltx-video", "wan-video"]
"""The rubrics that come with Tunewright, each a file of evaluate/rubrics."""
_INHERITED = ("name", "about", "source", "extends", "part", "min_share")
"""Options of a rubric that are no rules."""


def _pattern(given: str) -> str:
    # The libraries behind this take 0.2 s to import, which a config without rubrics need not wait for.
    from tunewright.config._rubric_faults import pattern_fault  # noqa: PLC0415

    fault = pattern_fault(given)
    if fault is not None:
        raise ValueError(f"a regular expression ({fault})")
    return given


def _json_schema(given: dict[str, Any]) -> dict[str, Any]:
    from tunewright.config._rubric_faults import schema_fault  # noqa: PLC0415

    fault = schema_fault(given)
    if fault is not None:
        raise ValueError(f"a JSON schema, draft 2020-12 ({fault})")
    return given


def _heading(given: str) -> str:
    if given != given.strip() or "\n" in given:
        raise ValueError("a heading as it stands in an answer: one line, no space around it")
    return given


def _parameter_name(given: str) -> str:
    if not any(character.isalnum() for character in given):
        raise ValueError("a name with a letter or digit in it")
    return given


_ParameterName = Annotated[str, AfterValidator(_parameter_name)]


def _require_order(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError("have a `min` of at most `max`")


class CountSection(Section):
    """A least and a most."""

    min: int | None = Field(default=None, ge=0, description="Least number.")
    max: int | None = Field(default=None, ge=0, description="Most.")
    source: str | None = Field(default=None, description="Where the rule comes from.")

    @model_validator(mode="after")
    def _ordered(self) -> "CountSection":
        if self.min is None and self.max is None:
            raise ValueError("have `min`, `max` or both")
        _require_order(self.min, self.max)
        return self


class PatternSection(Section):
    """A regular expression, and what it stands for."""

    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        min_length=1,
        description="A regular expression of Python's, searched for; flags inside: `(?i)` ignores case.",
    )
    about: str = Field(min_length=1, description="What it tests, in words that a table shows.")
    source: str | None = Field(default=None, description="Where the rule comes from.")


class WeightsSection(Section):
    """Emphasis as ComfyUI writes it: brackets balanced, the number of each `(text:1.2)` in a range."""

    min: float = Field(default=0.0, description="Least weight.")
    max: float = Field(default=2.0, description="Most.")
    source: str | None = Field(default=None, description="Where the rule comes from.")

    @model_validator(mode="after")
    def _ordered(self) -> "WeightsSection":
        _require_order(self.min, self.max)
        return self


class ParameterSection(Section):
    """A technical parameter, written `name: value` or `name=value` anywhere in the answer."""

    name: _ParameterName = Field(
        description="Its name; case, spaces, hyphens and underscores do not matter.",
    )
    also: tuple[_ParameterName, ...] = Field(
        default=(), description="Other names of the same parameter."
    )
    min: float | None = Field(default=None, description="Least value.")
    max: float | None = Field(default=None, description="Most.")
    multiple_of: int | None = Field(
        default=None, ge=1, description="The value less `plus` is a multiple of this."
    )
    plus: int = Field(default=0, description="See multiple_of: 8 and 1 are 9, 17, 25, ...")
    choices: tuple[str, ...] = Field(
        default=(), description="The values that it may have, in quotes; `832x480` is `832*480`."
    )
    required: bool = Field(default=False, description="An answer that does not state it fails.")
    source: str | None = Field(default=None, description="Where the rule comes from.")

    @model_validator(mode="after")
    def _one_kind(self) -> "ParameterSection":
        numbers = (self.min, self.max, self.multiple_of)
        if self.choices and any(number is not None for number in numbers):
            raise ValueError("have `choices`, or `min`, `max` and `multiple_of`")
        if not self.choices and not self.required and all(n is None for n in numbers):
            raise ValueError("have limits, `choices` or `required: true`")
        _require_order(self.min, self.max)
        return self


class RubricSection(Section):
    """What a structured answer must look like."""

    name: Name = Field(
        description="Name of the rubric; may be left out with `extends`: then it is the name of that one."
    )
    about: str | None = Field(default=None, description="What it tests, in a sentence.")
    source: str | None = Field(default=None, description="Where the form is described.")
    extends: BundledRubric | None = Field(
        default=None,
        description="A bundled rubric to change: `matches`, `forbids` and `parameters` are added to its own, "
        "other rules take the place of its own. The rules that stay keep their `part`.",
    )
    part: Annotated[str, AfterValidator(_heading)] | None = Field(
        default=None,
        description="Heading of the section of the answer that is tested; `''`: the text before the first "
        "heading; unset: the whole answer. Sections and parameters are looked for in the whole answer.",
    )
    sections: tuple[Annotated[str, Field(min_length=1), AfterValidator(_heading)], ...] | None = (
        Field(
            default=None,
            description="Headings that an answer must have: each once, in this order, none of them empty.",
        )
    )
    words: CountSection | None = Field(default=None, description="Number of words.")
    sentences: CountSection | None = Field(default=None, description="Number of sentences.")
    paragraphs: CountSection | None = Field(
        default=None, description="Number of paragraphs: blank lines part them."
    )
    characters: CountSection | None = Field(default=None, description="Number of characters.")
    matches: tuple[PatternSection, ...] = Field(default=(), description="What must be found.")
    forbids: tuple[PatternSection, ...] = Field(default=(), description="What must not be found.")
    weights: WeightsSection | None = Field(default=None, description="Emphasis in brackets.")
    parameters: tuple[ParameterSection, ...] = Field(
        default=(), description="Technical parameters."
    )
    json_schema: Annotated[dict[str, Any], AfterValidator(_json_schema)] | None = Field(
        default=None,
        description="The text must be JSON that this schema (draft 2020-12) allows.",
    )
    min_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the tuned answers that must pass; fewer are a failed gate. Unset: no gate.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, dict) and "name" not in given and "extends" in given:
            values = cast("dict[str, Any]", given)
            return {**values, "name": values["extends"]}
        return cast("Any", given)

    @field_validator("sections")
    @classmethod
    def _once(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if given is not None and len(set(given)) < len(given):
            raise ValueError("headings that differ")
        return given

    @model_validator(mode="after")
    def _rules(self) -> "RubricSection":
        rules = self.model_dump(exclude={*_INHERITED})
        if self.extends is None and all(value in (None, ()) for value in rules.values()):
            raise ValueError("have a rule, such as `words`, `sections` or `matches`")
        return self


def _entries(given: Any) -> Any:
    """Return rubrics with a name alone as mappings that extend the bundled one."""
    entries: Any = [given] if isinstance(given, str | dict) else given
    if not isinstance(entries, list | tuple):
        return entries
    items = cast("list[Any]", entries)
    return [{"extends": item} if isinstance(item, str) else item for item in items]


def _distinct(given: tuple[RubricSection, ...]) -> tuple[RubricSection, ...]:
    names = [rubric.name for rubric in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"have names that differ; '{twice}' is there twice")
    return given


Rubrics = Annotated[tuple[RubricSection, ...], BeforeValidator(_entries), AfterValidator(_distinct)]
"""A list of rubrics: names of bundled ones, or mappings."""
