"""Spread: box plots and histograms of values of right and wrong predictions, one panel per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .separation import Separation
from .sheet import GREY, Text, fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

RIGHT, WRONG = "#1f5fbf", "#d9822b"  # told apart by the colour blind, and in print
COLUMNS = 3
_WIDTH, _HEIGHT = 3.6, 3.1  # inches of a panel
_BINS = 30


def spread(
    panels: Sequence[tuple[Separation, NDArray[Any]]], correct: NDArray[Any], metric: str
) -> tuple[Figure, Axes]:
    """A panel for each method's values ``(N,)``: boxes above, histograms below, the threshold through both.

    Boxes hold the middle half, their line is the median, whiskers reach 1.5 times as far as the box is wide.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    made = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.3), dpi=110, facecolor="white", layout="constrained")
    grid = made.add_gridspec(2 * rows, columns, height_ratios=[1, 2.4] * rows)
    axes = []
    for k, (found, values) in enumerate(panels):
        row, column = divmod(k, columns)
        below = made.add_subplot(grid[2 * row + 1, column])
        above = made.add_subplot(grid[2 * row, column], sharex=below)
        _panel(above, below, found, values, correct, metric)
        axes.append(below)
    if axes[0].patches:
        axes[0].legend(loc="best", fontsize=7, frameon=False)
    return made, axes[0]


def _panel(
    above: Axes, below: Axes, found: Separation, values: NDArray[Any], correct: NDArray[Any], metric: str
) -> None:
    there = ~np.isnan(values)
    groups = [("right", RIGHT, values[there & correct]), ("wrong", WRONG, values[there & ~correct])]
    edges = np.histogram_bin_edges(values[there], _BINS) if there.any() else np.linspace(0, 1, _BINS + 1)
    for place, (name, colour, own) in enumerate(groups):
        if not len(own):
            continue
        box = above.boxplot(
            own, orientation="horizontal", positions=[-place], widths=0.6, patch_artist=True, flierprops={"ms": 2}
        )
        box["boxes"][0].set(facecolor=colour, alpha=0.6)
        box["medians"][0].set(color="#111111")
        share = np.full(len(own), 1 / len(own))
        below.hist(own, edges.tolist(), weights=share, color=colour, alpha=0.55, label=f"{name} ({len(own)})")
    above.set_yticks([0, -1], ["right", "wrong"], fontsize=7)
    above.set_ylim(-1.6, 0.6)
    above.tick_params(labelbottom=False)
    if found.threshold is not None:
        for axes in (above, below):
            axes.axvline(found.threshold.value, color="#111111", linewidth=0.8, linestyle="--")
    title = "".join(fit(Text(found.label, size=9, bold=True, most=1), _WIDTH))
    above.set_title(f"{title}\nAUROC {found.auroc}: {found.verdict}", fontsize=8, parse_math=False)
    below.set_xlabel(metric, fontsize=7, parse_math=False)
    below.set_ylabel("share of each group", fontsize=7, color=GREY)
    below.tick_params(labelsize=7)
