"""Datasets and bases from the Hub, with the real client against a server on this machine."""

import json
import os
import subprocess
import sys

import pytest
from fake_hub import FakeHub, connect, environment

from tunewright.data.formats._hub import fetch
from tunewright.errors import TunewrightError
from tunewright.models._folders import TINY, resolve_model

TOKEN = "h" + "f_" + "Abcd1234" * 5


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as server:
        connect(server, monkeypatch, tmp_path / "cache", TOKEN)
        yield server
    kept = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert [file for file in kept if TOKEN.encode() in file.read_bytes()] == []


def problem_of(action):
    with pytest.raises(TunewrightError) as caught:
        action()
    assert TOKEN not in str(caught.value)
    (problem,) = caught.value.problems
    assert TOKEN not in f"{problem.message}{problem.fix}{problem.where}"
    return problem


def test_only_the_files_of_the_split_are_fetched(hub):
    repo = hub.add(
        "org/a", {"train.jsonl": "{}\n", "test.jsonl": "{}\n", "big.bin": "x", "a.py": ""}
    )
    fetched = fetch("hub:org/a")
    assert [f.name for f in fetched.files] == ["train.jsonl"]
    assert fetched.revision == repo.commits[-1].sha
    assert hub.count("GET", "/resolve/") == 1
    assert [f.name for f in fetch("hub:org/a", split="test").files] == ["test.jsonl"]


def test_a_commit_stays_what_it_was(hub):
    repo = hub.add("org/a", {"a.jsonl": "old"})
    first = repo.commits[-1].sha
    repo.commit("main", "second", {"a.jsonl": b"new"})
    assert fetch("hub:org/a").files[0].read_text() == "new"
    assert fetch("hub:org/a", revision=first).files[0].read_text() == "old"
    assert fetch("hub:org/a", revision="main").revision != first


def test_a_long_listing_is_read_to_its_end(hub):
    hub.add("org/a", {f"part/{n:04d}.jsonl": f"{n}" for n in range(250)} | {"z/dev.jsonl": "z"})
    fetched = fetch("hub:org/a", split="validation")
    assert [f.read_text() for f in fetched.files] == ["z"]


def test_a_download_that_is_cut_goes_on(hub):
    text = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(5000))
    hub.add("org/a", {"a.jsonl": text})
    hub.cut("GET", "/resolve/", 1000, times=3)
    assert fetch("hub:org/a").files[0].read_text() == text


def test_a_base_without_safetensors_is_named_by_its_id(hub):
    files = {"config.json": "{}", "tokenizer.json": "{}", "pytorch_model.bin": b"x"}
    hub.add("org/old", files, kind="models")
    problem = problem_of(lambda: resolve_model("org/old"))
    assert problem.code == "E_MODEL"
    assert (problem.where, problem.message) == (
        "org/old",
        "'org/old' on the Hub has no *.safetensors.",
    )
    assert "hf download org/old --local-dir OLD, then tunewright convert OLD NEW" in problem.fix


def killed_while_it_fetches(hub, cache, program, method, path, *, half=False):
    """Run a program that fetches, and kill it when such a request has arrived; with `half` a part was sent before."""
    child = []

    def kill():
        child[0].kill()
        child[0].wait()

    if half:
        hub.cut(method, path, 1000)
        hub.before(method, path, lambda: hub.before(method, path, kill))
    else:
        hub.before(method, path, kill)
    variables = os.environ | environment(hub, cache, TOKEN)
    with subprocess.Popen([sys.executable, "-c", program], env=variables) as process:
        child.append(process)
        assert process.wait(timeout=60) == -9
    assert hub.actions == []


@pytest.mark.parametrize(
    ("method", "path", "half"),
    [
        ("GET", "/tree/", False),
        ("HEAD", "/resolve/", False),
        ("GET", "/resolve/", False),
        ("GET", "/resolve/", True),
    ],
)
def test_a_fetch_that_is_killed_is_begun_again(hub, tmp_path, method, path, half):
    """RELIABILITY.md K3: what has arrived by then is never taken for a whole file."""
    text = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(5000))
    hub.add("org/a", {"a.jsonl": text})
    program = "from tunewright.data.formats._hub import fetch; fetch('hub:org/a')"
    killed_while_it_fetches(hub, tmp_path / "cache", program, method, path, half=half)
    assert [file.read_text() for file in fetch("hub:org/a").files] == [text]


@pytest.mark.parametrize("half", [False, True])
def test_a_base_whose_fetch_was_killed_is_fetched_whole(hub, tmp_path, half):
    base = resolve_model(TINY)
    files = {file.name: file.read_bytes() for file in base.iterdir() if file.is_file()}
    hub.add("org/base", files, kind="models")
    program = "from tunewright.models._folders import resolve_model; resolve_model('org/base')"
    place = ("GET", "/resolve/" if not half else "model.safetensors")
    killed_while_it_fetches(hub, tmp_path / "cache", program, *place, half=half)
    folder = resolve_model("org/base")
    fetched = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert fetched == {name: files[name] for name in fetched}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < fetched.keys()
    assert "model.safetensors" in fetched


