"""Storyboards as found in the wild, and what is wrong with them."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.storyboards.shots import read_shots, recognise


def read(name, text):
    problems = []
    shots = read_shots(name, text, problems.append, f"dir/{name}")
    assert all(problem.code == "E_DATA_ROW" for problem in problems)
    assert all(problem.where.startswith(f"dir/{name}:") and problem.fix for problem in problems)
    wrong = [(int(problem.where.rsplit(":", 1)[1]), problem.message) for problem in problems]
    assert [line for line, _ in wrong] == sorted(line for line, _ in wrong)
    for _, message in wrong:
        assert re.match("[A-Z]", message)
        assert message.endswith(".")
    return {shot.source_id.removeprefix(f"{name}#"): shot for shot in shots}, wrong


PYTHON = """{
 'W': 512, H: 288, // small
 # max
 'use_init': True, 'init': None, 'max_frames': '100',
 /* two
    lines */
 'animation_mode': '3D', 'translation_z': '0:(1), 50:(-1)',
 'animation_prompts': {
   0: 'a cat\\'s eye',
   50: "dog",
   "50": "again",
   "x": "bad",
   60: "",
   70: 5,
   "max_f-5": "end (a:1.2",
   80: "--neg only",
   90: "last",
 },
}"""


def test_settings_as_python_writes_them():
    assert recognise("a.json", PYTHON) == "Deforum settings: the key 'animation_prompts'"
    shots, wrong = read("a.json", PYTHON)
    assert [(k, s.text, s.line) for k, s in shots.items()] == [
        ("0", "a cat's eye", 9),
        ("50", "again", 11),
        ("90", "last", 17),
    ]
    assert shots["0"].parameters["aspect_ratio"] == "16:9"
    assert shots["90"].parameters["num_frames"] == 5
    assert [line for line, _ in wrong] == [11, 12, 13, 14, 15, 16]
    assert wrong[0][1] == "Frame 50 is already on line 10, which is left out."


@pytest.mark.parametrize(
    "prompts",
    [
        r'"{\"0\": \"a cat --neg dog\", \"30\": \"a big cat\"}"',
        r'"0: a cat --neg dog | 30: a big cat"',
        r'"0: a cat --neg dog\n30: a big cat"',
        r'"\"0\": \"a cat --neg dog\", \"30\": \"a big cat\","',
        '{"0": "a cat --neg dog", "30": "a big cat"}',
    ],
)
@pytest.mark.parametrize("key", ["prompts", "animation_prompts", "positive_prompts"])
def test_prompts_as_object_or_as_text(key, prompts):
    text = f'{{"max_frames": 60,\n"{key}": {prompts}, "animation_prompts_negative": "text, dog"}}'
    assert recognise("x_settings.txt", text) == f"Deforum settings: the key '{key}'"
    shots, wrong = read("x_settings.txt", text)
    assert wrong == []
    assert {k: (s.text, s.negative, s.line) for k, s in shots.items()} == {
        "0": ("a cat", "dog, text", 2),
        "30": ("a big cat", "text, dog", 2),
    }
    assert shots["30"].parameters == {"frame": 30, "num_frames": 30}


def test_settings_that_cannot_be_read():
    assert read("a.json", '{\n"prompts": {"0": "a"\n"40" "b"}}') == (
        {},
        [(3, "The settings cannot be read: ':' is missing after the key '40'.")],
    )
    assert read("a.json", '{\n"prompts": [1]}')[1][0][0] == 2
    assert read("a.json", "[1]")[1] == [(1, "The file is not one object of settings.")]
    shots, wrong = read("a.json", '{"zoom": "0:(1",\n"prompts": {"0": "a"}, "max_frames": NaN}')
    assert list(shots) == ["0"]
    assert wrong == [(1, "In zoom, '0:(1' is not `frame:(value)`.")]


def test_schedule_as_pasted_from_a_notebook():
    text = """# 12 fps
