"""FSDP2 on two processes gives what one process gives, and goes on from its checkpoints as if never stopped."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults.training import make, options

from tunewright import train
from tunewright.artifacts import load_artifact
from tunewright.config.load import config_of_source

SAME = 1e-6
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "several-gpus.md"
SETTINGS = (
    "train.max_steps=6",
    "train.eval_steps=3",
    "train.save_steps=3",
    # A row of the log is begun before the checkpoint and ended after it.
    "train.logging_steps=2",
    "train.gradient_accumulation_steps=1",
    "train.train_sampling_strategy=random",
)
STOPPED = 130
pytestmark = pytest.mark.faults


def environment(run: int) -> dict[str, str]:
    """Return what the guide's command would start the processes with."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    line = next(x for x in GUIDE.read_text().splitlines() if x.startswith("$") and "fsdp" in x)
    words = shlex.split(line)
    assert words[1:3] == ["accelerate", "launch"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return prepare_multi_gpu_env(launch_command_parser().parse_args(words[3:])) | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": str(run),
        "LOCAL_RANK": str(run),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def runs(root):
    """The runs of both processes, all in one start, and what each process says of them."""

    def command(name: str, *more: str) -> list[str]:
        if not (root / name).exists():
            shutil.copytree(root / "run" / "dataset", root / name / "dataset")
        changes = ("train.per_device_train_batch_size=2", *more)
        given = [*options(root, root / name), *SETTINGS, *changes]
        flags = [word for option in given for word in ("--set", option)]
        return ["train", str(root / "run.yaml"), *flags]

    def case(name: str, *more: str, stop_at: int | None = None, planted: bool = False) -> dict:
        return {"command": command(name, *more), "stop_at": stop_at, "planted": planted}

    plan = [
        case("plain", "train.lora.lora_dropout=0"),
        case("whole"),
        *(case("resumed", stop_at=5), case("resumed")),
        *(case("forgetful", stop_at=5), case("forgetful", planted=True)),
    ]
    file = root / "runs.json"
    file.write_text(json.dumps(plan))
    port = environment(0)["MASTER_PORT"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "faults.sharding", str(file)],
            env=environment(rank) | {"MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=180) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), said
    for rank in range(2):
        codes = json.loads((root / f"codes-{rank}.json").read_text())
        assert codes == [0, 0, STOPPED, 0, STOPPED, 0], said
    return root


def metrics(run: Path) -> bytes:
    return (run / "training" / "metrics.jsonl").read_bytes()


def numbers(text: bytes) -> list[float]:
    rows = [json.loads(line) for line in text.splitlines()]
    return [row[n] for row in rows for n in ("loss", "grad_norm", "eval_loss") if n in row]


def test_two_shares_are_one_whole(root, runs):
    changes = ("train.per_device_train_batch_size=4", "train.lora.lora_dropout=0")
    settings = [*options(root, root / "one"), *SETTINGS, *changes]
    config = config_of_source(str(root / "rows.jsonl"), settings)
    train(config, load_artifact(root / "run" / "dataset", "dataset"))
    found, wanted = numbers(metrics(runs / "plain")), numbers(metrics(root / "one"))
    assert len(found) == 9
    assert found == pytest.approx(wanted, rel=SAME)
    # With dropout, which is not the same in both, it must not be: the comparison can fail.
    assert numbers(metrics(runs / "whole")) != pytest.approx(wanted, rel=SAME)


def test_each_process_has_its_share(runs):
    shares = [json.loads((runs / f"0-{rank}.json").read_text()) for rank in range(2)]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.6


def test_going_on_is_never_having_stopped(runs):
    assert metrics(runs / "resumed") == metrics(runs / "whole")
    for name in ("adapter_model", "optimizer", "rng_state"):
        files = [
            runs / run / "training" / "checkpoints" / "checkpoint-6" / f"{name}.safetensors"
            for run in ("resumed", "whole")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    names = ("adapter_model.safetensors", "adapter_config.json")
    for name in names:
        pair = [(runs / run / "adapter" / name).read_bytes() for run in ("resumed", "whole")]
        assert pair[0] == pair[1]


def test_a_forgotten_optimizer_is_noticed(runs):
    assert metrics(runs / "forgetful") != metrics(runs / "whole")
