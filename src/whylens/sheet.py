"""Sheet: pictures in columns with texts under them, measured first, so that nothing overlaps or is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WIDTH = 2.5  # inches of a column
_TALLEST = 1.5  # rows per column at most, so that a portrait does not push the rest away
_GAP, _MARGIN, _BAR = 0.22, 0.15, 0.07
_LEADING = 1.35 / 72  # inches per point of a text line
_FONT = "DejaVu Sans"  # comes with matplotlib
GREY, RED = "#666666", "#b00020"


@dataclass(frozen=True)
class Text:
    """One paragraph; past `most` lines its middle gives way to an ellipsis."""

    text: str
    size: float = 8
    colour: str = "#111111"
    bold: bool = False
    most: int = 2


@dataclass(frozen=True)
class Cell:
    """A picture (uint8), or bars with names, or neither; a colour bar ``(steps, 3)``; texts."""

    picture: NDArray[Any] | None = None
    bars: Sequence[tuple[str, float]] = ()
    bar: NDArray[Any] | None = None
    texts: Sequence[Text] = field(default_factory=tuple)

    @property
    def shape(self) -> tuple[float, float]:
        """Height and width in inches of what stands above the texts."""
        if self.picture is None:
            return (max(0.6, 0.17 * len(self.bars) + 0.05), WIDTH)
        rows, columns = self.picture.shape[:2]
        height = min(WIDTH * rows / columns, WIDTH * _TALLEST)
        return height, min(WIDTH, height * columns / rows)


def lay_out(
    heads: Sequence[Sequence[Text]], lines: Sequence[Sequence[Cell | None]], foot: Sequence[Text]
) -> tuple[Figure, list[list[Axes | None]]]:
    """Heads over columns, lines of cells, a footer across: the figure, and the axes of every cell's picture."""
    from matplotlib.figure import Figure

    width = 2 * _MARGIN + len(heads) * WIDTH + (len(heads) - 1) * _GAP
    across = width - 2 * _MARGIN
    top = max(_height(head) for head in heads) + 0.06
    tall = [max(cell.shape[0] for cell in line if cell) for line in lines]
    below = [max(_under(cell) for cell in line if cell) for line in lines]
    height = 2 * _MARGIN + top + sum(tall) + sum(below) + _GAP * (len(lines) - 1)
    height += _height(foot, across) + (0.15 if foot else 0)
    pen = _Pen(Figure(figsize=(width, height), dpi=110, facecolor="white"), width, height)
    for column, head in enumerate(heads):
        pen.write(head, _left(column), _MARGIN)
    y, axes = _MARGIN + top, []
    for line, above, under in zip(lines, tall, below, strict=True):
        axes.append([None if c is None else pen.cell(c, _left(i), y + above) for i, c in enumerate(line)])
        y += above + under + _GAP
    pen.write(foot, _MARGIN, y - _GAP + 0.15, across)
    return pen.figure, axes


def fit(text: Text, width: float = WIDTH) -> list[str]:
    """The paragraph broken into lines of at most `width` inches."""
    whole = " ".join(text.text.encode("utf-8", "replace").decode().split())
    broken, keep = _broken(whole, width * 72, text), len(whole)
    while len(broken) > text.most:
        keep = min(keep - 1, int(keep * (text.most + 0.5) / len(broken)))
        head = keep // 2
        broken = _broken(whole[:head].rstrip() + "…" + whole[len(whole) - (keep - head) :].lstrip(), width * 72, text)
    return broken


class _Pen:
    """Places things on a figure in inches from its upper left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def write(self, texts: Sequence[Text], left: float, y: float, width: float = WIDTH) -> None:
        for text in texts:
            for line in fit(text, width):
                self.figure.text(
                    left / self.width, 1 - y / self.height, line, fontsize=text.size, color=text.colour, va="top",
                    fontweight="bold" if text.bold else "normal", family=_FONT, parse_math=False, usetex=False,
                )  # fmt: skip
                y += text.size * _LEADING

    def cell(self, cell: Cell, left: float, bottom: float) -> Axes:
        """Draw a cell whose picture ends at `bottom`."""
        height, width = cell.shape
        axes = self.axes(left, bottom - height, width, height)
        if cell.picture is not None:
            axes.imshow(cell.picture, aspect="auto")
        elif cell.bars:
            self.bars(axes, cell.bars)
        else:
            axes.set_facecolor("#eeeeee")
        y = bottom + 0.05
        if cell.bar is not None:
            bar = self.axes(left, y, WIDTH, _BAR)
            bar.imshow(cell.bar[None], aspect="auto")
            y += _BAR + 0.03
        self.write(cell.texts, left, y)
        return axes

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=0.5, color="#bbbbbb")
        return axes

    def bars(self, axes: Axes, bars: Sequence[tuple[str, float]]) -> None:
        """Horizontal bars, the first on top, in the right part; their names in the left."""
        values = np.array([value for _, value in bars])
        low, high = min(0.0, values.min()), max(0.0, values.max())
        span = (high - low) or 1.0
        axes.barh(-np.arange(len(bars)), values, color=np.where(values < 0, "#2a5fd0", "#d0392a"), height=0.7)
        axes.axvline(0, color="#111111", linewidth=0.5)
        axes.set_xlim(low - 0.75 * span, high + 0.03 * span)
        axes.set_ylim(0.45 - len(bars), 0.55)
        for position, (name, _) in enumerate(bars):
            label = fit(Text(name, size=7, most=1), WIDTH * 0.4)
            axes.text(
                low - 0.72 * span, -position, "".join(label), fontsize=7, va="center", color="#111111", family=_FONT,
                parse_math=False, usetex=False,
            )  # fmt: skip


def _left(column: int) -> float:
    return _MARGIN + column * (WIDTH + _GAP)


def _height(texts: Sequence[Text], width: float = WIDTH) -> float:
    return sum(len(fit(text, width)) * text.size * _LEADING for text in texts)


def _under(cell: Cell) -> float:
    return 0.05 + (0 if cell.bar is None else _BAR + 0.03) + _height(cell.texts)


def _broken(text: str, points: float, style: Text) -> list[str]:
    """Greedy lines, broken after spaces and separators, within a word where it alone is too long."""
    lines = [""]
    for chunk in re.findall(r"[^\s,:/_-]*[\s,:/_-]+|[^\s,:/_-]+", text):
        if _measure((lines[-1] + chunk).rstrip(), style.size, style.bold) <= points:
            lines[-1] += chunk
            continue
        lines += [""] if lines[-1] else []
        for letter in chunk:
            if lines[-1] and _measure((lines[-1] + letter).rstrip(), style.size, style.bold) > points:
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines]


@lru_cache(maxsize=4096)
def _measure(text: str, size: float, bold: bool) -> float:
    """Width in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, False)[0])
