"""What a check and a repair take for a copy, a leak or a secret, and what not."""

import json
import shutil
from pathlib import Path

import pytest
from support import SAMPLES

from tunewright import prepare
from tunewright.config.load import config_of_source
from tunewright.data import check_source, repair
from tunewright.errors import TunewrightError

TOKEN = "hf_" + "".join("aB3dE5gH7jK9mN1pQ3sT5vW7yZ2bC4eF6h"[n] for n in range(34))


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(n: int, count: int = 30) -> str:
    return " ".join(f"w{n}x{k}" for k in range(count))


def pairs(count: int):
    return [{"prompt": f"What is number {n}?", "completion": words(n)} for n in range(count)]


def refused(action) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        action()
    return caught.value


SIGNS = [
    {"prompt": f"Is number {n} {sign} 30?", "completion": f"It depends on {n}; {sign} is a sign."}
    for n in range(20)
    for sign in ("<", ">", "==")
]
SAME_ANSWER = [{"prompt": words(n, 8), "completion": words(999)} for n in range(20)]
SYSTEMS = [
    {
        "messages": [
            {"role": "system", "content": f"You are the {agent}."},
            {"role": "user", "content": words(n, 8)},
            {"role": "assistant", "content": words(n + 100)},
        ]
    }
    for n in range(10)
    for agent in ("critic", "writer")
]


@pytest.mark.parametrize("rows", [SIGNS, SAME_ANSWER, SYSTEMS], ids=["signs", "answers", "systems"])
def test_rows_that_differ_in_what_matters_are_no_copies(tmp_path, rows):
    source = write(tmp_path / "r.jsonl", rows)
    found = check_source(config_of_source(source, ["check.allow_duplicates=false"]))
    assert found["exact_duplicates"] == 0
    said = repair(config_of_source(source), tmp_path / "out")
    assert said["rows_written"] == len(rows)


def test_what_repair_leaves_out_as_a_near_copy_is_kept_in_the_list(tmp_path):
    rows = pairs(10)
    rows.append(rows[4] | {"completion": rows[4]["completion"].replace("w4x29", "other")})
    said = repair(config_of_source(write(tmp_path / "r.jsonl", rows)), tmp_path / "out")
    assert (said["near_copies_left_out"], said["rows_written"]) == (1, 10)
    (change,) = read(tmp_path / "out" / "changes.jsonl")
    assert change["row"]["completion"] == rows[10]["completion"]
    assert change["where"].endswith("r.jsonl:11")


def test_preference_pairs_are_not_lost_by_a_repair(tmp_path):
    rows = [*pairs(5), {"prompt": "a", "chosen": "good", "rejected": "bad"}]
    config = config_of_source(write(tmp_path / "r.jsonl", rows))
    error = refused(lambda: repair(config, tmp_path / "out"))
    assert [p.code for p in error.problems] == ["E_PREFERENCE"]
    assert not (tmp_path / "out").exists()


def test_repaired_chapters_still_stay_together(make_config, manuscript, tmp_path):
    options = ["prepare.min_tokens=60", "prepare.max_tokens=130", "prepare.mode=continuation"]
    repair(config_of_source(str(manuscript), options), tmp_path / "out")
    rows = read(tmp_path / "out" / "rows.jsonl")
    assert len({row["source_id"] for row in rows}) == 6
    source = f"prepare.source={tmp_path / 'out' / 'rows.jsonl'}"
    dataset = prepare(make_config(source))
    sides = [read(dataset.path / f"{side}.jsonl") for side in ("train", "eval")]
    answers = {row["output"] for row in sides[0]}
    assert not answers & {row["input"] for row in sides[1]}


def test_secrets_are_found_wherever_they_stand(tmp_path):
    system = [*SYSTEMS]
    system[3] = {"messages": [dict(m) for m in system[3]["messages"]]}
    system[3]["messages"][0]["content"] += f" Use {TOKEN}."
    system[5] = system[5] | {"note": f"made with {TOKEN}"}
    error = refused(lambda: check_source(config_of_source(write(tmp_path / "r.jsonl", system))))
    places = [(p.code, p.where.rpartition(":")[2]) for p in error.problems]
    assert places == [("E_SECRET", "4"), ("E_SECRET", "6")]
    assert TOKEN not in json.dumps(error.details)


