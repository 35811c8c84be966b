"""The local store: what is published is whole, the only one of its name, and checked on every way out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.artifacts import Artifact, load_artifact, sha256, writing
from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.errors import TunewrightError
from tunewright.machine import Space
from tunewright.publish import publish, store

WORKER = Path(__file__).with_name("publish_worker.py")
GATE = {"gate": "merged equals tuned", "value": "1e-6", "limit": "1e-3", "passed": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run's three artifacts, small files in the right places."""
    run = tmp_path_factory.mktemp("run")
    adapter = make(
        run,
        "adapter",
        {"adapter_model.safetensors": b"\x00" * 70_000, "chat_template.jinja": b"{{ messages }}"},
        {"best_step": 5, "best_eval_loss": 2.5, "base_files": {"model.safetensors": "ab"}},
    )
    make(
        run,
        "evaluation",
        {"samples.jsonl": b"{}\n"},
        {"verdict": "improved", "sentence": "Better.", "transfer_score": {"score": 71.0}},
        adapter,
    )
    make(run, "exported", {"voice-f16.gguf": b"GGUF" * 9000, "Modelfile": b"FROM ./v.gguf\n"}, {})
    return run


def make(run: Path, kind, files: dict[str, bytes], facts: dict, *parents: Artifact) -> Artifact:
    with writing(
        run / kind, kind, settings={}, parents={parent.kind: parent for parent in parents}
    ) as draft:
        for name, content in files.items():
            (draft.path / name).write_bytes(content)
        draft.facts |= {"gates": [GATE]} | facts
    return load_artifact(run / kind, kind)


def config_of(tmp_path: Path, **options) -> Config:
    return Config(
        name="voice",
        output_dir=str(tmp_path / "run"),
        prepare=PrepareSection(source="sample:manuscript"),
        publish=PublishSection(store=str(tmp_path / "store"), agent="writer", **options),
    )


def artifacts(run: Path) -> list[Artifact]:
    return [load_artifact(run / kind, kind) for kind in ("adapter", "evaluation", "exported")]


def published(made: Path, tmp_path: Path, *, force: bool = False, **options) -> Artifact:
    return publish(config_of(tmp_path, **options), *artifacts(made), force=force)


def codes(error: pytest.ExceptionInfo[TunewrightError]) -> list[str]:
    return [problem.code for problem in error.value.problems]


def hidden(root: Path) -> list[Path]:
    return list(root.glob(".tmp-*"))


def test_a_version_has_every_file_and_a_manifest_that_says_what_it_is(made, tmp_path):
    receipt = published(made, tmp_path)
    root, version = tmp_path / "store", receipt.facts["version"]
    folder = store.resolve(root, "writer")
    shown = store.show(root, "writer", "voice", version)
    assert folder == root / "writer" / "voice" / version
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
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
    assert shown["forced"] is False
    assert store.verify(root) == []
    assert hidden(root) == []


def test_the_receipt_names_no_absolute_path(made, tmp_path):
    receipt = published(made, tmp_path)
    assert str(tmp_path) not in (receipt.path / "manifest.json").read_text()
    assert receipt.facts["files"] == 4
    assert receipt.facts["bytes"] == 70_000 + 14 + 36_000 + 14
    assert all(gate["passed"] for gate in receipt.facts["gates"])


def test_versions_within_a_minute_are_counted(made, tmp_path):
    names = [published(made, tmp_path).facts["version"] for _ in range(3)]
    assert len(set(names)) == 3
    assert names[1].startswith(names[0]) or names[2].startswith(names[1].split(".")[0])
    listed = store.list_versions(tmp_path / "store")
    assert [v.version for v in listed] == names
    assert [v.current for v in listed] == [False, False, True]


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
            other = config_of(tmp_path, version="v1").model_copy(
                update={"output_dir": str(tmp_path / "other")}
            )
            publish(other, *artifacts(made))

        def advanced(self, done, detail):
            pass

        said = print

    with pytest.raises(TunewrightError) as error:
        publish(config_of(tmp_path, version="v1"), *artifacts(made), listener=Rival())
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
    assert shown["forced"] is True
    assert shown["verdict"] == verdict
    assert [gate["passed"] for gate in receipt.facts["gates"]] == [True, False]


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
    assert not (tmp_path / "store").exists()


def test_a_file_that_changes_while_it_is_copied_is_noticed(made, tmp_path, monkeypatch):
    def torn(source, target):
        target.write_bytes(source.read_bytes()[:-1])

    monkeypatch.setattr(shutil, "copyfile", torn)
    with pytest.raises(TunewrightError) as error:
        published(made, tmp_path)
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


@pytest.mark.parametrize("function", ["shutil.copyfile", "pathlib.Path.rename"])
def test_an_interrupt_leaves_nothing(made, tmp_path, monkeypatch, function):
    given = artifacts(made)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(config_of(tmp_path), *given)
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []
    assert hidden(tmp_path / "store") == []
    assert not (tmp_path / "run" / "published").exists()


def worker(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_racing_publishers_lose_nothing(made, tmp_path):
    root = tmp_path / "store"
    processes = [worker("race", root, made, tmp_path / f"run{n}", 10) for n in range(8)]
    outputs = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    versions = [version for output in outputs for version in output["versions"]]
    assert [process.returncode for process in processes] == [0] * 8
    assert all(output["heavy"] == [] for output in outputs)
    assert len(set(versions)) == 80
    assert {v.version for v in store.list_versions(root)} == set(versions)
    assert store.verify(root) == []
    assert store.resolve(root, "writer").name in versions
    assert hidden(root) == []


def test_killed_publishers_tear_nothing(made, tmp_path):
    root = tmp_path / "store"
    with worker("kill", root, made, tmp_path / "run", 20) as process:
        acknowledged = json.loads(process.communicate(timeout=120)[0])["versions"]
    assert store.verify(root) == []
    assert {v.version for v in store.list_versions(root)} >= set(acknowledged)
    last = published(made, tmp_path)
    assert hidden(root) == []
    assert store.resolve(root, "writer").name == last.facts["version"]
