"""Trainings under FSDP without an accelerator, one after the other: `python -m faults.sharding RUNS.json`.

Accelerate has FSDP only for processes on accelerators. What it does for them, torch does on CPUs as well, so
that it is enough to tell it that these processes are of that kind. All else is as `accelerate launch` has it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, DistributedType
from torch.distributed.tensor import DTensor

from tunewright.cli import main
from tunewright.train import _trainer


def on_processors() -> None:
    """Let accelerate shard on CPUs."""
    start = AcceleratorState.__init__

    def sharding(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if self.distributed_type is DistributedType.MULTI_CPU and fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = sharding


def share_of(model: Any) -> float:
    """Return how much of the parameters this process holds."""
    here = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return sum(p.numel() for p in here) / sum(p.numel() for p in model.parameters())


def run(command: list[str], *, stop_at: int | None, planted: bool, told: Path) -> int:
    """Run a command, stopped in a step before the gradient is used; planted: it forgets the optimizer's state."""
    clip, load = _trainer.Trainer._clip_grad_norm, _trainer.load_optimizer_state

    def clip_or_stop(self: Any, model: Any) -> Any:
        if self.state.global_step + 1 == stop_at:
            raise KeyboardInterrupt
        told.write_text(json.dumps(share_of(model)))
        return clip(self, model)

    _trainer.Trainer._clip_grad_norm = clip_or_stop
    if planted:
        _trainer.load_optimizer_state = lambda *_: None
    try:
        return main(command)
    finally:
        _trainer.Trainer._clip_grad_norm, _trainer.load_optimizer_state = clip, load


if __name__ == "__main__":
    on_processors()
    file = Path(sys.argv[1])
    rank = os.environ["RANK"]
    codes = [
        run(**given, told=file.with_name(f"{number}-{rank}.json"))
        for number, given in enumerate(json.loads(file.read_text()))
    ]
    file.with_name(f"codes-{rank}.json").write_text(json.dumps(codes))
