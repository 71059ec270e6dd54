"""A picture of an attention graph: levels from the roots down, what is hidden dark, the patch that went outlined."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .explanation import FLAGS
from .sheet import GREY, RED, Text, fit
from .words import share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .attention import AttentionGraph, Edge, Node

HIDDEN = 0.1
"""Brightness left of what is not shown."""

_SIDE, _GAP, _DROP, _MARGIN, _LINE = 1.25, 0.3, 0.62, 0.25, 0.17  # inches
_STEPS = ((0.9, "#1a7f37", "solid"), (0.5, "#b26a00", "dashed"), (0.0, GREY, "dotted"))
"""From which relative score on a node has this frame."""


def graph_figure(graph: AttentionGraph, *, most: int = 6) -> tuple[Figure, Axes]:
    """The graph and the axes of its first node; at most `most` nodes a level, reached from nodes that are shown.

    A level is a number of patches shown. Each node says how much of the whole image's score it keeps, in figures and
    by the style of its frame; the patch that went since its first parent is outlined. What is left out is counted.
    """
    shown = _shown(graph, most)
    heads = _heads(graph)
    width = 2 * _MARGIN + max(4, *map(len, shown.values()), 1) * (_SIDE + _GAP)
    lines = [line for text in heads for line in [(text, part) for part in fit(text, width - 2 * _MARGIN)]]
    top = _MARGIN + _LINE * (len(lines) + 0.5)
    tall = _SIDE * graph.subject.size[0] / graph.subject.size[1]
    height = top + max(1, len(shown)) * (tall + _DROP) + _MARGIN
    page = _Page(graph, width, height, tall)
    for number, (text, part) in enumerate(lines):
        page.write(part, _MARGIN, _MARGIN + _LINE * number, text)
    places = page.places(shown, top)
    page.arrows(places)
    first = None
    for node, (left, down) in places.items():
        axes = page.node(graph.nodes[node], left, down)
        first = first or axes
    for row, left_out in zip(shown.values(), _left_out(graph, shown), strict=True):
        if left_out:
            left, down = places[row[-1]]
            page.write(f"+{left_out} more", left + _SIDE, down + tall + 0.05, Text("", 7, GREY), "right")
    return page.figure, first or page.figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])


def _heads(graph: AttentionGraph) -> list[Text]:
    about = graph.subject
    left = f"{graph.baseline}, which alone keeps {share(graph.baseline_score)}"
    said = [
        Text(f"{about.image}: {about.target_name}", 10, bold=True),
        Text(f"{about.model}, {share(graph.score_full)} for the whole image. Hidden parts are filled with {left}.", 8),
        Text(_counted(graph), 8),
    ]
    said += [Text(f"{flag.replace('_', ' ')}: {FLAGS.get(flag, flag)}", 8, RED) for flag in graph.flags]
    return said


def _counted(graph: AttentionGraph) -> str:
    roots, kept = len(graph.roots), f"more than {graph.threshold:.0%} of it"
    if not roots:
        return f"No set of patches was found that alone keeps {kept}; the search ended at {graph.stops['search']}."
    sets = "set of patches alone keeps" if roots == 1 else "sets of patches alone keep"
    cut = " The limit on nodes cut the graph short." if graph.truncated else ""
    return f"{roots} {sets} {kept}, and not with any one patch less.{cut}"


# ---- what is shown -------------------------------------------------------------------------------------------


def _shown(graph: AttentionGraph, most: int) -> dict[int, list[int]]:
    """Ids of the nodes shown, by how many patches they show, most first: the roots, then the best of their kin."""
    below: dict[int, list[int]] = {}
    for edge in graph.edges:
        below.setdefault(edge.parent, []).append(edge.child)
    levels: dict[int, list[int]] = {}
    waiting = {node.id for node in graph.roots}
    for size in range(max((len(n.patches) for n in graph.roots), default=-1), -1, -1):
        here = [graph.nodes[i] for i in waiting if len(graph.nodes[i].patches) == size]
        here.sort(key=lambda node: (not node.root, -node.score, node.id))
        if here:
            levels[size] = [node.id for node in here[:most]]
            waiting |= {child for node in here[:most] for child in below.get(node.id, ())}
    return levels


def _left_out(graph: AttentionGraph, shown: dict[int, list[int]]) -> list[int]:
    """Nodes of each level that are not shown."""
    return [sum(len(node.patches) == size for node in graph.nodes) - len(row) for size, row in shown.items()]


@dataclass
class _Page:
    """Places things on a figure in inches from its upper left corner."""

    graph: AttentionGraph
    width: float
    height: float
    tall: float

    def __post_init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(self.width, self.height), dpi=110, facecolor="white")
        self.labels = self.graph.subject.labels()
        self.photo = _pixels(self.graph)
        self.first: dict[int, Edge] = {}
        for edge in self.graph.edges:
            self.first.setdefault(edge.child, edge)

    def write(self, words: str, left: float, down: float, text: Text, align: Any = "left") -> None:
        self.figure.text(
            left / self.width, 1 - down / self.height, words, fontsize=text.size, color=text.colour, va="top", ha=align,
            fontweight="bold" if text.bold else "normal", family="DejaVu Sans", parse_math=False, usetex=False,
        )  # fmt: skip

    def places(self, shown: dict[int, list[int]], top: float) -> dict[int, tuple[float, float]]:
        """Left and top of each node; the nodes of a level stand in the order of their shown parents."""
        found: dict[int, tuple[float, float]] = {}
        for level, row in enumerate(shown.values()):
            mean = {i: self._above(i, found) for i in row}
            row.sort(key=lambda i: (mean[i], i))
            start = (self.width - len(row) * (_SIDE + _GAP) + _GAP) / 2
            found |= {i: (start + k * (_SIDE + _GAP), top + level * (self.tall + _DROP)) for k, i in enumerate(row)}
        return found

    def _above(self, node: int, places: dict[int, tuple[float, float]]) -> float:
        over = [places[e.parent][0] for e in self.graph.edges if e.child == node and e.parent in places]
        return float(np.mean(over)) if over else 0.0

    def arrows(self, places: dict[int, tuple[float, float]]) -> None:
        from matplotlib.patches import FancyArrowPatch

        for edge in self.graph.edges:
            if edge.parent in places and edge.child in places:
                (a, b), (c, d) = places[edge.parent], places[edge.child]
                ends = [((a + _SIDE / 2), b + self.tall + 0.2), (c + _SIDE / 2, d - 0.02)]
                start, end = ((x / self.width, 1 - y / self.height) for x, y in ends)
                colour = "#999999" if self.first[edge.child] is edge else "#cccccc"
                self.figure.add_artist(
                    FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, color=colour, linewidth=0.8)
                )

    def node(self, node: Node, left: float, down: float) -> Axes:
        at = (left / self.width, 1 - (down + self.tall) / self.height, _SIDE / self.width, self.tall / self.height)
        axes = self.figure.add_axes(at)
        kept = np.isin(self.labels, node.patches)[..., None]
        axes.imshow(np.where(kept, self.photo, HIDDEN * self.photo), aspect="auto", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        _, colour, style = next(step for step in _STEPS if node.relative > step[0] or step[0] == 0)
        for spine in axes.spines.values():
            spine.set(linewidth=2.4 if node.root else 1.4, color=colour, linestyle=style)
        if node.id in self.first and not node.root:
            gone = np.pad(self.labels == self.first[node.id].removed, 1).astype(float)
            across, down_ = (np.arange(-1, n - 1) for n in (gone.shape[1], gone.shape[0]))
            axes.contour(across, down_, gone, [0.5], colors=[RED], linewidths=1.2)
            axes.set(xlim=(-0.5, self.labels.shape[1] - 0.5), ylim=(self.labels.shape[0] - 0.5, -0.5))
        words = f"{node.relative:.0%}" + (", enough" if node.root else "")
        self.write(words, left + _SIDE / 2, down + self.tall + 0.05, Text("", 8, bold=node.root), "center")
        return axes


def _pixels(graph: AttentionGraph) -> NDArray[Any]:
    """The frame in colours ``(H, W, 3)`` in [0, 1]; plain grey where it was not kept."""
    if graph.subject.photo is None:
        return np.full((*graph.subject.size, 3), 0.7)
    from PIL import Image

    return np.asarray(Image.open(BytesIO(graph.subject.photo)).convert("RGB")) / 255
