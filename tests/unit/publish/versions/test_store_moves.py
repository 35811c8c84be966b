"""Names that stand for versions, what may leave a store, copies out of it, and what two versions differ in."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from published import make_run, publish_once, write_version
from support import ODD_NAMES

from tunewright import store as api
from tunewright.cli import main
from tunewright.errors import TunewrightError
from tunewright.publish.versions import (
    _publish,
    blobs,
    checking,
    drafts,
    founding,
    layout,
    pointers,
    store,
)
from tunewright.publish.versions.cleaning import gc
from tunewright.publish.versions.commit import commit_of
from tunewright.publish.versions.difference import diff
from tunewright.publish.versions.export import export
from tunewright.publish.versions.references import find

TAKEN = ("blobs", "BLOBS", "STORE.json", "ALIASES.json", "agent_model_map.json")
"""Names that a store needs for itself."""


@pytest.fixture
def root(tmp_path) -> Path:
    """A store with v1 to v3 of one adapter and v1 of another agent; the map names v3."""
    for version in ("v1", "v2", "v3"):
        write_version(tmp_path / "store", "writer", "voice", version)
    write_version(tmp_path / "store", "critic", "voice", "v1", verdict="degraded")
    return tmp_path / "store"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small run. Shared: read only."""
    return make_run(tmp_path_factory.mktemp("made"), weights=b"\x01" * 3000)


def refused(code: str):
    return pytest.raises(TunewrightError, match=code)


def name_of(root: Path, reference: str) -> str:
    return str(find(root, reference))


def test_what_names_a_version(root):
    store.alias(root, "writer", "stable", "v1")
    store.rollback(root, "writer", "v2")
    assert name_of(root, "writer") == name_of(root, "writer@current") == "writer/voice/v2"
    assert name_of(root, "writer@stable") == name_of(root, "writer@v1") == "writer/voice/v1"
    assert name_of(root, "writer@latest") == "writer/voice/v3"
    assert name_of(root, "writer@voice/v1") == "writer/voice/v1"
    assert store.resolve(root, "writer@stable") == root / "writer" / "voice" / "v1"
    for missing in ("writer@v9", "nobody", "nobody@latest", "nobody@v1", "writer@other/v1"):
        with refused("E_NOT_FOUND"):
            find(root, missing)


def test_latest_is_by_time_and_then_by_number(root):
    for number in ("v10", "v9"):
        write_version(root, "writer", "voice", number, created="2026-12-01T00:00:00.000+00:00")
    assert name_of(root, "writer@latest") == "writer/voice/v10"
    (root / "writer/voice/v10/manifest.json").write_text("{}")
    assert name_of(root, "writer@latest") == "writer/voice/v9"


def test_a_version_of_two_adapters_has_to_be_told_apart(root):
    write_version(root, "writer", "style", "v1")
    assert name_of(root, "writer@v1") == "writer/style/v1"
    store.rollback(root, "writer", "v3")
    assert name_of(root, "writer@v1") == "writer/voice/v1"
    write_version(root, "writer", "plot", "v8")
    with refused("Several adapters"):
        find(root, "writer@v1")
    assert name_of(root, "writer@style/v1") == "writer/style/v1"


def test_an_alias_moves_and_goes_and_is_no_version(root):
    store.alias(root, "writer", "stable", "v1")
    store.alias(root, "writer", "stable", "latest")
    store.alias(root, "critic", "stable", "v1")
    assert name_of(root, "writer@stable") == "writer/voice/v3"
    assert json.loads((root / "ALIASES.json").read_bytes())["writer"]["stable"]["path"] == (
        "writer/voice/v3"
    )
    for name in ("v1", "latest", "current", "CURRENT"):
        with refused("E_NAME"):
            store.alias(root, "writer", name, "v2")
    pointers.delete_alias(root, "writer", "stable")
    with refused("E_NOT_FOUND"):
        pointers.delete_alias(root, "writer", "stable")
    assert name_of(root, "critic@stable") == "critic/voice/v1"
    assert store.verify(root) == []


