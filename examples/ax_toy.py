"""Augmentative explanation in two dimensions, in closed form: figures 1 and 6 of arXiv:2201.00009, and what h gains.

    python examples/ax_toy.py [--out docs/pictures/ax_toy.png]

A point x = W a is classified by the larger coordinate of W^-1 x = a; W turns it by an angle. The map h = w x starts at
w = 1, the point over again, and k steps of size eta up the slope of A - B, where W h = (A, B), make it
h = (1 + k eta slope) x. The paper draws k eta = 1.2; the script published with it multiplies by eta twice, so that it
draws 1.44. Both are here. The values of a in the third column are not printed in the paper; these are ours.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float64]

FILE = Path(__file__).parents[1] / "docs" / "pictures" / "ax_toy.png"
FIRST = (0.95, 0.7, 0.51)
PAPER, PUBLISHED = 1.2, 1.44


@dataclass(frozen=True)
class Toy:
    """A point ``(..., 2)``, its map, and the CO score of adding it, with f = W^-1 x as it is."""

    x: Array
    h: Array
    gain: Array


def rotation(angle: Array | float) -> Array:
    """W ``(..., 2, 2)``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.moveaxis(np.array([[c, -s], [s, c]]), (0, 1), (-2, -1))


def slope(W: Array, x: Array) -> Array:
    """Slope of A - B along w: eq. 3."""
    inverse = np.linalg.inv(W)
    return np.stack(
        [
            (inverse[..., 0, 0] - inverse[..., 1, 0]) * x[..., 0],
            -(inverse[..., 1, 1] - inverse[..., 0, 1]) * x[..., 1],
        ],
        -1,
    )


def toy(a1: float, W: Array, k_eta: float = PAPER) -> Toy:
    """Point a = (a1, 1 - a1) of class 1 after `k_eta` of the search: eq. 4."""
    x = W @ np.array([a1, 1 - a1])
    h = (1 + k_eta * slope(W, x)) * x
    coordinates = (np.linalg.inv(W) @ h[..., None])[..., 0]
    return Toy(x, h, coordinates[..., 0] - coordinates[..., 1])


def draw(out: Path, *, points: int = 401) -> Path:
    """Three rows: figure 1 (a quarter turn each way), figure 6 (whole turns), the CO score of both k eta."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    rows = figure.subplots(3, len(FIRST), sharey="row")
    for column, a1 in enumerate(FIRST):
        for row, reach in zip(rows[:2, column], (np.pi / 2, np.pi), strict=True):
            _components(row, a1, np.linspace(-reach, reach, points))
        _gains(rows[2, column], a1, np.linspace(-np.pi, np.pi, points))
        rows[0, column].set_title(f"a = ({a1:g}, {1 - a1:.2g})")
    for row, name in zip(rows[:, 0], ("figure 1: x and h", "figure 6: x and h", "CO score"), strict=True):
        row.set_ylabel(name)
    handles, labels = (a + b for a, b in zip(*(row.get_legend_handles_labels() for row in rows[1:, 0]), strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    return out


def _components(axes: matplotlib.axes.Axes, a1: float, angles: Array) -> None:
    W = rotation(angles)
    paper, published = toy(a1, W), toy(a1, W, PUBLISHED)
    for i, colour in enumerate(("tab:red", "tab:blue")):
        axes.plot(angles / np.pi, paper.x[:, i], color=colour, label=f"$x_{i + 1}$")
        axes.plot(angles / np.pi, paper.h[:, i], ":", color=colour, linewidth=2, label=f"$h_{i + 1}$, k eta 1.2")
        axes.plot(
            angles / np.pi, published.h[:, i], color=colour, linewidth=0.6, alpha=0.6, label=f"$h_{i + 1}$, k eta 1.44"
        )
    _angle(axes)


def _gains(axes: matplotlib.axes.Axes, a1: float, angles: Array) -> None:
    W = rotation(angles)
    for k_eta, style in ((0.0, "--"), (PAPER, "-"), (PUBLISHED, ":")):
        axes.plot(angles / np.pi, toy(a1, W, k_eta).gain, style, color="black", label=f"CO, k eta {k_eta:g}")
    _angle(axes)


def _angle(axes: matplotlib.axes.Axes) -> None:
    axes.axhline(0, color="grey", linewidth=0.5)
    for turn in (-0.75, -0.25, 0.25, 0.75):
        if axes.get_xlim()[0] < turn < axes.get_xlim()[1]:
            axes.axvline(turn, color="grey", linewidth=0.5, linestyle="--")
    axes.set_xlabel("angle / pi")


def main(arguments: list[str] | None = None) -> None:
    """Draw, and print the four points by which the closed form is checked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--points", type=int, default=401)
    options = parser.parse_args(arguments)
    for a1, turn in ((0.95, 0.0), (0.95, 0.25), (0.95, 0.5), (0.7, 0.125)):
        for k_eta in (PAPER, PUBLISHED):
            found = toy(a1, rotation(turn * np.pi), k_eta)
            print(f"a1 {a1:g}, angle {turn:g} pi, k eta {k_eta:g}: x {found.x}, h {found.h}, CO {found.gain:.4f}")
    print(draw(options.out, points=options.points))


if __name__ == "__main__":
    main()
