"""The rubrics that come with Tunewright: each rule passes a good prompt and stops a bad one."""

from importlib import resources
from typing import get_args

import pytest
import yaml
from support import ROOT

from tunewright.config.schema.rubrics import BundledRubric, RubricSection
from tunewright.evaluate.rubric import check, resolve

FOLDER = resources.files("tunewright.evaluate") / "rubrics"
NAMES = get_args(BundledRubric)
LTX = (
    "A fisherman in a yellow coat hauls a net over the side of his boat and shakes the water from it. His "
    "hands are red with cold, and his grey beard is wet. Behind him the harbour wall runs out of the fog. The "
    "camera stays low and moves slowly to the left. The light is pale and comes from above."
)
TAGS = "sea, exterior, aspect_ratio=16:9, guidance_scale=3.5, num_frames=97"
STYLE = f"{LTX}\n\n### Negative Prompt:\nblurry, watermark\n\n### Tags:\n{TAGS}"
TAG_LIST = (
    "a boat, fog, harbour wall, grey beard, cold hands, 35mm, film grain, cinematic, muted colours"
)
GOOD = {
    "style-prompt": [STYLE, STYLE.replace("fog", "(fog:1.3)")],
    "comfyui": ["(neon:1.3) rain, {day|night}, ((wet)) street \\(old\\)", LTX, STYLE],
    "ltx-video": [LTX, STYLE, LTX + " Width: 768, height: 512"],
    "wan-video": [LTX, STYLE, LTX + " Size: 832*480", "镜头缓缓推进。" * 8],
}
BAD = [
    ("style-prompt", LTX, "has ### Negative Prompt:"),
    ("style-prompt", STYLE.replace(LTX, ""), "begins with the prompt itself"),
    ("style-prompt", STYLE + "\n\n### Instruction:\nWrite", "stops before the next row"),
    ("style-prompt", STYLE.replace("Tags:\n", "Tags: "), "values stand below their headings"),
    ("style-prompt", STYLE.replace("16:9", "16.9"), "an aspect ratio is width:height"),
    ("style-prompt", STYLE.replace("fog", "(fog:13)"), "brackets balanced"),
    ("style-prompt", STYLE.replace("=3.5", "=350"), "guidance_scale: "),
    ("style-prompt", STYLE.replace("=97", "=9.7"), "num_frames: "),
    ("comfyui", "  ", "is not empty"),
    ("comfyui", "(neon:1.3 rain", "brackets balanced"),
    ("comfyui", "(neon:13)", "brackets balanced"),
    ("comfyui", "{day} street", "every {...} offers a choice"),
    ("ltx-video", "A boat in fog.", "10 to 200 words"),
    ("ltx-video", " ".join([LTX] * 4), "10 to 200 words"),
    ("ltx-video", f"{LTX}\n\n{LTX}", "at most 1 paragraph"),
    ("ltx-video", f"Here is your prompt: {LTX}", "begins with the action, not with talk"),
    ("ltx-video", f"**Prompt:** {LTX}", "begins with the action, not with talk"),
    ("ltx-video", LTX.replace(". ", ".\n- "), "is no list of points"),
    ("ltx-video", TAG_LIST, "is no list of tags"),
    ("ltx-video", f"{LTX} Masterpiece.", "is literal, without praise of its quality"),
    ("ltx-video", f"{LTX} Width: 770", "width: "),
    ("ltx-video", f"{LTX} Height: 500", "height: "),
    ("ltx-video", STYLE.replace("=97", "=96"), "num_frames: "),
    ("ltx-video", STYLE.replace("=97", "=265"), "num_frames: "),
    ("ltx-video", STYLE.replace("=3.5", "=7.5"), "guidance_scale: "),
    ("wan-video", "A boat in fog, wide shot.", "40 to 150 words"),
    ("wan-video", " ".join([LTX] * 3), "40 to 150 words"),
    ("wan-video", f"{LTX}\n\nMore.", "at most 1 paragraph"),
    ("wan-video", "She sings and he waits. " * 10, "says what the camera does or sees"),
    ("wan-video", f"Sure! {LTX}", "is the prompt alone, without talk"),
    ("wan-video", f'"{LTX}"', "is not in quotation marks"),
    ("wan-video", STYLE.replace("=97", "=96"), "num_frames: "),
    ("wan-video", f"{LTX} Size: 800x600", "size: "),
    ("wan-video", f"{LTX} Width: 830", "width: "),
    ("wan-video", f"{LTX} Height: 470", "height: "),
]


def failed(name, text):
    (one,) = resolve([name])
    return [found.rule for found in check(one, text) if not found.passed]


def test_every_name_has_its_file_and_every_file_its_name():
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.yaml" for name in NAMES}
    for name in NAMES:
        assert resolve([name])[0].name == name


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts]
)
def test_good_prompts_pass(name, text):
    assert failed(name, text) == []


@pytest.mark.parametrize(("name", "text", "rule"), BAD, ids=[f"{n} {r}" for n, _, r in BAD])
def test_bad_prompts_fail_by_the_rule_that_is_meant(name, text, rule):
    rules = failed(name, text)
    assert len(rules) == 1
    assert rules[0].startswith(rule)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_a_bad_prompt(name):
    rules = [rule.text for rule in resolve([name])[0].rules]
    tested = [rule for of, _, rule in BAD if of == name]
    assert [text for text in rules if not any(text.startswith(rule) for rule in tested)] == []


@pytest.mark.parametrize("name", NAMES)
def test_rules_name_where_they_come_from_and_the_docs_tell_it(name):
    section = RubricSection.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    page = (ROOT / "docs" / "concepts" / "rubrics.md").read_text()
    assert section.source
    assert f"**{name}**" in page
    counts = (section.words, section.sentences, section.paragraphs, section.characters)
    for one in (*counts, section.weights, *section.parameters):
        assert one is None or one.source
    for rule in resolve([name])[0].rules:
        assert f"| {rule.text} |" in page, rule.text
