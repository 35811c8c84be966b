"""Secrets in files that are passed on: every shape, in every place where one can be. RELIABILITY.md S10."""

import html
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens import every_shape

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.cli import main
from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.errors import TunewrightError
from tunewright.pipeline import steps
from tunewright.privacy import KEYS
from tunewright.publish import card_of, private, publish
from tunewright.publish.hub.model_card import model_card
from tunewright.publish.hub.model_facts import Base, ModelFacts
from tunewright.publish.private import PIECE, refuse_secrets

SHAPES = every_shape(7)


def gguf(text: str) -> bytes:
    """Return a GGUF file without tensors that has a text in its metadata."""
    pairs = {"general.architecture": "llama", "general.description": text}
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, value in pairs.items():
        raw += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", 8)
        raw += struct.pack("<Q", len(value.encode())) + value.encode()
    return raw + b"\x00" * (-len(raw) % 32)


def safetensors(text: str) -> bytes:
    """Return a file of no tensors that has a text in its metadata."""
    header = json.dumps({"__metadata__": {"note": text}}, ensure_ascii=False).encode()
    return struct.pack("<Q", len(header)) + header


SINKS = {
    "README.md": lambda text: f"# A card\n\nSaid: {text}\n".encode(),
    "escaped.md": lambda text: f"# A card\n\nSaid: {text}\n".replace("_", "\\_").encode(),
    "training_summary.json": lambda text: json.dumps({"a": 1, "note": text}, indent=1).encode(),
    "chat_template.jinja": lambda text: f"{{{{ x }}}}\n{{# {text} #}}".encode(),
    "report.html": lambda text: f"<html>\n<p>{text}</p></html>".encode(),
    "Modelfile": lambda text: f"FROM ./x.gguf\nSYSTEM {text}\n".encode(),
    "latin-1.txt": lambda text: b"caf\xe9\n" + text.encode(),
    "model.safetensors": safetensors,
    "model.gguf": gguf,
    "damaged.gguf": lambda text: b"GGUF no header\n" + text.encode(),
}


def refused(action) -> TunewrightError:
    with pytest.raises(TunewrightError) as caught:
        action()
    assert {p.code for p in caught.value.problems} == {"E_SECRET_IN_ARTIFACT"}
    assert caught.value.exit_code == 9
    return caught.value


def told(error: TunewrightError) -> str:
    return "\n".join(f"{p.message} {p.where} {p.fix}" for p in error.problems)


@pytest.mark.parametrize("sink", SINKS)
def test_every_shape_is_found_in_every_kind_of_file_and_never_shown(tmp_path, sink):
    assert len(SHAPES) >= 60
    file = tmp_path / sink
    for kind, before, secret, after in SHAPES:
        file.write_bytes(SINKS[sink](f"{before}{secret}{after}"))
        error = refused(lambda: refuse_secrets({sink: file}))
        assert secret not in told(error), kind
        assert all(line[6:-3] not in told(error) for line in secret.splitlines() if len(line) > 20)
        assert error.problems[0].where.startswith(f"{file}:")


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_every_shape_of_many_tokens_is_found_in_every_kind_of_file(tmp_path, seed):
    for sink, written in SINKS.items():
        for _, before, secret, after in every_shape(seed):
            (tmp_path / sink).write_bytes(written(f"{before}{secret}{after}"))
            error = refused(lambda sink=sink: refuse_secrets({sink: tmp_path / sink}))
            assert secret not in told(error)


