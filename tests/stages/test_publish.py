"""The local store: what is published is whole, the only one of its name, and checked on every way out."""

import errno
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from published import GATE, artifacts, config_of, make, make_run, write_version

from tunewright.artifacts import Artifact, load_artifact, sha256, writing
from tunewright.errors import TunewrightError
from tunewright.machine import Space
from tunewright.publish import publish
from tunewright.publish.versions import blobs, founding, layout, pointers, store
from tunewright.publish.versions.cleaning import gc

WORKER = Path(__file__).with_name("publish_worker.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run's artifacts, small files in the right places. Shared: read only."""
    return make_run(tmp_path_factory.mktemp("run"))


def published(made: Path, tmp_path: Path, *, force: bool = False, **options) -> Artifact:
    config = config_of(tmp_path / "run", tmp_path / "store", **options)
    return publish(config, *artifacts(made), force=force)


def codes(error: pytest.ExceptionInfo[TunewrightError]) -> list[str]:
    return [problem.code for problem in error.value.problems]


def hidden(root: Path) -> list[Path]:
    return [*root.glob(".tmp-*"), *root.glob(".gone-*"), *root.glob(".*.new")]


def test_a_version_has_every_file_and_a_manifest_that_says_what_it_is(made, tmp_path):
    receipt = published(made, tmp_path)
    root, version = tmp_path / "store", receipt.facts["version"]
    folder = store.resolve(root, "writer")
    shown = store.show(root, "writer", "voice", version)
    assert folder == root / "writer" / "voice" / version
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "README.md",
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "gguf/voice-f16.gguf",
        "gguf/Modelfile",
        "manifest.json",
    }
    assert shown["files"]["gguf/voice-f16.gguf"] == {
        "sha256": sha256(made / "exported" / "voice-f16.gguf"),
        "bytes": 36_000,
    }
    assert shown["base"] == {
        "name": "tunewright/tiny",
        "revision": None,
        "files": {"model.safetensors": "ab"},
    }
    assert shown["chat_template_sha256"] == sha256(made / "adapter" / "chat_template.jinja")
    assert shown["parents"] == {a.kind: a.digest for a in artifacts(made)}
    assert shown["config"]["publish"]["agent"] == "writer"
    assert shown["metrics"]["evaluation"]["transfer_score"] == {"score": 71.0}
    assert shown["libraries"].keys() >= {"python", "tunewright", "torch"}
    assert shown["forced"] is None
    assert store.verify(root) == []
    assert hidden(root) == []


def test_the_receipt_names_no_absolute_path(made, tmp_path):
    receipt = published(made, tmp_path)
    assert str(tmp_path) not in (receipt.path / "manifest.json").read_text()
    card = (receipt.path / "README.md").read_text()
    assert str(tmp_path) not in card
    assert receipt.facts["files"] == 5
    assert receipt.facts["bytes"] == 70_000 + 14 + 36_000 + 14 + len(card.encode())
    assert all(gate["passed"] for gate in receipt.facts["gates"])


def test_versions_within_a_minute_are_counted(made, tmp_path):
    names = [published(made, tmp_path).facts["version"] for _ in range(3)]
    assert len(set(names)) == 3
    assert names[1].startswith(names[0]) or names[2].startswith(names[1].split(".")[0])
    listed = store.list_versions(tmp_path / "store")
    assert [v.version for v in listed] == names
    assert [v.current for v in listed] == [False, False, True]


def test_the_name_of_a_version_that_was_removed_is_not_given_again(made, tmp_path):
    root = tmp_path / "store"
    now = datetime.now(UTC)
    for name in ("", ".7", ".8x", ".", "-9.9"):
        (root / "writer" / "voice" / f"{now:v%Y%m%d-%H%M}{name}").mkdir(parents=True)
    (root / "AGENT_MODEL_MAP.json").write_text("{}")
    minute, _, number = published(made, tmp_path).facts["version"].partition(".")
    # Another minute may have begun.
    assert number in ("8", "")
    assert number or minute != f"{now:v%Y%m%d-%H%M}"


