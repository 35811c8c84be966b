import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tunewright.data
from tunewright.artifacts import load_artifact, writing
from tunewright.config.schema import CompareSection, Config, PrepareSection, TrainSection
from tunewright.errors import TunewrightError
from tunewright.evaluate import _local, compare
from tunewright.evaluate.style import passages
from tunewright.events import SILENT
from tunewright.models._folders import TINY, resolve_model
from tunewright.models._load import load_model
from tunewright.models._tokenizer import load_tokenizer
from tunewright.models.chat import encode, messages_of
from tunewright.models.sampling import Answer, Sampling

SAMPLES = Path(tunewright.data.__file__).parent / "samples"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(
        output_dir=str(tmp_path_factory.mktemp("run")),
        prepare=PrepareSection(source="sample:manuscript"),
        train=TrainSection(max_length=96),
        compare=CompareSection(
            num_prompts=9,
            prompts=("Describe a lift.",),
            max_new_tokens=24,
            batch_size=5,
            bootstrap_samples=100,
            min_words=100,
        ),
    )


def _dataset(config, heldout, training, name="dataset"):
    with writing(Path(config.run_dir) / name, "dataset", settings={}, parents={}) as draft:
        for file, rows in (("eval.jsonl", heldout), ("train.jsonl", training)):
            lines = [json.dumps(row) + "\n" for row in rows]
            (draft.path / file).write_text("".join(lines), encoding="utf-8")
    return load_artifact(Path(config.run_dir) / name, "dataset")


def _row(text, number):
    instruction = "Continue this narrative in the author's style:"
    source = f"chunk_{number:02}.txt"
    return {"instruction": instruction, "input": "", "output": text, "source": source}


@pytest.fixture(scope="module")
def manuscript(config):
    files = sorted((SAMPLES / "manuscript").glob("*.txt"))
    rows = [
        _row(text, number)
        for number, file in enumerate(files[:8])
        for text in passages(file.read_text(encoding="utf-8"), 60)[:4]
    ]
    return _dataset(config, rows[:7], rows[7:])


@pytest.fixture(scope="module")
def adapter(config, manuscript):
    torch.manual_seed(1)
    folder = resolve_model(TINY)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(load_model(folder), lora)
    path = Path(config.run_dir) / "adapter"
    with writing(path, "adapter", settings={}, parents={"dataset": manuscript}) as draft:
        model.save_pretrained(draft.path)
        load_tokenizer(folder).save_pretrained(draft.path)
    return load_artifact(path, "adapter")


