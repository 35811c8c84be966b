"""What the graphics cards of this machine are doing, as NVIDIA's driver tells."""

from contextlib import suppress
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One card.

    Attributes:
        name: Its model.
        use_percent: Share of the last second in which it computed.
        memory_used_bytes: Taken by all processes.
        memory_total_bytes: What it has.
        temperature_celsius: Of the chip.
    """

    name: str
    use_percent: int
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: int


def gpus() -> list[Gpu]:
    """Return the cards of this machine; none where there is no driver, or it does not tell."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found: list[Gpu] = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):
                found.append(_gpu(index))
    finally:
        pynvml.nvmlShutdown()
    return found


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=str(pynvml.nvmlDeviceGetName(handle)),
        use_percent=int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        temperature_celsius=int(
            pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        ),
    )
