"""Rubrics: whether structured answers look as they must, and how many of them do."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from tunewright.config.schema.rubrics import BundledRubric, PatternSection, RubricSection
from tunewright.errors import failure
from tunewright.evaluate import rubric_rules as rules
from tunewright.evaluate._matching import json_fault, search
from tunewright.evaluate.intervals import difference, independent, share

MAX_EXAMPLES = 3
_REPLACED = (
    *("sections", "words", "sentences", "paragraphs", "characters"),
    *("weights", "json_schema"),
)
"""Rules of a bundled rubric that those of what extends it take the place of."""


@dataclass(frozen=True)
class Check:
    """What one rule says of one answer.

    Attributes:
        rule: What is asked, in words.
        passed: Whether the answer does it.
        found: What was found.
    """

    rule: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Rule:
    """One thing that is asked of an answer.

    Attributes:
        text: What is asked, in words.
        test: Answer to whether it is kept, and what was found.
    """

    text: str
    test: Callable[[str], rules.Found]


@dataclass(frozen=True)
class Rubric:
    """Rules that belong together.

    Attributes:
        name: Its name.
        about: What it tests, in a sentence; "" where nobody says.
        min_share: Share of the tuned answers that must pass; None for no gate.
        rules: The rules.
    """

    name: str
    about: str
    min_share: float | None
    rules: tuple[Rule, ...]


def resolve(given: Sequence[str | RubricSection]) -> list[Rubric]:
    """Return rubrics that can be applied: names are bundled ones, and what extends one is complete.

    Raises:
        TunewrightError: E_CONFIG_VALUE, there is no bundled rubric of this name.
    """
    return [_rubric(_named(item) if isinstance(item, str) else item) for item in given]


def check(rubric: Rubric, text: str) -> list[Check]:
    """Return what each rule of a rubric says of an answer; it passes if all of them do.

    Raises:
        TunewrightError: E_CONFIG_VALUE, a pattern takes too long.
    """
    return [Check(rule.text, *rule.test(text)) for rule in rubric.rules]


def judged(
    rubric: Rubric,
    *,
    base: Sequence[str],
    tuned: Sequence[str],
    author: Sequence[str],
    groups: Sequence[Hashable],
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return how many answers pass, with intervals, by side and by rule, and examples that do not.

    Args:
        rubric: The rubric.
        base: Answers of the base, at least one.
        tuned: Answers of the tuned model to the same prompts, in the same order.
        author: What the author wrote; may be empty.
        groups: Which answers of a side are to the same prompt.
        samples: Draws behind the interval of the difference.
        seed: Their seed.

    Raises:
        TunewrightError: E_CONFIG_VALUE, a pattern takes too long.
    """
    checks = {
        side: [check(rubric, text) for text in texts]
        for side, texts in (("base", base), ("tuned", tuned), ("author", author))
    }
    passed = {side: [float(_passes(found)) for found in all_] for side, all_ in checks.items()}
    count = {"base": independent(groups), "tuned": independent(groups), "author": None}
    shares = {
        side: share(round(sum(flags)), len(flags), of=count[side]) for side, flags in passed.items()
    }
    return {
        "name": rubric.name,
        "about": rubric.about,
        **{
            side: {**shares[side].facts(), "answers": len(flags)} if flags else None
            for side, flags in passed.items()
        },
        "difference": difference(
            passed["base"], passed["tuned"], samples=samples, seed=seed, groups=groups
        ).facts(),
        "rules": [
            {"rule": rule.text, **{side: _kept(found, at) for side, found in checks.items()}}
            for at, rule in enumerate(rubric.rules)
        ],
        "examples": list(_examples(checks["tuned"])),
        "min_share": rubric.min_share,
    }


def _passes(checks: Sequence[Check]) -> bool:
    return all(one.passed for one in checks)


def _kept(checks: Sequence[Sequence[Check]], rule: int) -> float | None:
    return sum(found[rule].passed for found in checks) / len(checks) if checks else None


