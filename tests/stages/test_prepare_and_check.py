import json
import shutil
from pathlib import Path

import pytest

from tunewright import check, prepare
from tunewright.artifacts import load_artifact, writing
from tunewright.config.load import config_of_source
from tunewright.data import check_source, repair
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


def linked(folder):
    (folder / "in").mkdir()
    (folder / "out.txt").write_text("Somebody else's.")
    (folder / "in" / "a.txt").symlink_to(folder / "out.txt")
    return folder / "in"


def mixed(folder):
    (folder / "a.txt").write_text("Once there was a text.")
    (folder / "b.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    return folder


def preference(folder):
    row = {"prompt": "a", "chosen": "good", "rejected": "bad"}
    (folder / "p.jsonl").write_text(json.dumps(row))
    return folder / "p.jsonl"


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
        (lambda d: linked(d), ["E_UNSAFE_PATH"]),
        (lambda d: mixed(d), ["E_DATA_ROW"]),
        (lambda d: (d / "a.weights").write_text("x") and d / "a.weights", ["E_DATA_ROW"]),
        (lambda d: preference(d), ["E_PREFERENCE"]),
        (lambda d: (d / "a.csv").write_text("ask,say\n1,2\n3,4\n") and d / "a.csv", ["E_COLUMNS"]),
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
    # the copied row and the source that it is from
    assert code_of(lambda: check(config, dataset)) == ["E_LEAK"] * 2
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


def test_check_source_counts_copies(tmp_path):
    file = tmp_path / "r.jsonl"
    row = {"prompt": "one two three four five six seven", "completion": "b"}
    file.write_text("\n".join(json.dumps(r) for r in (row, row, row | {"prompt": "other"})))
    found = check_source(config_of_source(str(file)))
    assert (found["rows"], found["exact_duplicates"], found["near_duplicates"]) == (3, 1, 0)
    assert found["files"][0]["forms"] == {"prompt-completion": 3}
    missing = config_of_source(str(tmp_path / "none.jsonl"))
    assert code_of(lambda: check_source(missing)) == ["E_NOT_FOUND"]


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


def write_pairs(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))


def pairs(count, start=0, **more):
    """Rows of different words, so that none is a copy of another."""
    return [
        {"prompt": f"What is number {n}?", "completion": " ".join(f"w{n}x{k}" for k in range(30))}
        | more
        for n in range(start, start + count)
    ]


def test_several_sources_are_mixed_by_weight(make_config, tmp_path):
    write_pairs(tmp_path / "a.jsonl", pairs(60))
    write_pairs(tmp_path / "b.jsonl", pairs(60, 100))
    write_pairs(tmp_path / "c.jsonl", pairs(200, 200))
    entries = [
        {"path": str(tmp_path / "a.jsonl"), "weight": 2},
        {"path": str(tmp_path / "b.jsonl")},
        {"path": str(tmp_path / "c.jsonl"), "weight": 0.25},
    ]
    dataset = prepare(make_config(f"prepare.source={json.dumps(entries)}", "train.max_length=512"))
    held = [row["source"] for row in rows_of(dataset, "eval")]
    taken = dict.fromkeys(("a.jsonl", "b.jsonl", "c.jsonl"), 0)
    for row in rows_of(dataset, "train"):
        taken[row["source"]] += 1
    assert taken["a.jsonl"] == 2 * (60 - held.count("a.jsonl"))
    assert taken["b.jsonl"] == 60 - held.count("b.jsonl")
    assert 25 <= taken["c.jsonl"] <= 60
    # held-out rows are never repeated
    assert len(held) == len({json.dumps(row["prompt"]) for row in rows_of(dataset, "eval")})


def test_a_split_is_stratified_by_agent(make_config, tmp_path):
    write_pairs(tmp_path / "a.jsonl", [*pairs(40, agent="critic"), *pairs(160, 50, agent="writer")])
    dataset = prepare(make_config(f"prepare.source={tmp_path / 'a.jsonl'}", "train.max_length=512"))
    held = [row["agent"] for row in rows_of(dataset, "eval")]
    assert 6 <= held.count("critic") <= 10
    assert 26 <= held.count("writer") <= 38