def test_an_explicit_version_exists_once(made, tmp_path):
    published(made, tmp_path, version="v1")
    before = sha256(tmp_path / "store/writer/voice/v1/manifest.json")
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path, version="v1")
    assert codes(error) == ["E_VERSION_EXISTS"]
    assert sha256(tmp_path / "store/writer/voice/v1/manifest.json") == before
    assert hidden(tmp_path / "store") == []


def test_an_explicit_version_that_appears_while_copying_is_refused(made, tmp_path):
    class Rival:
        def started(self, stage, total, unit):
            other = config_of(tmp_path / "other", tmp_path / "store", version="v1")
            publish(other, *artifacts(made))

        def advanced(self, done, detail):
            pass

        said = print

    with pytest.raises(TunewrightError) as error:
        publish(
            config_of(tmp_path / "run", tmp_path / "store", version="v1"),
            *artifacts(made),
            listener=Rival(),
        )
    assert codes(error) == ["E_VERSION_EXISTS"]
    assert store.verify(tmp_path / "store") == []


@pytest.mark.parametrize("verdict", ["overfitted", "degraded", None])
def test_a_bad_verdict_is_refused_unless_forced(made, tmp_path, verdict):
    run = shutil.copytree(made, tmp_path / "made")
    facts = {"verdict": verdict, "sentence": "It copies 40 words.", "advice": "Fewer epochs."}
    make(run, "evaluation", {"samples.jsonl": b""}, facts)
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_GATE_VERDICT"]
    assert error.value.exit_code == 1
    assert not (tmp_path / "store").exists()
    receipt = published(run, tmp_path, force=True)
    shown = store.show(tmp_path / "store", "writer", "voice", receipt.facts["version"])
    told = shown["forced"]["refused"][0]
    assert told.startswith(f"The verdict is {verdict or 'missing'}")
    card = (store.resolve(tmp_path / "store", "writer") / "README.md").read_text()
    assert told.removesuffix(".") in card.replace("\\", "")
    assert shown["forced"]["reason"] is None
    assert shown["verdict"] == verdict
    assert [gate["passed"] for gate in receipt.facts["gates"]] == [True, False]


def test_why_it_was_forced_is_kept_without_secrets(made, tmp_path):
    run = make_run(tmp_path / "made", verdict="degraded")
    config = config_of(tmp_path / "run", tmp_path / "store", version="v1")
    with pytest.raises(TunewrightError) as error:
        publish(config, *artifacts(run), force=True, reason=f"hf_{'aB3' * 12} says so")
    assert codes(error) == ["E_SECRET_IN_ARTIFACT"]
    assert not (tmp_path / "store").exists()
    publish(config, *artifacts(run), force=True, reason="only for the demo")
    assert store.show(tmp_path / "store", "writer", "voice", "v1")["forced"]["reason"] == (
        "only for the demo"
    )
    # Where nothing is refused, nothing was forced.
    other = config_of(tmp_path / "run", tmp_path / "store", version="v2")
    publish(other, *artifacts(made), force=True, reason="to be sure")
    assert store.show(tmp_path / "store", "writer", "voice", "v2")["forced"] is None


@pytest.mark.parametrize("name", ["AGENT_MODEL_MAP.json", "ALIASES.json", "STORE.json"])
def test_nothing_is_published_into_a_store_that_is_damaged(made, tmp_path, name):
    published(made, tmp_path, version="v1")
    (tmp_path / "store" / name).write_text("{")
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path, version="v2")
    assert codes(error) == ["E_ARTIFACT_INVALID" if name[0] == "S" else "E_DIGEST_MISMATCH"]
    assert [p.name for p in (tmp_path / "store" / "writer" / "voice").iterdir()] == ["v1"]


def test_every_failed_gate_is_named(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "made")
    bad = GATE | {"passed": False}
    make(run, "exported", {"Modelfile": b""}, {"gates": [bad, bad]})
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_GATE_VERDICT"] * 2


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "exported/Modelfile"])
def test_a_changed_file_of_the_run_is_not_published(made, tmp_path, file):
    run = shutil.copytree(made, tmp_path / "made")
    (run / file).write_bytes(b"other")
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_ARTIFACT_INVALID"]
    assert store.list_versions(tmp_path / "store") == []
    assert hidden(tmp_path / "store") == []


