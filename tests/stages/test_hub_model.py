"""Models to the Hub, with the real client against a server on this machine, and loaded back from there."""

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from fake_hub import FakeHub, connect, environment
from huggingface_hub import ModelCard, hf_hub_download
from pushed import copied, evaluate, make_run

from tunewright.artifacts import load_artifact, writing
from tunewright.cli import main
from tunewright.errors import TunewrightError
from tunewright.events import SILENT
from tunewright.models._folders import TINY, resolve_model
from tunewright.models.gguf_file import read_layout
from tunewright.publish.hub import _client, _model
from tunewright.pushing import push, push_after_run, require_ready
from tunewright.targets import config_of

# The client passes its files to httpx by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "h" + "f_" + "Wxyz9876" * 5
BASE = "org/tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose base is on the Hub. Shared: read only."""
    return make_run(tmp_path_factory.mktemp("made"), BASE)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as server:
        connect(server, monkeypatch, tmp_path / "cache", TOKEN)
        monkeypatch.setattr(_client, "FIRST_WAIT_SECONDS", 0)
        yield server


@pytest.fixture
def run(made, tmp_path):
    """A run that the test may change; it names its repositories."""
    return copied(made, tmp_path)


def model(hub, name: str):
    return hub.repos["models", name]


def card(hub, name: str) -> ModelCard:
    return ModelCard(model(hub, name).files["README.md"].decode())


def refusal(action) -> list:
    with pytest.raises(TunewrightError) as caught:
        action()
    for problem in caught.value.problems:
        assert TOKEN not in f"{problem.message}{problem.fix}{problem.where}"
    return list(caught.value.problems)


def changed(config, kind, change):
    """Make an artifact of a run anew, with the same options and parents, after a change of its files and facts."""
    from tunewright.config.inputs import settings_of

    old = load_artifact(Path(config.run_dir) / kind, kind)
    parents = {k: load_artifact(Path(config.run_dir) / k, k) for k in old.parents}
    with writing(old.path, kind, settings=settings_of(config, kind), parents=parents) as draft:
        for name in old.files:
            (draft.path / name).write_bytes((old.path / name).read_bytes())
        draft.facts |= old.facts
        change(draft)


# What is uploaded


def test_all_parts_of_a_run_in_one_command(hub, run, capfd):
    flags = ["--adapter", "--merged", "--gguf", "--dataset", "--report", "--license", "apache-2.0"]
    assert main(["push", run.run_dir, *flags, "--json"]) == 0
    out, err = capfd.readouterr()
    assert TOKEN not in out + err
    pushed = {one["url"].removeprefix(f"{hub.url}/"): one for one in json.loads(out)["pushed"]}
    names = ["datasets/me/rows", "me/voice", "me/voice-merged", "me/voice-GGUF"]
    assert list(pushed) == names
    for name in names[1:]:
        repo = model(hub, name)
        assert repo.private
        assert len(repo.commits) == 2
        assert repo.commits[-1].sha == pushed[name]["commit"]
        assert set(repo.files) == {".gitattributes", *pushed[name]["files"]}
        assert b"report.html" in repo.files["README.md"]
        assert run.run_dir.encode() not in b"".join(
            raw for file, raw in repo.files.items() if not file.endswith(".safetensors")
        )
        data = card(hub, name).data
        assert (data.license, data.datasets, data.pipeline_tag) == (
            "apache-2.0",
            ["me/rows"],
            "text-generation",
        )
    kinds = {n: (d.library_name, d.base_model, d.base_model_relation) for n in names[1:] if (d := card(hub, n).data)}  # fmt: skip
    assert kinds == {
        "me/voice": ("peft", BASE, "adapter"),
        "me/voice-merged": ("transformers", BASE, "finetune"),
        "me/voice-GGUF": ("gguf", "me/voice-merged", "quantized"),
    }
    assert set(model(hub, "me/voice-GGUF").files) == {
        *(".gitattributes", "README.md", "report.html"),
        *("t-F32.gguf", "Modelfile", "template", "system", "params"),
    }
    receipts = json.loads((Path(run.run_dir) / "pushed.json").read_text())
    assert {part: one["repo_id"] for part, one in receipts.items()} == {
        "dataset": "me/rows",
        "adapter": "me/voice",
        "merged": "me/voice-merged",
        "gguf": "me/voice-GGUF",
    }
    assert receipts["adapter"]["commit"] == pushed["me/voice"]["commit"]


