"""Curves as SVG images, drawn twice: for a light and for a dark page."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Points = Sequence[tuple[float, float]]
_SIZE_INCHES = (4.7, 2.5)
_FONT = "DejaVu Sans"


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    ink: str
    line: str
    quiet: str
    strong: str
    mark: str


LIGHT = Theme(ink="#5f5b57", line="#e5e1da", quiet="#a8a29e", strong="#0f766e", mark="#b45309")
DARK = Theme(ink="#a3a9b3", line="#2d333d", quiet="#6b7280", strong="#2dd4bf", mark="#fbbf24")


@dataclass(frozen=True)
class Plot:
    """A picture in two themes, as data URLs.

    Attributes:
        light: For a light page.
        dark: For a dark page.
    """

    light: str
    dark: str


def loss_curve(train: Points, evaluated: Points, best_step: float | None) -> Plot | None:
    """Return training and eval loss over steps with the best step marked; None without a point."""
    train, evaluated = _finite(train), _finite(evaluated)
    if not train and not evaluated:
        return None

    def draw(axes: Axes, theme: Theme) -> None:
        if train:
            axes.plot(*zip(*train, strict=True), color=theme.quiet, linewidth=1.3)
        if evaluated:
            axes.plot(
                *zip(*evaluated, strict=True),
                color=theme.strong,
                linewidth=2.2,
                marker="o",
                markersize=3.5,
            )
        best = next((y for x, y in evaluated if x == best_step), None)
        if best is not None and best_step is not None:
            axes.axvline(best_step, color=theme.mark, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot([best_step], [best], "o", color=theme.mark, markersize=8)
            axes.annotate(
                f"best: {best:.3f} at step {best_step:g}",
                (best_step, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                color=theme.mark,
            )
        _label_ends(axes, [(train, "training", theme.ink), (evaluated, "eval", theme.strong)])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlabel("step")
        axes.set_ylabel("loss")

    return _twice(draw)


def length_histogram(edges: Sequence[float], counts: Sequence[int]) -> Plot | None:
    """Return how many rows have how many tokens, from the edges of the bins; None without rows."""
    if not counts:
        return None

    def draw(axes: Axes, theme: Theme) -> None:
        axes.hist(edges[:-1], bins=list(edges), weights=counts, color=theme.strong, rwidth=0.88)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_xlabel("tokens")
        axes.set_ylabel("rows")

    return _twice(draw)


def _twice(draw: Callable[[Axes, Theme], None]) -> Plot:
    light, dark = (_picture(draw, theme) for theme in (LIGHT, DARK))
    return Plot(light, dark)


def _picture(draw: Callable[[Axes, Theme], None], theme: Theme) -> str:
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "tunewright",
        "font.family": "sans-serif",
        "font.sans-serif": [_FONT],
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.line,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": theme.line,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "ytick.left": False,
    }
    with rc_context(style):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes, theme)
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    svg = target.getvalue().replace(f"'{_FONT}'", "system-ui")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _label_ends(axes: Axes, lines: Sequence[tuple[Points, str, str]]) -> None:
    """Name each line at its end; ends that lie close are named above and below."""
    ends = sorted((line[-1][1], line[-1][0], text, color) for line, text, color in lines if line)
    low, high = axes.get_ylim()
    close = len(ends) > 1 and ends[-1][0] - ends[0][0] < 0.08 * (high - low)
    for place, (y, x, text, color) in enumerate(ends):
        offset = 14 * place - 7 if close else 0
        axes.annotate(
            text, (x, y), xytext=(7, offset), textcoords="offset points", va="center", color=color
        )


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