def test_a_version_cannot_have_the_name_of_an_alias(root, made, tmp_path):
    store.alias(root, "writer", "stable", "v1")
    for version in ("stable", "latest"):
        with refused("E_NAME"):
            publish_once(root, made, tmp_path / "r", version=version)
    assert publish_once(root, made, tmp_path / "r", version="stable", agent="critic") == "stable"


def test_an_alias_of_what_is_damaged_is_not_set_and_one_that_was_set_is_found(root):
    store.alias(root, "writer", "stable", "v1")
    (root / "writer/voice/v1/adapter/weights").write_text("xx")
    with refused("E_DIGEST_MISMATCH"):
        store.alias(root, "writer", "other", "v1")
    shutil.rmtree(root / "writer/voice/v1")
    assert [p.code for p in store.verify(root)] == ["E_DIGEST_MISMATCH"]
    with refused("E_DIGEST_MISMATCH"):
        store.resolve(root, "writer@stable")


@pytest.mark.parametrize("name", [*ODD_NAMES, *TAKEN])
def test_odd_names_are_refused_and_nothing_is_opened(root, tmp_path, name):
    """S6."""
    before = sorted(tmp_path.rglob("*"))
    for attempt in (
        lambda: find(root, name),
        lambda: find(root, f"{name}@v1"),
        lambda: layout.version_path(root, name, "a", "b"),
        lambda: layout.version_path(root, "a", "b", name),
        lambda: store.alias(root, "writer", name, "v1"),
    ):
        with refused("E_NAME|E_NOT_FOUND" if name == "" else "E_NAME"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_put_into_the_map_by_hand_leads_nowhere(root, tmp_path):
    entries = json.loads((root / layout.MAP).read_bytes())
    for change in ({"path": "../../etc"}, {"adapter": "../.."}, {"manifest_sha256": None}):
        bad = entries | {"writer": entries["writer"] | change}
        (root / layout.MAP).write_text(json.dumps(bad))
        with refused("E_DIGEST_MISMATCH"):
            store.resolve(root, "writer")


@pytest.mark.parametrize("place", ["writer", "writer/voice", "writer/voice/v3", "blobs", "map"])
def test_a_link_in_a_store_is_refused(root, tmp_path, made, place):
    """S7."""
    path = root / (layout.MAP if place == "map" else place)
    if path.exists():
        path.rename(tmp_path / "outside")
    else:
        (tmp_path / "outside").mkdir()
    path.symlink_to(tmp_path / "outside")
    assert "E_UNSAFE_PATH" in [p.code for p in store.verify(root)]
    with refused("E_UNSAFE_PATH"):
        gc(root)
    if place != "blobs":
        with refused("E_UNSAFE_PATH|E_NOT_FOUND"):
            store.resolve(root, "writer")
    if place != "writer/voice/v3":
        with refused("E_UNSAFE_PATH"):
            publish_once(root, made, tmp_path / "r")


def test_a_file_that_is_swapped_after_it_was_hashed_is_noticed(root, monkeypatch):
    """S7: between the look at the file and the end of the check."""
    file = root / "writer/voice/v3/adapter/weights"
    hashed = checking._hashed

    def swapped(path):
        found = hashed(path)
        path.with_name("new").write_text("v3")
        path.with_name("new").replace(path)
        return found

    monkeypatch.setattr(checking, "_hashed", swapped)
    assert file.read_text() == "v3"
    with refused("changed meanwhile"):
        store.resolve(root, "writer")


def test_a_blob_that_is_swapped_after_the_look_at_it_is_not_published(made, tmp_path, monkeypatch):
    """S7: what is linked is looked at under the version's own name."""
    root = tmp_path / "store"
    publish_once(root, made, tmp_path / "r", version="v1")
    link = os.link

    def swapped(source, target, **options):
        link(source, target, **options)
        if Path(source).parent.name == layout.BLOBS:
            Path(source).unlink()
            Path(source).write_bytes(b"other")

    monkeypatch.setattr(os, "link", swapped)
    publish_once(root, made, tmp_path / "r", version="v2")
    assert store.verify(root) == []
    monkeypatch.undo()
    # Blobs that are not what they are called are replaced, and nothing is made of them.
    publish_once(root, made, tmp_path / "r", version="v3")
    assert store.verify(root) == []
    for blob in (root / layout.BLOBS).iterdir():
        with blobs.opened(blob) as handle:
            assert blob.name == f"sha256-{blobs.digest_of(blobs.chunks_of(handle))}"


def test_content_is_shared_read_only_and_hashed(made, tmp_path):
    root = tmp_path / "store"
    for version in ("v1", "v2"):
        publish_once(root, made, tmp_path / "r", version=version)
    files = [p for p in root.glob("writer/voice/*/*/*") if p.is_file()]
    assert len(files) == 8
    assert {(p.stat().st_nlink, p.stat().st_mode & 0o777) for p in files} == {(3, 0o444)}
    assert len({p.stat().st_ino for p in files}) == 4


def test_cleaning_up_between_content_and_claim_takes_nothing(made, tmp_path, monkeypatch):
    """P5."""
    root = tmp_path / "store"
    copy, found = _publish._copy, []

    def cleaned(*arguments):
        copy(*arguments)
        found.append(gc(root, grace_hours=0))
        shutil.rmtree(root / layout.BLOBS)  # not even this takes anything from a version

    monkeypatch.setattr(_publish, "_copy", cleaned)
    publish_once(root, made, tmp_path / "r", version="v1")
    assert (found[0].drafts, found[0].blobs, found[0].versions) == ((), (), ())
    assert store.verify(root) == []


def test_only_content_of_no_version_goes_and_only_after_the_grace(made, tmp_path, monkeypatch):
    root = tmp_path / "store"
    publish_once(root, made, tmp_path / "r", version="v1")
    blob = blobs.blob_path(root, "0" * 64)
    blob.write_bytes(b"left by a publisher that died")
    orphan = root / f"{layout.DRAFT}0123"
    orphan.mkdir()
    assert gc(root).blobs == ()
    assert gc(root, grace_hours=0, dry_run=True).blobs == (blob.name,)
    assert blob.exists()
    assert orphan.exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
    done = gc(root)
    assert (done.blobs, done.drafts) == ((blob.name,), (orphan.name,))
    assert done.freed_bytes == 29
    assert not blob.exists()
    assert not orphan.exists()
    assert len(list((root / layout.BLOBS).iterdir())) == 5
    assert store.verify(root) == []


def test_old_versions_go_only_where_it_is_asked_for_and_nothing_points_to_them(tmp_path):
    root = tmp_path / "store"
    for number in range(1, 6):
        run = make_run(tmp_path / f"made{number}", weights=bytes([number]) * 5000)
        publish_once(root, run, version=f"v{number}")
    store.alias(root, "writer", "stable", "v1")
    store.rollback(root, "writer", "v2")
    assert gc(root, grace_hours=0).versions == ()
    listed = []
    planned = gc(root, keep=1, dry_run=True)
    done = gc(root, keep=1, listed=listed.extend)
    assert planned == done
    assert [str(key) for key in listed] == ["writer/voice/v3", "writer/voice/v4"]
    assert {key.version for key in layout.versions_in(root)} == {"v1", "v2", "v5"}
    # Weights are each version's own, all else is shared; manifests go too.
    assert len(done.blobs) == 2
    assert 10_000 < done.freed_bytes < 30_000
    assert store.verify(root) == []


def test_a_draft_that_is_swept_from_under_a_publisher_is_an_error_and_never_a_version(
    made, tmp_path, monkeypatch
):
    """Where locks lie, the worst is a publisher that fails."""
    root = tmp_path / "store"
    founding.init(root)
    claim = _publish._claim

    def swept(*arguments):
        drafts.remove(root, arguments[1])
        return claim(*arguments)

    monkeypatch.setattr(_publish, "_claim", swept)
    with refused("E_IO"):
        publish_once(root, made, tmp_path / "r")
    assert layout.versions_in(root) == []


def test_a_version_is_copied_out_whole_or_not_at_all(made, tmp_path):
    root, out = tmp_path / "store", tmp_path / "out"
    publish_once(root, made, tmp_path / "r", version="v1")
    export(root, "writer@v1", out)
    folder = root / "writer/voice/v1"
    names = {p.relative_to(folder) for p in folder.rglob("*")}
    assert {p.relative_to(out) for p in out.rglob("*")} == names
    assert all((out / n).read_bytes() == (folder / n).read_bytes() for n in names if n.suffix)
    assert {p.stat().st_nlink for p in out.rglob("*") if p.is_file()} == {1}
    with refused("E_EXISTS"):
        export(root, "writer", out)
    with refused("E_UNSAFE_PATH"):
        export(root, "writer", root / "copy")
    flip(folder / "gguf" / "Modelfile")
    with refused("E_DIGEST_MISMATCH.*gguf/Modelfile"):
        export(root, "writer", tmp_path / "other")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".tmp", "other"))]