def test_the_adapter_where_nothing_is_named_and_where_a_flag_says(hub, run, capfd):
    assert main(["push", run.run_dir, "--repo-id", "me/other", "--public"]) == 0
    assert list(hub.repos) == [("models", "me/other")]
    assert not model(hub, "me/other").private
    assert "commit" in capfd.readouterr().out
    assert main(["push", run.run_dir, "--gguf=F32", "--repo-id", "me/files"]) == 0
    assert "t-F32.gguf" in model(hub, "me/files").files
    assert main(["push", run.run_dir, "--gguf=Q8_0"]) == 2
    assert "E_NOT_FOUND" in capfd.readouterr().err


def test_a_card_knows_what_was_pushed_before_and_is_still_the_same(hub, run):
    push(run, ["dataset", "merged"])
    push(run, ["gguf"])
    data = card(hub, "me/voice-GGUF").data
    assert (data.base_model, data.datasets) == ("me/voice-merged", ["me/rows"])
    changed(run, "merged", lambda draft: draft.facts.update(note="made anew"))
    changed(run, "exported", lambda draft: None)
    push(run, ["gguf"])
    data = card(hub, "me/voice-GGUF").data
    assert (data.base_model, data.base_model_relation) == (BASE, "finetune")


def test_a_dry_run_lists_files_and_sizes_and_touches_no_network(hub, run, monkeypatch, capfd):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", run.run_dir, "--adapter", "--gguf", "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert hub.seen == []
    size = (Path(run.run_dir) / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"{size:,} bytes  adapter_model.safetensors" in out
    assert "t-F32.gguf" in out
    assert out.count("a dry run") == 2
    assert not (Path(run.run_dir) / "pushed.json").exists()


def test_a_branch_and_a_repository_that_was_public(hub, run):
    hub.add("me/voice", {"README.md": "old", "mine.txt": "kept"}, kind="models")
    said: list[str] = []

    class Ears:
        def started(self, stage, total, unit):
            """Ignore it."""

        def advanced(self, done, detail):
            """Ignore it."""

        def said(self, text):
            said.append(text)

    branch = run.model_copy(
        update={"publish": run.publish.model_copy(update={"hub_revision": "v2"})}
    )
    (made,) = push(branch, listener=Ears())
    repo = model(hub, "me/voice")
    assert repo.branches["v2"][-1].sha == made.commit
    assert repo.files == {"README.md": b"old", "mine.txt": b"kept"}
    assert repo.branches["v2"][-1].files["mine.txt"] == b"kept"
    assert any("public" in line for line in said)


# Loaded back


def offered_base(hub) -> None:
    files = {f.name: f.read_bytes() for f in resolve_model(TINY).iterdir() if f.is_file()}
    hub.add(BASE, files, kind="models")


def answer_of(code: str) -> str:
    """Return what the code of a card prints, without chance and in a few words."""
    greedy = re.sub(r"do_sample=True, temperature=[\d.]+, top_p=[\d.]+", "do_sample=False", code)
    assert greedy != code
    shown = io.StringIO()
    with redirect_stdout(shown):
        exec(greedy.replace("max_new_tokens=200", "max_new_tokens=12"), {})
    return shown.getvalue().removesuffix("\n")


@pytest.mark.parametrize("part", ["adapter", "merged"])
def test_the_code_of_the_card_loads_it_and_answers_as_the_run_does(hub, run, part, one_thread):
    from peft import PeftModel

    from tunewright.models._load import load_model
    from tunewright.models._tokenizer import load_tokenizer

    offered_base(hub)
    push(run, [part])
    text = card(hub, "me/voice" + ("-merged" if part == "merged" else "")).text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = answer_of(code)
    folder = Path(run.run_dir) / part
    model_ = load_model(folder if part == "merged" else resolve_model(TINY))
    if part == "adapter":
        model_ = PeftModel.from_pretrained(model_, folder)
    tokenizer = load_tokenizer(folder)
    (asked,) = re.findall(r'"content": "(.*?)"', code)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    expected = model_.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
    assert found == tokenizer.decode(expected[0][ids.shape[1] :], skip_special_tokens=True)
    assert found


def test_gguf_files_come_back_as_they_were_with_what_ollama_reads(hub, run):
    push(run, ["gguf"])
    file = Path(hf_hub_download("me/voice-GGUF", "t-F32.gguf"))
    local = Path(run.run_dir) / "exported" / "t-F32.gguf"
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(local.read_bytes()).digest()
    with file.open("rb") as stream:
        assert read_layout(stream).metadata["general.architecture"] == "qwen3"
    files = model(hub, "me/voice-GGUF").files
    template = files["template"].decode()
    assert template.startswith("{{ range .Messages }}<|im_start|>")
    assert template.endswith("<|im_end|>\n{{ end }}")
    assert files["system"].decode() == 'You are "brief".'
    assert json.loads(files["params"]) == {
        "stop": ["<|im_end|>", 'a "b" c'],
        "temperature": 0.7,
        "num_ctx": 2048,
    }
    assert "FROM ./t-F32.gguf\n" in files["Modelfile"].decode()


def test_a_base_that_is_a_folder_is_named_and_not_told_where_it_lies(hub, tmp_path):
    import shutil

    base = tmp_path / "secret-place" / "my-base"
    shutil.copytree(resolve_model(TINY), base)
    run = make_run(tmp_path, str(base))
    push(run, ["adapter", "merged"], report=True)
    for name in ("me/voice", "me/voice-merged"):
        repo = model(hub, name)
        assert all(b"secret-place" not in raw for raw in repo.files.values()), name
        data = card(hub, name).data
        assert data.base_model is None
        assert "`my-base`, a model that is not on the Hub" in card(hub, name).text
    settings = json.loads(model(hub, "me/voice").files["adapter_config.json"])
    assert settings["base_model_name_or_path"] == "my-base"
    assert settings["r"] == 4
    summary = json.loads(model(hub, "me/voice").files["training_summary.json"])
    assert summary == {"model_name_or_path": "my-base", "seed": 42}


# The gate


def test_a_bad_verdict_is_refused_and_forcing_it_is_on_the_card(hub, run, capfd):
    evaluate(run, verdict="overfitted", sentence="It has learned the text by heart.")
    assert main(["push", run.run_dir]) == 1
    err = capfd.readouterr().err
    assert "E_GATE_VERDICT" in err
    assert "It has learned the text by heart." in err
    assert f"Go on. Or `tunewright push {run.run_dir} --force" in err
    assert hub.seen == []
    assert main(["push", run.run_dir, "--force", "--reason", "for a talk | on overfitting"]) == 0
    text = card(hub, "me/voice").text
    top = text.index("Passed on by force")
    assert top < text.index("## ")
    assert "It has learned the text by heart." in text[top : text.index("## ")]
    assert "for a talk \\| on overfitting" in text


def test_a_red_gate_is_refused_only_for_the_part_it_is_of(hub, run):
    changed(
        run,
        "exported",
        lambda d: d.facts["gates"].append(
            {"gate": "F32: mean KL", "value": "3", "limit": "1", "passed": False}
        ),
    )
    push(run, ["adapter"])
    (problem,) = refusal(lambda: push(run, ["gguf"]))
    assert problem.code == "E_GATE_VERDICT"
    assert "F32: mean KL" in problem.message
    assert ("models", "me/voice-GGUF") not in hub.repos
    push(run, ["gguf"], force=True)
    text = card(hub, "me/voice-GGUF").text
    assert "Its owner's reason: none was given." in text
    assert "| exported | F32: mean KL | 3 | 1 | **no** |" in text


def test_a_run_that_was_not_compared_is_refused_with_what_to_do(hub, run):
    import shutil

    shutil.rmtree(Path(run.run_dir) / "evaluation")
    (problem,) = refusal(lambda: push(run))
    assert (problem.code, problem.fix.startswith("tunewright compare ")) == ("E_GATE_VERDICT", True)
    assert hub.seen == []
    push(run, ["dataset"])
    push(run, force=True)
    assert "**Not compared with its base**" in card(hub, "me/voice").text


def test_an_evaluation_of_another_adapter_does_not_count(hub, run):
    changed(run, "adapter", lambda draft: draft.facts.update(seconds=1))
    problems = refusal(lambda: push(run, force=True))
    assert {p.code for p in problems} == {"E_ARTIFACT_INVALID"}
    assert hub.seen == []


def test_what_makes_no_sense_is_named(run, hub):
    assert [p.where for p in refusal(lambda: push(run, ["dataset"], report=True, reason="x"))] == [
        "--report",
        "--reason",
    ]
    assert refusal(lambda: push(run, []))[0].code == "E_USAGE"
    one = run.publish.model_copy(update={"hub_merged_id": "me/voice"})
    both = run.model_copy(update={"publish": one})
    assert len(refusal(lambda: push(both, ["adapter", "merged"]))) == 2
    none = run.publish.model_copy(update={"hub_model_id": None})
    problems = refusal(lambda: push(run.model_copy(update={"publish": none}), ["adapter", "gguf"]))
    assert [p.where for p in problems] == ["publish.hub_model_id", "publish.hub_gguf_id"]
    assert hub.seen == []


# What a card says at its top


def licensed(run, licence: str, *more: str):
    return config_of(run.run_dir, [f"publish.model_license={licence}", *more])


def sent(hub) -> set[str]:
    """Return where something was sent to; what the client asks for besides is its own affair."""
    return {one.path for one in hub.seen if one.method != "GET"}


def test_a_licence_that_the_hub_refuses_is_told_before_anything_is_sent(hub, run):
    (problem,) = refusal(lambda: push(licensed(run, "apache2"), ["dataset", "adapter"]))
    assert (problem.code, problem.where) == ("E_HUB", "README.md: license")
    assert '"license" must be one of [' in problem.message
    assert problem.fix.startswith("Change the card's metadata: publish.model_license (apache-2.0")
    assert hub.repos == {}
    assert sent(hub) == {"/api/validate-yaml"}


def test_a_run_that_would_end_with_a_licence_that_is_refused_does_not_begin(hub, run):
    config = licensed(run, "apache2", "publish.push_to_hub=[adapter,gguf]")
    (problem,) = refusal(lambda: require_ready(config))
    assert problem.where == "README.md: license"
    rows = config_of(run.run_dir, ["publish.license=cc-by-4", "publish.push_to_hub=[dataset]"])
    (problem,) = refusal(lambda: require_ready(rows))
    assert "publish.license (cc-by-4.0" in problem.fix
    hub.seen.clear()
    require_ready(licensed(run, "mit", "publish.push_to_hub=[adapter]"))
    assert sent(hub) == set()


def test_the_hub_has_the_last_word_on_licences(hub, run):
    hub.licences.add("llama9")
    require_ready(licensed(run, "llama9", "publish.push_to_hub=[adapter]"))
    push(licensed(run, "llama9"))
    assert card(hub, "me/voice").data.license == "llama9"
    # One that is known here, and not there: seen when the card is asked about.
    hub.seen.clear()
    (problem,) = refusal(lambda: push(licensed(run, "gemma", "publish.hub_model_id=me/b")))
    assert problem.where == "README.md: license"
    assert sent(hub) == {"/api/validate-yaml"}


def test_a_dry_run_names_a_doubtful_licence_and_asks_nobody(hub, run, capfd):
    flags = ["--dry-run", "--license", "apache2"]
    assert main(["push", run.run_dir, *flags]) == 0
    told = "".join(capfd.readouterr())
    assert "may not know the licence 'apache2' (publish.model_license): apache-2.0" in told
    assert main(["push", run.run_dir, "--dry-run", "--license", "openrail++"]) == 0
    assert "may not know" not in "".join(capfd.readouterr())
    assert hub.seen == []


@pytest.mark.parametrize(
    ("front", "where", "said"),
    [
        ("language: [English]", "README.md: language", "ISO 639"),
        ("license: [", "README.md", "YAML Metadata Error"),
        ("- a list", "README.md", "no metadata"),
    ],
)
def test_other_metadata_that_is_refused_names_its_key(hub, tmp_path, front, where, said):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# A card\n")
    files, place = {"README.md": tmp_path / "README.md"}, _client.Place("me/x", "model")
    (problem,) = refusal(lambda: _client.upload(files, place, title="x", listener=SILENT))
    assert (problem.code, problem.where) == ("E_HUB", where)
    assert said in problem.message
    assert hub.repos == {}


def test_a_hub_that_gives_no_reason_is_quoted_as_such(hub, run):
    hub.fail("POST", "/validate-yaml", 400)
    (problem,) = refusal(lambda: push(run))
    assert (problem.code, problem.where) == ("E_HUB", "README.md")
    assert "no reason given" in problem.message


# Faults of the upload: RELIABILITY.md P8


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/repos/create"), ("GET", "/api/models/"), ("POST", "/preupload/")),
        *(("POST", "/objects/batch"), ("PUT", "/lfs/"), ("POST", "/commit/")),
        ("POST", "/validate-yaml"),
    ],
)
@pytest.mark.parametrize("fault", ["500", "cut", "answer"])
def test_a_fault_that_passes_leaves_one_commit(hub, run, method, path, fault):
    hub.disturb(fault, method, path)
    (made,) = push(run)
    assert [c.sha for c in model(hub, "me/voice").commits[1:]] == [made.commit]


