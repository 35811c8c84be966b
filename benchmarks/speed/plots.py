"""The figures as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

OWN_COLOUR, OTHER_COLOUR = "#1b6ca8", "#b8b8b8"


def draw(results: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write bars of tokens a second, a panel for each shape and set; whiskers are lowest and highest round."""
    figure, panels = plt.subplots(len(results), 1, figsize=(7, 2.4 * len(results)), squeeze=False)
    for panel, result in zip(panels[:, 0], results, strict=True):
        found = {n: c["tokens_a_second"] for n, c in result["contenders"].items() if "rounds" in c}
        names = sorted(found, key=lambda name: found[name]["median"])
        middles = [found[name]["median"] for name in names]
        below = [found[name]["median"] - found[name]["low"] for name in names]
        above = [found[name]["high"] - found[name]["median"] for name in names]
        colours = [OWN_COLOUR if name == "ours" else OTHER_COLOUR for name in names]
        panel.barh(names, middles, xerr=[below, above], color=colours, capsize=3)
        panel.set_title(f"{result['shape']}, set {result['set']}: tokens a second", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    # Without a date, so that the same figures make the same file.
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
