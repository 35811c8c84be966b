"""The words of a row: the idea in the instruction, clauses and sentences of a prompt in another order or fewer. Pure."""

import re
from collections.abc import Sequence
from random import Random

from tunewright.data.storyboards.aspect import ratio_of_prompt
from tunewright.data.storyboards.facts import facts_in, patterns
from tunewright.data.storyboards.prompts import clauses, without_weights

_FRAMING = re.compile(
    r"^(?:an? |the )?(?:(?:extreme|very|medium|slow|static|low|high)[- ])*(?:wide|medium|close|long|full|tracking|"
    r"aerial|establishing|overhead|insert|two|angle)(?:[- ]?up)?(?:[- ](?:shot|view|angle))?(?: on| of|:) "
    r"|^(?:seen )?from (?:above|below|behind|high up|far away|[\w ]{0,20}the [\w ]{1,12}): ",
    re.IGNORECASE,
)
_TECHNICAL = frozenset(
    {
        "close",
        "macro",
        "medium",
        "wide",
        "static",
        "moving",
        "drawn",
        "photo",
        "mono",
        "shallow",
        "deep",
        "lit",
    }
)
_KEPT = frozenset({"static", "moving", "lit", "hard", "soft", "mono", "drawn", "photo"})
_LEANING = re.compile(
    r"(?:and|but|or|nor|then|which|who|whose|that|it|its|his|her|their|he|she|they|as|so|while|with|one of|"
    r"another|also|too|behind|below|above|beyond|ahead|inside|outside|each|both|this|these)\b",
    re.IGNORECASE,
)
_TECHNICAL_WEIGHT = re.compile(r" ?\(([^()]*):[\d.]+\)(?=[,.;]|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’)]*\s+(?=[\"“‘(]*[A-Z])")
_RELATIVE = re.compile(r"\b(?:same|as before|as above|as in|ditto)\b", re.IGNORECASE)
_LENS = re.compile(r"\b\d{1,3}(?:[-–]\d{1,3})? ?mm\b(?! (?:film|still|stock|photo))", re.IGNORECASE)
_LENS_KIND = re.compile(
    r"\b(?:(?:ultra[- ]?)?wide(?:[- ]angle)?|fish-?eye|telephoto|long|macro|anamorphic|tilt-shift|prime|"
    r"portrait|vintage) lens(?:es)?\b|\b(?:fish-?eye|telephoto)\b",
    re.IGNORECASE,
)


def is_prose(text: str) -> bool:
    """Return whether a text is written in sentences and not as a list of clauses."""
    return bool(re.search(r"[.!?…][\"”’)]*$", text)) or bool(_SENTENCE_END.search(text))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def ideas(text: str, scene: str) -> list[str]:
    """Return ways to name what a shot shows, the plainest first: its subject without technical words."""
    plain = without_weights(_TECHNICAL_WEIGHT.sub(_if_not_technical, _opening(text)))
    parts = [_FRAMING.sub("", part) for part in clauses(plain)]
    kept = [part for part in parts if not _technical(part)] or parts or [plain]
    first = kept[0]
    found = [first if len(first.split()) >= 5 or len(kept) < 2 else ", ".join(kept[:2])]
    if not is_prose(text):
        found += [", ".join((first, part)) for part in kept[1:]]
    found += [", ".join(kept[:count]) for count in (2, 3, 4) if count <= len(kept)]
    place = re.sub(r"^(?:scene|sequence|act)\s*\w+\s*[:.–—-]?\s*", "", scene, flags=re.IGNORECASE)
    place = re.sub(r"^(?:INT|EXT|EST|I/E)[./\w]*\s+", "", place).strip()
    if re.search(r"[^\W\d_]{3}", place):
        found += [f"{place}: {found[0]}", f"{place}: {found[-1]}"]
    return list(dict.fromkeys(found))


def _opening(text: str) -> str:
    """Return the first sentence, or more where that is a word or two; all of a list of clauses."""
    if not is_prose(text):
        return text
    opening = ""
    for sentence in sentences(text):
        opening = f"{opening} {sentence}".strip()
        if len(opening.split()) >= 4:
            break
    return opening.rstrip(".")


