"""Curves as SVG images, in the colours of a light and of a dark page."""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tunewright.report.numbers import as_number

Points = Sequence[tuple[float, float]]
_WIDE_INCHES = (4.7, 2.5)
_SMALL_INCHES = (3.3, 2.0)
_TALL_INCHES = (4.7, 3.6)
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
_DARK_OF = dict(zip(asdict(LIGHT).values(), asdict(DARK).values(), strict=True))
_OF_LIGHT = re.compile("|".join(_DARK_OF))


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
    """Return training and held-out loss over steps with the best step marked; None without a point."""
    train, evaluated = _finite(train), _finite(evaluated)
    if not train and not evaluated:
        return None

    def draw(figure: Figure) -> None:
        axes = _axes(figure.add_subplot(), "loss")
        if train:
            axes.plot(*zip(*train, strict=True), color=LIGHT.quiet, linewidth=1.3)
        if evaluated:
            axes.plot(
                *zip(*evaluated, strict=True),
                color=LIGHT.strong,
                linewidth=2.2,
                marker="o",
                markersize=3.5,
            )
        best = next((y for x, y in evaluated if x == best_step), None)
        if best is not None and best_step is not None:
            axes.plot([best_step], [best], "o", color=LIGHT.mark, markersize=8)
            _mark_best(axes, best_step, f"best: {best:.3f} at step {best_step:g}")
        _label_ends(axes, [(train, "training", LIGHT.ink), (evaluated, "held-out", LIGHT.strong)])

    return _twice(draw, _WIDE_INCHES)


def small_curve(points: Points, label: str, best_step: float | None = None) -> Plot | None:
    """Return one figure over the steps, in a third of the page's width; None without a point."""
    found = _finite(points)
    if not found:
        return None

    def draw(figure: Figure) -> None:
        axes = _axes(figure.add_subplot(), label, ticks=4)
        axes.plot(*zip(*found, strict=True), color=LIGHT.strong, linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.margins(y=0.1)
        if best_step is not None and as_number(best_step) is not None:
            _mark_best(axes, best_step, "best")

    return _twice(draw, _SMALL_INCHES)


def checkpoint_curves(
    checkpoints: Sequence[Mapping[str, Any]], best_step: float | None
) -> Plot | None:
    """Return score and longest copy of each checkpoint, one above the other; None without one."""
    scores = _scores(checkpoints)
    copies = _finite([(point["step"], point["longest_words"]) for point in checkpoints])
    if not copies:
        return None

    def draw(figure: Figure) -> None:
        panels: list[Axes] = list(
            figure.subplots(2, 1, sharex=True, height_ratios=(2, 1), squeeze=False).flat
        )
        above = _axes(panels[0], "transfer score, %")
        steps, values, lows, highs = zip(*scores, strict=True) if scores else ((), (), (), ())
        above.fill_between(steps, lows, highs, color=LIGHT.strong, alpha=0.22, linewidth=0)
        above.plot(steps, values, color=LIGHT.strong, linewidth=2.2, marker="o", markersize=4)
        below = _axes(panels[1], "words copied")
        below.plot(*zip(*copies, strict=True), color=LIGHT.quiet, linewidth=1.8, marker="o")
        below.margins(y=0.2)
        below.set_ylim(bottom=0)
        below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        _name_steps(below, [step for step, _ in copies])
        above.set_xlabel("")
        if best_step is not None and as_number(best_step) is not None:
            _mark_best(above, best_step, f"best held-out loss: step {best_step:g}")
            _mark_best(below, best_step, "")

    return _twice(draw, _TALL_INCHES)


def length_histogram(edges: Sequence[float], counts: Sequence[int]) -> Plot | None:
    """Return how many rows have how many tokens, from the edges of the bins; None without rows."""
    if not counts:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.hist(edges[:-1], bins=list(edges), weights=counts, color=LIGHT.strong, rwidth=0.88)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_xlabel("tokens")
        axes.set_ylabel("rows")

    return _twice(draw, _WIDE_INCHES)


def _axes(axes: Axes, label: str, *, ticks: int = 7) -> Axes:
    """Return the axes as those of a figure over steps."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=ticks))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=ticks))
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    return axes


def _name_steps(axes: Axes, steps: Sequence[float]) -> None:
    """Set the ticks at the steps themselves, if none stands so close to the next that they touch."""
    closest = min((after - step for step, after in pairwise(steps)), default=0)
    if closest >= (steps[-1] - steps[0]) / 8:
        axes.set_xticks(steps)


def _mark_best(axes: Axes, step: float, text: str) -> None:
    """Draw a line at the best step, and name it above, towards the side that has room."""
    axes.axvline(step, color=LIGHT.mark, linewidth=1, linestyle=(0, (4, 3)))
    low, high = axes.get_xlim()
    place = (step - low) / (high - low)
    axes.annotate(
        text,
        (step, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 5),
        textcoords="offset points",
        ha="left" if place < 0.25 else "right" if place > 0.75 else "center",
        color=LIGHT.mark,
    )


def _scores(checkpoints: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float, float]]:
    """Return step, score and interval of the checkpoints that have a score."""
    found: list[tuple[float, float, float, float]] = []
    for point in checkpoints:
        score: Mapping[str, Any] = point.get("score") or {}
        values = [
            as_number(value)
            for value in (point["step"], *(score.get(key) for key in ("score", "low", "high")))
        ]
        step, at, low, high = values
        if step is not None and at is not None and low is not None and high is not None:
            found.append((step, at, low, high))
    return found


def _twice(draw: Callable[[Figure], None], inches: tuple[float, float]) -> Plot:
    """Draw once: the two pictures differ in the colours alone."""
    light = _picture(draw, inches)
    return Plot(_url(light), _url(_OF_LIGHT.sub(lambda found: _DARK_OF[found[0]], light)))


def _picture(draw: Callable[[Figure], None], inches: tuple[float, float]) -> str:
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "tunewright",
        "font.family": "sans-serif",
        "font.sans-serif": [_FONT],
        "font.size": 9,
        "text.color": LIGHT.ink,
        "axes.labelcolor": LIGHT.ink,
        "axes.edgecolor": LIGHT.line,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": LIGHT.line,
        "xtick.color": LIGHT.ink,
        "ytick.color": LIGHT.ink,
        "ytick.left": False,
    }
    with rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return target.getvalue().replace(f"'{_FONT}'", "system-ui")


def _url(svg: str) -> str:
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
    return [(x, y) for x, y in points if as_number(x) is not None and as_number(y) is not None]
