"""The page: everything that was made is on it, nothing on it is loaded or run."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunewright.artifacts import Artifact, Kind, load_artifact, writing
from tunewright.config.schema import Config, PrepareSection
from tunewright.report import report

SECTIONS = [
    "verdict",
    "score",
    "gates",
    "samples",
    "markers",
    "training",
    "dataset",
    "memorisation",
    "parity",
    "run",
    "provenance",
]
VOID = {"meta", "img", "source", "br", "link", "input"}
LINKING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "xlink:href", "style"}
HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(1)>" onload="x" {{ 7*7 }} </style>"""

FACTS: dict[Kind, dict] = {
    "dataset": {
        "train_rows": 96,
        "eval_rows": 24,
        "train_words": 11_800,
        "eval_words": 2_950,
        "train_tokens": 15_360,
        "eval_tokens": 3_811,
        "lengths": {"edges": [100.0, 140.0, 180.0, 220.0], "counts": [30, 60, 30]},
        "sources": 26,
        "notes": ["2 files were not UTF-8 and were read as Windows-1252."],
        "gates": [
            {"gate": "near copies across the split", "value": "0", "limit": "0", "passed": True}
        ],
    },
    "adapter": {
        "base": "tunewright/tiny",
        "best_step": 84,
        "best_eval_loss": 3.412,
        "eval_losses": [
            [n * 12, 3.4 + 1.7 * math.exp(-n / 2) + 0.01 * (n - 7) ** 2 / 4] for n in range(13)
        ],
        "train_losses": [
            [n * 4, 2.9 + 2.2 * math.exp(-n / 9) + 0.08 * math.sin(n * 2.1)] for n in range(37)
        ],
        "steps": 144,
        "seconds": 93.4,
        "stopped_early": True,
    },
    "evaluation": {
        "verdict": "improved",
        "sentence": "The tuned model writes far more like the author: 71 % of the way from the base, "
        "and it repeats no more of the training text than the author does.",
        "advice": "It can be published.",
        "transfer_score": {"score": 71.2, "low": 62.4, "high": 79.0, "reason": None, "words": 4000},
        "markers": [
            {
                "marker": "words a sentence",
                "base": 9.1,
                "tuned": 15.7,
                "author": 17.2,
                "towards": True,
            },
            {"marker": "commas per 1,000 words", "base": 41.0, "tuned": 66.1, "author": 71.9},
            {"marker": "share of dialogue", "base": 0.02, "tuned": 0.19, "author": 0.24},
            {"marker": "semicolons per 1,000 words", "base": 1.2, "tuned": 0.8, "author": 6.4},
            {"marker": "distinct words in 100", "base": 61.0, "tuned": 61.0, "author": 68.3},
        ],
        "memorisation": {
            "longest_words": 9,
            "limit_words": 25,
            "longest_text": "and the tide went out as it had every morning",
            "longest_source": "chunk_07.txt",
            "copied_share": 0.004,
            "heldout_copied_share": 0.003,
        },
        "perplexity": {"heldout": {"base": {"value": 61.3}, "tuned": {"value": 31.9}}},
        "gates": [
            {
                "gate": "longest copy",
                "value": "9 words",
                "limit": "at most 25 words",
                "passed": True,
            },
            {
                "gate": "perplexity, tuned over base",
                "value": "0.52",
                "limit": "at most 1.05",
                "passed": True,
            },
        ],
    },
    "merged": {
        "mean_kl": 2.1e-6,
        "max_kl": 4.4e-4,
        "top1_agreement": 0.9989,
        "tokens": 2048,
        "gates": [
            {
                "gate": "merged equals base with adapter",
                "value": "KL 2.1e-06",
                "limit": "KL 1e-03",
                "passed": True,
            }
        ],
    },
    "exported": {
        "files": {
            "F16": {
                "file": "voice-F16.gguf",
                "bytes": 23_400_000,
                "mean_kl": 3e-6,
                "max_kl": 8e-4,
                "top1_agreement": 0.998,
                "positions": 3000,
                "texts": 24,
            },
            "Q8_0": {
                "file": "voice-Q8_0.gguf",
                "bytes": 12_600_000,
                "mean_kl": 0.0012,
                "max_kl": 0.041,
                "top1_agreement": 0.981,
                "positions": 3000,
                "texts": 24,
            },
        },
        "served": "Q8_0",
        "gates": [
            {
                "gate": "token ids on hard texts",
                "value": "214 of 214 equal",
                "limit": "all",
                "passed": True,
            },
            {
                "gate": "Q8_0 against merged",
                "value": "KL 0.0012",
                "limit": "KL 0.01",
                "passed": False,
            },
        ],
    },
    "published": {
        "agent": "demo",
        "adapter": "voice",
        "version": "v20261101-0930",
        "files": 9,
        "bytes": 37_000_000,
        "manifest_sha256": "ab" * 32,
        "gates": [],
    },
}
TEXT = (
    "The harbour lay flat as slate, and the boats, which had come in before the wind turned, knocked "
    "softly against each other. “You will not go out again,” she said; it was not a question."
)


