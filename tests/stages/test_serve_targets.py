"""What serve and chat are told to work on, the conversation itself, and vLLM as a process that ends with us."""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from tunewright import pipeline
from tunewright.artifacts import load_artifact
from tunewright.cli import conversation, main
from tunewright.config.load import dump_config, load_config
from tunewright.errors import TunewrightError
from tunewright.models._folders import TINY
from tunewright.models._generate import generate
from tunewright.models.sampling import Sampling
from tunewright.serve import (
    AdapterModel,
    FolderModel,
    GgufModel,
    _open,
    chat,
    chat_compared,
    servable_of,
)
from tunewright.serve._open import opened
from tunewright.serve.child import run_child
from tunewright.serve.engine import Options
from tunewright.serving import servable

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(served_run, tmp_path, monkeypatch):
    """A copy of the run and its store, to be written to."""
    shutil.copytree(Path(served_run.run_dir).parent, tmp_path / "all")
    monkeypatch.setenv("MODEL_STORE_ROOT", str(tmp_path / "all" / "store"))
    return tmp_path / "all"


def found(target, *overrides, what=None, notes=None):
    return servable(str(target), overrides, what=what, note=(notes or []).append)


def test_of_a_run_the_last_that_was_made_is_served(folder):
    run = folder / "run"
    config, model = found(run)
    assert model == GgufModel(
        "t-F32",
        f"the GGUF file t-F32.gguf of {run}",
        run / "exported" / "t-F32.gguf",
        run / "merged",
        TINY,
    )
    assert config.run_dir == str(run)
    shutil.rmtree(run / "exported")
    assert found(run)[1] == FolderModel(
        "t-merged", f"the merged model of {run}", run / "merged", TINY
    )
    shutil.rmtree(run / "merged")
    assert found(run)[1] == AdapterModel(
        "t", f"the adapter of {run} on {TINY}", run / "adapter", TINY
    )
    shutil.rmtree(run / "adapter")
    with pytest.raises(TunewrightError, match="E_ARTIFACT_MISSING") as caught:
        found(run)
    assert "tunewright train" in caught.value.problems[0].fix


def test_a_merged_model_that_was_deleted_hides_nothing(folder):
    shutil.rmtree(folder / "run" / "merged")
    _, model = found(folder / "run")
    assert (model.name, model.tokenizer) == ("t-F32", None)


@pytest.mark.parametrize(
    ("target", "what", "name"),
    [
        ("run", "adapter", "t"),
        ("run", "merged", "t-merged"),
        ("run", "gguf", "t-F32"),
        ("run", "F32", "t-F32"),
        ("run/run.yaml", "adapter", "t"),
        ("run/adapter", None, "t"),
        ("run/merged", None, "t-merged"),
        ("run/exported", None, "t-F32"),
        ("run/exported/t-F32.gguf", None, "t-F32"),
        ("store/critic/voice/v1", None, "critic-voice-v1"),
        ("store/critic/voice/v1", "adapter", "critic-voice-v1"),
        ("store/critic/voice/v1", "F32", "critic-voice-v1"),
    ],
)
def test_parts_are_named_or_pointed_at(served_run, target, what, name):
    place = Path(served_run.run_dir).parent / target
    overrides = [f"output_dir={served_run.run_dir}"] if place.suffix == ".yaml" else []
    assert found(place, *overrides, what=what)[1].name == name


def test_versions_are_named_by_their_agent(folder):
    version = folder / "store" / "critic" / "voice" / "v1"
    for target in ("store:critic", "critic", "store:critic@v1", "store:critic@latest"):
        config, model = found(target)
        assert model.path == version / "gguf" / "t-F32.gguf"
        assert model.tokenizer == version / "adapter"
        assert config.export.temperature == 0.7
    _, adapter = found("store:critic", what="adapter")
    assert (adapter.path, adapter.base, adapter.in_4_bits) == (version / "adapter", TINY, False)
    with pytest.raises(TunewrightError, match="has no 'Q8_0'; it has adapter, t-F32"):
        found("store:critic", what="Q8_0")
    with pytest.raises(TunewrightError, match="E_NOT_FOUND: The store has no agent"):
        found("store:author")


@pytest.mark.parametrize("target", ["store:critic", "store/critic/voice/v1"])
@pytest.mark.parametrize("file", ["gguf/t-F32.gguf", "adapter/adapter_model.safetensors"])
def test_a_flipped_bit_in_the_store_is_refused(folder, capsys, target, file):
    """RELIABILITY.md P7."""
    broken = folder / "store" / "critic" / "voice" / "v1" / file
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    place = target if target.startswith("store:") else str(folder / target)
    for command in ("serve", "chat"):
        assert main([command, place]) == 4
        err = capsys.readouterr().err
        assert "E_DIGEST_MISMATCH" in err
        assert str(broken) in err
        assert "v1" in err