def test_bad_rows_are_skipped_up_to_a_share_and_listed(make_config, tmp_path):
    good = [json.dumps(row) for row in pairs(99)]
    (tmp_path / "r.jsonl").write_text("\n".join([*good[:50], '{"prompt": "a"', *good[50:]]))
    source = f"prepare.source={tmp_path / 'r.jsonl'}"
    assert code_of(lambda: prepare(make_config(source))) == ["E_DATA_ROW"]
    skip = (source, "prepare.on_bad_row=skip", "train.max_length=512")
    dataset = prepare(make_config(*skip, "prepare.max_bad=0.02"))
    (rejected,) = rows_of(dataset, "rejected")
    assert rejected["where"].endswith("r.jsonl:51:15")
    assert dataset.facts["rejected_rows"] == 1
    assert dataset.facts["train_rows"] + dataset.facts["eval_rows"] == 99
    codes = code_of(lambda: prepare(make_config(*skip, "prepare.max_bad=0.001")))
    assert codes == ["E_DATA_ROW"] * 2


def test_files_that_change_while_they_are_read_are_refused(make_config, tmp_path, monkeypatch):
    from tunewright.data import _prepare

    file = tmp_path / "r.jsonl"
    write_pairs(file, pairs(40))
    collect = _prepare.collect

    def slow(*args, **more):
        found = collect(*args, **more)
        write_pairs(file, pairs(41))
        return found

    monkeypatch.setattr(_prepare, "collect", slow)
    assert code_of(lambda: prepare(make_config(f"prepare.source={file}"))) == ["E_IO"]


def test_a_file_that_is_swapped_for_a_link_to_elsewhere_is_refused(
    make_config, tmp_path, monkeypatch
):
    """After the look for links and before anything is read, so that no digest tells."""
    from tunewright.data import _prepare

    rows = "".join(json.dumps({"prompt": f"q{n}", "completion": f"a{n}"}) + "\n" for n in range(40))
    data, secret = tmp_path / "data" / "r.jsonl", tmp_path / "secret.jsonl"
    data.parent.mkdir()
    data.write_text(rows)
    secret.write_text(rows.replace("a", "secret"))
    real = _prepare.identify

    def swapped(config, sources):
        if not data.is_symlink():
            data.unlink()
            data.symlink_to(secret)
        return real(config, sources)

    monkeypatch.setattr(_prepare, "identify", swapped)
    config = make_config(f"prepare.source={data.parent}")
    assert code_of(lambda: prepare(config)) == ["E_UNSAFE_PATH"]
    assert not (Path(config.run_dir) / "dataset").exists()


TOKEN = "hf_" + "".join("aB3dE5gH7jK9mN1pQ3sT5vW7yZ2bC4eF6h"[n] for n in range(34))


def test_all_findings_come_at_once(tmp_path):
    rows = pairs(30)
    rows[3]["completion"] += f" the token is {TOKEN} and mail goes to jane.doe@sample-house.net"
    rows[7]["completion"] += " <|im_end|>"
    rows[9]["completion"] = "word " * 400
    rows.append(dict(rows[11]))
    near = dict(rows[12])
    near["completion"] = near["completion"].replace("w12x29", "other")
    rows.append(near)
    write_pairs(tmp_path / "r.jsonl", rows)
    config = config_of_source(str(tmp_path / "r.jsonl"), ["train.max_length=256"])
    with pytest.raises(TunewrightError) as caught:
        check_source(config)
    (secret,) = caught.value.problems
    assert secret.code == "E_SECRET"
    assert secret.where.endswith("r.jsonl:4")
    assert TOKEN not in str(caught.value)
    found = {kind["code"]: kind for kind in caught.value.details["warnings"]}
    assert set(found) - {"W_LANGUAGE"} == {"W_SMALL", 
        "W_EMAIL", "W_SPECIAL", "W_CUT", "W_OUTLIER", "W_DUPLICATE", "W_NEAR_DUPLICATE",
    }  # fmt: skip
    lines = {code: kind["first"][0]["where"].rpartition(":")[2] for code, kind in found.items()}
    assert (lines["W_EMAIL"], lines["W_SPECIAL"], lines["W_OUTLIER"]) == ("4", "8", "10")
    assert (lines["W_DUPLICATE"], lines["W_NEAR_DUPLICATE"]) == ("31", "32")