animation_prompts = {
 0: "he says "hi" to her", # start
 '20': 'single "q", really'
 40: bare text, with commas,
    continued # comment
 60: "never closed
 70: "fine",
 -5: "before", 80: "two on", 90: "a line --ar 16:9 --foo bar"
 gibberish
}"""
    assert recognise("s.txt", text)
    shots, wrong = read("s.txt", text)
    assert {k: s.text for k, s in shots.items()} == {
        "0": 'he says "hi" to her',
        "20": 'single "q", really',
        "40": "bare text, with commas, continued",
        "70": "fine",
        "80": "two on",
        "90": "a line --foo bar",
    }
    assert shots["90"].parameters == {"aspect_ratio": "16:9", "frame": 90, "fps": 12}
    assert [line for line, _ in wrong] == [7, 9, 10]


def test_problems_come_in_the_order_of_lines():
    text = "## Shot 1\n\n## Shot 2\n| Description | Shot | Camera |\n|---|---|---|\n| | 1 | x |\n| a | b | c | d |\n"
    _, wrong = read("s.md", text)
    assert [line for line, _ in wrong] == [1, 6, 7]
    settings = '{"prompts": {"0": ""},\n"zoom": "x",\n"prompts": {"0": "a", "x": "b",\n"1": 5}}'
    assert [line for line, _ in read("a.json", settings)[1]] == sorted(
        line for line, _ in read("a.json", settings)[1]
    )


def test_a_row_that_is_broken_on_one_line_is_one_line():
    _, wrong = read("l.csv", 'Shot,Description,Camera\n1,"a" cat,x\n2,a dog,pan\n')
    assert wrong == [(2, "Line 2 cannot be read as a row: ',' expected after '\"'.")]


def test_shot_list_with_semicolons_and_faults():
    text = """Shot #;Scene;Description;Camera;Lens (mm);Dur.;Notes

1;1;A man; "walks";pan;35;6;x
1;1;"A man, ""walks"" on
two lines";pan left;35;6s;why
1;2;Other;;;~4;
;2;;;;;
3;2;"broken;;;;
4;2;Last;;;;
"""
    assert recognise("l.csv", text)
    shots, wrong = read("l.csv", text)
    assert {k: (s.line, s.text) for k, s in shots.items()} == {
        "1-1": (4, 'A man, "walks" on two lines'),
        "2-1": (6, "Other"),
    }
    assert shots["1-1"].parameters == {
        "camera": "pan left",
        "lens": "35mm",
        "duration": 6.0,
        "num_frames": 144,
        "fps": 24,
        "notes": "why",
    }
    assert shots["2-1"].parameters == {"duration_note": "~4"}
    assert [line for line, _ in wrong] == [3, 7, 8]
    assert read("l.csv", "a,b\n1,2\n")[1] == [
        (1, "No column of this shot list describes the picture.")
    ]


def test_shot_list_with_technical_columns():
    text = (
        "Shot,Prompt,Negative Prompt,Size,Aspect,Seed,CFG,Frames,Tags\n"
        "1,a cat,dog; text,ECU,16:9,77,6.5,49,cat;night\n"
        "2,a (cat:1.2 sits,,,,,,,\n"
    )
    shots, wrong = read("l.csv", text)
    assert shots["1"].negative == "dog, text"
    assert shots["1"].tags == ("cat", "night")
    assert shots["1"].parameters == {
        "shot_size": "extreme close-up",
        "aspect_ratio": "16:9",
        "seed": 77,
        "guidance_scale": 6.5,
        "num_frames": 49,
    }
    assert [line for line, _ in wrong] == [3]


def test_markdown_with_other_habits():
    text = """---
title: x
---
# My film
All in watercolour, 12 fps.
- Aspect: 4:3

## INT. KITCHEN
Warm and small.
- Light: lamp

### Shot 1: The kettle
*Boiling* over. <!-- hidden
lines -->
* **Camera:** slow push in
  and stop
* Props: kettle
**Shot 2**
**Lens**: 50mm
A hand turns the tap.
#### Panel 3 - A cat leaps
## Scene 2
### Shot 1
> A quiet hill.
### Shot 2
- Camera: pan left
"""
    shots, wrong = read("s.md", text)
    assert [(s.line, s.scene, s.text) for s in shots.values()] == [
        (12, "INT. KITCHEN", "Boiling over."),
        (18, "INT. KITCHEN", "A hand turns the tap."),
        (21, "INT. KITCHEN", "A cat leaps"),
        (23, "Scene 2", "A quiet hill."),
    ]
    first = next(iter(shots.values()))
    assert first.style == "All in watercolour"
    assert first.parameters == {
        "context": "Warm and small.",
        "props": "kettle",
        "title": "The kettle",
        "fps": 12,
        "aspect_ratio": "4:3",
        "light": "lamp",
        "camera": "slow push in and stop",
    }
    assert [line for line, _ in wrong] == [25]


def test_plain_text_storyboard_and_table():
    text = "Scene 1: Harbour\nShot 1: Wide of the boats\nCamera: static\n\nShot 2: Gulls\nNegative: people; text\n"
    assert recognise("t.txt", text)
    shots, wrong = read("t.txt", text)
    assert (shots["1"].text, shots["1"].parameters["camera"]) == ("Wide of the boats", "static")
    assert (shots["2"].scene, shots["2"].negative) == ("Scene 1: Harbour", "people, text")
    table = "# Film\n## Dock\n| Shot | Description | Camera | Duration |\n|---|---|:--|--:|\n| 1 | A door | pan left | 0:04 |\n| 2 | | static | 3s |\n"
    assert recognise("t.md", table)
    shots, wrong = read("t.md", table)
    assert (shots["1"].scene, shots["1"].line, shots["1"].parameters["num_frames"]) == (
        "Dock",
        5,
        96,
    )
    assert [line for line, _ in wrong] == [6]


FOUNTAIN = """Title: The Thing
Author: Me

