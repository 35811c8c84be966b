import json
import shutil

import pytest

from tunewright import check, prepare
from tunewright.artifacts import load_artifact, writing
from tunewright.data import check_file
from tunewright.errors import TunewrightError


def code_of(action) -> list[str]:
    with pytest.raises(TunewrightError) as caught:
        action()
    return [p.code for p in caught.value.problems]


def rows_of(artifact, side):
    return [json.loads(x) for x in (artifact.path / f"{side}.jsonl").read_text().splitlines()]


def test_manuscript_rows_have_provenance_and_match_the_source(make_config, manuscript):
    dataset = prepare(make_config())
    rows = rows_of(dataset, "train") + rows_of(dataset, "eval")
    assert dataset.facts["train_rows"] + dataset.facts["eval_rows"] == len(rows) >= 8
    for row in rows:
        text = (manuscript / row["source"]).read_text()
        found = text[row["start"] : row["end"]]
        assert "".join(row["output"].split()) == "".join(found.replace("* * *", "").split())
    sides = [{r["source"] for r in rows_of(dataset, side)} for side in ("train", "eval")]
    assert not sides[0] & sides[1]


def test_continuation_input_is_the_passage_before(make_config):
    dataset = prepare(make_config("prepare.mode=continuation"))
    rows = {(r["source"], r["chunk"]): r for s in ("train", "eval") for r in rows_of(dataset, s)}
    followed = [r for r in rows.values() if r["input"]]
    assert followed
    for row in followed:
        assert row["input"] == rows[row["source"], row["chunk"] - 1]["output"]


@pytest.mark.parametrize(
    "sample", ["shell-helper.jsonl", "agents/critic.jsonl", "agents/synthesizer.jsonl"]
)
def test_bundled_rows_go_through(make_config, sample):
    config = make_config(f"prepare.source=sample:{sample}", "train.max_length=512")
    dataset = prepare(config)
    found = check(config, dataset)
    assert all(gate["passed"] for gate in found.facts["gates"])
    assert found.facts["rows_with_end"] == found.facts["rows"]


def test_dataset_is_the_same_when_made_again(make_config):
    one, other = prepare(make_config()), prepare(make_config())
    assert one.files == other.files


def test_a_latin1_manuscript_is_read_and_said(make_config, tmp_path):
    text = "\n\n".join(
        f"Le café numéro {n} était fermé. La fenêtre {n * 7} était ouverte. Où est le garçon {n * 3}?"
        for n in range(80)
    )
    (tmp_path / "a.txt").write_bytes(text.encode("latin-1"))
    dataset = prepare(make_config(f"prepare.source={tmp_path}"))
    assert "café" in rows_of(dataset, "train")[0]["output"]
    assert any("read as" in note for note in dataset.facts["notes"])


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (lambda d: d / "none.txt", ["E_NOT_FOUND"]),
        (lambda d: d, ["E_NOT_FOUND"]),
        (lambda d: (d / "a.docx").write_bytes(b"PK") and d / "a.docx", ["E_DATA_ROW"]),
        (lambda d: (d / "a.txt").write_text("Short.") and d / "a.txt", ["E_DATA_EMPTY"]),
        (
            lambda d: (d / "a.txt").write_bytes(b"\x00\xff\xfe\x80" * 9) and d / "a.txt",
            ["E_DATA_ROW"],
        ),
        (lambda d: (d / "a.jsonl").write_text("{\n[]\n") and d / "a.jsonl", ["E_DATA_ROW"] * 2),
    ],
)
def test_bad_sources(make_config, tmp_path, make, codes):
    config = make_config(f"prepare.source={make(tmp_path)}")
    assert code_of(lambda: prepare(config)) == codes


def leaky(config, dataset):
    """The dataset with one training row copied, slightly changed, to the held-out side."""
    with writing(dataset.path.parent / "leaky", "dataset", settings=0, parents={}) as draft:
        for side in ("train", "eval"):
            shutil.copyfile(dataset.path / f"{side}.jsonl", draft.path / f"{side}.jsonl")
        row = rows_of(dataset, "train")[0]
        words = row["output"].split()
        words[3] = "otherwise"
        with (draft.path / "eval.jsonl").open("a") as stream:
            stream.write(json.dumps(row | {"output": " ".join(words)}) + "\n")
    return load_artifact(dataset.path.parent / "leaky", "dataset")


def test_a_leak_across_the_split_fails_the_gate(make_config):
    config = make_config()
    dataset = leaky(config, prepare(config))
    assert code_of(lambda: check(config, dataset)) == ["E_LEAK"]
    allowed = make_config("check.allow_leakage=true")
    gates = {g["gate"]: g["passed"] for g in check(allowed, dataset).facts["gates"]}
    assert gates["no text on both sides of the split"] is False


def test_near_copies_in_the_source_stay_on_one_side(make_config, tmp_path, manuscript):
    for file in manuscript.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
        copy = file.read_text().replace("elevator", "lift").replace("Nothing.", "Nothing!")
        (tmp_path / f"second_{file.name}").write_text(copy)
    config = make_config(f"prepare.source={tmp_path}")
    dataset = prepare(config)
    assert dataset.facts["near_copies_kept_together"] >= 8
    assert check(config, dataset).facts["leaks"] == 0


def test_rows_cut_before_their_answer(make_config, tmp_path):
    rows = [{"prompt": f"word{n} " * 40, "completion": f"answer {n}"} for n in range(10)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = make_config(f"prepare.source={tmp_path / 'r.jsonl'}", "train.max_length=20")
    dataset = prepare(config)
    assert code_of(lambda: check(config, dataset)) == ["E_NOTHING_TO_LEARN"]


def test_ends_that_are_cut_off(make_config):
    config = make_config("train.max_length=40")
    dataset = prepare(config)
    assert code_of(lambda: check(config, dataset)) == ["E_EOS_NOT_LEARNED"]


def test_check_file_counts(tmp_path):
    file = tmp_path / "r.jsonl"
    row = {"prompt": "one two three four five six seven", "completion": "b"}
    file.write_text("\n".join(json.dumps(r) for r in (row, row, row | {"prompt": "other"})))
    assert check_file(file) == {"rows": 3, "turns": 6, "exact_duplicates": 1, "near_duplicates": 1}
    assert code_of(lambda: check_file(tmp_path / "none.jsonl")) == ["E_NOT_FOUND"]


def test_rendered_rows_show_what_is_learned(make_config):
    config = make_config()
    found = check(config, prepare(config))
    row = json.loads((found.path / "rendered.jsonl").read_text().splitlines()[0])
    learned = "".join(run["text"] for run in row["runs"] if run["learned"])
    assert learned.endswith("<|im_end|>")
    assert "Continue this narrative" not in learned


def test_a_shared_system_message_and_short_equal_answers_are_no_copies(make_config, tmp_path):
    system = "You are a careful reviewer of pull requests in a large team. " * 8
    rows = [
        {
            "messages": [
                {"role": "system", "content": system},
                {
                    "role": "user",
                    "content": f"Change number {n * 37} touches file f{n}.py. Accept it?",
                },
                {"role": "assistant", "content": "Approve." if n % 2 else "Reject."},
            ]
        }
        for n in range(40)
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = prepare(make_config(f"prepare.source={tmp_path / 'r.jsonl'}"))
    answers = {row["messages"][-1]["content"] for row in rows_of(dataset, "train")}
    assert answers == {"Approve.", "Reject."}
    assert 6 <= dataset.facts["eval_rows"] <= 10