def test_a_flipped_bit_in_a_run_is_refused(folder):
    broken = folder / "run" / "exported" / "t-F32.gguf"
    data = bytearray(broken.read_bytes())
    data[-5] ^= 1
    broken.write_bytes(data)
    with pytest.raises(TunewrightError, match="E_ARTIFACT_INVALID"):
        found(folder / "run")


def test_what_was_made_of_another_adapter_is_passed_over(folder):
    """A newer adapter is not hidden by the file of an older one."""
    run = folder / "run"
    made = json.loads((run / "adapter" / "manifest.json").read_text())
    made["facts"]["best_step"] = 1
    (run / "adapter" / "manifest.json").write_text(json.dumps(made))
    notes = []
    assert isinstance(found(run, notes=notes)[1], AdapterModel)
    for what in ("gguf", "merged"):
        with pytest.raises(TunewrightError, match=r"E_ARTIFACT_INVALID: .* adapter that is gone"):
            found(run, what=what)


def test_what_belongs_to_no_run(folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "run" / "exported" / "t-F32.gguf", bare / "my model.gguf")
    for kind in ("adapter", "merged"):
        shutil.copytree(folder / "run" / kind, bare / kind)
        (bare / kind / "manifest.json").unlink()
    _, model = found(bare / "my model.gguf")
    assert (model.tokenizer, model.base) == (None, None)
    _, adapter = found(bare / "adapter")
    assert (adapter.name, adapter.path) == ("adapter", bare / "adapter")
    # PEFT writes where the base was.
    assert Path(adapter.base).name == "tiny"
    assert found(bare / "merged")[1] == FolderModel("merged", str(bare / "merged"), bare / "merged")
    with pytest.raises(TunewrightError, match="E_USAGE: --what"):
        found(bare / "merged", what="gguf")
    with pytest.raises(TunewrightError, match="E_USAGE: It is not known which base"):
        config, merged = found(bare / "merged")
        chat_compared(config, merged, ask=lambda: None, say=lambda side, piece: None)


