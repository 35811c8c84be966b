"""Signals: the first asks to stop, the second ends; a launcher's echo of the first is not a second."""

import os
import signal

import pytest

from tunewright.train import interrupt
from tunewright.train.interrupt import Interrupt, listening


@pytest.fixture(autouse=True)
def own_handlers():
    """Give the test the handlers that Python starts with, whatever it was started by."""
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_first_signal_asks_and_the_second_ends():
    said: list[str] = []
    asked = Interrupt()
    with listening(asked, said.append):
        assert not asked.requested()
        send(signal.SIGINT)
        assert (asked.requested(), len(said)) == (True, 1)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_echo_of_a_launcher_is_the_same_signal(monkeypatch):
    said: list[str] = []
    asked = Interrupt()
    with listening(asked, said.append, launched=True):
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert (asked.signal, len(said)) == (signal.SIGINT, 1)
        monkeypatch.setattr(interrupt, "ECHO_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_what_it_ends_with():
    asked = Interrupt()
    with listening(asked, lambda _: None):
        send(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        asked.leave()
    assert ended.value.code == 143
    asked = Interrupt()
    with listening(asked, lambda _: None):
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        asked.leave()
