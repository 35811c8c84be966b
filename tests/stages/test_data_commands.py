"""The commands about data as a user types them: what is out of date, what is refused, what is shown."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from fake_hub import FakeHub, connect

from tunewright.cli import main
from tunewright.cli.text import visible, visible_json


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tw(capsys, monkeypatch, tmp_path):
    """Return a function that runs a command and returns code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def pairs(count: int, start: int = 0) -> list[dict]:
    words = ("amber", "brook", "cedar", "dune", "ember", "fjord", "grove", "heath", "isle", "knoll")
    return [
        {
            "prompt": f"Tell {n} of the {words[n % 10]} and {words[n // 10 % 10]}{n}",
            "completion": " ".join(f"{words[(n * 7 + k * k) % 10]}{n}x{k}" for k in range(12)),
        }
        for n in range(start, start + count)
    ]


def write(file: str, rows: list[dict]) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two files of rows, and a config of the first."""
    config = {
        "name": "r",
        "prepare": {"source": "data/a.jsonl", "eval_split": 0.2},
        "train": {"max_length": 256},
        "publish": {"hub_dataset_id": "me/rows"},
    }
    monkeypatch.chdir(tmp_path)
    write("data/a.jsonl", pairs(30))
    write("other.jsonl", pairs(30, 500))
    Path("c.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def skipped(printed: str) -> dict[str, bool]:
    return {stage["stage"]: stage["skipped"] for stage in json.loads(printed)["stages"]}


def prepared(tw) -> None:
    code, _, said = tw("prepare", "c.yaml")
    assert code == 0, said


def test_a_dataset_of_other_options_is_not_used(project, tw):
    prepared(tw)
    for command in ("check", "plan", "train"):
        code, _, said = tw(command, "c.yaml", "--set", "prepare.source=other.jsonl")
        assert code == 4
        assert "The dataset was made with other options than these (prepare.source)." in said
        assert "fix: tunewright prepare CONFIG makes it again" in said
    code, _, said = tw(
        "push", "c.yaml", "--dataset", "--dry-run", "--set", "prepare.eval_split=0.3"
    )
    assert (code, "(prepare.eval_split)" in said) == (4, True)
    assert tw("check", "c.yaml", "--set", "seed=7")[0] == 4
    assert tw("check", "c.yaml", "--set", "check.show=1", "--set", "name=r")[0] == 0
    assert tw("plan", "runs/r", "--set", "train.learning_rate=1e-4")[0] == 0


def test_a_dataset_of_files_that_have_changed_is_not_used(project, tw):
    prepared(tw)
    write("data/a.jsonl", pairs(31))
    code, _, said = tw("check", "c.yaml")
    assert code == 4
    assert "Files have changed since the dataset was made: a.jsonl." in said
    code, printed, _ = tw("run", "c.yaml", "--until", "check", "--json")
    assert (code, skipped(printed)) == (0, {"prepare": False, "check": False})
    assert tw("check", "c.yaml")[0] == 0


def test_a_run_whose_sources_are_gone_goes_on_where_it_is(project, tw):
    write("data/b.jsonl", pairs(3, 90))
    both = ("--set", "prepare.source=[data/a.jsonl, data/b.jsonl]")
    assert tw("run", "c.yaml", "--until", "check", *both)[0] == 0
    Path("data/a.jsonl").unlink()
    shutil.move("runs/r", "moved")
    code, _, said = tw("check", "moved")
    assert code == 0, said
    assert "data/a.jsonl is not there or cannot be reached" in said
    code, printed, said = tw("run", "moved", "--until", "check", "--json")
    assert (code, skipped(printed)) == (0, {"prepare": True, "check": True}), said
    write("data/b.jsonl", pairs(4, 90))
    code, _, said = tw("check", "moved")
    assert (code, "made: b.jsonl" in said) == (4, True)


def test_a_changed_second_dataset_is_checked_against_again(project, tw):
    against = ("--set", "check.against.path=other.jsonl")
    assert tw("run", "c.yaml", "--until", "check", *against)[0] == 0
    _, printed, _ = tw("run", "c.yaml", "--until", "check", "--json", *against)
    assert skipped(printed) == {"prepare": True, "check": True}
    write("other.jsonl", pairs(2, 5))
    code, _, said = tw("run", "c.yaml", "--until", "check", *against)
    assert (code, "ERROR E_LEAK" in said) == (3, True)
    Path("other.jsonl").unlink()
    assert tw("run", "c.yaml", "--until", "check", *against)[0] == 2


@pytest.mark.parametrize("fault", ["offline", "down", "gone"])
def test_a_finished_run_of_a_hub_dataset_needs_no_network(
    project, tw, monkeypatch, tmp_path, fault
):
    lines = "".join(json.dumps(row) + "\n" for row in pairs(30))
    with FakeHub() as hub:
        connect(hub, monkeypatch, tmp_path / "cache")
        repo = hub.add("o/n", {"a/train.jsonl": lines, "b/train.jsonl": lines.replace("a", "o")})
        source = ("--set", "prepare.source=hub:o/n")
        assert tw("run", "c.yaml", "--until", "check", *source)[0] == 0
        manifest = json.loads(Path("runs/r/dataset/manifest.json").read_text())
        assert set(manifest["facts"]["inputs"]) == {"a/train.jsonl", "b/train.jsonl"}
        if fault == "down":
            hub.fail("GET", "/api/", 503, times=100)
        elif fault == "gone":
            hub.repos.clear()
        else:
            from huggingface_hub import constants

            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        code, printed, said = tw("run", "c.yaml", "--until", "check", "--json", *source)
        assert (code, skipped(printed)) == (0, {"prepare": True, "check": True}), said
        assert "hub:o/n is not there or cannot be reached" in said
        if fault == "down":
            hub.faults.clear()
            repo.commit("main", "second", {"a/train.jsonl": lines.encode() * 2})
            code, _, said = tw("check", "c.yaml", *source)
            assert (code, "made: a/train.jsonl" in said) == (4, True), said


def test_an_unchecked_dataset_is_pushed_with_a_word(project, tw, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    prepared(tw)
    code, _, said = tw("push", "c.yaml", "--dataset", "--dry-run")
    assert code == 0, said
    assert "was not checked" in said
    assert tw("check", "c.yaml")[0] == 0
    assert "was not checked" not in tw("push", "c.yaml", "--dataset", "--dry-run")[2]


def test_a_data_folder_in_a_run_is_data_and_a_stage_is_its_run(project, tw):
    prepared(tw)
    code, printed, _ = tw("check", "runs/r/dataset", "--json")
    assert code == 0
    assert json.loads(printed)["path"].endswith("runs/r/check")
    write("runs/r/mine/rows.jsonl", pairs(12, 800))
    code, printed, said = tw("check", "runs/r/mine", "--json")
    assert code == 0, said
    assert json.loads(printed)["rows"] == 12
    shutil.copytree("runs/r/dataset", "copied")
    code, printed, said = tw("check", "copied", "--json", "--set", "train.max_length=256")
    assert code == 0, said
    assert json.loads(printed)["rows"] == 30
    assert any("read together" in note for note in json.loads(printed)["notes"])


def test_what_fix_writes_can_be_checked(project, tw):
    assert tw("check", "data/a.jsonl", "--fix", "fixed")[0] == 0
    code, printed, said = tw("check", "fixed", "--json", "--set", "train.max_length=256")
    assert code == 0, said
    assert [file["name"] for file in json.loads(printed)["files"]] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("args", "code", "name"),
    [
        (["check", "data", "--fix", "o", "--show", "2"], 2, "E_USAGE"),
        (["check", "data", "--fix", "o", "--against", "other.jsonl"], 2, "E_USAGE"),
        (["check", "c.yaml", "--on-bad-row", "skip"], 2, "E_USAGE"),
        (["check", "c.yaml", "--max-bad", "1%"], 2, "E_USAGE"),
        (["check", "data", "--fix", "a\0b"], 2, "E_NAME"),
        (["check", "data", "--fix", "o" * 250], 2, "E_NAME"),
        (["check", "a\0b"], 2, "E_NAME"),
        (["check", "d" * 300], 2, "E_NAME"),
        (["run", "d" * 300], 2, "E_NAME"),
        (["check", "caf\udce9.jsonl"], 2, "E_NAME"),
        (["check", "~nosuchuserhere/x"], 2, "E_NOT_FOUND"),
        (["check", "hub:../x"], 2, "E_NAME"),
        (["check", "hub:" + "x" * 300], 2, "E_NAME"),
        (["check", "data", "--set", "prepare.source=" + "[" * 3000], 2, "E_USAGE"),
        (["check", "data", "--set", "prepare.source.0.split=test"], 2, "E_CONFIG_VALUE"),
        (["push", "c.yaml", "--dataset", "--repo-id", "../x"], 2, "E_CONFIG_VALUE"),
        (["push", "c.yaml", "--dataset", "--license", "My Licence"], 2, "E_CONFIG_VALUE"),
        (["prepare", "c.yaml", "--set", "output_dir="], 2, "E_CONFIG_VALUE"),
        (["prepare", "c.yaml", "--set", "seed=9999999999999999999999"], 2, "E_CONFIG_VALUE"),
    ],
)
def test_what_cannot_be_is_refused_without_a_traceback(project, tw, args, code, name):
    found, _, said = tw(*args)
    lines = [line for line in said.splitlines() if line.startswith(("ERROR", "where", "fix"))]
    assert found == code, said
    assert lines[0].startswith(f"ERROR {name}: ")
    assert [line.partition(":")[0] for line in lines[1:3]] == ["where", "fix"]
    assert not Path("o").exists()


def test_bad_rows_may_be_skipped_where_the_data_are_read(project, tw):
    with Path("data/a.jsonl").open("a") as stream:
        stream.write("{broken\n")
    code, printed, said = tw(
        "check", "data", "--on-bad-row", "skip", "--max-bad", "10%", "--set", "train.max_length=256"
    )
    assert code == 0, said
    assert "rows that cannot be used: 1" in printed
    code, printed, _ = tw("check", "data", "--set", "train.max_length=256")
    assert (code, "rows that cannot be used: 1" in printed) == (3, True)


def test_a_share_that_rounds_to_nothing_is_not_printed(capsys):
    from tunewright.cli import render

    lengths = {"min": 1, "max": 2, "mean": 1.5, "median": 1.5, "counts": [1, 1]}
    counts = dict.fromkeys(
        ("rows", "tokens", "trained_tokens", "exact_duplicates", "near_duplicates"), 1000
    )
    found = {**counts, "rows_with_end": 1000, "rows_cut": 0, "lengths": lengths}
    render.checked({**found, "languages": {"en": 0.9961, "no": 0.0039}}, show=0)
    printed = capsys.readouterr().out
    assert "language: en 100%" in printed
    assert "no 0%" not in printed


def test_an_endpoint_that_breaks_the_client_is_named(project, tw, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")
    code, _, said = tw("check", "data")
    assert (code, "ERROR E_HUB: HF_ENDPOINT is no address." in said) == (8, True)


def test_pushing_to_what_is_no_address(project, tw, monkeypatch):
    prepared(tw)
    monkeypatch.setenv("HF_TOKEN", "token")
    monkeypatch.setenv("HF_ENDPOINT", "http://host:port")
    code, _, said = tw("push", "c.yaml", "--dataset")
    assert (code, "ERROR E_HUB: HF_ENDPOINT is no address." in said) == (8, True)


def test_a_linked_stage_is_refused_before_work_begins(project, tw):
    Path("elsewhere").mkdir()
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/dataset").symlink_to("../../elsewhere")
    code, _, said = tw("prepare", "c.yaml")
    assert (code, "E_UNSAFE_PATH" in said) == (9, True)
    assert list(Path("elsewhere").iterdir()) == []


EVIL = "\x1b]0;pwned\x07\x1b[31mred\u202e\x9b2J\r"


def test_control_characters_reach_no_terminal(project, tw):
    rows = pairs(12)
    rows[0]["completion"] = f"first{EVIL}\n\tlast"
    write("evil/r\x1b[1m.jsonl", rows)
    write("evil/\x1bleft.bin", [])
    code, printed, said = tw("check", "evil", "--show", "12", "--set", "train.max_length=256")
    assert code == 0, said
    assert "\\x1b]0;pwned\\x07\\x1b[31mred\\u202e\\x9b2J\\r" in printed
    assert "\n        last" in printed
    with Path("evil/r\x1b[1m.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": EVIL}) + "\n")
    for more in ([], ["--json"]):
        code, printed, said = tw("check", "evil", *more)
        assert code == 3
        for text in (printed, said):
            assert not set(text) & set("\x1b\x07\x9b\u202e\r")


def test_escapes_are_unambiguous_and_json_stays_what_it_was():
    assert visible("a\nb\tc", keep="\n\t") == "a\nb\tc"
    assert visible("a\nb\r\x1b") == "a\\nb\\r\\x1b"
    assert visible("caf\udce9 é 中 👩‍👧") == "caf\\udce9 é 中 👩‍👧"
    value = {"a": EVIL, "b": ["é", 1.5, None], "c\x7f": "caf\udce9"}
    assert json.loads(visible_json(value)) == value
