"""What the processes of one training do together."""

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from tunewright.machine import process_count
from tunewright.models._room import device
from tunewright.train._state import Tensors


def _joined() -> PartialState:
    """Return accelerate's view of the processes; left to itself, it joins those on a GPU only."""
    return PartialState(cpu=device() == "cpu")


def wait_for_all() -> None:
    """Wait until every process has come this far; alone, go on."""
    if process_count() > 1:
        _joined().wait_for_everyone()


def any_of(flag: bool) -> bool:  # noqa: FBT001 - it is all there is to say
    """Return whether it holds in any process: they stop together, or those that go on would wait for ever."""
    if process_count() == 1:
        return flag
    total = torch.tensor(float(flag), device=_joined().device)
    torch.distributed.all_reduce(total)
    return bool(total)


def of_first(value: Any) -> Any:
    """Return what the first process has: measured choices would differ from one to the next."""
    if process_count() == 1:
        return value
    _joined()
    return broadcast_object_list([value])[0]


def of_every_process(tensors: Tensors, values: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """Return the random states of all processes by `rank/name`."""
    if process_count() > 1:
        _joined()
    given = gather_object([(tensors, values)])
    states = {f"{rank}/{name}": t for rank, (ts, _) in enumerate(given) for name, t in ts.items()}
    return states, {f"{rank}/": values for rank, (_, values) in enumerate(given)}