def test_a_file_that_changes_after_it_was_looked_at_is_noticed(made, tmp_path, monkeypatch):
    run = shutil.copytree(made, tmp_path / "made")

    def changed(*arguments):
        (run / "adapter" / "adapter_model.safetensors").write_bytes(b"other")
        return founding_init(*arguments)

    founding_init = founding.init
    monkeypatch.setattr(founding, "init", changed)
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_ARTIFACT_INVALID"]
    assert store.list_versions(tmp_path / "store") == []
    assert hidden(tmp_path / "store") == []


def test_an_evaluation_of_another_adapter_is_refused(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "made")
    other = make(tmp_path / "elsewhere", "adapter", {"a": b"1"}, {})
    make(run, "evaluation", {"samples.jsonl": b""}, {"verdict": "improved"}, other)
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_ARTIFACT_INVALID"]


def test_a_manifest_that_reaches_outside_its_folder_is_refused(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "made")
    (run / "secret").write_bytes(b"s")
    manifest = json.loads((run / "exported/manifest.json").read_text())
    manifest["files"]["../secret"] = sha256(run / "secret")
    (run / "exported/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TunewrightError) as error:
        published(run, tmp_path)
    assert codes(error) == ["E_UNSAFE_PATH"]


def test_too_little_space_is_said_before_writing(made, tmp_path, monkeypatch):
    monkeypatch.setattr("tunewright.machine.disk_space", lambda path: Space(path, 100))
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path)
    assert codes(error) == ["E_DISK_SPACE"]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("moment", ["the second file", "the last rename"])
def test_an_interrupt_leaves_nothing(made, tmp_path, monkeypatch, moment):
    given = artifacts(made)
    rename, put, files = Path.rename, blobs.put, []

    def renamed(path, target):
        if moment == "the last rename" and Path(target).parent.name == "voice":
            raise KeyboardInterrupt
        return rename(path, target)

    def was_put(*arguments):
        files.append(arguments)
        if moment == "the second file" and len(files) == 2:
            raise KeyboardInterrupt
        put(*arguments)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(blobs, "put", was_put)
    with pytest.raises(KeyboardInterrupt):
        publish(config_of(tmp_path / "run", tmp_path / "store"), *given)
    assert files
    assert store.list_versions(tmp_path / "store") == []
    assert hidden(tmp_path / "store") == []
    assert not (tmp_path / "run" / "published").exists()


