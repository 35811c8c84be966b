"""Datasets to the Hub, with the real client against a server on this machine."""

import json

import pyarrow.parquet as pq
import pytest
import yaml
from fake_hub import FakeHub, connect

from tunewright.artifacts import load_artifact, writing
from tunewright.data.formats._hub import fetch
from tunewright.errors import TunewrightError
from tunewright.publish.hub import _client, _parquet
from tunewright.publish.hub._dataset import push_dataset

# The client passes its files to httpx by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "h" + "f_" + "Abcd1234" * 5
TRAIN, VALIDATION = "data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"


def instruction_rows(count: int, start: int = 0) -> list[dict]:
    return [
        {
            "instruction": "Continue:",
            "input": "",
            "output": f"The {n}th — “quoted” passage\nof text, é 中.",
            "source": "book.txt",
            "chunk": n,
            "start": n * 100,
        }
        for n in range(start, start + count)
    ]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as server:
        connect(server, monkeypatch, tmp_path / "cache", TOKEN)
        monkeypatch.setattr(_client, "FIRST_WAIT_SECONDS", 0)
        yield server


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a dataset of rows."""

    def dataset(train: list[dict], held: list[dict], **facts):
        path = tmp_path / "run" / "dataset"
        with writing(path, "dataset", settings={}, parents={}) as draft:
            for side, rows in (("train", train), ("eval", held)):
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                (draft.path / f"{side}.jsonl").write_text("".join(lines), encoding="utf-8")
            draft.facts |= {"train_tokens": 5, "inputs": {"book.txt": "ab"}, **facts}
        return load_artifact(path, "dataset")

    return dataset


@pytest.fixture
def small(make):
    return make(instruction_rows(40), instruction_rows(5, 40))


def problem_of(action):
    with pytest.raises(TunewrightError) as caught:
        action()
    assert TOKEN not in str(caught.value)
    assert all(TOKEN not in f"{p.message}{p.fix}{p.where}" for p in caught.value.problems)
    return caught.value.problems[0]


def without_nothing(rows) -> list[dict]:
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def load(files):
    """Return what `datasets` reads from Parquet files."""
    import datasets

    datasets.disable_progress_bars()
    read = datasets.load_dataset("parquet", data_files=files)
    return {split: list(rows) for split, rows in read.items()}


def test_a_pushed_dataset_is_private_whole_and_one_commit(hub, small):
    pushed = push_dataset(small, None, repo_id="me/rows", license="cc-by-4.0")
    repo = hub.dataset("me/rows")
    assert repo.private
    assert [c.title for c in repo.commits[1:]] == ["Upload dataset with Tunewright"]
    assert pushed.commit == repo.commits[-1].sha
    assert pushed.url == f"{hub.url}/datasets/me/rows"
    assert set(pushed.files) == {TRAIN, VALIDATION, "README.md"}
    assert {name: len(repo.files[name]) for name in pushed.files} == dict(pushed.files)
    front = yaml.safe_load(repo.files["README.md"].decode().split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert [s["num_examples"] for s in front["dataset_info"]["splits"]] == [40, 5]
    assert {seen.token for seen in hub.seen if "/lfs/" in seen.path} == {TOKEN, None}
    assert all(seen.token == TOKEN for seen in hub.seen if "me/rows" in seen.path)


def test_round_trip_through_the_hub_gives_the_rows_back(hub, make):
    train, held = instruction_rows(300), instruction_rows(30, 300)
    pushed = push_dataset(make(train, held), None, repo_id="me/rows")
    for split, rows in (("train", train), ("validation", held)):
        fetched = fetch("hub:me/rows", split=split)
        assert fetched.revision == pushed.commit
        assert "the card's subset 'default'" in fetched.reason
        (file,) = fetched.files
        assert pq.read_table(file).to_pylist() == rows
        assert load({"x": str(file)})["x"] == rows


def test_the_features_of_the_card_are_those_that_datasets_reads(hub, make, tmp_path):
    from datasets import Features

    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Q{n}"},
                {"role": "assistant", "content": "A"},
            ],
            "tags": ["a", "b"],
            "nested": [[1], [2, n]],
            "seed": n,
            "scale": 4.5 if n % 2 else 4,
            "good": True,
            "nothing": None,
            "params": {"a": n} if n % 2 else {"b": "x"},
            "odd": n if n % 2 else "text",
        }
        for n in range(20)
    ]
    push_dataset(make(rows, rows[:2]), None, repo_id="me/rows")
    files = hub.dataset("me/rows").files
    (tmp_path / "t.parquet").write_bytes(files[TRAIN])
    read = load({"t": str(tmp_path / "t.parquet")})["t"]
    for row in read:
        row["params"], row["odd"] = json.loads(row["params"]), json.loads(row["odd"])
    assert without_nothing(read) == without_nothing(rows)
    card = files["README.md"].decode()
    listed = yaml.safe_load(card.split("---\n")[1])["dataset_info"]["features"]
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert Features._from_yaml_list(listed) == Features.from_arrow_schema(schema)
    assert "`params`, `odd` are JSON text" in card


SEVERAL = [
    {"instruction": "Do", "input": "x", "output": "y", "source": "a.jsonl"},
    {"prompt": "P", "completion": "C", "source": "b.jsonl", "line": 2},
    {"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "V"}]},
]


def test_rows_of_several_forms_become_conversations(hub, make, tmp_path):
    from tunewright.models.messages import messages_of

    push_dataset(make(SEVERAL, SEVERAL[:1]), None, repo_id="me/rows")
    (tmp_path / "t.parquet").write_bytes(hub.dataset("me/rows").files[TRAIN])
    read = load({"t": str(tmp_path / "t.parquet")})["t"]
    assert [row["messages"] for row in read] == [messages_of(row) for row in SEVERAL]
    assert [row["source"] for row in read] == ["a.jsonl", "b.jsonl", None]
    assert set(read[0]) == {"messages", "source", "line"}
    assert "all are written as conversations" in hub.dataset("me/rows").files["README.md"].decode()


def test_with_plain_text_among_several_forms_each_row_stays_as_it_is(hub, make, tmp_path):
    rows = [*SEVERAL, {"text": "Plain text.", "source": "c.txt"}]
    push_dataset(make(rows, rows[:1]), None, repo_id="me/rows")
    (tmp_path / "t.parquet").write_bytes(hub.dataset("me/rows").files[TRAIN])
    assert without_nothing(load({"t": str(tmp_path / "t.parquet")})["t"]) == rows
    assert "the columns of the others are null" in (
        hub.dataset("me/rows").files["README.md"].decode()
    )


def test_many_row_groups_and_a_type_that_changes_late_are_the_same_rows(
    hub, make, tmp_path, monkeypatch
):
    monkeypatch.setattr(_parquet, "GROUP_ROWS", 16)
    rows = [{**row, "n": n, "late": None} for n, row in enumerate(instruction_rows(100))]
    rows[90]["late"], rows[95]["n"] = 7, 0.5
    push_dataset(make(rows, rows[:3]), None, repo_id="me/rows")
    file = tmp_path / "t.parquet"
    file.write_bytes(hub.dataset("me/rows").files[TRAIN])
    assert pq.ParquetFile(file).num_row_groups == 7
    assert pq.read_table(file).to_pylist() == rows


def test_a_side_without_rows_is_left_out(hub, make):
    pushed = push_dataset(make(instruction_rows(3), []), None, repo_id="me/rows")
    assert set(pushed.files) == {TRAIN, "README.md"}


def test_the_card_has_the_figures_of_prepare_and_check(hub, make, tmp_path):
    dataset = make(
        instruction_rows(9),
        instruction_rows(1, 9),
        files=[{"name": "/abs/path/book.txt"}],
        notes=["book.txt: read as cp1252"],
        dropped_lines=7,
        rejected_reasons={"not JSON": 2},
    )
    with writing(tmp_path / "run" / "check", "check", settings={}, parents={}) as draft:
        draft.facts |= {
            "languages": {"en": 0.97, "fr": 0.03},
            "gates": [{"gate": "no leaks", "value": "0", "limit": "0", "passed": True}],
            "warnings": [{"code": "W_CUT", "count": 3, "first": []}],
            "lengths": {"edges": [0, 10, 20], "counts": [4, 6], "min": 1},
        }
    checked = load_artifact(tmp_path / "run" / "check", "check")
    push_dataset(dataset, checked, repo_id="me/rows")
    card = hub.dataset("me/rows").files["README.md"].decode()
    for expected in ("language:\n- en\n", "* book.txt", "* 7: lines", "* 2: rows: not JSON"):
        assert expected in card
    for expected in ("no leaks", "W\\_CUT: 3 times", "10 to 20 | 6", "read as cp1252"):
        assert expected in card
    assert "/abs" not in card


def test_a_dry_run_writes_and_scans_but_sends_nothing(hub, small, make, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    pushed = push_dataset(small, None, repo_id="me/rows", dry_run=True)
    assert pushed.commit is None
    assert set(pushed.files) == {TRAIN, VALIDATION, "README.md"}
    assert all(size > 0 for size in pushed.files.values())
    assert hub.seen == []


def test_a_public_repository_stays_public_and_that_is_said(hub, small):
    repo = hub.add("me/rows", {"README.md": "old", "mine.txt": "kept"})
    said: list[str] = []

    class Ears:
        def started(self, stage, total, unit):
            """Ignore it."""

        def advanced(self, done, detail):
            """Ignore it."""

        def said(self, text):
            said.append(text)

    push_dataset(small, None, repo_id="me/rows", listener=Ears())
    assert not repo.private
    assert "public" in said[0]
    assert repo.files["mine.txt"] == b"kept"
    assert repo.files["README.md"] != b"old"
    assert len(repo.commits) == 2


def test_public_on_request_and_a_branch_that_is_made(hub, small):
    pushed = push_dataset(small, None, repo_id="me/rows", private=False, revision="v2")
    repo = hub.dataset("me/rows")
    assert not repo.private
    assert set(repo.files) == {".gitattributes"}
    assert repo.branches["v2"][-1].sha == pushed.commit
    assert len(fetch("hub:me/rows", revision="v2").files) == 1


def test_pushing_again_without_a_change_makes_no_commit(hub, small):
    first = push_dataset(small, None, repo_id="me/rows")
    assert push_dataset(small, None, repo_id="me/rows").commit == first.commit
    assert len(hub.dataset("me/rows").commits) == 2
    assert hub.count("PUT", "/lfs/") == 2


def test_large_files_go_in_parts(hub, small):
    hub.part_bytes = 700
    push_dataset(small, None, repo_id="me/rows")
    assert hub.count("PUT", "/lfs/") > 4
    assert len(fetch("hub:me/rows").files) == 1


# Faults of the upload


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/preupload/"), ("POST", "/objects/batch"), ("PUT", "/lfs/"), ("POST", "/commit/")],
)
@pytest.mark.parametrize("fault", ["500", "cut", "answer"])
def test_a_fault_that_passes_leaves_one_commit(hub, small, method, path, fault):
    hub.disturb(fault, method, path)
    pushed = push_dataset(small, None, repo_id="me/rows")
    commits = hub.dataset("me/rows").commits
    assert [c.sha for c in commits[1:]] == [pushed.commit]
    assert len(fetch("hub:me/rows").files) == 1


@pytest.mark.parametrize("after", [0, 1, 10, 50, 100, 200, 400, 800, 1600, 3000])
def test_a_connection_cut_anywhere_loses_and_doubles_nothing(hub, small, after):
    hub.cut("PUT", "/lfs/", after, times=2)
    hub.cut("POST", "/commit/", after, times=2)
    push_dataset(small, None, repo_id="me/rows")
    assert len(hub.dataset("me/rows").commits) == 2


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/repos/create", 500, "error (500)"),
        ("POST", "/preupload/", 500, "error (500)"),
        ("PUT", "/lfs/", 500, "error (500)"),
        ("POST", "/commit/", 503, "error (503)"),
        ("POST", "/commit/", 400, "refuses the upload: made to fail"),
        ("POST", "/commit/", 409, "Somebody else"),
        ("POST", "/commit/", 413, "this size"),
        ("PUT", "/lfs/", 403, "may not write to 'me'"),
        ("POST", "/commit/", 401, "does not accept the token"),
    ],
)
def test_a_fault_that_stays_leaves_no_commit_and_says_why(
    hub, small, method, path, status, message
):
    hub.fail(method, path, status, times=100)
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert problem.code == "E_HUB"
    assert message in problem.message
    assert problem.fix
    known = hub.repos.get(("datasets", "me/rows"))
    assert known is None or len(known.commits) == 1
    hub.faults.clear()
    push_dataset(small, None, repo_id="me/rows")
    assert len(hub.dataset("me/rows").commits) == 2


def test_a_commit_of_somebody_else_in_between_is_a_conflict(hub, small):
    hub.commit_between("datasets", "me/rows")
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "Somebody else has changed" in problem.message
    assert [c.title for c in hub.dataset("me/rows").commits] == ["initial commit", "theirs"]
    push_dataset(small, None, repo_id="me/rows")
    assert "x" in hub.dataset("me/rows").files


def test_a_token_without_write_access(hub, small):
    hub.tokens[TOKEN] = "read"
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "may not write to 'me'" in problem.message
    assert "write access" in problem.fix
    hub.add("me/rows", {"a": "b"})
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "may not write to 'me'" in problem.message
    assert len(hub.dataset("me/rows").commits) == 1


def test_a_token_that_is_wrong_or_missing_or_no_network(hub, small, monkeypatch):
    del hub.tokens[TOKEN]
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "does not accept the token" in problem.message
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "connection to 127.0.0.1 failed" in problem.message
    monkeypatch.delenv("HF_TOKEN")
    problem = problem_of(lambda: push_dataset(small, None, repo_id="me/rows"))
    assert "HF_TOKEN is not set" in problem.message


def test_offline_mode_is_named(hub, small, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for action in (
        lambda: push_dataset(small, None, repo_id="me/rows"),
        lambda: fetch("hub:me/rows"),
    ):
        assert "HF_HUB_OFFLINE" in problem_of(action).message


@pytest.mark.parametrize("name", ["rows", "../x/y", "a/b/c", "", "a/-b", "a/b--c", "/etc", "a/b\0"])
def test_names_that_are_no_names(hub, small, name):
    assert problem_of(lambda: push_dataset(small, None, repo_id=name)).code == "E_NAME"
    assert hub.seen == []


def test_secrets_are_found_before_anything_is_sent(hub, make):
    rows = instruction_rows(30)
    rows[16]["output"] += f" My token is {TOKEN}."
    rows[20]["note"] = {"deep": ["https://me:hunter22@host.org/x"]}
    dataset = make(rows, instruction_rows(2))
    for dry_run in (False, True):
        with pytest.raises(TunewrightError) as caught:
            push_dataset(dataset, None, repo_id="me/rows", dry_run=dry_run)
        assert [p.code for p in caught.value.problems] == ["E_SECRET_IN_ARTIFACT"] * 2
        assert caught.value.exit_code == 9
        where = dataset.path / "train.jsonl"
        assert [p.where for p in caught.value.problems] == [f"{where}:17", f"{where}:21"]
        assert TOKEN not in str(caught.value)
        assert "hunter22" not in str(caught.value)
    assert hub.seen == []


def test_a_secret_that_only_the_card_has(hub, make):
    dataset = make(instruction_rows(3), [], notes=[f"{TOKEN}.txt: no text"])
    problem = problem_of(lambda: push_dataset(dataset, None, repo_id="me/rows"))
    assert problem.code == "E_SECRET_IN_ARTIFACT"
    assert problem.where.startswith("README.md:")


def test_many_secrets_are_counted(hub, make):
    rows = [{**row, "output": TOKEN} for row in instruction_rows(50)]
    with pytest.raises(TunewrightError) as caught:
        push_dataset(make(rows, []), None, repo_id="me/rows")
    assert len(caught.value.problems) == 21
    assert "30 more" in caught.value.problems[-1].message


def test_a_changed_file_is_not_uploaded(hub, small):
    with (small.path / "train.jsonl").open("a") as stream:
        stream.write("{}\n")
    assert problem_of(lambda: push_dataset(small, None, repo_id="me/rows")).code == (
        "E_ARTIFACT_INVALID"
    )
    assert hub.seen == []
