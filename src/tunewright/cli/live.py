"""The live view of a training in a terminal."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tunewright.cli.view import Seen, page, values
from tunewright.config.schema import Config
from tunewright.train._gpu import gpus
from tunewright.train.history import Reader
from tunewright.train.lock import holder

REFRESH_SECONDS = 1.0
COLOURS = {"running": "bold cyan", "finished": "bold green", "diverged": "bold red"}


class View:
    """What `watch` shows: read from the files of a training, which it never writes to."""

    def __init__(self, config: Config, folder: Path, reader: Reader) -> None:
        self._config = config
        self._folder = folder
        self._reader = reader
        self._console = Console()

    def values(self) -> dict[str, Any]:
        """Return how it stands as JSON values."""
        return values(self._seen())

    def show(self, *, once: bool) -> None:
        """Show it until the training ends, or once if asked to, or where there is no terminal."""
        seen = self._seen()
        if once or not self._console.is_terminal or seen.state != "running":
            self._console.print(self._text(seen), soft_wrap=not self._console.is_terminal)
            return
        try:
            with Live(self._text(seen), console=self._console, auto_refresh=False) as live:
                while seen.state == "running":
                    time.sleep(REFRESH_SECONDS)
                    seen = self._seen()
                    live.update(self._text(seen), refresh=True)
        except KeyboardInterrupt:
            self._console.print("The training goes on.", highlight=False)

    def _seen(self) -> Seen:
        # The lock first: a training that ends in between is then seen with its last row.
        found = holder(self._folder)
        history = self._reader.read()
        on_gpu = bool(history.progress) and history.progress[-1].get("device") == "cuda"
        return Seen(
            run=self._config.run_dir,
            base=self._config.model.model_name_or_path,
            history=history,
            holder=asdict(found) if found else None,
            gpus=[asdict(gpu) for gpu in gpus()] if found and on_gpu else [],
            now=time.time(),
        )

    def _text(self, seen: Seen) -> Text:
        braille = self._console.encoding.startswith("utf")
        lines = page(seen, width=self._console.width, height=self._console.height, braille=braille)
        text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
        text.stylize(COLOURS.get(seen.state, "bold yellow"), 0, len(lines[0]))
        return text
