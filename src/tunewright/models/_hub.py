"""The Hub's client, as those who fetch and those who upload want it."""

from collections.abc import Generator
from contextlib import contextmanager

from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)


@contextmanager
def quiet() -> Generator[None]:
    """Keep the client's progress bars from the terminal: who calls has a listener, or wants silence."""
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