def flip(file: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


@pytest.mark.parametrize("command", ["resolve", "export", "rollback", "alias", "verify"])
def test_a_flipped_bit_is_refused_with_version_and_file(made, tmp_path, capsys, command):
    """P7; `serve` and `chat` in tests/stages/test_serve_targets.py."""
    root = tmp_path / "store"
    publish_once(root, made, tmp_path / "r", version="v1")
    flip(root / "writer/voice/v1/adapter/adapter_model.safetensors")
    given = {
        "resolve": ["writer"],
        "export": ["writer", str(tmp_path / "out")],
        "rollback": ["writer", "v1"],
        "alias": ["writer", "stable", "v1"],
        "verify": [],
    }[command]
    assert main(["store", command, *given, "--store", str(root)]) == 4
    lines = capsys.readouterr().err.splitlines()
    line = next(line for line in lines if line.startswith("ERROR"))
    assert line == (
        "ERROR E_DIGEST_MISMATCH: writer/voice/v1: adapter/adapter_model.safetensors has changed."
    )


def test_what_two_versions_differ_in(tmp_path):
    root = tmp_path / "store"
    first = make_run(tmp_path / "a")
    publish_once(root, first, version="v1")
    publish_once(root, first, version="v2")
    second = make_run(tmp_path / "b", weights=b"other", verdict="degraded")
    publish_once(root, second, version="v1", agent="critic", force=True)
    version = [("config", "publish.version", "v1", "v2")]
    assert [tuple(vars(d).values()) for d in diff(root, "writer@v1", "v2")[2]] == version
    assert diff(root, "writer@v1", "v1")[2] == []
    found = {(d.section, d.name): (d.one, d.other) for d in diff(root, "writer", "critic@v1")[2]}
    assert found["verdict", ""] == ("improved", "degraded")
    assert found["config", "publish.agent"] == ("writer", "critic")
    assert found["forced", "refused"][0] is None
    assert ("files", "adapter/adapter_model.safetensors") in found
    assert ("files", "gguf/Modelfile") not in found


def test_the_manifest_says_what_was_published(tmp_path, made):
    root = tmp_path / "store"
    publish_once(root, made, tmp_path / "r", version="v1")
    data = api.manifest("writer", store=root)
    assert data["dataset"]["sides"] == {
        "train": {"rows": 96, "words": None, "tokens": 15_360},
        "eval": {"rows": 24, "words": None, "tokens": 3_811},
    }
    assert data["base"]["files"] == {"model.safetensors": "ab"}
    assert data["forced"] is None


def test_the_commit_of_the_folder(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not there")
    assert commit_of(tmp_path) is None
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, *who, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "new").write_text("a run")
    (tmp_path / "inside").mkdir()
    assert commit_of(tmp_path / "inside") == commit
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_reading_api(root, monkeypatch):
    store.alias(root, "writer", "stable", "v1")
    monkeypatch.setenv("MODEL_STORE_ROOT", str(root))
    assert api.resolve("writer") == root / "writer/voice/v3"
    assert api.resolve("writer@stable", store=root) == root / "writer/voice/v1"
    assert api.manifest("writer@stable")["version"] == "v1"
    assert {name: entry["version"] for name, entry in api.agents().items()} == {
        "writer": "v3",
        "critic": "v1",
    }
    (root / "writer/voice/v3/adapter/weights").write_text("xx")
    assert api.resolve("writer", verify=False) == root / "writer/voice/v3"
    with refused("E_DIGEST_MISMATCH"):
        api.resolve("writer")
    with refused("E_NOT_FOUND"):
        api.agents(store=root / "writer")


class OtherRename:
    """A file system whose renames are not what a store needs."""

    def __init__(self, monkeypatch, kind: str) -> None:
        rename = Path.rename

        def replaces(path: Path, target: Path) -> Path:
            if kind == "replaces folders" and target.is_dir():
                shutil.rmtree(target)
            if kind == "moves files one by one" and target.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
                raise OSError(39, "Directory not empty")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", replaces)


@pytest.mark.parametrize(
    "kind", ["replaces folders", "moves files one by one", "gives locks twice"]
)
def test_a_file_system_that_cannot_hold_a_store_is_refused(
    tmp_path, made, monkeypatch, capsys, kind
):
    """P9: when the store is made, and when one that was made elsewhere is published to."""
    publish_once(tmp_path / "moved", made, tmp_path / "r", version="v1")
    if kind == "gives locks twice":
        monkeypatch.setattr("filelock._unix.fcntl.flock", lambda *_: None)
    else:
        OtherRename(monkeypatch, kind)
    assert main(["store", "init", str(tmp_path / "new")]) == 5
    assert capsys.readouterr().err.startswith("ERROR E_STORE_FS_UNSUPPORTED: ")
    assert not (tmp_path / "new" / layout.INFO).exists()
    with refused("E_STORE_FS_UNSUPPORTED"):
        publish_once(tmp_path / "moved", made, tmp_path / "r", version="v2")
    assert [key.version for key in layout.versions_in(tmp_path / "moved")] == ["v1"]


def test_a_folder_of_other_things_does_not_become_a_store(tmp_path, made):
    (tmp_path / "notes.txt").write_text("mine")
    with refused("E_EXISTS"):
        founding.init(tmp_path)
    with refused("E_EXISTS"):
        publish_once(tmp_path, made, tmp_path / "made" / "r")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "notes.txt"]