@pytest.mark.parametrize("after", [0, 1, 50, 500, 4_000, 20_000, 80_000, 200_000, 300_000, 397_000])
def test_a_connection_cut_at_ten_points_and_for_good_is_gone_on_with(hub, run, after, capfd):
    hub.cut("PUT", "/lfs/", after, times=100)
    assert main(["push", run.run_dir]) == 8
    err = capfd.readouterr().err
    assert "ERROR E_HUB: " in err
    assert "Traceback" not in err
    assert TOKEN not in err
    assert len(model(hub, "me/voice").commits) == 1
    hub.faults.clear()
    hub.cut("POST", "/commit/", after, times=2)
    push(run)
    assert len(model(hub, "me/voice").commits) == 2


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/repos/create", 500, "error (500)"),
        ("PUT", "/lfs/", 500, "error (500)"),
        ("POST", "/commit/", 503, "error (503)"),
        ("POST", "/commit/", 409, "Somebody else"),
        ("POST", "/commit/", 412, "Somebody else"),
        ("PUT", "/lfs/", 403, "may not write to 'me'"),
    ],
)
def test_a_fault_that_stays_leaves_no_commit_and_files_that_arrived_are_not_sent_again(
    hub, run, method, path, status, message
):
    hub.fail(method, path, status, times=100)
    (problem,) = refusal(lambda: push(run))
    assert problem.code == "E_HUB"
    assert message in problem.message
    assert problem.fix
    known = hub.repos.get(("models", "me/voice"))
    assert known is None or len(known.commits) == 1
    arrived = set(hub.objects)
    hub.faults.clear()
    hub.seen.clear()
    push(run)
    assert len(model(hub, "me/voice").commits) == 2
    assert not [s for s in hub.seen if s.method == "PUT" and s.path.rsplit("/", 1)[1] in arrived]
    assert bool(arrived) == (path == "/commit/")