def test_repair_writes_what_is_left_and_says_what_it_changed(tmp_path):
    rows = pairs(20)
    rows[3]["completion"] += f" the token is {TOKEN} of mine"
    rows.append(dict(rows[5]))
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "r.jsonl").write_text("\n".join([*lines[:10], "{broken", *lines[10:]]))
    out = tmp_path / "fixed"
    said = repair(config_of_source(str(tmp_path / "r.jsonl")), out)
    assert (said["rows_read"], said["rows_rejected"], said["rows_written"]) == (22, 1, 20)
    assert (said["exact_copies_left_out"], said["secrets_blacked_out"]) == (1, 1)
    assert TOKEN not in (out / "rows.jsonl").read_text() + (out / "changes.jsonl").read_text()
    changes = [json.loads(line) for line in (out / "changes.jsonl").read_text().splitlines()]
    assert [c["where"].rpartition(":")[2] for c in changes] == ["4", "22"]
    again = check_source(config_of_source(str(out / "rows.jsonl")))
    assert {kind["code"] for kind in again["warnings"]} <= {"W_SMALL", "W_LANGUAGE"}
    assert again["rows"] == 20
    assert code_of(lambda: repair(config_of_source(str(tmp_path / "r.jsonl")), out)) == ["E_EXISTS"]


def test_rows_of_a_second_dataset_are_found(tmp_path):
    write_pairs(tmp_path / "mine.jsonl", pairs(30))
    write_pairs(tmp_path / "bench.jsonl", pairs(10, 25))
    config = config_of_source(
        str(tmp_path / "mine.jsonl"), [f"check.against={tmp_path / 'bench.jsonl'}"]
    )
    with pytest.raises(TunewrightError) as caught:
        check_source(config)
    assert {p.code for p in caught.value.problems} == {"E_LEAK"}
    assert caught.value.details["overlap"] == 5
    assert [p.where.rpartition(":")[2] for p in caught.value.problems] == [
        "26",
        "27",
        "28",
        "29",
        "30",
    ]


@pytest.mark.parametrize("strategy", ["truncate", "drop", "split", "raise"])
def test_what_check_says_of_long_rows_is_what_training_does(make_config, tmp_path, strategy):
    from tunewright.data._check import tokenizer_of
    from tunewright.train._rows import token_rows

    rows = pairs(40)
    for row in rows[:5]:
        row["completion"] = " ".join(f"{row['prompt']} {n}" for n in range(60))
    write_pairs(tmp_path / "r.jsonl", rows)
    config = make_config(
        f"prepare.source={tmp_path / 'r.jsonl'}",
        "train.max_length=300",
        f"train.excess_length_strategy={strategy}",
    )
    dataset = prepare(config)
    if strategy == "raise":
        assert code_of(lambda: check(config, dataset)) == ["E_TOO_LONG"] * 5
        with pytest.raises(TunewrightError):
            token_rows(rows_of(dataset, "train"), tokenizer_of(config), config.train)
        return
    found = check(config, dataset).facts
    trained = [
        row
        for side in ("train", "eval")
        for row in token_rows(rows_of(dataset, side), tokenizer_of(config), config.train)
    ]
    assert found["rows_cut"] == 5
    assert found["rows_kept"] == len(trained)
    assert found["tokens"] == sum(len(row["input_ids"]) for row in trained)
    assert found["trained_tokens"] == sum(n >= 0 for row in trained for n in row["labels"])
    assert (found["trained_tokens_lost"] == 0) == (strategy == "split")
    cut = [json.loads(x) for x in (found_path(config) / "cut.jsonl").read_text().splitlines()]
    assert sum(item["tokens_lost"] for item in cut) == found["tokens_lost"]


def found_path(config):
    return Path(config.run_dir) / "check"


def test_a_prompt_template_and_columns_of_ones_own(make_config, tmp_path):
    rows = [
        {"topic": row["prompt"], "mood": "calm", "essay": row["completion"]} for row in pairs(30)
    ]
    write_pairs(tmp_path / "r.jsonl", rows)
    dataset = prepare(
        make_config(
            f"prepare.source={tmp_path / 'r.jsonl'}",
            "prepare.columns={completion: essay}",
            "prepare.prompt_template=Write a {mood} text about {topic}",
            "train.max_length=512",
        )
    )
    row = rows_of(dataset, "train")[0]
    assert row["prompt"] == f"Write a calm text about {row['topic']}"
    assert row["mood"] == "calm"


def test_text_that_would_be_lost_is_refused(make_config, monkeypatch):
    from tunewright.data import _gather

    cut = _gather.chunk

    def losing(*args, **more):
        made = cut(*args, **more)
        return type(made)(made.chunks[1:], made.inside)

    monkeypatch.setattr(_gather, "chunk", losing)
    assert set(code_of(lambda: prepare(make_config()))) == {"E_COVERAGE"}