@pytest.mark.parametrize(
    ("files", "options", "code", "message", "fix"),
    [
        ({"a.jsonl": ""}, {"split": "dev"}, "E_HUB", "no split 'dev'; there are: train", "split"),
        ({"test.csv": ""}, {}, "E_HUB", "no split 'train'; there are: test", "split"),
        ({"a.jsonl": ""}, {"name": "x"}, "E_HUB", "no subset 'x'", "name"),
        ({"a.jsonl": ""}, {"revision": "no"}, "E_HUB", "no revision 'no'", "branch"),
        ({"a.py": "", "README.md": ""}, {}, "E_UNSAFE_FORMAT", "program ('a.py')", "parquet"),
        ({"a.pkl": "", "b.zip": ""}, {}, "E_HUB", "no files in it that can be read", "another"),
        ({"../../a.jsonl": ""}, {}, "E_HUB", "impossible path", ""),
        ({"/etc/a.jsonl": ""}, {}, "E_HUB", "impossible path", ""),
        ({"README.md": "---\nconfigs: 5\n---\n"}, {}, "E_HUB", "README.md", "Download"),
    ],
)
def test_what_cannot_be_fetched_says_why(hub, files, options, code, message, fix):
    hub.add("org/a", files)
    problem = problem_of(lambda: fetch("hub:org/a", **options))
    assert problem.code == code
    assert message in problem.message
    assert fix in problem.fix
    assert problem.where == "hub:org/a"


def test_private_gated_and_missing_datasets(hub, monkeypatch):
    hub.add("org/p", {"a.jsonl": "p"}, private=True)
    hub.add("org/g", {"a.jsonl": "g"}, gated=True)
    assert fetch("hub:org/p").files[0].read_text() == "p"
    gated = problem_of(lambda: fetch("hub:org/g"))
    assert "accept its terms" in gated.message
    assert f"{hub.url}/datasets/org/g" in gated.fix
    hub.accepted.add(TOKEN)
    assert fetch("hub:org/g").files[0].read_text() == "g"
    monkeypatch.delenv("HF_TOKEN")
    for name in ("org/p", "org/none"):
        problem = problem_of(lambda name=name: fetch(f"hub:{name}"))
        assert "no such dataset, or it is private" in problem.message
        assert "HF_TOKEN" in problem.fix


@pytest.mark.parametrize(
    "name", ["../x", "../../etc", "", "a/b/c", "a/b--c", "-a/b", "a\0/b", "é/x"]
)
def test_names_that_are_no_names(hub, name):
    problem = problem_of(lambda: fetch(f"hub:{name}"))
    assert problem.code == "E_NAME"
    assert "hub:org/name" in problem.fix
    assert hub.seen == []


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://[::1", "http://h:port"])
def test_an_endpoint_that_is_no_address(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    problem = problem_of(lambda: fetch("hub:org/a"))
    assert problem.code == "E_HUB"
    assert "HF_ENDPOINT" in problem.message + problem.fix


def test_files_are_named_by_their_path_in_the_repository(hub):
    hub.add("org/a", {"en/train.jsonl": "e", "de/train.jsonl": "d"})
    fetched = fetch("hub:org/a")
    assert dict(zip(fetched.names, (f.read_text() for f in fetched.files), strict=True)) == {
        "en/train.jsonl": "e",
        "de/train.jsonl": "d",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/datasets/", 500), ("GET", "/tree/", 502), ("HEAD", "/resolve/", 500)],
)
def test_a_server_that_fails_is_named(hub, method, path, status):
    hub.add("org/a", {"a.jsonl": "x"})
    hub.fail(method, path, status, times=100)
    problem = problem_of(lambda: fetch("hub:org/a"))
    assert problem.code == "E_HUB"
    assert str(status) in problem.message


def test_a_download_that_never_ends_is_an_error(hub):
    hub.add("org/a", {"a.jsonl": "x" * 10_000})
    hub.cut("GET", "/resolve/", 0, times=100)
    assert "connection" in problem_of(lambda: fetch("hub:org/a")).message


def test_a_process_of_its_own_reads_its_environment(hub, tmp_path):
    hub.add("org/a", {"a.jsonl": "x"}, private=True)
    code = "from tunewright.data.formats._hub import fetch; fetch('hub:org/a')"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment(hub, tmp_path / "other", TOKEN)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert TOKEN not in process.stderr + process.stdout
    assert process.stderr == ""
    assert list((tmp_path / "other").rglob("a.jsonl"))
