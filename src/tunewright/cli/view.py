"""A training as a page of text, and as JSON values. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tunewright.cli.plot import plot
from tunewright.cli.text import visible
from tunewright.train.history import History, clock

NARROW = 64
"""Characters below which curves stand above each other and not side by side."""
FIGURES = (
    ("loss", "loss", "{:.3f}"),
    ("held-out loss", "eval_loss", "{:.3f}"),
    ("learning rate", "learning_rate", "{:.1e}"),
    ("gradient norm", "grad_norm", "{:.2f}"),
)


@dataclass(frozen=True)
class Seen:
    """What is known of a training at one moment.

    Attributes:
        run: Folder of the run.
        base: Name of the model it starts from.
        history: What its files tell.
        holder: The process that trains, as JSON values; None: nobody.
        gpus: The cards of this machine, as JSON values.
        now: Unix seconds.
    """

    run: str
    base: str
    history: History
    holder: Mapping[str, Any] | None
    gpus: Sequence[Mapping[str, Any]]
    now: float

    @property
    def state(self) -> str:
        """Return `running`, `finished`, `diverged` or `interrupted`."""
        return self.history.state(running=self.holder is not None)


def values(seen: Seen) -> dict[str, Any]:
    """Return everything as JSON values; what is no number is null."""
    history = seen.history
    last = history.progress[-1] if history.progress else {}
    best = history.best
    found: dict[str, Any] = {
        "run": seen.run,
        "base": seen.base,
        "state": seen.state,
        "process": dict(seen.holder) if seen.holder else None,
        "step": history.step,
        "steps": history.steps,
        "seconds_left": history.seconds_left if seen.holder else None,
        **{name: _last(history, name) for _, name, _ in FIGURES},
        "best_step": best[0] if best else None,
        "best_eval_loss": best[1] if best else None,
        "tokens_per_second": last.get("tokens_per_second"),
        "memory_bytes": last.get("memory_bytes"),
        "device": last.get("device"),
        "gpus": [dict(gpu) for gpu in seen.gpus],
        "train_losses": history.series("loss"),
        "eval_losses": history.series("eval_loss"),
        "events": history.events,
        "samples": history.samples[-2:],
        "unreadable_lines": history.torn,
    }
    return _finite(found)


def page(seen: Seen, *, width: int, height: int, braille: bool = True) -> list[str]:
    """Return at most `height` lines, each safe in a terminal; a terminal cuts those that are too long."""
    above = [_header(seen), _bar(seen, width), _figures(seen.history), *_machine(seen)]
    below = [*_events(seen), *_samples(seen.history)]
    room = max(4, min(14, height - len(above) - len(below) - 1))
    curves = _curves(seen.history, width, room, braille=braille)
    return [visible(line) for line in [*above, *curves, *below][: max(1, height - 1)]]


def _header(seen: Seen) -> str:
    holder = seen.holder
    by = f" (process {holder['pid']} on {holder['host']})" if holder else ""
    return f"{seen.state}{by}: {seen.run}, {seen.base}"


def _bar(seen: Seen, width: int) -> str:
    history = seen.history
    steps = history.steps
    if not steps:
        return "no step is logged yet"
    share = min(1.0, history.step / steps)
    cells = max(4, min(30, width - 46))
    filled = round(share * cells)
    left = history.seconds_left
    # Early stopping ends a training before its last step.
    shown = f", {clock(left)} left" if left is not None and seen.state == "running" else ""
    return f"[{'#' * filled}{'.' * (cells - filled)}] step {history.step:,} of {steps:,} ({share:.0%}){shown}"


def _figures(history: History) -> str:
    texts = [
        f"{label} {form.format(value)}"
        for label, name, form in FIGURES
        if (value := _last(history, name)) is not None
    ]
    if history.best:
        texts.append(f"best {history.best[1]:.3f} at step {history.best[0]}")
    return ", ".join(texts)


def _machine(seen: Seen) -> list[str]:
    """Return speed and memory, and a line for each card."""
    last = seen.history.progress[-1] if seen.history.progress else {}
    speed, memory, device = (
        last.get(name) for name in ("tokens_per_second", "memory_bytes", "device")
    )
    texts = [
        f"{speed:,.0f} tokens/s" if speed else "",
        f"{memory / 1e9:.1f} GB" if memory else "",
        f"on {device}" if device else "",
    ]
    if seen.state == "running" and last:
        texts.append(f"last news {clock(max(0.0, seen.now - last['time']))} ago")
    cards = [
        f"{gpu['name']}: {gpu['use_percent']} % used, "
        f"{gpu['memory_used_bytes'] / 1e9:.1f} of {gpu['memory_total_bytes'] / 1e9:.1f} GB, "
        f"{gpu['temperature_celsius']} °C"
        for gpu in seen.gpus
    ]
    return [", ".join(text for text in texts if text), *cards]


def _curves(history: History, width: int, height: int, *, braille: bool) -> list[str]:
    named = [("loss", history.series("loss")), ("held-out loss", history.series("eval_loss"))]
    if width < NARROW:
        each = max(4, height // 2)
        return [
            line
            for title, points in named
            for line in plot(title, points, width=max(16, width), height=each, braille=braille)
        ]
    half = (width - 3) // 2
    left, right = (
        plot(title, points, width=half, height=height, braille=braille) for title, points in named
    )
    return [f"{a:<{half}}   {b}".rstrip() for a, b in zip(left, right, strict=True)]


def _events(seen: Seen) -> list[str]:
    return [
        f"{clock(max(0.0, seen.now - event['time']))} ago: {event.get('text', event['event'])}"
        for event in seen.history.events[-3:]
    ]


def _samples(history: History) -> list[str]:
    """Return the last answers; a line each for prompt and answer."""
    lines: list[str] = []
    for sample in history.samples[-2:]:
        prompt, answer = (" ".join(str(sample[key]).split()) for key in ("prompt", "answer"))
        lines += [f"step {sample['step']}> {prompt}", f"  {answer}"]
    return lines


def _last(history: History, name: str) -> float | None:
    found = history.series(name)
    return found[-1][1] if found else None


def _finite(value: Any) -> Any:
    """Return JSON values in which a number that is none is null, as strict readers want it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("list[Any]", value)]
    return value
