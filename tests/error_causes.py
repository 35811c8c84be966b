"""What has to be wrong for each code to be told, where files and a command alone do not do it."""

import shutil
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import SAMPLES

from tunewright import machine
from tunewright.artifacts import Kind, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.load import load_config
from tunewright.data import _gather
from tunewright.errors import failure
from tunewright.evaluate import prompts_digest
from tunewright.export import _vocabulary, _writing
from tunewright.merge import _merge
from tunewright.models import gguf_types
from tunewright.train import _choices, _fast, _plan, _trainer, train
from tunewright.train.lock import only_one

RUN = Path("runs") / "voice"
NO_SPACE, NO_MEMORY = 50_000, 20_000_000
"""Bytes."""


def flip(file: Path) -> None:
    """Change a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


def again(*stages: str) -> None:
    """Take away what stages have made."""
    for stage in stages:
        shutil.rmtree(RUN / stage)


def checkpoints() -> list[Path]:
    """Return the checkpoints of the run, the newest last."""
    found = (RUN / "training" / "checkpoints").glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def manuscript() -> Path:
    """Return a folder with some chapters, after writing it."""
    folder = Path("novel")
    folder.mkdir()
    for file in sorted((SAMPLES / "manuscript").glob("*.txt"))[:2]:
        shutil.copyfile(file, folder / file.name)
    return folder


def rewritten(kind: Kind, files: dict[str, bytes], **facts: str) -> None:
    """Write an artifact of the run once more, with other files or facts."""
    config = load_config("voice.yaml", [])
    old = load_artifact(RUN / kind, kind)
    settings = settings_of(config, kind)
    settings |= prompts_digest(config) if kind == "evaluation" else {}
    parents = {name: load_artifact(RUN / name, cast("Kind", name)) for name in old.parents}
    kept = {name: (old.path / name).read_bytes() for name in old.files}
    with writing(RUN / kind, kind, settings=settings, parents=parents) as draft:
        for name, content in (kept | files).items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(content)
        draft.facts |= {**old.facts, **facts}


def memorised(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A verdict that is not published."""
    rewritten(
        "evaluation",
        {},
        verdict="memorised",
        sentence="The model repeats the training text word for word.",
        advice="Use fewer epochs.",
    )