def test_an_interrupted_second_repository_does_not_undo_the_first(hub, run):
    hub.fail("POST", "/models/me/voice-merged/commit/", 500, times=100)
    refusal(lambda: push(run, ["adapter", "merged"]))
    assert len(model(hub, "me/voice").commits) == 2
    assert len(model(hub, "me/voice-merged").commits) == 1
    hub.faults.clear()
    hub.seen.clear()
    first, second = push(run, ["adapter", "merged"])
    assert first.commit == model(hub, "me/voice").commits[1].sha
    assert second.commit == model(hub, "me/voice-merged").commits[1].sha
    assert hub.count("PUT", "/lfs/") == 0


def test_a_commit_of_somebody_else_in_between_is_a_conflict(hub, run):
    hub.commit_between("models", "me/voice")
    (problem,) = refusal(lambda: push(run))
    assert "Somebody else has changed" in problem.message
    assert [c.title for c in model(hub, "me/voice").commits] == ["initial commit", "theirs"]
    push(run)
    assert "x" in model(hub, "me/voice").files


def test_two_that_push_at_once_make_one_or_two_whole_commits(hub, run):
    errors: list[BaseException] = []

    def one():
        try:
            push(run)
        except TunewrightError as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) <= 1
    assert all(error.exit_code == 8 for error in errors)
    commits = model(hub, "me/voice").commits
    assert len(commits) in (2, 3)
    assert all("adapter_model.safetensors" in c.files for c in commits[1:])


