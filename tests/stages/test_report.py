"""The page: everything that was made is on it, nothing on it is loaded or run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_facts import FACTS, FULL

from tunewright.artifacts import Artifact, Kind, load_artifact, writing
from tunewright.config.schema import Config, PrepareSection
from tunewright.report import report

SECTIONS = [
    "verdict",
    "score",
    "gates",
    "samples",
    "markers",
    "memorisation",
    "quality",
    "training",
    "dataset",
    "parity",
    "run",
    "provenance",
]
OPTIONAL = ["judge", "rubrics", "checkpoints"]
VOID = {"meta", "img", "source", "br", "link", "input"}
LINKING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "xlink:href", "style"}
HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(1)>" onload="x" {{ 7*7 }} </style>"""

TEXT = (
    "The harbour lay flat as slate, and the boats, which had come in before the wind turned, knocked "
    "softly against each other. “You will not go out again,” she said; it was not a question."
)


def made(run: Path, kinds: list[Kind], samples: list[dict]) -> dict[Kind, Artifact]:
    found: dict[Kind, Artifact] = {}
    for kind in kinds:
        with writing(run / kind, kind, settings={}, parents={}) as draft:
            draft.facts |= FACTS[kind]
            if kind == "adapter":
                rows = [json.dumps({"step": n, "learning_rate": 0.002 / n}) for n in range(1, 9)]
                (draft.path / "metrics.jsonl").write_text("\n".join(rows))
                summary = {
                    "versions": {"torch": "9.9"},
                    "finished": "2026-11-01",
                    "bit_exact": False,
                }
                (draft.path / "training_summary.json").write_text(json.dumps(summary))
            if kind == "evaluation":
                lines = "".join(json.dumps(sample) + "\n" for sample in samples)
                (draft.path / "samples.jsonl").write_text(lines)
        found[kind] = load_artifact(run / kind, kind)
    return found


def everything(run: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Kind, Artifact]:
    """Return artifacts with all that an evaluation and a training can tell."""
    training = {
        "machine": {"device": "cpu", "device_name": "x86_64", "threads": 2, "world_size": 1},
        "tokens_seen": 91_640,
        "choices": [{"name": "dtype", "value": "float32", "reason": "bfloat16 is not faster"}],
    }
    monkeypatch.setitem(FACTS, "evaluation", FACTS["evaluation"] | FULL)
    monkeypatch.setitem(FACTS, "adapter", FACTS["adapter"] | training)
    (run / "training").mkdir()
    progress = [
        {"step": n, "seconds": 2.0 * n, "time": n, "tokens_per_second": 900.0, "memory_bytes": 15e8}
        for n in range(1, 5)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in progress)
    (run / "training" / "progress.jsonl").write_text(lines)
    copied = {"base": [], "tuned": [[4, 27, 9, "chapter <7>.txt"]]}
    rows = [sample(n, copied=copied) for n in range(8)]
    return made(run, list(FACTS), [*rows, sample(8, copied={}, scored=False)])


def config_of(run: Path, **options) -> Config:
    return Config(name="voice", output_dir=str(run), prepare=PrepareSection(source="x"), **options)


def sample(number: int = 1, **texts: object) -> dict:
    given = {
        "prompt": f"Continue this narrative in the author's style: {number}",
        "base": TEXT[:90],
    }
    return given | {"tuned": TEXT, "author": TEXT * 4, "scored": True} | texts


