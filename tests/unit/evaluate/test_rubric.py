import pytest

from tunewright.config.schema.rubrics import RubricSection
from tunewright.errors import TunewrightError
from tunewright.evaluate import _matching
from tunewright.evaluate.rubric import Check, check, judged, resolve

FORM = "Slow pan.\n\n### Tags:\nsea, frames=97"


def rubric(**options):
    return resolve([RubricSection.model_validate({"name": "own", **options})])[0]


def failed(one, text):
    return [f"{c.rule}: {c.found}" for c in check(one, text) if not c.passed]


def test_one_check_a_rule_in_the_order_of_the_options():
    own = rubric(
        part="### Tags:",
        sections=["### Tags:"],
        words={"min": 1, "max": 5},
        matches=[{"pattern": "sea", "about": "names the place"}],
        forbids=[{"pattern": "blood", "about": "no gore"}],
        weights={},
        parameters=[{"name": "frames", "multiple_of": 8, "plus": 1}],
    )
    assert check(own, FORM) == [
        Check("has the part '### Tags:'", True, "there"),
        Check("has ### Tags: once each, in this order, none empty", True, "all there"),
        Check("1 to 5 words", True, "3 words"),
        Check("names the place", True, "'sea'"),
        Check("no gore", True, "nothing"),
        Check("brackets balanced, weights 0 to 2", True, "balanced, 0 weights"),
        Check("frames: 8n + 1", True, "97"),
    ]
    assert failed(own, "Slow pan.") == [
        "has the part '### Tags:': missing",
        "has ### Tags: once each, in this order, none empty: '### Tags:' is missing",
        "1 to 5 words: 0 words",
        "names the place: nothing",
    ]


def test_the_part_is_what_is_tested():
    no_sea = {"forbids": [{"pattern": "sea", "about": "dry"}]}
    assert failed(rubric(**no_sea), FORM) == ["dry: 'sea'"]
    assert failed(rubric(part="", **no_sea), FORM) == []
    assert failed(rubric(part="", **no_sea), "bare sea") == ["dry: 'sea'"]
    assert failed(rubric(part="### Tags:", **no_sea), FORM) == ["dry: 'sea'"]


def test_parameters_are_looked_for_in_the_whole_answer():
    own = rubric(part="", parameters=[{"name": "frames", "max": 90}])
    assert failed(own, FORM) == ["frames: at most 90: 97"]