def other_weights(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A merge that changes a number too many."""
    again("merged")
    merge = _merge.merge_folder

    def wrong(base: Path, adapter: Path, out: Path, *args, **more):
        work = merge(base, adapter, out, *args, **more)
        file = out / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"][7] += 0.05
        save_file(tensors, file, {"format": "pt"})
        return work

    patch.setattr(_merge, "merge_folder", wrong)


def other_tokens(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """An export that exchanges two tokens."""
    again("exported")
    plain = _vocabulary.gguf_tokenizer

    def swapped(tokenizer, rows, ends):
        packed = plain(tokenizer, rows, ends)
        one, two = (tokenizer.convert_tokens_to_ids(token) for token in ("ou", "Ġyou"))
        tokens = packed.tokens
        tokens[one], tokens[two] = tokens[two], tokens[one]
        return packed

    patch.setattr(_writing, "gguf_tokenizer", swapped)


def damaged_store(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A stored file that has changed."""
    flip(next(Path("models").glob("writer/*/*/adapter/adapter_model.safetensors")))


def lost_text(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A chunk that gets lost."""
    manuscript()
    cut = _gather.chunk

    def losing(*args, **more):
        made = cut(*args, **more)
        return type(made)(made.chunks[1:], made.inside)

    patch.setattr(_gather, "chunk", losing)


def damaged_adapter(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A file of the run that has changed."""
    flip(RUN / "adapter" / "adapter_model.safetensors")


def cut_gguf(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A download that was interrupted."""
    whole = next((RUN / "exported").glob("*.gguf")).read_bytes()
    Path("model.gguf").write_bytes(whole[: len(whole) // 2])


def failing_quantizer(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A llama-quantize that ends with an error."""
    again("exported")
    program = Path("llama-quantize").resolve()
    program.write_text("#!/bin/sh\necho 'unknown model architecture' >&2\nexit 1\n")
    program.chmod(0o755)
    patch.setattr(gguf_types, "find_spec", lambda name: None)
    patch.setenv("PATH", str(program.parent), prepend=":")


def unfinished(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A training that was interrupted in its fourth step: checkpoints, and no adapter."""
    again("adapter", "training")
    config, steps = load_config("voice.yaml", []), count(1)
    step = torch.optim.AdamW.step

    def interrupted(self, *args, **more):
        if next(steps) > 3:
            raise KeyboardInterrupt
        return step(self, *args, **more)

    with suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as once:
        once.setattr(torch.optim.AdamW, "step", interrupted)
        train(config, load_artifact(RUN / "dataset", "dataset"))


def no_whole_checkpoint(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """An interrupted training, and a disk that has damaged all of its checkpoints."""
    unfinished(patch, later)
    for folder in checkpoints():
        flip(folder / "adapter_model.safetensors")


def newest_damaged(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """An interrupted training whose newest checkpoint is not whole."""
    unfinished(patch, later)
    flip(checkpoints()[-1] / "adapter_model.safetensors")


def old_checkout(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A model that is not ours to write, and a llama.cpp whose converter does not know it either."""
    again("exported")

    def unknown(_config):
        raise failure("E_MODEL", "The architecture is unknown.", where=RUN / "merged")

    patch.setattr(_writing, "shape_of", unknown)
    Path("llama.cpp").mkdir()
    Path("llama.cpp/convert_hf_to_gguf.py").write_text(
        "import sys\nsys.exit('Model Qwen3ForCausalLM is not supported')\n"
    )


def full_disk(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A disk with nothing left."""
    again("plan", "training", "adapter", "merged", "exported")
    usage = shutil._ntuple_diskusage(2**40, 2**40, NO_SPACE)
    patch.setattr(machine.shutil, "disk_usage", lambda _: usage)


def no_memory(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A machine without memory."""
    patch.setattr(_choices, "memory_free", lambda _: NO_MEMORY)


def doubled_lock(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A file system that gives one lock to everybody."""
    patch.setattr("filelock._unix.fcntl.flock", lambda *_: None)


def dead_worker(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A process of a DataLoader that is killed, in the words in which torch tells it."""

    def dies(*_args, **_more):
        raise RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. ")

    patch.setattr(_trainer.Trainer, "train", dies)


def taken_port(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """Somebody who listens already."""
    server = later.enter_context(socket.socket())
    with suppress(OSError):
        server.bind(("127.0.0.1", 8479))
        server.listen()


def other_process(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """Somebody who trains already."""
    later.enter_context(only_one(RUN / "training"))


def other_threads(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """An interrupted training, and more threads than it had."""
    unfinished(patch, later)
    later.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(torch.get_num_threads() + 2)


def pickled_model(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A model as they were stored years ago."""
    folder = Path("old")
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(Path("base") / name, folder / name)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def link_outside(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A link among the chapters."""
    (manuscript() / "notes.txt").symlink_to(Path("rows.jsonl").resolve())


def secret_inside(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A key in a file that would be published."""
    said = (RUN / "exported" / "Modelfile").read_bytes()
    said += b"# postgres://app:t9Kq2vXwLm@db.local/main\n"
    rewritten("exported", {"Modelfile": said})


def zero_division(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A mistake of ours."""
    patch.setattr(_plan, "total_steps", lambda rows, options: rows // 0)


def wrong_speed_up(patch: pytest.MonkeyPatch, later: ExitStack) -> None:
    """A fast path whose loss is another."""
    check = _fast.check

    def off(*args, **more):
        return replace(check(*args, **more), loss_error=0.0042, gradient_error=0.031, passed=False)

    patch.setattr(_fast, "check", off)


CAUSES: dict[str, Callable[[pytest.MonkeyPatch, ExitStack], None]] = {
    "E_GATE_VERDICT": memorised,
    "E_GATE_MERGE": other_weights,
    "E_GATE_EXPORT": other_tokens,
    "E_MACHINE": damaged_store,
    "E_COVERAGE": lost_text,
    "E_ARTIFACT_INVALID": damaged_adapter,
    "E_GGUF_INVALID": cut_gguf,
    "E_QUANTIZE": failing_quantizer,
    "E_DIGEST_MISMATCH": damaged_store,
    "E_NO_VALID_CHECKPOINT": no_whole_checkpoint,
    "E_CONVERTER": old_checkout,
    "E_DISK_SPACE": full_disk,
    "E_OOM": no_memory,
    "E_STORE_FS_UNSUPPORTED": doubled_lock,
    "E_WORKER_DIED": dead_worker,
    "E_PORT": taken_port,
    "E_RUN_LOCKED": other_process,
    "E_RESUME_MISMATCH": unfinished,
    "E_RESUME_ENV": other_threads,
    "E_UNSAFE_FORMAT": pickled_model,
    "E_UNSAFE_PATH": link_outside,
    "E_SECRET_IN_ARTIFACT": secret_inside,
    "E_INTERNAL": zero_division,
    "W_ACCEL_OFF": wrong_speed_up,
    "W_CKPT_SKIPPED": newest_damaged,
}
"""Called in the folder of the example, before its commands; what it leaves is undone after them."""