def test_publishing_loads_no_heavy_library(made, tmp_path):
    """What is published in a test is published fast, and so it is from a script."""
    arguments = (tmp_path / "store", made, tmp_path / "run", 2)
    done = subprocess.run(
        [sys.executable, str(WORKER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    output = json.loads(done.stdout)
    assert output["heavy"] == []
    assert {v.version for v in store.list_versions(tmp_path / "store")} == set(output["versions"])


def test_a_secret_in_the_config_is_not_published(made, tmp_path):
    config = config_of(tmp_path / "run", tmp_path / "store")
    secret = "hf_" + "aB3" * 12
    export = config.export.model_copy(update={"system": f"Use {secret}."})
    with pytest.raises(TunewrightError) as error:
        publish(config.model_copy(update={"export": export}), *artifacts(made))
    assert codes(error) == ["E_SECRET_IN_ARTIFACT"]
    assert secret not in str(error.value)
    assert store.list_versions(tmp_path / "store") == []


def test_the_card_tells_of_the_merged_model_that_the_files_are_of(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "made")
    parity = {"gate": "top-1 agreement", "value": "1.00", "limit": "0.97", "passed": True}
    merged = make(run, "merged", {"config.json": b"{}"}, {"step": 3, "gates": [parity]})
    exported = load_artifact(run / "exported", "exported")
    assert "top-1 agreement" not in card_after(run, tmp_path)
    parents = {"merged": merged}
    with writing(exported.path, "exported", settings={}, parents=parents) as draft:
        for name in exported.files:
            (draft.path / name).write_bytes((exported.path / name).read_bytes())
        draft.facts |= exported.facts
    assert "top-1 agreement" in card_after(run, tmp_path)


def card_after(run, tmp_path):
    published(run, tmp_path)
    return (store.resolve(tmp_path / "store", "writer") / "README.md").read_text()


def test_a_version_that_nobody_was_told_of_is_finished_by_the_same_command(
    made, tmp_path, monkeypatch
):
    root, honest = tmp_path / "store", pointers.name_current
    publish(config_of(tmp_path / "first", root, version="v0"), *artifacts(made))

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pointers, "name_current", full)
    with pytest.raises(TunewrightError, match="No space"):
        published(made, tmp_path, version="v1")
    assert store.resolve(root, "writer").name == "v0"
    monkeypatch.setattr(pointers, "name_current", honest)
    before = sha256(root / "writer/voice/v1/manifest.json")
    assert published(made, tmp_path, version="v1").facts["version"] == "v1"
    assert store.resolve(root, "writer").name == "v1"
    assert sha256(root / "writer/voice/v1/manifest.json") == before
    # Now it was told: the name is taken. So it is for another content.
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path, version="v1")
    assert codes(error) == ["E_VERSION_EXISTS"]
    other = make_run(tmp_path / "other", weights=b"7" * 500)
    with pytest.raises(TunewrightError) as error:
        publish(config_of(tmp_path / "third", root, version="v1"), *artifacts(other))
    assert codes(error) == ["E_VERSION_EXISTS"]


@pytest.fixture
def cleaned_between(made, tmp_path, monkeypatch) -> list[str]:
    """Codes of a removal of all but the newest version, which comes between the name of a version and the map."""
    root, honest, seen = tmp_path / "store", pointers.name_current, list[str]()
    write_version(root, "writer", "voice", "v9", created="2099-01-01T00:00:00.000+00:00")
    monkeypatch.setattr(layout, "LOCK_TIMEOUT_S", 0.05)

    def clean() -> None:
        try:
            gc(root, grace_hours=0, keep=1)
        except TunewrightError as error:
            seen.extend(problem.code for problem in error.problems)

    def between(*arguments):
        # Another thread: a lock is never waited for by who has it.
        thread = Thread(target=clean)
        thread.start()
        thread.join()
        return honest(*arguments)

    monkeypatch.setattr(pointers, "name_current", between)
    return seen


@pytest.mark.parametrize("options", [{}, {"version": "v1"}])
def test_nothing_is_removed_between_the_name_and_the_map(made, tmp_path, cleaned_between, options):
    root = tmp_path / "store"
    version = published(made, tmp_path, **options).facts["version"]
    assert cleaned_between == ["E_RUN_LOCKED"]
    assert store.resolve(root, "writer").name == version
    # With the map on another, it is old, and goes.
    store.rollback(root, "writer", "v9")
    assert [key.version for key in gc(root, grace_hours=0, keep=1).versions] == [version]
    assert store.verify(root) == []


def test_without_the_lock_a_version_would_be_removed(made, tmp_path, monkeypatch, cleaned_between):
    """The case above can fail."""
    monkeypatch.setattr(layout, "locked", lambda *given: nullcontext())
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path)
    assert codes(error) == ["E_NOT_FOUND"]
    assert cleaned_between == []


def test_a_store_that_is_being_written_takes_no_version(made, tmp_path, monkeypatch):
    published(made, tmp_path, version="v0")
    root = tmp_path / "store"
    monkeypatch.setattr(layout, "LOCK_TIMEOUT_S", 0.05)
    failed = list[TunewrightError]()

    def attempt(**options) -> None:
        try:
            published(made, tmp_path, **options)
        except TunewrightError as error:
            failed.append(error)

    with layout.locked(root):
        for options in ({}, {"version": "v1"}):
            thread = Thread(target=attempt, kwargs=options)
            thread.start()
            thread.join()
    assert [error.problems[0].code for error in failed] == ["E_RUN_LOCKED"] * 2
    assert "publish again" in failed[0].problems[0].fix
    assert [v.version for v in store.list_versions(root)] == ["v0"]
    assert hidden(root) == []
    assert published(made, tmp_path, version="v1").facts["version"] == "v1"