FADE IN:

INT. KITCHEN - NIGHT #1A#

A kettle *boils*. /* cut
this */ Steam rises [[note: vfx]].

ANNA
(tired)
No.

CLOSE ON THE KETTLE

It stops.

CUT TO:

EXT. HARBOUR -- DAWN
!BOATS rock.

@McAVOY
yes

# Act two

= He comes back.

.FLASHBACK

~la la

...

A gull lands.
"""


def test_fountain():
    for name in ("x.fountain", "x.txt"):
        shots, wrong = read(name, FOUNTAIN)
        assert {k: (s.line, s.scene, s.text) for k, s in shots.items()} == {
            "1A-1": (8, "INT. KITCHEN - NIGHT", "A kettle boils. Steam rises."),
            "1A-2": (15, "INT. KITCHEN - NIGHT", "Close on the kettle"),
            "1A-3": (17, "INT. KITCHEN - NIGHT", "It stops."),
            "2-1": (22, "EXT. HARBOUR -- DAWN", "BOATS rock."),
            "3-2": (37, "FLASHBACK", "A gull lands."),
        }
        assert [line for line, _ in wrong] == [35]
    assert shots["1A-1"].parameters == {"setting": "interior, kitchen", "time_of_day": "night"}
    assert recognise("x.txt", FOUNTAIN) == "screenplay: scene headings with INT. or EXT."


def test_line_ends_marks_and_half_characters():
    shots, wrong = read("w.txt", '\ufeff0: "a\ud800b"\r\n10: "c"\r20: "d"')
    assert {k: s.line for k, s in shots.items()} == {"10": 2, "20": 3}
    assert [line for line, _ in wrong] == [1]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.json", "a.fountain", "a.xyz", "a"])
def test_empty_and_unknown_files_are_reported(name):
    for text in ("", "\n \n"):
        shots, wrong = read(name, text)
        assert shots == {}
        assert [line for line, _ in wrong] == [1]


PIECES = st.sampled_from(
    [
        "0:",
        '"',
        "'",
        "{",
        "}",
        "prompts",
        "max_frames",
        "## Shot 1",
        "- Camera: x",
        "INT. A - DAY",
        "a cat",
        "(b:1.2)",
        ",",
        ";",
        "\n",
        "\t",
        "|",
        "--neg",
        "/*",
        "*/",
        "[[",
        "shot,scene,description,camera",
        "#",
        ":",
        "\\",
        "1",
        "\r",
    ]
)


@settings(deadline=None)
@given(
    st.sampled_from(["a.txt", "a.md", "a.csv", "a.tsv", "a.json", "a.fountain"]),
    st.lists(PIECES, max_size=25).map(" ".join)
    | st.lists(PIECES, max_size=25).map("\n".join)
    | st.text(max_size=60),
)
def test_whatever_is_given_only_problems_come_back(name, text):
    recognise(name, text)
    shots, wrong = read(name, text)
    lines = len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    assert all(1 <= line <= lines for line, _ in wrong)
    assert all(1 <= shot.line <= lines and shot.text.strip() for shot in shots.values())
    assert shots or wrong


@pytest.mark.parametrize(
    "text",
    [
        '{"prompts": "' + "x" * 200_000,
        "/* " * 50_000,
        "[[ " * 50_000 + "\nINT. A - DAY\n",
        '0: "never closed\n' * 2_000,
        "0: " + "(" * 20_000 + "a" + ")" * 20_000,
        "0: " + "(a:1." * 20_000,
        "# " * 40_000 + "x",
        "<!-- " * 40_000,
        "![" * 40_000,
        '0: "' + 'a"b ' * 20_000,
        "0: max_f " * 20_000,
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.fountain", "a.csv"])
def test_hostile_texts_take_no_long_time(name, text):
    begin = time.process_time()
    read(name, text)
    assert time.process_time() - begin < 3


def test_many_shots_are_all_read():
    text = "\n".join(f"## Shot {n}\nA cat {n}.\n" for n in range(9_990, 10_010))
    shots, wrong = read("a.md", text)
    assert wrong == []
    assert list(shots) == [str(n) for n in range(9_990, 10_010)]