def made(run: Path, kinds: list[Kind], samples: list[dict]) -> dict[Kind, Artifact]:
    found: dict[Kind, Artifact] = {}
    for kind in kinds:
        with writing(run / kind, kind, settings={}, parents={}) as draft:
            draft.facts |= FACTS[kind]
            if kind == "evaluation":
                lines = "".join(json.dumps(sample) + "\n" for sample in samples)
                (draft.path / "samples.jsonl").write_text(lines)
        found[kind] = load_artifact(run / kind, kind)
    return found


def config_of(run: Path, **options) -> Config:
    return Config(name="voice", output_dir=str(run), prepare=PrepareSection(source="x"), **options)


def sample(number: int = 1, **texts: str) -> dict:
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
        "near copies across the split",
        "merged equals base with adapter",
        "✗ failed",
        "↑ closer",
        "↓ further",
        "84",
        "15,360",
        "and the tide went out",
        "voice-Q8_0.gguf",
        "ollama create voice -f",
        "tunewright chat",
        "tunewright store resolve demo",
        "demo/voice/v20261101-0930",
        "per_device_train_batch_size: 2",
        "Windows-1252",
    ],
)
def test_the_page_says(full, text):
    assert text in full[1].text


def test_six_samples_are_shown_on_three_sides(full):
    assert full[1].attributes.count(("class", "sample")) == 6
    assert full[1].attributes.count(("class", "side tuned")) == 6


def test_nothing_is_loaded_or_run(full):
    html, page = full
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
        "memorisation": {"longest_words": 3, "longest_text": HOSTILE, "longest_source": HOSTILE},
        "markers": [{"marker": HOSTILE, "base": HOSTILE, "towards": HOSTILE}],
        "transfer_score": {"score": None, "reason": HOSTILE},
        "gates": [{"gate": HOSTILE, "value": HOSTILE, "limit": HOSTILE, "passed": True}],
    }
    monkeypatch.setitem(FACTS, "evaluation", evaluation | hostile)
    monkeypatch.setitem(FACTS, "adapter", FACTS["adapter"] | {"best_step": HOSTILE})
    monkeypatch.setitem(FACTS, "dataset", FACTS["dataset"] | {"sources": [HOSTILE]})
    monkeypatch.setitem(FACTS, "exported", {"files": {HOSTILE: {"file": HOSTILE}}})
    lines = [sample(prompt=HOSTILE, base=HOSTILE, tuned=HOSTILE, author=HOSTILE)]
    config = config_of(tmp_path, model={"model_name_or_path": HOSTILE})
    html, page = page_of(report(config, made(tmp_path, list(FACTS), lines)))
    assert "script" not in page.tags
    assert [n for n, _ in page.attributes if n.startswith("on")] == []
    assert page.tags.count("img") == 2
    assert page.ids == SECTIONS
    assert page.text.count(HOSTILE) >= 14
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


def test_it_depends_on_what_it_shows(tmp_path):
    artifacts = made(tmp_path, ["dataset"], [])
    first = report(config_of(tmp_path), artifacts)
    assert first.parents == {"dataset": artifacts["dataset"].digest}
    again = report(config_of(tmp_path), artifacts | {"report": first})
    assert again.key == first.key
    assert report(config_of(tmp_path, seed=1), artifacts).key != first.key