def test_how_files_are_shared_can_be_chosen_once(tmp_path, made, monkeypatch):
    assert founding.init(tmp_path / "a", "copy")["files"] == "copy"
    with refused("E_EXISTS"):
        founding.init(tmp_path / "a", "hardlink")
    publish_once(tmp_path / "a", made, tmp_path / "r", version="v1")
    assert not (tmp_path / "a" / layout.BLOBS).exists()
    monkeypatch.setattr(founding, "probe", lambda _: "copy")
    with refused("E_STORE_FS_UNSUPPORTED"):
        founding.init(tmp_path / "b", "hardlink")


def test_a_store_of_another_format_is_not_touched(root, made, tmp_path):
    (root / layout.INFO).write_text('{"format": 2}')
    with refused("E_ARTIFACT_INVALID"):
        layout.existing(root)
    with refused("E_ARTIFACT_INVALID"):
        publish_once(root, made, tmp_path / "r")


def test_the_commands_print_what_is_meant_for_people_and_for_machines(tmp_path, made, capsys):
    root = str(tmp_path / "store")
    run = make_run(tmp_path / "bad", verdict="degraded")
    publish_once(Path(root), made, tmp_path / "r", version="v1")
    publish_once(Path(root), run, version="v2", force=True)

    def said(*arguments: str) -> str:
        assert main(["store", *arguments, "--store", root]) == 0
        return capsys.readouterr().out

    assert "writer/voice/v2 was forced: no reason was given" in said("list")
    assert "writer@stable is writer/voice/v1" in said("alias", "writer", "stable", "v1")
    shown = said("show", "writer")
    assert "FORCED: no reason was given" in shown
    assert "96 rows and 15,360 tokens to learn from" in shown
    assert "2.500 at step 5" in shown
    assert "71 %" in shown
    assert "merged equals tuned" in shown
    assert "no difference" in said("diff", "writer@v1", "stable")
    assert "improved" in said("diff", "writer", "v1")
    listed = json.loads(said("list", "--json"))["versions"]
    assert [(v["version"], v["aliases"], v["current"], v["forced"]) for v in listed] == [
        ("v1", ["stable"], False, None),
        ("v2", ["latest"], True, ""),
    ]
    shown = json.loads(said("show", "writer@v1", "--json"))
    assert (shown["store"]["aliases"], shown["format"]) == (["stable"], 1)
    assert json.loads(said("diff", "writer@v1", "v2", "--json"))["differences"]
    assert json.loads(said("rollback", "writer", "stable", "--json"))["path"].endswith("v1")
    assert json.loads(said("gc", "--keep", "1", "--dry-run", "--json"))["versions"] == []
    assert main(["store", "alias", "writer", "x", "--store", root]) == 2
    assert main(["publish", "x.yaml", "--reason", "because"]) == 2