def test_a_token_that_may_not_write_or_is_missing(hub, run, monkeypatch, capfd):
    hub.tokens[TOKEN] = "read"
    assert main(["push", run.run_dir]) == 8
    err = capfd.readouterr().err
    assert "may not write to 'me'" in err
    assert TOKEN not in err
    assert hub.repos == {}
    assert main(["push", run.run_dir, "--debug"]) == 8
    assert TOKEN not in "".join(capfd.readouterr())
    monkeypatch.delenv("HF_TOKEN")
    (problem,) = refusal(lambda: push(run))
    assert "HF_TOKEN is not set" in problem.message


@pytest.mark.parametrize(
    ("method", "path", "commits"),
    [("POST", "/repos/create", 1), ("PUT", "/lfs/", 1), ("POST", "/commit/", 2)],
)
def test_a_push_that_is_killed_is_gone_on_with(hub, run, tmp_path, method, path, commits):
    """The server finishes what it was asked before the client died; nobody hears the answer."""
    command = [sys.executable, "-m", "tunewright", "push", run.run_dir]
    variables = os.environ | environment(hub, tmp_path / "cache", TOKEN)
    child: list[subprocess.Popen[bytes]] = []
    hub.before(method, path, lambda: (child[0].kill(), child[0].wait()))
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as process:
        child.append(process)
        assert process.wait(timeout=60) == -9
    assert not (Path(run.run_dir) / "pushed.json").exists()
    for _ in range(100):  # until the server has done what it was asked
        if ("models", "me/voice") in hub.repos and len(model(hub, "me/voice").commits) == commits:
            break
        time.sleep(0.02)
    hub.seen.clear()
    (made,) = push(run)
    assert [c.sha for c in model(hub, "me/voice").commits[1:]] == [made.commit]
    assert hub.count("PUT", "/lfs/") == (1 if path == "/repos/create" else 0)