def _if_not_technical(match: re.Match[str]) -> str:
    return "" if _technical(match[1]) else match[0]


def _technical(clause: str) -> bool:
    """Return whether a clause is only about how a picture is taken or made."""
    said = facts_in(clause) & _TECHNICAL or given_lens(clause) or given_ratio(clause)
    return bool(said) and len(clause.split()) <= 4


def given_camera(text: str) -> str:
    """Return the words with which a text itself names its camera movement, "" if it does not."""
    for fact in ("static", "moving"):
        if match := patterns()[fact].search(text):
            return match[0].strip(" ,.;")
    return ""


def given_lens(text: str) -> str:
    """Return the focal length or kind of lens that a text itself names, "" if it names none.

    A film gauge is no focal length.
    """
    match = _LENS.search(text) or _LENS_KIND.search(text)
    return match[0] if match else ""


def given_ratio(text: str) -> str:
    """Return the aspect ratio that a text itself names, with a weight or without, "" if it names none."""
    return ratio_of_prompt(text) or ratio_of_prompt(without_weights(text))


def given_style(text: str) -> str:
    """Return the words with which a text itself names its medium, "" if it does not."""
    found = (patterns()[fact].search(text) for fact in ("mono", "drawn", "photo"))
    match = next((match for match in found if match), None)
    if not match:
        return ""
    part = next(
        (p for p in clauses(text) if match[0].lower() in p.lower() and len(p.split()) <= 6),
        match[0],
    )
    return without_weights(part).rstrip(".")


def standalone(field: str) -> str:
    """Return a field without the parts that point at another shot, such as "same as 1A"."""
    return ", ".join(part for part in clauses(field) if not _RELATIVE.search(part))


def reordered(text: str, rng: Random) -> str:
    """Return a list of clauses with the later ones in another order; text in sentences stays.

    A clause that leans on the one before it ("its beam", "and two") stays with it.
    """
    if is_prose(text):
        return text
    groups: list[list[str]] = []
    for clause in clauses(text):
        if groups and _LEANING.match(without_weights(clause)):
            groups[-1].append(clause)
        else:
            groups.append([clause])
    later = groups[1:]
    rng.shuffle(later)
    return ", ".join(clause for group in (*groups[:1], *later) for clause in group)


def shortened(text: str, rng: Random) -> str:
    """Return a text without some of its last clauses or sentences; at least six tenths of it stay.

    A part that names camera, lens, light, style or aspect ratio is not left out. Of a list of clauses
    the one before it may be, but not one that the next leans on; sentences go from the end only.
    """
    prose = is_prose(text)
    parts = sentences(text) if prose else clauses(text)
    words = sum(len(part.split()) for part in parts)
    for _ in range(rng.randint(1, 2)):
        loose = _loose(parts, prose=prose)
        left = [part for number, part in enumerate(parts) if number != loose]
        if loose and sum(len(part.split()) for part in left) * 10 >= words * 6:
            parts = left
    return (" " if prose else ", ").join(parts)


def _loose(parts: Sequence[str], *, prose: bool) -> int:
    """Return the number of the last part that may be left out, 0 if there is none."""
    last = len(parts) - 1
    for number in range(last, 0, -1):
        leant_on = number < last and _LEANING.match(without_weights(parts[number + 1]))
        if not _keeps(parts[number]) and not leant_on:
            return number
        if prose:
            return 0
    return 0


def _keeps(part: str) -> bool:
    """Return whether a part of a text says what every row of its shot must say."""
    said = facts_in(part) & _KEPT or given_lens(part) or given_ratio(part)
    return bool(said)


def joined(parts: Sequence[str], *, prose: bool) -> str:
    """Return the parts of a prompt as sentences, or as a list with commas; empty parts are left out."""
    kept = [part.strip() for part in parts if part.strip()]
    if not prose:
        return ", ".join(part.rstrip(",;") for part in kept)
    return " ".join(_sentence(part) for part in kept)


def _sentence(part: str) -> str:
    closed = part if re.search(r"[.!?…][\"”’)]*$", part) else f"{part}."
    return closed[:1].upper() + closed[1:]