class Page(HTMLParser):
    """What is in a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(artifact: Artifact) -> tuple[str, Page]:
    html = (artifact.path / artifact.facts["file"]).read_text()
    return html, Page(html)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[str, Page]:
    run = tmp_path_factory.mktemp("run")
    samples = [sample(n) for n in range(9)]
    artifact = report(config_of(run), made(run, list(FACTS), samples))
    assert artifact.facts["not_done"] == []
    return page_of(artifact)


def test_every_section_is_there_in_order(full):
    assert full[1].ids == SECTIONS


@pytest.mark.parametrize(
    "text",
    [
        "improved",
        "71 % of the way",
        "It can be published.",
        "target 60 %",
        "1 of 6 were not:",
        "5 gates that passed",
        "near copies across the split",
        "merged equals base with adapter",
        "✗ failed",
        "↑ closer",
        "↓ further",
        "84",
        "15,360",
        "and the tide went out",
        "voice-Q8_0.gguf",
        "ollama create tunewright/voice -f",
        "tunewright chat",
        "tunewright store resolve demo",
        "demo/voice/v20261101-0930",
        "per_device_train_batch_size: 2",
        "Windows-1252",
        "What was noted while the data was prepared",
        "Lines dropped: 7. These are headings",
        "export: 1 gate failed",
        "torch\xa09.9",
        "resumed in a way that is not exact",
        "this page made with",
    ],
)
def test_the_page_says(full, text):
    assert text in full[1].text


def test_samples_are_shown_on_three_sides(full):
    assert full[1].attributes.count(("class", "sample")) == 9
    assert full[1].attributes.count(("class", "side tuned")) == 9
    assert "3 more of 9 answers" in full[1].text


@pytest.mark.parametrize(
    "text",
    ["Why", "Underlined", "No answer shown here", "Throughput", "not empty", "not on this page"],
)
def test_what_was_not_measured_is_not_on_the_page(full, text):
    assert "mark" not in full[1].tags
    assert text not in full[1].text


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> tuple[str, Page]:
    run = tmp_path_factory.mktemp("rich")
    with pytest.MonkeyPatch.context() as patch:
        return page_of(report(config_of(run), everything(run, patch)))


def test_what_was_measured_has_its_section(rich):
    assert sorted(rich[1].ids) == sorted(SECTIONS + OPTIONAL)


@pytest.mark.parametrize(
    "text",
    [
        "The longest copy has 12 words.",
        "Compared: tunewright/tiny with checkpoint 84.",
        "55 of 60 prompts were asked.",
        "own held-out text shares with it has 6.",
        "words, 6 in held-out text",
        "share of answers that have a word95.0 % 93.0 to 97.0 %",
        "Answer 9, your own prompt: not scored",
        "14 words from a.txt, in answer 15",
        "2 more copied passages",
        "of the base's 1.2 %",
        "7 copied passages of 8 words and more were found; these are the longest.",
        "0.00 for the base, 0.69 for the tuned model",
        "less surprised",
        "no clear change",
        "more surprised",
        "72 to 80",
        "43 %",
        "Prompts with balanced weights.",
        "74 to 92 %",
        "Answer 12: words 20 to 120: 9; brackets balanced: no",
        "The judge clearly prefers it to the base.",
        "step 48",
        "36 to 44",
        "57.0 to 61.0",
        "4 steps",
        "900 tokens a second",
        "1.50 GB",
        "91,640",
        "x86_64, 2 threads",
        "bfloat16 is not faster",
    ],
)
def test_the_page_says_what_was_measured(rich, text):
    assert text in " ".join(rich[1].text.split())


def test_a_copy_is_marked_for_the_eye_the_ear_and_on_paper(rich):
    html, page = rich
    assert page.attributes.count(("title", "9 words from chapter <7>.txt")) == 8
    assert page.text.count("9 words from chapter <7>.txt") == 8
    assert '<span class="heard">copied, note 1: </span>harbour lay flat as sla<sup>1</sup>' in html
    style = html[html.index("<style>") : html.index("</style>")]
    assert re.search(r"mark \{[^}]*text-decoration: underline", style)


def test_the_author_has_no_box_beside_a_prompt_of_the_user_s_own(rich):
    sides = [rich[1].attributes.count(("class", f"side {side}")) for side in ("tuned", "author")]
    assert sides == [9, 8]


def test_a_stage_whose_gate_failed_is_not_marked_as_good(full):
    stages = [value for name, value in full[1].attributes if value in {"done", "failed"}]
    assert stages == ["done"] * 4 + ["failed", "done"]


def test_options_are_set_apart(full):
    assert "For more: <code>train.lora.r</code>." in full[0]


def test_what_is_folded_opens_on_paper(rich):
    assert "details::details-content { content-visibility: visible; }" in rich[0]


def test_pictures_of_curves_say_what_is_in_them(rich):
    alternatives = [value for name, value in rich[1].attributes if name == "alt"]
    assert len(alternatives) == 2 * 6
    assert all(alternatives)


@pytest.mark.parametrize("made_page", ["full", "rich"])
def test_nothing_is_loaded_or_run(made_page, request):
    html, page = request.getfixturevalue(made_page)
    assert "://" not in html
    assert "script" not in page.tags
    assert [
        v for n, v in page.attributes if n in LINKING and not v.startswith("data:image/svg")
    ] == []
    assert [n for n, _ in page.attributes if n.startswith("on")] == []
    policy = next(v for n, v in page.attributes if v.startswith("default-src 'none'"))
    assert "unsafe" not in policy


def test_the_policy_admits_the_page_s_own_style(full):
    import base64
    import hashlib

    style = re.search(r"<style>(.*?)</style>", full[0], re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in full[0]


def test_hostile_text_stays_text(tmp_path, monkeypatch):
    evaluation = FACTS["evaluation"]
    hostile = {
        "verdict": HOSTILE,
        "sentence": HOSTILE,
        "memorisation": {"longest_words": 8, "longest_text": HOSTILE, "longest_source": HOSTILE},
        "markers": [{"marker": HOSTILE, "base": HOSTILE, "towards": HOSTILE}],
        "transfer_score": {"score": None, "reason": HOSTILE},
        "gates": [{"gate": HOSTILE, "value": HOSTILE, "limit": HOSTILE, "passed": True}],
        "reasons": [HOSTILE],
        "compared": {"base": HOSTILE, "tuned": HOSTILE},
        "perplexity": {"heldout": {"base": {"value": HOSTILE, "low": HOSTILE, "high": 1}}},
        "answers": {"tuned": {"words": {"value": HOSTILE, "low": 1}}},
        "rubrics": [
            {"name": HOSTILE, "about": HOSTILE, "rules": [{"rule": HOSTILE}], "examples": []}
        ],
        "judge": {"model": HOSTILE, "rate": None},
    }
    monkeypatch.setitem(FACTS, "evaluation", evaluation | hostile)
    monkeypatch.setitem(FACTS, "adapter", FACTS["adapter"] | {"best_step": HOSTILE})
    monkeypatch.setitem(FACTS, "dataset", FACTS["dataset"] | {"sources": [HOSTILE]})
    monkeypatch.setitem(FACTS, "exported", {"files": {HOSTILE: {"file": HOSTILE}}})
    copied = {"base": [[0, 9, 8, HOSTILE]]}
    lines = [sample(prompt=HOSTILE, base=HOSTILE, tuned=HOSTILE, author=HOSTILE, copied=copied)]
    config = config_of(tmp_path, model={"model_name_or_path": HOSTILE})
    html, page = page_of(report(config, made(tmp_path, list(FACTS), lines)))
    assert "script" not in page.tags
    assert [n for n, _ in page.attributes if n.startswith("on")] == []
    assert page.tags.count("img") == 6
    assert set(page.ids) == {*SECTIONS, "rubrics", "judge"}
    assert page.text.count(HOSTILE) >= 24
    assert "<script" not in html


@pytest.mark.parametrize("kinds", [[], ["dataset"], ["dataset", "adapter"], ["evaluation"]])
def test_what_is_missing_is_named_as_not_done(tmp_path, kinds):
    artifact = report(config_of(tmp_path), made(tmp_path, kinds, []))
    _, page = page_of(artifact)
    missing = {"dataset", "adapter", "evaluation", "merged", "exported", "published"} - set(kinds)
    assert set(artifact.facts["not_done"]) == missing
    assert page.ids == SECTIONS
    assert page.text.count(": not done") == len(missing)
    assert "merge: not done" in page.text


def test_artifacts_without_facts_are_tolerated(tmp_path, monkeypatch):
    for kind in FACTS:
        monkeypatch.setitem(FACTS, kind, {})
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, list(FACTS), [])))
    assert page.ids == SECTIONS


def test_a_run_without_a_score_and_with_every_gate_failed(tmp_path, monkeypatch):
    gates = [{"gate": "g", "value": "1", "limit": "0", "passed": False}]
    score = {"score": None, "reason": "300 words are missing."}
    changed = {"gates": gates, "transfer_score": score, "verdict": "memorised"}
    monkeypatch.setitem(FACTS, "evaluation", FACTS["evaluation"] | FULL | changed)
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, ["evaluation"], [])))
    assert ("class", "verdict bad") in page.attributes
    assert "There is no score: 300 words are missing." in page.text
    assert "1 of 1 were not:" in page.text
    assert "gates that passed" not in page.text


@pytest.mark.parametrize(
    ("judge", "text"),
    [
        ({"asked": 12, "rate": None}, "none of its 12 answers names a side in both orders"),
        ({"asked": 0, "rate": None}, "it judged no pair"),
        (None, ""),
    ],
)
def test_a_judge_without_a_result(tmp_path, monkeypatch, judge, text):
    facts = FACTS["evaluation"] | {"judge": judge and {"same_in_both_orders": None} | judge}
    monkeypatch.setitem(FACTS, "evaluation", facts)
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, ["evaluation"], [])))
    assert ("judge" in page.ids) is bool(judge)
    assert text in page.text
    assert "the judge said the same" not in page.text


def test_a_short_run_of_words_is_not_quoted(tmp_path, monkeypatch):
    memory = {"longest_words": 7, "longest_text": "on his head", "longest_source": "a.txt"}
    monkeypatch.setitem(FACTS, "evaluation", FACTS["evaluation"] | {"memorisation": memory})
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, ["evaluation"], [])))
    assert "7 words" in page.text
    assert "on his head" not in page.text
    assert "a.txt" not in page.text


def test_answers_that_are_not_on_the_page_are_located(tmp_path):
    lines = [sample(n) for n in range(24)]
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, ["evaluation"], lines)))
    assert "6 of 24 answers are not on this page: evaluation/samples.jsonl" in page.text


def test_lengths_as_a_list_of_an_older_dataset_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(FACTS, "dataset", FACTS["dataset"] | {"lengths": [100, 120]})
    _, page = page_of(report(config_of(tmp_path), made(tmp_path, ["dataset"], [])))
    assert "img" not in page.tags


def test_it_depends_on_what_it_shows(tmp_path):
    artifacts = made(tmp_path, ["dataset"], [])
    first = report(config_of(tmp_path), artifacts)
    assert first.parents == {"dataset": artifacts["dataset"].digest}
    again = report(config_of(tmp_path), artifacts | {"report": first})
    assert again.key == first.key
    assert report(config_of(tmp_path, seed=1), artifacts).key != first.key