def test_files_in_a_list_are_held_out_whole_as_those_of_a_folder_are(make_config, tmp_path):
    paths = []
    for file in sorted((SAMPLES / "manuscript").glob("*.txt"))[:7]:
        shutil.copyfile(file, tmp_path / file.name)
        paths.append(str(tmp_path / file.name))
    dataset = prepare(make_config(f"prepare.source={json.dumps(paths)}"))
    sides = [
        {row["source"] for row in read(dataset.path / f"{side}.jsonl")}
        for side in ("train", "eval")
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 7


def test_a_storyboard_with_a_hash_in_its_name(make_config, tmp_path):
    shutil.copyfile(SAMPLES / "storyboards" / "tram_schedule.txt", tmp_path / "ep#1.txt")
    dataset = prepare(make_config(f"prepare.source={tmp_path / 'ep#1.txt'}"))
    assert {row["source"] for row in read(dataset.path / "train.jsonl")} == {"ep#1.txt"}
    assert dataset.facts["files"][0]["forms"] == {"style-prompt": 120}


def test_the_share_of_bad_shots_is_of_the_shots_not_of_their_variations(tmp_path):
    prompts = {
        0: "a quiet harbour at dawn, wide shot",
        40: "a (broken shot",
        80: "a tram in the rain",
    }
    (tmp_path / "s.json").write_text(json.dumps({"prompts": prompts, "W": 512, "H": 512}))
    options = ["prepare.on_bad_row=skip", "prepare.max_bad=0.05"]
    error = refused(lambda: check_source(config_of_source(str(tmp_path / "s.json"), options)))
    assert "1 of 3 rows cannot be used (33.3%)" in error.problems[0].message


def test_entities_in_a_storyboard_do_not_break_it(tmp_path):
    text = '{"prompts": {"0": "a sign saying &quot;OPEN&quot; in a window", "30": "the street outside"}}'
    (tmp_path / "s.json").write_text(text)
    found = check_source(config_of_source(str(tmp_path / "s.json")))
    assert found["rejected_rows"] == 0
    assert found["files"][0]["reason"].endswith("2 shots")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["prepare.source=[{path: @, weight: 0.0001}]"], "E_DATA_EMPTY"),
        (["prepare.source=@", "prepare.stratify_by=nosuchfield"], "E_CONFIG_VALUE"),
        (["prepare.source=@", "prepare.prompt_template=About {a.b}"], "E_CONFIG_VALUE"),
    ],
)
def test_options_that_cannot_act_are_refused(make_config, tmp_path, options, code):
    source = write(tmp_path / "r.jsonl", pairs(30))
    config = make_config(*(o.replace("@", source) for o in options), "train.max_length=512")
    assert {p.code for p in refused(lambda: prepare(config)).problems} == {code}


def test_a_field_with_numbers_stratifies(make_config, tmp_path):
    rows = [row | {"level": n % 2} for n, row in enumerate(pairs(100))]
    options = (f"prepare.source={write(tmp_path / 'r.jsonl', rows)}", "prepare.stratify_by=level")
    dataset = prepare(make_config(*options, "train.max_length=512"))
    held = [row["level"] for row in read(dataset.path / "eval.jsonl")]
    assert abs(held.count(0) - held.count(1)) <= 2


def test_a_second_dataset_is_read_by_its_own_options(tmp_path):
    mine = [{"q": row["prompt"], "a": row["completion"]} for row in pairs(30)]
    source = write(tmp_path / "mine.jsonl", mine)
    bench = write(tmp_path / "bench.jsonl", pairs(40)[28:])
    options = ["prepare.columns={prompt: q, completion: a}", f"check.against={bench}"]
    error = refused(lambda: check_source(config_of_source(source, options)))
    assert error.details["overlap"] == 2
    empty = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    options[1] = f"check.against={empty}"
    error = refused(lambda: check_source(config_of_source(source, options)))
    assert {p.code for p in error.problems} == {"E_PREFERENCE"}


def test_rows_shown_are_shown_as_they_are_cut(tmp_path):
    source = write(tmp_path / "r.jsonl", pairs(60))
    for strategy, pieces in (("truncate", 1), ("split", 2)):
        options = [
            "train.max_length=120",
            f"train.excess_length_strategy={strategy}",
            "check.max_cut=1",
            "check.show=1",
        ]
        (row,) = check_source(config_of_source(source, options))["rendered"]
        assert len({run["piece"] for run in row["runs"]}) >= pieces
        text = "".join(run["text"] for run in row["runs"] if run["learned"])
        assert ("w0x29" in text) == (strategy == "split")
        # the line break after the last answer is not needed, and is let go
        assert (row["tokens_lost"] <= 1) == (strategy == "split")