SPECIFICATION = Path(__file__).parents[4] / "docs" / "concepts" / "store.md"


def test_a_loader_as_the_specification_shows_it_reads_what_was_published(
    made, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = SPECIFICATION.read_text()
    (loader,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    publish_once(Path("models"), made, tmp_path / "r", agent="critic", version="v1")
    exec(compile(loader, "store.md", "exec"), {})
    assert capsys.readouterr().out == "models/critic/voice/v1/adapter on tunewright/tiny\n"
    flip(Path("models/critic/voice/v1/gguf/Modelfile"))
    with pytest.raises(SystemExit, match="gguf/Modelfile has changed"):
        exec(compile(loader, "store.md", "exec"), {})


def test_the_specification_names_every_key_and_file(made, tmp_path):
    root, text = tmp_path / "store", SPECIFICATION.read_text()
    publish_once(root, made, tmp_path / "r", version="v1")
    store.alias(root, "writer", "stable", "v1")
    info = json.loads((root / layout.INFO).read_bytes())
    entry = json.loads((root / layout.ALIASES).read_bytes())["writer"]["stable"]
    data = json.loads((root / "writer/voice/v1/manifest.json").read_bytes())
    for key in (*info, *entry, *data):
        assert f"`{key}`" in text, key
    rows = re.findall(r"^\| (`.*?) \|", text[text.index("## manifest.json") :], re.MULTILINE)
    told = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert told[: len(data)] == list(data)
    for path in root.iterdir():
        assert path.name in text or path.name == "writer"


def test_nothing_is_written_through_a_link_out_of_the_store(made, tmp_path):
    root, outside = tmp_path / "store", tmp_path / "outside"
    for version in ("v1", "v2"):
        publish_once(root, made, tmp_path / "r", version=version)
    outside.write_text("mine")
    (root / ".AGENT_MODEL_MAP.json.new").symlink_to(outside)
    store.rollback(root, "writer", "v1")
    assert outside.read_text() == "mine"
    assert not (root / "AGENT_MODEL_MAP.json").is_symlink()
    assert store.resolve(root, "writer").name == "v1"
