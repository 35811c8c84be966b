import pynvml
import pytest

from tunewright.train._gpu import Gpu, gpus


@pytest.fixture
def driver(monkeypatch):
    """NVIDIA's driver with two cards, of which the second does not tell its temperature."""
    calls = []

    def temperature(handle, kind):
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 61

    class Memory:
        used, total = 3_000_000_000, 24_000_000_000

    class Use:
        gpu = 88

    answers = {
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda handle: Memory,
        "nvmlDeviceGetUtilizationRates": lambda handle: Use,
        "nvmlDeviceGetName": lambda handle: "RTX 4090",
        "nvmlDeviceGetTemperature": temperature,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return calls


def test_a_card_that_does_not_tell_is_left_out(driver):
    assert gpus() == [Gpu("RTX 4090", 88, 3_000_000_000, 24_000_000_000, 61)]
    assert driver == ["init", "shutdown"]


def test_without_a_driver_there_is_no_card(monkeypatch):
    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert gpus() == []


@pytest.mark.gpu
def test_the_cards_of_this_machine_tell():
    found = gpus()
    assert found
    for card in found:
        assert card.name
        assert 0 < card.memory_used_bytes <= card.memory_total_bytes
        assert 0 <= card.use_percent <= 100
        assert 5 < card.temperature_celsius < 120