def _examples(checks: Sequence[Sequence[Check]]) -> Iterator[dict[str, Any]]:
    failing = [index for index, found in enumerate(checks) if not _passes(found)]
    for index in failing[:MAX_EXAMPLES]:
        failed = [f"{one.rule}: {one.found}" for one in checks[index] if not one.passed]
        yield {"index": index, "failed": failed}


def _named(name: str) -> RubricSection:
    try:
        return RubricSection.model_validate({"extends": name})
    except ValidationError as error:
        message = f"There is no bundled rubric {name!a}."
        fix = f"Use one of: {', '.join(get_args(BundledRubric))}."
        raise failure("E_CONFIG_VALUE", message, where="compare.rubrics", fix=fix) from error


def _bundled(name: str) -> RubricSection:
    file = resources.files("tunewright.evaluate") / "rubrics" / f"{name}.yaml"
    return RubricSection.model_validate(yaml.safe_load(file.read_text("utf-8")))


def _rubric(own: RubricSection) -> Rubric:
    if own.extends is None:
        return Rubric(own.name, own.about or "", own.min_share, tuple(_rules(own)))
    base = _bundled(own.extends)
    replaced = {rule: None for rule in _REPLACED if getattr(own, rule) is not None}
    names = [parameter.name for parameter in own.parameters]
    kept = tuple(parameter for parameter in base.parameters if parameter.name not in names)
    rest = base.model_copy(update={**replaced, "parameters": kept})
    added = own.model_copy(update={"part": base.part}) if own.part is None else own
    about = own.about or base.about or ""
    return Rubric(own.name, about, own.min_share, (*_rules(rest), *_rules(added)))


def _rules(section: RubricSection) -> Iterator[Rule]:
    part = partial(_part, section=section)
    if section.part:
        yield Rule(f"has the part '{section.part}'", partial(_has_part, section=section))
    if section.sections:
        text = f"has {', '.join(section.sections)} once each, in this order, none empty"
        yield Rule(text, partial(rules.sections_found, sections=section.sections))
    yield from _text_rules(section, part)
    for parameter in section.parameters:
        found = partial(rules.parameter_found, parameter=parameter)
        yield Rule(rules.parameter_rule(parameter), found)


def _text_rules(section: RubricSection, part: Callable[[str], str]) -> Iterator[Rule]:
    for unit, limits, count in rules.counts_of(section):
        yield Rule(
            rules.count_rule(unit, limits),
            lambda text, u=unit, n=limits, c=count: rules.count_found(c(part(text)), u, n),
        )
    for one in section.matches:
        yield Rule(one.about, lambda text, p=one: _matched(part(text), p))
    for one in section.forbids:
        yield Rule(one.about, lambda text, p=one: _forbidden(part(text), p))
    weights, schema = section.weights, section.json_schema
    if weights is not None:
        yield Rule(
            f"brackets balanced, weights {weights.min:g} to {weights.max:g}",
            lambda text: rules.weights_found(part(text), weights),
        )
    if schema is not None:
        yield Rule("JSON that fits the schema", lambda text: _json(part(text), schema))


def _parts(text: str, section: RubricSection) -> dict[str, str]:
    """Return the parts of an answer by heading; of a heading that comes twice, the first."""
    headings = [*(section.sections or ()), *([section.part] if section.part else [])]
    return dict(reversed(rules.parts_of(text, headings)))


def _part(text: str, section: RubricSection) -> str:
    return text.strip() if section.part is None else _parts(text, section).get(section.part, "")


def _has_part(text: str, section: RubricSection) -> rules.Found:
    there = section.part in _parts(text, section)
    return there, "there" if there else "missing"


def _matched(text: str, wanted: PatternSection) -> rules.Found:
    found = search(wanted.pattern, text)
    return found is not None, "nothing" if found is None else f"'{rules.shown(found)}'"


def _forbidden(text: str, forbidden: PatternSection) -> rules.Found:
    found = search(forbidden.pattern, text)
    return found is None, "nothing" if found is None else f"'{rules.shown(found)}'"


def _json(text: str, schema: dict[str, Any]) -> rules.Found:
    fault = json_fault(schema, text)
    return (True, "it does") if fault is None else (False, rules.shown(fault))