SCHEMA = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string", "pattern": "^[a-z ]+$"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"prompt": "slow pan"}', ""),
        ("slow pan", "no JSON: Expecting value: line 1 column 1 (char 0)"),
        ('```json\n{"prompt": "a"}\n```', "no JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{"prompt": NaN}', "no JSON: NaN is no value of JSON"),
        ('{"prompt": "SLOW"}', "$.prompt: 'SLOW' does not match '^[a-z ]+$'"),
        ('{"prompt": 7}', "$.prompt: 7 is not of type 'string'"),
        ("{}", "$: 'prompt' is a required property"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_json(text, found):
    rule = "JSON that fits the schema"
    assert failed(rubric(json_schema=SCHEMA), text) == ([f"{rule}: {found}"] if found else [])


@pytest.mark.parametrize(
    "options",
    [
        {"matches": [{"pattern": "(a|aa)+b", "about": "x"}]},
        {"json_schema": {"pattern": "(a|aa)+b"}},
    ],
    ids=["matches", "schema"],
)
def test_a_pattern_that_never_ends_is_stopped_and_named(options, monkeypatch):
    monkeypatch.setattr(_matching, "PATTERN_SECONDS", 0.05)
    with pytest.raises(TunewrightError) as caught:
        check(rubric(**options), f'"{"a" * 60}"')
    (problem,) = caught.value.problems
    assert problem.code == "E_CONFIG_VALUE"
    assert "'(a|aa)+b' takes more than 0.05 s" in problem.message


def test_names_and_sections_are_resolved():
    assert [r.name for r in resolve(["comfyui", RubricSection(name="own", extends="comfyui")])] == [
        "comfyui",
        "own",
    ]
    with pytest.raises(TunewrightError, match="no bundled rubric 'comfy'") as caught:
        resolve(["comfy"])
    assert caught.value.problems[0].code == "E_CONFIG_VALUE"
    assert "ltx-video" in caught.value.problems[0].fix


def test_what_extends_a_rubric_adds_to_it_and_replaces():
    (whole,) = resolve(["ltx-video"])
    own = rubric(
        name="mine",
        extends="ltx-video",
        words={"max": 30},
        matches=[{"pattern": "camera", "about": "names the camera"}],
        parameters=[{"name": "guidance_scale", "min": 3, "max": 3.5}, {"name": "seed", "min": 0}],
    )
    before, after = ([rule.text for rule in one.rules] for one in (whole, own))
    assert own.about == whole.about
    assert [rule for rule in before if rule not in after] == [
        "10 to 200 words",
        "guidance_scale: 1 to 5",
    ]
    assert [rule for rule in after if rule not in before] == [
        "at most 30 words",
        "names the camera",
        "guidance_scale: 3 to 3.5",
        "seed: at least 0",
    ]
    assert "has" not in [
        rule.text[:3] for rule in rubric(extends="style-prompt", sections=[]).rules
    ]


def test_rules_that_stay_keep_their_part():
    own = rubric(extends="style-prompt", part="", words={"max": 3})
    answer = "Slow pan left.\n\n### Negative Prompt:\na b c d\n\n### Tags:\nsea"
    assert failed(own, answer) == []
    assert failed(own, f"{answer}\n\n### Style:\nmore") == [
        "stops before the next row: '### Style'"
    ]
    assert failed(own, answer.replace("left", "left and up")) == ["at most 3 words: 5 words"]
    inherited = rubric(extends="ltx-video", words={"max": 3})
    assert "at most 3 words: 4 words" in failed(inherited, "a b c d\n\n### Tags:\nsea")


def test_judged_tells_shares_by_side_and_rule_and_shows_failures():
    own = rubric(
        about="short",
        words={"max": 2},
        forbids=[{"pattern": "blood", "about": "no gore"}],
        min_share=0.8,
    )
    good, long, both = "slow pan", "a very slow pan", "blood on the floor"
    facts = judged(
        own,
        base=[long, both, long, good],
        tuned=[good, good, both, good],
        author=[good],
        groups=range(4),
        samples=200,
        seed=1,
    )
    assert (facts["name"], facts["about"]) == ("own", "short")
    assert facts["base"]["value"] == 0.25
    assert facts["base"]["answers"] == 4
    assert facts["tuned"]["low"] < facts["tuned"]["value"] == 0.75 < facts["tuned"]["high"]
    assert facts["author"]["value"] == 1
    assert facts["difference"]["value"] == 0.5
    assert facts["difference"]["low"] <= 0.5 <= facts["difference"]["high"]
    assert facts["rules"] == [
        {"rule": "at most 2 words", "base": 0.25, "tuned": 0.75, "author": 1},
        {"rule": "no gore", "base": 0.75, "tuned": 0.75, "author": 1},
    ]
    assert facts["examples"] == [
        {"index": 2, "failed": ["at most 2 words: 4 words", "no gore: 'blood'"]}
    ]
    assert facts["min_share"] == 0.8


def test_judged_without_author_and_limit():
    facts = judged(
        rubric(words={"max": 2}),
        base=["a"],
        tuned=["b c d"],
        author=[],
        groups="a",
        samples=100,
        seed=1,
    )
    assert facts["author"] is None
    assert facts["rules"][0]["author"] is None
    assert facts["min_share"] is None


def test_at_most_three_examples():
    facts = judged(
        rubric(words={"max": 1}),
        base=["a b"] * 5,
        tuned=["a b"] * 5,
        author=[],
        groups=range(5),
        samples=100,
        seed=1,
    )
    assert [example["index"] for example in facts["examples"]] == [0, 1, 2]
    assert facts["difference"]["value"] == 0