def test_no_answer_of_a_server_shows_the_token_or_a_password_of_the_address(
    hub, run, monkeypatch, capfd
):
    secret = "pass" + "word7"
    hub.fail("POST", "/commit/", 400, times=100, message=f"bad header Bearer {TOKEN}")
    assert main(["push", run.run_dir, "--debug"]) == 8
    shown = "".join(capfd.readouterr())
    assert "bad header Bearer ***" in shown
    hub.faults.clear()
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("://", f"://me:{secret}@"))
    # The client sends user and password in place of the token.
    assert main(["push", run.run_dir, "--json"]) == 8
    assert main(["push", run.run_dir, "--json", "--dry-run"]) == 0
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{secret}@127.0.0.1:9")
    assert main(["push", run.run_dir, "--json"]) == 8
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert main(["push", run.run_dir, "--json"]) == 0
    shown += "".join(capfd.readouterr())
    assert TOKEN not in shown
    assert secret not in shown
    files = {str(f): f.read_bytes() for f in Path(run.run_dir).rglob("*") if f.is_file()}
    for name, raw in {**files, **model(hub, "me/voice").files}.items():
        assert TOKEN.encode() not in raw, name
        assert secret.encode() not in raw, name


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(60))
def test_any_faults_in_any_order_leave_one_commit_or_none(hub, run, seed):
    """Up to six faults of any kind at any request: then the same command again, without them."""
    chance = random.Random(seed)
    paths = [
        *(("POST", "/repos/create"), ("GET", "/api/models/"), ("POST", "/preupload/")),
        *(("POST", "/objects/batch"), ("PUT", "/lfs/"), ("POST", "/lfs/"), ("POST", "/commit/")),
    ]
    hub.part_bytes = chance.choice([None, 50_000])
    for _ in range(chance.randint(1, 6)):
        method, path = chance.choice(paths)
        times = chance.choice([1, 2, 20])
        kind = chance.choice(["status", "cut", "answer"])
        if kind == "status":
            hub.fail(method, path, chance.choice([408, 409, 412, 429, 500, 502, 503, 504]), times)
        elif kind == "cut":
            hub.cut(method, path, chance.randrange(400_000), times)
        else:
            hub.lose_answer(method, path, times)
    try:
        push(run)
    except TunewrightError as error:
        assert error.exit_code == 8
        assert TOKEN not in str(error)
    known = hub.repos.get(("models", "me/voice"))
    assert known is None or len(known.commits) <= 2
    hub.faults.clear()
    (made,) = push(run)
    assert [c.sha for c in model(hub, "me/voice").commits[1:]] == [made.commit]
    weights = Path(run.run_dir) / "adapter" / "adapter_model.safetensors"
    assert model(hub, "me/voice").files[weights.name] == weights.read_bytes()