def test_what_is_no_secret_passes(tmp_path):
    for name, content in {
        "README.md": b"Set HF_TOKEN to hf_xxxx; https://user:password@host/",
        "tokenizer.json": json.dumps({f"key-{n}": n for n in range(5000)}).encode(),
        "model.safetensors": safetensors("plain"),
        "x.gguf": gguf("plain"),
        "weights.bin": b"hf_" + b"Abcd1234" * 5,
        "empty.txt": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    refuse_secrets({file.name: file for file in tmp_path.iterdir()})


TOKEN = "h" + "f_" + "Abcd1234" * 5


@pytest.mark.parametrize("at", [0, 100, PIECE - 30, PIECE - 1, PIECE, 2 * PIECE - 20, 3 * PIECE])
def test_the_line_is_right_wherever_it_stands(tmp_path, at):
    """A token that lies across the end of a piece is found once, with its line."""
    lines = ("x" * 99 + "\n") * (at // 100)
    file = tmp_path / "long.txt"
    file.write_text(f"{lines}{'y' * (at % 100)} {TOKEN}\n{lines}")
    (problem,) = refused(lambda: refuse_secrets({"long.txt": file})).problems
    assert problem.where == f"{file}:{at // 100 + 1}"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(st.text("ab \n", max_size=30), st.just(f" {TOKEN} ")), min_size=1, max_size=12
    )
)
def test_pieces_of_any_size_find_what_one_piece_finds(tmp_path_factory, parts):
    file = tmp_path_factory.mktemp("x") / "f.txt"
    file.write_text("".join(parts), newline="")
    found = list(private._secrets_of("f.txt", file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private, "PIECE", 64)
        patch.setattr(private, "OVERLAP", 50)
        small = list(private._secrets_of("f.txt", file))
    assert [line for line, _ in small] == [line for line, _ in found]
    assert len(found) == parts.count(f" {TOKEN} ")


def test_many_are_counted_and_made_files_are_shown_by_name(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "README.md").write_text(f"{TOKEN}\n" * 30)
    error = refused(lambda: refuse_secrets({"README.md": made / "README.md"}, made))
    assert len(error.problems) == 21
    assert "10 more" in error.problems[-1].message
    assert error.problems[2].where == "README.md:3"


def test_values_of_the_environment_are_found_without_a_shape(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "correct horse battery")
    file = tmp_path / "a.txt"
    file.write_text("one\ncorrect horse battery\n")
    error = refused(lambda: refuse_secrets({"a.txt": file}))
    assert error.problems[0].where == f"{file}:2"
    assert "battery" not in told(error)
    monkeypatch.setenv("WANDB_API_KEY", "one")
    refuse_secrets({"a.txt": file})


# The store and the card


def made_run(run: Path, note: str) -> list[Artifact]:
    found: list[Artifact] = []
    for kind, name in (
        ("adapter", "training_summary.json"),
        ("evaluation", "samples.jsonl"),
        ("exported", "Modelfile"),
    ):
        parents = {"adapter": found[0]} if kind == "evaluation" else {}
        with writing(run / kind, kind, settings={}, parents=parents) as draft:
            (draft.path / name).write_text(note if kind == "adapter" else "plain\n")
            draft.facts |= {"verdict": "improved", "sentence": "Better.", "gates": []}
        found.append(load_artifact(run / kind, kind))
    return found


def config_of(tmp_path: Path) -> Config:
    return Config(
        name="voice",
        output_dir=str(tmp_path / "run"),
        prepare=PrepareSection(source="sample:manuscript"),
        publish=PublishSection(store=str(tmp_path / "store"), agent="writer"),
    )


def test_the_store_takes_no_secret_and_nothing_of_it_is_left(tmp_path):
    config = config_of(tmp_path)
    for number, (_, before, secret, after) in enumerate(SHAPES[::2]):
        made = made_run(tmp_path / "made" / str(number), f"{before}{secret}{after}\n")
        error = refused(lambda made=made: publish(config, *made))
        assert secret not in told(error)
        for folder in (tmp_path / "store", tmp_path / "run"):
            for file in folder.rglob("*") if folder.exists() else ():
                assert not file.is_file() or secret.encode() not in file.read_bytes()
    assert publish(config, *made_run(tmp_path / "made" / "good", "{}\n")).facts["version"]


def test_no_card_hides_a_secret(tmp_path):
    """What Markdown escapes in a card is found as it would be in plain text."""
    file = tmp_path / "README.md"
    bare = ModelFacts("adapter", "a/b", Base("x"), "0.1.0")
    for kind, before, secret, after in SHAPES:
        said = {"verdict": "improved", "sentence": f"{before}{secret}{after}"}
        file.write_text(model_card(replace(bare, evaluation=said)))
        error = refused(lambda: refuse_secrets({"README.md": file}, tmp_path))
        assert error.problems[0].where.startswith("README.md:"), kind
        assert secret not in told(error)
    file.write_text(model_card(bare))
    refuse_secrets({"README.md": file})


def test_a_card_of_a_version_needs_no_more_than_its_artifacts(tmp_path):
    made = made_run(tmp_path / "made", "{}\n")
    artifacts = {artifact.kind: artifact for artifact in made}
    card = card_of(artifacts, config_of(tmp_path))
    assert card.startswith("---\n")
    assert "# writer/voice" in card
    assert "**improved**. Better." in card
    assert card_of({"adapter": made[0]}, config_of(tmp_path)) != card


UNSHAPED = [
    "correct horse battery",
    "a 'quoted' \"pass\\\\word\"",
    "first line\nsecond line",
    "päss wörd!",
]


def crash(monkeypatch, capfd, said: str, command: list[str]) -> tuple[str, str]:
    """Return what a command says that crashes with these words, and the report that it writes."""

    def broken(*args: object, **kwargs: object) -> None:
        try:
            raise KeyError(said)
        except KeyError as error:
            raise RuntimeError(f"while asking {said}") from error

    monkeypatch.setattr(steps, "prepare", broken)
    assert main(command) == 70
    shown = "".join(capfd.readouterr())
    (place,) = re.findall(r"where: (\S+)", shown)
    return shown, Path(place).read_text(encoding="utf-8")


def pieces(secret: str) -> list[str]:
    """Return a secret as it may be written: as it is, as Python writes it, and its lines."""
    return [secret, repr(secret)[1:-1], ascii(secret)[1:-1], *secret.splitlines()]


@pytest.mark.parametrize("name", KEYS)
def test_no_secret_of_the_environment_is_in_a_crash_report(tmp_path, monkeypatch, capfd, name):
    """S10: a command that crashes with the secret in its words, through the command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "c.yaml").write_text("name: x\nprepare: {source: rows.jsonl}\n")
    secrets = [secret for _, _, secret, _ in SHAPES[::9]]
    for secret in (*UNSHAPED, *secrets):
        monkeypatch.setenv(name, secret)
        shown, report = crash(
            monkeypatch, capfd, f"the Hub with {secret}, twice {secret}", ["run", "c.yaml"]
        )
        assert "Traceback" in report
        assert "while asking the Hub with" in shown
        for told in (shown, report):
            assert not [piece for piece in pieces(secret) if piece in told]
        for file in (tmp_path / "runs").rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_what_is_no_secret_is_in_the_crash_report(tmp_path, monkeypatch, capfd):
    """The case above can fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "c.yaml").write_text("name: x\nprepare: {source: rows.jsonl}\n")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for text in UNSHAPED:
        shown, report = crash(monkeypatch, capfd, text, ["run", "c.yaml"])
        assert text.splitlines()[0] in shown
        assert text in report
    # What is as short occurs by chance.
    monkeypatch.setenv("HF_TOKEN", "short")
    assert "short" in crash(monkeypatch, capfd, "short", ["run", "c.yaml"])[1]


def test_escapes_of_html_hide_nothing(tmp_path):
    page = tmp_path / "report.html"
    page.write_text(html.escape('<p>password: "hunter2hunter2"</p>'))
    with pytest.raises(TunewrightError, match="E_SECRET_IN_ARTIFACT"):
        refuse_secrets({"report.html": page})