@pytest.mark.parametrize(
    ("target", "what", "code"),
    [
        ("nothing", None, "E_NOT_FOUND"),
        ("nothing.gguf", None, "E_NOT_FOUND"),
        ("nothing.yaml", None, "E_NOT_FOUND"),
        ("run", "nonsense", "E_USAGE"),
        ("run", "Q4_0", "E_NOT_FOUND"),
        ("run", "checkpoint-7", "E_NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_refused(served_run, target, what, code):
    place = Path(served_run.run_dir).parent / target
    with pytest.raises(TunewrightError, match=code):
        found(place, what=what)


def test_an_engine_that_cannot_is_refused_before_anything_is_loaded(served_run, capsys):
    started = time.monotonic()
    run = served_run.run_dir
    assert main(["serve", run, "--what", "adapter", "--engine", "vllm"]) == 2
    err = capsys.readouterr().err
    assert "E_ENGINE: vLLM is not installed." in err
    assert "pip install" in err
    assert main(["serve", run, "--what", "adapter", "--engine", "llama.cpp"]) == 2
    assert main(["serve", run, "--host", "0.0.0.0"]) == 2
    assert "TUNEWRIGHT_API_KEY" in capsys.readouterr().err
    assert time.monotonic() - started < 20


def conversation_of(config, model, lines, **options):
    queue, said = [*lines, None], []
    chat(config, model, ask=lambda: queue.pop(0), say=said.append, **options)
    return "".join(said).split("\n")


@pytest.mark.parametrize("kind", ["adapter", "exported"])
def test_a_chat_remembers_and_says_what_the_model_writes(served_run, kind):
    """Each answer is the one that the model writes to the whole conversation so far."""
    config = load_config(
        f"{served_run.run_dir}/run.yaml",
        ["export.temperature=0", "export.system=Be brief.", "serve.max_model_len=120"],
    )
    model = servable_of(config, load_artifact(Path(config.run_dir) / kind, kind))
    said = []
    lines = ["Hello", "  ", "And then?", None]
    chat(config, model, ask=lambda: lines.pop(0), say=said.append)
    ends = [at for at, piece in enumerate(said) if piece == "\n" and len(piece) == 1]
    first, second = "".join(said[: ends[0]]), "".join(said[ends[0] + 1 : -1])
    own = "adapter" if kind == "adapter" else "merged"
    reference = servable_of(config, load_artifact(Path(config.run_dir) / own, own))
    with opened(config, reference) as local:
        messages = [{"role": "system", "content": "Be brief."}]
        for line, answer in (("Hello", first), ("And then?", second)):
            messages.append({"role": "user", "content": line})
            if len(local.read(messages)) > 90:
                messages = [messages[0], messages[-1]]
            left = 120 - len(local.read(messages))
            (plain,) = generate(
                local.model,
                local.tokenizer,
                local.vocabulary,
                [messages],
                sampling=Sampling(left, 0, 1.0),
                seed=1,
                max_seconds=60,
            )
            assert answer == plain.text
            messages.append({"role": "assistant", "content": plain.text})
    assert len(said) > 4


def test_a_question_longer_than_the_context_is_said_and_the_chat_goes_on(served_run):
    config = load_config(
        f"{served_run.run_dir}/run.yaml", ["serve.max_model_len=64", "export.temperature=0"]
    )
    model = servable_of(config, load_artifact(Path(config.run_dir) / "adapter", "adapter"))
    alone = conversation_of(config, model, ["Hello"])
    both = conversation_of(config, model, ["word " * 400, "Hello"])
    assert "The question takes" in both[0]
    assert "serve.max_model_len" in both[0]
    # Nothing of it is remembered.
    assert both[1:] == alone


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": ""},
        {"base_model_name_or_path": ["x"]},
        {"base_model_name_or_path": "x", "r": "8"},
        {"base_model_name_or_path": "x", "r": None},
        {"base_model_name_or_path": "x", "rank_pattern": {"q": "8"}},
        {"base_model_name_or_path": "x", "rank_pattern": [8]},
        [],
    ],
)
def test_settings_of_an_adapter_that_say_no_base_or_rank(tmp_path, settings):
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(TunewrightError, match="E_ARTIFACT_INVALID"):
        found(tmp_path)


def test_ctrl_c_ends_an_answer_and_then_the_chat(served_run):
    """What was said stays said; the next question is asked after it."""
    config = load_config(f"{served_run.run_dir}/run.yaml", ["export.temperature=0"])
    model = servable_of(config, load_artifact(Path(config.run_dir) / "adapter", "adapter"))
    said = []
    turns = iter(["The old house by the sea", "And then?", KeyboardInterrupt])

    def ask():
        turn = next(turns)
        if turn is KeyboardInterrupt:
            raise KeyboardInterrupt
        return turn

    def say(piece):
        said.append(piece)
        if len(said) == 3:
            raise KeyboardInterrupt

    chat(config, model, ask=ask, say=say)
    assert said[3] == "\n"
    assert said.count("\n") >= 2
    assert said[4] != "\n"


def both(run, kind, temperature):
    config = load_config(
        f"{run}/run.yaml", [f"export.temperature={temperature}", "serve.max_model_len=48"]
    )
    model = servable_of(config, load_artifact(Path(run) / kind, kind))
    told = {"base": "", "tuned": ""}
    lines = ["The old house", None]

    def say(side, piece):
        told[side] += piece or "|"

    chat_compared(config, model, ask=lambda: lines.pop(0), say=say)
    return told


def test_base_and_tuned_answer_the_same_questions(served_run):
    """The sides of one model are those of two models that are loaded alone."""
    of_adapter = both(served_run.run_dir, "adapter", 0)
    assert of_adapter["base"] != of_adapter["tuned"]
    of_merged = both(served_run.run_dir, "merged", 0)
    assert of_merged["base"] == of_adapter["base"]
    # Merged weights are rounded to the base's 16 bits.
    assert of_merged["tuned"][:60] == of_adapter["tuned"][:60]
    assert both(served_run.run_dir, "exported", 0) == of_merged
    assert all(text.endswith("|") for text in of_adapter.values())
    sampled = both(served_run.run_dir, "adapter", 0.9)
    assert sampled != of_adapter
    assert both(served_run.run_dir, "adapter", 0.9) == sampled


def test_two_answers_stand_side_by_side():
    console = Console(width=80, record=True, force_terminal=True, file=io.StringIO())
    with conversation.columns(console) as say:
        for side, piece in (
            *(("base", "plain"), ("base", " [b]text\x1b[31m"), ("base", "")),
            *(("tuned", "fine"), ("tuned", "")),
        ):
            say(side, piece)
    last = console.export_text()
    line = next(row for row in last.splitlines() if "plain" in row and "fine" in row)
    assert line.index("plain") < 10
    assert 35 < line.index("fine") < 50
    assert "[b]text\\x1b[31m" in line


def test_elsewhere_one_after_the_other(capsys):
    with conversation.columns(Console(force_terminal=False)) as say:
        for turn in ("one", "two"):
            for side in ("base", "tuned"):
                say(side, turn)
                say(side, "")
    assert capsys.readouterr().out == "base> one\ntuned> one\nbase> two\ntuned> two\n"


def test_the_chat_command_answers_in_a_pipe(served_run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n\nNever asked\n"))
    words = ["chat", served_run.run_dir, "--what", "adapter", "--compare", "--temperature", "0"]
    assert main([*words, "--max-model-len", "40", "--system", "Brief."]) == 0
    out, err = capsys.readouterr()
    assert out.count("base> ") == out.count("tuned> ") == 1
    assert "the adapter of" in err


VLLM = """#!{python}
import json, os, sys
open({out!r}, "w").write(json.dumps([sys.argv[1:], os.environ.get("VLLM_API_KEY")]))
sys.exit(3)
"""


def test_vllm_is_started_with_the_key_in_its_environment(served_run, tmp_path, monkeypatch, capsys):
    """A stand-in for the command `vllm` that tells what it was given."""
    program, out = tmp_path / "bin" / "vllm", tmp_path / "given"
    program.parent.mkdir()
    program.write_text(VLLM.format(python=sys.executable, out=str(out)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TUNEWRIGHT_API_KEY", "sesame")
    monkeypatch.setattr(_open, "device", lambda: "cuda")
    words = ["serve", served_run.run_dir, "--what", "adapter", "--host", "0.0.0.0"]
    # Its key covers some paths only.
    assert main(words) == 2
    assert not out.exists()
    assert "its key does not cover every path" in capsys.readouterr().err
    assert main([*words, "--allow-without-key"]) == 2
    given, key = json.loads(out.read_text())
    adapter = f"{served_run.run_dir}/adapter"
    assert key == "sesame"
    assert "sesame" not in given
    assert given[0] == "serve"
    assert Path(given[1], "config.json").is_file()
    assert f"t={adapter}" in given
    assert given[given.index("--tokenizer") + 1] == adapter
    assert given[given.index("--max-lora-rank") + 1] == "8"
    err = capsys.readouterr().err
    assert "$ vllm serve" in err
    assert "engine: vllm, since it is installed, and there is a GPU" in err
    assert "is not encrypted" in err
    assert "vLLM has ended with exit code 3" in err
    assert "sesame" not in err


STARTS = """
import sys
from tunewright.serve.child import interruptible, run_child
with interruptible():
    run_child(["sh", "-c", "sleep 600 & echo $! && wait"], {})
print("ended", flush=True)
"""


def test_what_is_started_ends_with_us():
    """With all that it has started itself."""
    child = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True)
    below = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGTERM)
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "ended\n")
    for _ in range(100):
        state = Path(f"/proc/{below}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it runs on")


STUBBORN = """
import sys
from tunewright.serve.child import interruptible, run_child
with interruptible():
    run_child([sys.executable, "-c", "import signal, subprocess, os\\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)"
        "\\nprint(os.getpid(), flush=True)\\nsignal.pause()"], {})
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_second_signal_shortens_the_grace_and_leaves_nothing(number):
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    below = int(child.stdout.readline())
    started = time.monotonic()
    os.kill(child.pid, number)
    time.sleep(0.5)
    assert child.poll() is None
    # On a busy machine the next one can come before the first is seen, and counts as one with it.
    while child.poll() is None and time.monotonic() - started < 10:
        os.kill(child.pid, signal.SIGINT)
        time.sleep(0.5)
    assert child.poll() is not None
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "ended\n")
    with pytest.raises(ProcessLookupError):
        os.kill(below, 0)


def test_what_a_child_that_ends_has_started_ends_too():
    words = ["sh", "-c", 'sleep 600 & echo $! > "$PLACE"']
    with tempfile.NamedTemporaryFile() as file:
        assert run_child(words, {"PLACE": file.name}) == 0
        below = int(Path(file.name).read_text())
    state = Path(f"/proc/{below}/stat")
    for _ in range(100):
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it runs on")


def test_a_child_that_ends_by_itself_is_told():
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"], {}) == 3


@pytest.mark.slow
def test_checkpoints_are_served_in_place_of_the_adapter(trained, tmp_path):
    """The best one answers as the adapter does, since it is the adapter; an earlier one is another model."""
    config, _, adapter = trained
    run = tmp_path / "run"
    shutil.copytree(config.run_dir, run)
    config = config.model_copy(update={"output_dir": str(run)})
    (run / "run.yaml").write_text(dump_config(config))
    steps = sorted(one.step for one in pipeline.checkpoints_of(config, adapter))
    best = adapter.facts["best_step"]

    def likely(what):
        own, model = found(run, what=what)
        with opened(own, model) as engine:
            ids = engine.read([{"role": "user", "content": "Hello"}])
            tokens = engine.answer(ids, Options(8, 0, logprobs=0))
            return model.name, [(token.id, token.likely.logprob) for token in tokens]

    assert likely(f"checkpoint-{best}") == (f"demo-checkpoint-{best}", likely("adapter")[1])
    path = run / "training" / "checkpoints" / f"checkpoint-{steps[0]}"
    assert found(path)[1].checkpoint == path
    if steps[0] != best:
        assert likely(path.name)[1] != likely("adapter")[1]