def test_pushing_again_makes_no_commit(hub, run):
    first = push(run)
    again = push(run)
    assert again[0].commit == first[0].commit
    assert len(model(hub, "me/voice").commits) == 2


def test_a_file_that_changes_between_the_check_and_the_upload_is_not_sent(hub, run, monkeypatch):
    weights = Path(run.run_dir) / "adapter" / "adapter_model.safetensors"
    honest = _client.upload

    def late(*arguments, **options):
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
        return honest(*arguments, **options)

    monkeypatch.setattr(_model, "upload", late)
    (problem,) = refusal(lambda: push(run))
    assert (problem.code, problem.where) == ("E_ARTIFACT_INVALID", str(weights))
    assert len(model(hub, "me/voice").commits) == 1


def test_large_files_go_in_parts_one_by_one_and_the_progress_is_told(hub, run, monkeypatch):
    hub.part_bytes = 150_000
    monkeypatch.setattr(_client, "LARGE_BYTES", 100_000)
    told: list[tuple[int, str]] = []

    class Ears:
        def started(self, stage, total, unit):
            told.append((total, "in all"))

        def advanced(self, done, detail):
            told.append((done, detail))

        def said(self, text):
            """Ignore it."""

    push(run, listener=Ears())
    assert hub.count("PUT", "/lfs/") == 3
    sizes = [size for size, _ in told[1:]]
    assert sizes == sorted(sizes)
    assert sizes[-1] == told[0][0]
    assert {"adapter_model.safetensors", "tokenizer.json"} <= {detail for _, detail in told}
    weights = Path(run.run_dir) / "adapter" / "adapter_model.safetensors"
    sent = model(hub, "me/voice").files["adapter_model.safetensors"]
    assert sent == weights.read_bytes()


# What was there before


def test_weights_of_an_earlier_upload_do_not_stay_beside_the_new_ones(hub, run):
    old = {
        "model-00001-of-00002.safetensors": b"a",
        "model.safetensors.index.json": "{}",
        "pytorch_model.bin": b"b",
        "notes.txt": "kept",
    }
    hub.add("me/voice-merged", old, kind="models", private=True)
    hub.lose_answer("POST", "/commit/")  # what is gone already is not removed twice
    push(run, ["merged"])
    repo = model(hub, "me/voice-merged")
    assert len(repo.commits) == 2
    assert set(repo.files) & set(old) == {"notes.txt"}
    hub.add("me/voice-GGUF", {"system": "old", "old-Q4_0.gguf": b"GGUF"}, kind="models")
    changed(
        run,
        "exported",
        lambda draft: (draft.path / "Modelfile").write_text("FROM ./t-F32.gguf\n"),
    )
    push(run, ["gguf"])
    files = model(hub, "me/voice-GGUF").files
    assert "system" not in files
    assert "old-Q4_0.gguf" in files


@pytest.mark.parametrize(
    ("part", "name", "there"),
    [
        ("merged", "me/voice-merged", "adapter_config.json"),
        ("gguf", "me/voice-GGUF", "adapter_config.json"),
        ("adapter", "me/voice", "config.json"),
    ],
)
def test_two_kinds_of_model_are_not_mixed_in_a_repository(hub, run, part, name, there):
    hub.add(name, {there: "{}"}, kind="models")
    (problem,) = refusal(lambda: push(run, [part]))
    assert problem.code == "E_HUB"
    assert "Name another" in problem.fix
    assert len(model(hub, name).commits) == 1


# Secrets: RELIABILITY.md S10


def planted_metadata(draft) -> None:
    from safetensors.torch import load_file, save_file

    file = draft.path / "adapter_model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "note": TOKEN})


def planted_line(name: str):
    def change(draft) -> None:
        file = draft.path / name
        file.write_text(file.read_text() + f"\n# {TOKEN}\n")

    return change


