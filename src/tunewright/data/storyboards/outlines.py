"""Storyboards in Markdown or plain text, with scene and shot headings and `Key: value` fields, to shots. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunewright.data.storyboards.aspect import ratio_in
from tunewright.data.storyboards.prompts import clauses
from tunewright.data.storyboards.roles import role_of
from tunewright.data.storyboards.shot import Shot, Tell
from tunewright.data.storyboards.spans import without_spans
from tunewright.data.storyboards.tables import Draft, is_grid_header, read_grid, shots_of_drafts

_MARKED = re.compile(r"(?P<marks>#{1,6})\s+(?P<text>.*)|(?P<b>\*\*|__)(?P<bold>[^*_]+)(?P=b):?")
_SHOT = re.compile(
    r"(?:shot|panel|frame|beat|setup|board)\s*(?:no\.?\s*|number\s+)?#?\s*"
    r"(?P<label>\d{1,6}[A-Za-z]{0,2}(?:[.-]\d{1,3}[A-Za-z]?)?|[A-Z]\d{0,3})"
    r"(?:\s*[:.)|–—-]\s*(?P<title>\S.*)|\s*[:.)|–—-]?|\s+(?P<aside>\(.*\)))",
    re.IGNORECASE,
)
_SCENE = re.compile(
    r"(?:scene|sequence|act)\s*#?\s*(?:\d{1,4}[A-Za-z]?|[IVXLC]{1,6}|[A-Z])(?:\s*[:.)|–—-]\s*.*)?",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"(?P<bullet>[-*+•]\s+)?(?P<b>\*\*|__)?(?P<key>[A-Za-z][A-Za-z ./_-]{0,28}?)(?P<b2>\*\*|__)?\s*:"
    r"(?P<b3>\*\*|__)?(?:\s+(?P<value>.*))?"
)
_BULLET = re.compile(r"^(?:[-*+•]\s+|>\s?)")
_RULE = re.compile(r"(?:[-*_=]\s*){3,}")
_PICTURE = re.compile(r"!\[[^\]]{0,500}\]\([^)]{0,500}\)")
_STYLE = re.compile(
    r"\b(?:black[- ]and[- ]white|monochrome|sepia|noir|water-?colou?rs?|oil paint(?:ing|ed)?|gouache|charcoal|"
    r"pencil|ink(?:ed)?|hand[- ]drawn|animat(?:ed|ion)|anime|stop[- ]motion|claymation|super ?8|16 ?mm film|"
    r"35 ?mm film|documentary|photo-?real(?:istic|ism)?)\b",
    re.IGNORECASE,
)
_RATE = re.compile(r"\b(\d{2,3})\s?fps\b", re.IGNORECASE)


@dataclass
class _Block:
    """A heading and what stands under it up to the next one."""

    kind: Literal["document", "scene", "shot"]
    line: int
    label: str = ""
    title: str = ""
    values: dict[str, str] = field(default_factory=dict[str, str])
    others: dict[str, str] = field(default_factory=dict[str, str])
    prose: list[str] = field(default_factory=list[str])
    grid: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


def is_outline(head: str) -> bool:
    """Return whether a text has shot headings, filming fields in scenes, or a table of shots."""
    lines = [line.strip() for line in head.splitlines()]
    headings = [_heading(line, 1) for line in lines]
    shots = sum(block is not None and block.kind == "shot" for block in headings)
    scenes = sum(block is not None and block.kind == "scene" for block in headings)
    filming = {"camera", "lens", "light", "negative", "size", "duration", "angle"}
    fields = sum(
        (match := _FIELD.fullmatch(line)) is not None and role_of(match["key"]) in filming
        for line in lines
    )
    if any(is_grid_header(line) for line in lines):
        return True
    return shots >= 2 or (shots == 1 and fields >= 1) or (scenes >= 1 and fields >= 3)


def read_outline(name: str, text: str, tell: Tell) -> list[Shot]:
    """Return a shot for each shot heading, or for each scene where no shot has a heading.

    Fields above the first shot, of the file or of a scene, hold for all shots below them. Of the text
    above, an aspect ratio, a frame rate and a sentence that names a style hold as well.
    """
    blocks = list(_blocks(text))
    shot_kinds = {"shot"} if any(b.kind == "shot" for b in blocks) else {"scene"}
    drafts: list[Draft] = []
    for block, above in _with_scopes(blocks, shot_kinds):
        if block.kind in shot_kinds:
            drafts.append(_draft(block, above))
        if block.grid:
            scene = next((b.title for b in reversed(above) if b.kind == "scene"), "")
            drafts += read_grid(block.grid, block.title if block.kind == "scene" else scene, tell)
    drafts = [
        draft for draft in drafts if draft.values.get("description") or not _is_grid(draft, blocks)
    ]
    if not drafts:
        tell(
            1,
            "No shot is found in this storyboard.",
            "Give each shot a heading such as `## Shot 1`.",
        )
    return shots_of_drafts(name, drafts, tell)


def _is_grid(draft: Draft, blocks: Sequence[_Block]) -> bool:
    """Return whether the draft is a heading that only stands above a table of shots."""
    return any(block.line == draft.line and block.grid for block in blocks)


def _with_scopes(
    blocks: Sequence[_Block], shot_kinds: set[str]
) -> Iterator[tuple[_Block, list[_Block]]]:
    """Yield each block with those whose fields hold for it: the document's, then its scene's."""
    document: list[_Block] = []
    scene: list[_Block] = []
    for block in blocks:
        yield block, [*document, *scene]
        if block.kind == "document":
            document, scene = [block], []
        elif block.kind == "scene" and block.kind not in shot_kinds:
            scene = [block]


def _draft(block: _Block, above: Sequence[_Block]) -> Draft:
    values: dict[str, str] = {}
    others: dict[str, str] = {}
    for outer in above:
        values |= _hints(outer) if outer.kind == "document" else {}
        values |= outer.values
        others |= outer.others
        if outer.kind == "scene" and outer.prose:
            others["context"] = " ".join(outer.prose)
    values |= block.values
    others |= block.others
    described = " ".join([*filter(None, [block.values.get("description", "")]), *block.prose])
    if described and block.kind == "shot" and block.title:
        others["title"] = block.title
    values["description"] = described or (block.title if block.kind == "shot" else "")
    scene = next((outer.title for outer in reversed(above) if outer.kind == "scene"), "")
    scene = values.get("scene") or scene or (block.title if block.kind == "scene" else "")
    return Draft(block.label, scene, block.line, values, others)


def _hints(block: _Block) -> Mapping[str, str]:
    """Return what the text above all shots says of all of them."""
    text = " ".join(block.prose)
    hints: dict[str, str] = {}
    if ratio := ratio_in(text):
        hints["aspect_ratio"] = ratio
    if rate := _RATE.search(text):
        hints["fps"] = rate[1]
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if style := next((s for s in sentences if _STYLE.search(s)), ""):
        named = [part for part in clauses(style) if not _RATE.search(part) and not ratio_in(part)]
        hints["style"] = ", ".join(named).rstrip(".!?")
    return hints


def _blocks(text: str) -> Iterator[_Block]:
    block = _Block("document", 1)
    last_field: tuple[dict[str, str], str] | None = None
    titled = False
    for number, raw in enumerate(_uncommented(text).split("\n"), start=1):
        line = _PICTURE.sub("", raw).strip()
        heading = _heading(line, number)
        if heading and heading.kind == "scene" and not titled and line.startswith("# "):
            if not _SCENE.fullmatch(heading.title):
                heading = _Block("document", number, title=heading.title)
            titled = True
        if heading:
            yield block
            block, last_field = heading, None
        elif not line or _RULE.fullmatch(line):
            last_field = None
        elif line.startswith("|") and line.endswith("|"):
            block.grid.append((number, line))
        elif found := _field(line):
            last_field = _put(block, *found)
        elif last_field and raw[:1] in " \t":
            values, key = last_field
            values[key] = f"{values[key]} {line}".strip()
        else:
            block.prose.append(_plain(_BULLET.sub("", line)))
            last_field = None
    yield block


def _put(block: _Block, key: str, value: str) -> tuple[dict[str, str], str]:
    role = role_of(key)
    if role is None:
        block.others[key] = value
        return block.others, key
    if role in block.values and role == "description":
        value = f"{block.values[role]} {value}"
    block.values[role] = value
    return block.values, role


def _field(line: str) -> tuple[str, str] | None:
    """Return key and value of a field: known keys anywhere, others of one or two words after a bullet."""
    match = _FIELD.fullmatch(line)
    if not match:
        return None
    known = role_of(match["key"]) not in {None, "shot"}
    if known or ((match["bullet"] or match["b"]) and len(match["key"].split()) <= 2):
        return match["key"].strip(), _plain(match["value"] or "")
    return None


def _heading(line: str, number: int) -> _Block | None:
    marked = _MARKED.fullmatch(line)
    text = _plain((marked["text"] or marked["bold"] or "") if marked else line).strip(" \t#")
    if shot := _SHOT.fullmatch(text):
        title = shot["title"] or (shot["aside"] or "").strip("()")
        return _Block("shot", number, shot["label"], title.strip())
    if _SCENE.fullmatch(text):
        return _Block("scene", number, text, text)
    if marked and marked["marks"]:
        return _Block("scene", number, text, text)
    return None


def _plain(text: str) -> str:
    """Return Markdown text without marks for bold, italics and code."""
    return re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=[\w.,!?])[*_](?!\w)", "", text)


def _uncommented(text: str) -> str:
    """Return the text without HTML comments and front matter; lines keep their numbers."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"\A---\n.*?\n---(?=\n|\Z)", blank, text, count=1, flags=re.DOTALL)
    return without_spans(text, "<!--", "-->")