class Recorder:
    def __init__(self):
        self.totals, self.done, self.lines = [], [], []

    def started(self, stage, total, unit):
        self.totals.append((stage, total, unit))

    def advanced(self, done, detail):
        self.done.append((done, detail))

    def said(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def evaluated(config, manuscript, adapter):
    listener = Recorder()
    artifact = compare(config, manuscript, adapter, listener=listener)
    files = {name: (artifact.path / name).read_text(encoding="utf-8") for name in artifact.files}
    return artifact, files, listener


def test_an_evaluation_has_all_figures(evaluated):
    artifact, files, listener = evaluated
    facts = artifact.facts
    samples = [json.loads(line) for line in files["samples.jsonl"].splitlines()]
    assert [s["scored"] for s in samples] == [True] * 9 + [False]
    assert samples[9]["prompt"] == "Describe a lift."
    assert samples[9]["author"] is None
    assert samples[0]["prompt"] == samples[7]["prompt"]
    assert samples[0]["base"] != samples[7]["base"]
    assert samples[0]["author"] == samples[7]["author"]
    assert all(s["base"] != s["tuned"] for s in samples)
    assert json.loads(files["markers.json"]) == facts["markers"]
    assert set(facts) == {
        *("verdict", "meaning", "sentence", "reasons", "advice", "gates"),
        *("compared", "prompts", "transfer_score", "markers", "memorisation", "perplexity"),
        *("answers", "rubrics"),
    }
    assert all(set(g) == {"gate", "value", "limit", "passed"} for g in facts["gates"])
    assert facts["transfer_score"]["excluded"] == 0
    assert facts["perplexity"]["heldout"]["rows"] == 7
    assert set(artifact.parents) == {"dataset", "adapter"}
    assert set(artifact.files) == {"samples.jsonl", "markers.json"}
    assert listener.totals[0] == ("compare", 20, "answers of base and adapter")
    assert (20, "adapter") in listener.done
    assert listener.lines == [f"Verdict: {facts['verdict']}; no transfer score."] or (
        "transfer score" in listener.lines[0]
    )


def test_a_random_adapter_fails_its_gates(evaluated):
    facts = evaluated[0].facts
    assert facts["verdict"] in ("degraded", "overfitted", "nothing learned")
    assert facts["perplexity"]["heldout"]["ratio"]["value"] > 1.05
    assert not all(gate["passed"] for gate in facts["gates"])


def test_the_same_comparison_again_gives_the_same_figures(config, manuscript, adapter, evaluated):
    first, _, _ = evaluated
    second = compare(config, manuscript, adapter)
    assert first.facts == second.facts
    assert first.files == second.files


def test_losses_against_a_plain_computation(config, manuscript, adapter):
    sampling = Sampling(24, 0.8, 0.9)
    base, tuned = _local.load_pair(
        resolve_model(TINY), adapter.path, sampling=sampling, names=("base", "tuned")
    )
    lines = (manuscript.path / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [messages_of(json.loads(line)) for line in lines]
    found = _local.row_losses(base, tuned, rows, max_length=96, what="rows", listener=SILENT)
    plain = load_model(resolve_model(TINY)).to(tuned.model.device)
    for row, loss in zip(rows, found, strict=True):
        encoded = encode(row, tuned.vocabulary)
        ids = torch.tensor([encoded.input_ids[:96]], device=tuned.model.device)
        with torch.inference_mode():
            for model, value in ((plain, loss.base), (tuned.model, loss.tuned)):
                odds = torch.log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
                losses = [
                    -float(odds[at - 1, ids[0, at]])
                    for at in range(1, ids.shape[1])
                    if encoded.mask[at]
                ]
                assert value == pytest.approx(sum(losses), rel=1e-5)
                assert loss.tokens == len(losses)


def test_answers_copied_from_the_training_text_are_memorised(
    config, manuscript, adapter, monkeypatch
):
    lines = (manuscript.path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    stolen = [json.loads(line)["output"] for line in lines]
    plain = _local.Local.answer

    def memorised(side, prompts, **options):
        if not side.adapted:
            return plain(side, prompts, **options)
        return [Answer(text, 80, ended=False) for text in stolen[: len(prompts)]]

    monkeypatch.setattr(_local.Local, "answer", memorised)
    artifact = compare(config, manuscript, adapter)
    facts = artifact.facts
    assert facts["verdict"] == "memorised"
    assert facts["transfer_score"]["score"] is None
    assert facts["transfer_score"]["excluded"] == 9
    span = facts["memorisation"]["spans"][0]
    assert span["words"] == 60
    assert span["source"].startswith("chunk_")
    assert facts["memorisation"]["longest_words"] == 60
    assert facts["memorisation"]["longest_source"].startswith("chunk_")
    assert facts["memorisation"]["copied_share"] == 1
    assert [g["gate"] for g in facts["gates"] if not g["passed"]][:2] == [
        "longest verbatim copy of training text",
        "word 8-grams of the answers found in training text",
    ]
    assert load_artifact(artifact.path, "evaluation", verify=True).facts == facts


def test_short_answers_get_a_verdict_without_a_score(config, adapter):
    lines = (SAMPLES / "agents" / "critic.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:24]]
    dataset = _dataset(config, rows[:4], rows[4:], name="agents")
    scarce = config.model_copy(
        update={
            "train": TrainSection(max_length=512),
            "compare": config.compare.model_copy(update={"min_words": 800, "num_prompts": 4}),
        }
    )
    facts = compare(scarce, dataset, adapter).facts
    assert facts["transfer_score"]["score"] is None
    assert "in the author's held-out text" in facts["transfer_score"]["reason"]
    assert facts["verdict"] in ("degraded", "overfitted")


def test_rows_without_a_label_in_reach_are_refused(config, manuscript, adapter):
    short = config.model_copy(update={"train": TrainSection(max_length=16)})
    with pytest.raises(TunewrightError) as caught:
        compare(short, _dataset(config, [_long()], [_long()], name="long"), adapter)
    assert caught.value.problems[0].code == "E_NOTHING_TO_LEARN"


def _long():
    return {"instruction": "Count to a hundred. " * 10, "output": "One."}


@pytest.mark.parametrize(
    ("heldout", "code"), [([], "E_DATA_EMPTY"), ([{"output": "x"}], "E_DATA_ROW")]
)
def test_a_dataset_that_cannot_be_compared_is_refused(config, adapter, heldout, code):
    dataset = _dataset(config, heldout, [_long()], name="bad")
    with pytest.raises(TunewrightError) as caught:
        compare(config, dataset, adapter)
    assert caught.value.problems[0].code == code