def planted_gguf(draft) -> None:
    file = draft.path / "t-F32.gguf"
    raw = file.read_bytes()
    at = raw.index(b"{%")
    file.write_bytes(raw[:at] + TOKEN.encode() + raw[at + len(TOKEN) :])


@pytest.mark.parametrize(
    ("part", "kind", "change", "where"),
    [
        ("adapter", "adapter", planted_metadata, "adapter_model.safetensors:1"),
        ("adapter", "adapter", planted_line("training_summary.json"), "training_summary.json:6"),
        ("adapter", "adapter", planted_line("chat_template.jinja"), "chat_template.jinja:"),
        ("merged", "merged", planted_line("config.json"), "config.json:"),
        ("gguf", "exported", planted_gguf, "t-F32.gguf:"),
        ("gguf", "exported", planted_line("Modelfile"), "Modelfile:12"),
        ("adapter", "report", planted_line("report.html"), "report.html:2"),
        ("adapter", "evaluation", lambda d: d.facts.update(sentence=TOKEN), "README.md:"),
    ],
)
def test_a_secret_in_any_file_stops_the_upload_before_it_begins(
    hub, run, part, kind, change, where, capfd, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "h" + "f_" + "Another1" * 5)
    changed(run, kind, change)
    if kind == "adapter":
        evaluate(run)
    flags = ["--report"] if kind == "report" else []
    for more in ([], ["--dry-run"], ["--json"]):
        assert main(["push", run.run_dir, f"--{part}", *flags, *more]) == 9
        out, err = capfd.readouterr()
        assert "E_SECRET_IN_ARTIFACT" in out + err
        assert where in out + err
        assert TOKEN not in out + err
    assert hub.seen == []


def test_the_token_itself_is_found_whatever_it_looks_like(hub, run, monkeypatch):
    odd = "swordfish-without-a-shape"
    hub.tokens[odd] = "write"
    monkeypatch.setenv("HF_TOKEN", odd)
    changed(run, "adapter", lambda d: (d.path / "notes.txt").write_text(f"a\nb {odd}\n"))
    evaluate(run)
    with pytest.raises(TunewrightError) as caught:
        push(run)
    (problem,) = caught.value.problems
    assert problem.where.endswith("notes.txt:2")
    assert "HF_TOKEN" in problem.message
    assert odd not in f"{problem.message}{problem.fix}"


def test_a_secret_in_the_last_part_stops_the_first(hub, run):
    changed(run, "exported", planted_line("Modelfile"))
    (problem,) = refusal(lambda: push(run, ["adapter", "gguf"]))
    assert problem.code == "E_SECRET_IN_ARTIFACT"
    assert hub.seen == []


def test_the_run_folder_is_enough(hub, run):
    """`push RUN` takes the repositories from the config that is in the run."""
    assert config_of(run.run_dir, []).publish.hub_model_id == "me/voice"


def test_a_run_ends_with_what_its_config_uploads(hub, run):
    config = config_of(run.run_dir, ["publish.push_to_hub=[adapter,dataset]"])
    assert [one.url.partition("/me/")[2] for one in push_after_run(config)] == ["rows", "voice"]
    assert "report.html" in model(hub, "me/voice").files
    # What is there as it is now is not uploaded again; what changed is.
    assert push_after_run(config) == []
    branch = config_of(run.run_dir, ["publish.push_to_hub=[adapter]", "publish.hub_revision=v2"])
    assert len(push_after_run(branch)) == 1
    assert push_after_run(branch) == []
    changed(config, "evaluation", lambda draft: draft.facts.update(sentence="It has."))
    changed(config, "adapter", lambda draft: (draft.path / "new.txt").write_text("new"))
    with pytest.raises(TunewrightError, match="another adapter"):
        push_after_run(config)
    assert push_after_run(config_of(run.run_dir)) == []


def test_a_run_that_cannot_end_with_its_upload_does_not_begin(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (problem,) = refusal(
        lambda: require_ready(config_of(run.run_dir, ["publish.push_to_hub=[adapter]"]))
    )
    assert (problem.code, problem.where) == ("E_HUB", "me/voice")
    nowhere = ["publish.push_to_hub=[adapter]", "publish.hub_model_id=null"]
    (problem,) = refusal(lambda: require_ready(config_of(run.run_dir, nowhere)))
    assert problem.code == "E_CONFIG_VALUE"
    require_ready(run)
