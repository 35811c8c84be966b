"""The bundled storyboards: every shot, with what the files say."""

import pytest
from support import ROOT, SAMPLES

from tunewright.data.storyboards.shots import Shot, read_shots, recognise

FOLDER = SAMPLES / "storyboards"
COUNTS = {
    "clockmaker_deforum.json": 6,
    "desert_radio_shots.tsv": 7,
    "ferry_shotlist.csv": 8,
    "greenhouse_deforum.json": 5,
    "heist_library_shotlist.csv": 9,
    "kelp_forest_schedule.txt": 7,
    "lighthouse_deforum.json": 7,
    "market_deforum_commented.json": 6,
    "nightbus_deforum.json": 8,
    "robot_baker_schedule.txt": 7,
    "salt_road.md": 6,
    "the_understudy.md": 7,
    "tram_schedule.txt": 6,
    "weather_office.md": 8,
}


def shots_of(name: str) -> dict[str, Shot]:
    problems = []
    text = (FOLDER / name).read_text(encoding="utf-8")
    shots = read_shots(name, text, problems.append, name)
    assert problems == []
    return {shot.source_id.removeprefix(f"{name}#"): shot for shot in shots}


def test_all_samples_are_counted():
    assert {path.name for path in FOLDER.iterdir()} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_every_shot_is_read_and_stands_on_its_line(name):
    lines = (FOLDER / name).read_text(encoding="utf-8").split("\n")
    shots = shots_of(name)
    assert len(shots) == COUNTS[name]
    for shot in shots.values():
        first_words = shot.text[:20].replace('"', "")
        near = "".join(lines[shot.line - 1 : shot.line + 2]).replace('"', "")
        assert first_words in near
        assert "--neg" not in shot.text + shot.negative
        assert shot.text == shot.text.strip()


def test_deforum():
    shot = shots_of("lighthouse_deforum.json")["60"]
    assert shot.line == 46
    assert "(wet stone:1.2)" in shot.text
    assert shot.negative == "people, graffiti, cars, text, blurry, low quality, jpeg artifacts"
    assert shot.parameters == {
        "width": 768,
        "height": 512,
        "aspect_ratio": "3:2",
        "seed": 1894027315,
        "steps": 25,
        "fps": 15,
        "guidance_scale": 7.0,
        "sampler": "Euler a",
        "num_frames": 60,
        "camera": "dolly in with slow crane up and slow pan right",
        "frame": 60,
    }
    assert shots_of("lighthouse_deforum.json")["360"].parameters["camera"] == "dolly out"


def test_deforum_details():
    clocks = shots_of("clockmaker_deforum.json")
    assert clocks["160"].parameters["guidance_scale"] == 9.0
    assert clocks["160"].parameters["camera"] == "roll clockwise with zoom in"
    assert clocks["200"].parameters["camera"] == "static camera"
    assert clocks["200"].parameters["num_frames"] == 40
    assert clocks["120"].negative == "hands, text, plastic, clutter, signature, frame"
    assert shots_of("greenhouse_deforum.json")["0"].style == "fine ink linework, gouache colour"
    assert "seed" not in shots_of("nightbus_deforum.json")["0"].parameters
    market = shots_of("market_deforum_commented.json")
    assert market["180"].negative.startswith("http://, watermark")
    assert market["180"].line == 38


def test_schedules():
    kelp = shots_of("kelp_forest_schedule.txt")
    assert kelp["36"].negative == ""
    assert kelp["36"].text.startswith("(kelp:1.2) stems")
    assert kelp["36"].parameters == {"num_frames": 36, "frame": 36}
    tram = shots_of("tram_schedule.txt")
    assert tram["0"].parameters == {"num_frames": 48, "frame": 0, "fps": 15}
    assert tram["240"].negative == "rain, crowd, text, oversaturated"
    assert shots_of("robot_baker_schedule.txt")["0"].text.startswith("4 a.m., a village")


def test_shot_lists():
    ferry = shots_of("ferry_shotlist.csv")["5"]
    assert ferry.text.endswith('says, "You\'re the one with the cello."')
    assert ferry.negative == "smile, hood up"
    assert ferry.parameters["shot_size"] == "medium close-up"
    assert ferry.parameters["num_frames"] == 120
    desert = shots_of("desert_radio_shots.tsv")["DR-020"]
    assert (desert.scene, desert.negative) == ("Antenna field", "helmet logo, cars")
    assert desert.parameters["lens"] == "35mm"
    assert desert.parameters["camera"] == "slow pan right"
    assert shots_of("heist_library_shotlist.csv")["3A"].text.endswith("put back on its shelf.")


def test_outlines():
    salt = shots_of("salt_road.md")["2A"]
    assert salt.scene == "Scene 2: The Road"
    assert salt.parameters["lens"] == "135mm, heat shimmer welcome"
    assert salt.parameters["light"] == "hard noon"
    assert salt.text.startswith("From high on the slope: a new highway")
    assert shots_of("the_understudy.md")["1A"].style == "Black and white except for the puppet"
    pell = shots_of("weather_office.md")["1B"]
    assert pell.parameters["aspect_ratio"] == "16:9"
    assert pell.negative == "surprise, umbrella, (smiling:1.3)"
    assert pell.text.startswith("A clerk, Mr Pell, stamps a form.")


def test_recognise_says_why():
    reasons = {
        name: str(recognise(name, (FOLDER / name).read_text(encoding="utf-8"))) for name in COUNTS
    }
    assert reasons["lighthouse_deforum.json"] == "Deforum settings: the key 'prompts'"
    assert reasons["kelp_forest_schedule.txt"].startswith("prompt schedule")
    assert reasons["ferry_shotlist.csv"].startswith("shot list")
    assert reasons["salt_road.md"].startswith("storyboard")


def test_nothing_else_is_claimed():
    others = [*SAMPLES.glob("manuscript/*"), *SAMPLES.glob("*.jsonl"), *SAMPLES.glob("agents/*")]
    others += [ROOT / "README.md", SAMPLES / "README.md", *ROOT.glob("docs/**/*.md")]
    # That one shows shots, with their fields.
    others = [path for path in others if path.name != "rubrics-for-video-prompts.md"]
    assert len(others) > 20
    for path in others:
        assert recognise(path.name, path.read_text(encoding="utf-8")[:65536]) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"prompt": "a", "completion": "b"}]'),
        ("a.json", '{"prompt": "a", "completion": "b"}'),
        ("a.json", '{"prompts": ["a", "b"]}'),
        ("a.csv", "prompt,completion\na,b\n"),
        ("a.csv", "instruction,style,prompt,negative_prompt,tags\na,b,c,d,e\n"),
        ("a.csv", "shot,scene,prompt,completion\n1,2,a,b\n"),
        ("a.csv", "id,text\n1,hello\n"),
        ("a.jsonl", '{"prompts": {"0": "a"}}'),
        ("a.txt", "Shot 3 times, he fell.\n\nINT. is short for interior.\n"),
        ("a.txt", "0: none\n\nSome prose.\n\nMore prose here.\n"),
        ("a.txt", "12:30 we met\n14:00 we left\n"),
        ("a.md", "# Chapter 1\n\nScene 1\n\nThe camera: an old one.\n"),
        ("a.txt", ""),
        ("a.csv", ""),
    ],
)
def test_not_a_storyboard(name, text):
    assert recognise(name, text) is None
