"""Hierarchy: a binary tree over the units of an image, by halving a grid or merging neighbours, and values on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .regions import Kind

TOGETHER = 8
"""Branches of an image opened between two looks at which matter most; the same for any batch."""

_TIE = 1e-5  # share by which effects must differ for one to be larger


@dataclass(frozen=True)
class Node:
    """Some units, and the two nodes they are shared out to; a single unit has none."""

    units: tuple[int, ...]
    halves: tuple[Node, Node] | None = None


def trees(frames: Tensor, labels: Tensor, units: Kind) -> list[Node]:
    """The tree of each image ``(C, H, W)`` over its units ``(H, W)``: halves of a grid, or merged superpixels."""
    if units == "grid":
        rows, columns = (len(torch.unique(line)) for line in (labels[0, :, 0], labels[0, 0]))
        return [halving(rows, columns)] * len(frames)
    return [merging(own, frame) for own, frame in zip(labels, frames, strict=True)]


def halving(rows: int, columns: int) -> Node:
    """A grid of cells, its longer side halved again and again, rows first where both are equal."""
    return _halved(torch.arange(rows * columns).view(rows, columns))


def _halved(cells: Tensor) -> Node:
    units = tuple(cells.flatten().tolist())
    if len(units) == 1:
        return Node(units)
    axis = 0 if cells.shape[0] >= cells.shape[1] else 1
    middle = cells.shape[axis] // 2
    first, second = torch.split(cells, [middle, cells.shape[axis] - middle], axis)
    return Node(units, (_halved(first), _halved(second)))


def merging(labels: Tensor, frame: Tensor) -> Node:
    """Segments ``(H, W)`` of a frame ``(C, H, W)``, the two most alike neighbours merged again and again.

    Alike is Ward's criterion: of all pairs that touch, the one whose union raises least the squared distances of
    pixels to their segment's mean, in colour and in place (in shares of the longer side).
    """
    count, size, mean = _means(labels, frame)
    nodes = [Node((k,)) for k in range(count)]
    touching = _touching(labels)
    alive = set(range(count))
    while len(alive) > 1:
        a, b = min(touching, key=lambda pair: (_rise(size, mean, *pair), pair))
        new = len(nodes)
        nodes.append(Node((*nodes[a].units, *nodes[b].units), (nodes[a], nodes[b])))
        both = size[a] + size[b]
        mean.append([(size[a] * p + size[b] * q) / both for p, q in zip(mean[a], mean[b], strict=True)])
        size.append(both)
        alive = alive - {a, b} | {new}
        renamed = {tuple(sorted(new if k in (a, b) else k for k in pair)) for pair in touching}
        touching = {(p, q) for p, q in renamed if p != q}
    return nodes[-1]


def _means(labels: Tensor, frame: Tensor) -> tuple[int, list[float], list[list[float]]]:
    """How many segments; of each its share of the frame and its mean colour and place."""
    H, W = labels.shape
    down, across = torch.meshgrid(torch.arange(H) / max(H, W), torch.arange(W) / max(H, W), indexing="ij")
    features = torch.cat([frame.detach().cpu().double(), down[None], across[None]]).flatten(1)
    flat, count = labels.flatten(), int(labels.max()) + 1
    pixels = torch.zeros(count, dtype=torch.double).index_add_(0, flat, torch.ones(len(flat), dtype=torch.double))
    total = torch.zeros(count, len(features), dtype=torch.double).index_add_(0, flat, features.T)
    return count, (pixels / len(flat)).tolist(), (total / pixels[:, None]).tolist()


def _touching(labels: Tensor) -> set[tuple[int, int]]:
    """Pairs of segments that share an edge of a pixel."""
    beside = torch.stack([labels[:, :-1].flatten(), labels[:, 1:].flatten()], 1)
    below = torch.stack([labels[:-1].flatten(), labels[1:].flatten()], 1)
    pairs = torch.unique(torch.cat([beside, below]).sort(1).values, dim=0)
    return {(int(p), int(q)) for p, q in pairs.tolist() if p != q}


def _rise(size: list[float], mean: list[list[float]], a: int, b: int) -> float:
    distance = sum((p - q) ** 2 for p, q in zip(mean[a], mean[b], strict=True))
    return size[a] * size[b] / (size[a] + size[b]) * distance


# ---- Owen values -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """A node seen beside a context ``(U,)``: the score without it and with it, and its share of all orders."""

    node: Node
    context: Tensor
    without: float
    with_it: float
    weight: float

    @property
    def credit(self) -> float:
        """What the node adds, by its share."""
        return self.weight * (self.with_it - self.without)

    def masks(self) -> Tensor:
        """The context with the first half, and with the second ``(2, U)``."""
        masks = self.context.repeat(2, 1)
        for mask, half in zip(masks, self.node.halves or (), strict=True):
            mask[list(half.units)] = 1
        return masks

    def parts(self, first: float, second: float) -> list[Branch]:
        """Each half beside the context, without the other half and with it, from the scores with one half."""
        (with_first, with_second), halves = self.masks(), self.node.halves or ()
        weight = self.weight / 2
        ends = ((self.without, first, second), (self.without, second, first))
        others = (with_second, with_first)
        return [
            branch
            for half, other, (none, one, another) in zip(halves, others, ends, strict=True)
            for branch in (
                Branch(half, self.context, none, one, weight),
                Branch(half, other, another, self.with_it, weight),
            )
        ]


def opened(
    ask: Callable[[Tensor], Tensor], trees: list[Node], units: int, most: int
) -> tuple[list[list[Branch]], Tensor]:
    """The branches of each image that stay closed after `most` scores, and how many were opened ``(N,)``.

    Their credits add up to the score of everything less that of nothing. `ask` scores masks ``(N, M, U)`` or
    ``(M, U)`` → ``(N, M)``. The largest credits open first.
    """
    nothing = torch.zeros(units)
    ends = ask(torch.stack([nothing, nothing + 1])).tolist()
    closed = [
        [Branch(tree, nothing, without, with_it, 1.0)] for tree, (without, with_it) in zip(trees, ends, strict=True)
    ]
    done = [0] * len(trees)
    while True:
        chosen = [_next(own, min(TOGETHER, most // 2 - 1 - k)) for own, k in zip(closed, done, strict=True)]
        rows = 2 * max(map(len, chosen))
        if not rows:
            return closed, torch.tensor(done, dtype=torch.float32)
        masks = torch.zeros(len(trees), rows, units)
        for own, branches in zip(masks, chosen, strict=True):
            for k, branch in enumerate(branches):
                own[2 * k : 2 * k + 2] = branch.masks()
            own[2 * len(branches) :] = own[:1]  # seen already: costs nothing
        scores = ask(masks).tolist()
        for n, branches in enumerate(chosen):
            new = [part for k, b in enumerate(branches) for part in b.parts(*scores[n][2 * k : 2 * k + 2])]
            closed[n] = [b for b in closed[n] if not any(b is c for c in branches)] + new
            done[n] += len(branches)


def spread(branches: list[Branch], area: Tensor) -> Tensor:
    """Values of units ``(U,)``: what each closed branch adds, shared out by the units' areas ``(U,)``."""
    values, area = torch.zeros(len(area), dtype=torch.double), area.double()
    for branch in branches:
        inside = torch.tensor(branch.node.units)
        values[inside] += branch.credit * area[inside] / area[inside].sum()
    return values.float()


def _next(branches: list[Branch], most: int) -> list[Branch]:
    """The branches with the largest effects that can be opened, at most so many; of equal ones the older."""
    able = [b for b in branches if b.node.halves is not None]
    if len(able) <= most or most < 1:
        return able if most > 0 else []
    bar = sorted((abs(b.credit) for b in able), reverse=True)[most - 1]
    sure = [b for b in able if abs(b.credit) > bar * (1 + _TIE)]
    even = [b for b in able if bar * (1 - _TIE) <= abs(b.credit) <= bar * (1 + _TIE)]
    return sure + even[: most - len(sure)]
