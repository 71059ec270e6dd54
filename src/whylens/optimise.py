"""Optimise: what methods share that search a mask by gradients of a score.

A mask says for each cell how much of the image is kept, 1 at the start. An objective is a sum of parts, each the mean
of the target's score on a path to a masked image, and of a penalty on the mask. Every image has its own masks, loss,
step and end: nothing of one reaches another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .passes import Baseline
from .probe import Probe

Optimizer = Literal["line_search", "nesterov"]

DECREASE = 1e-4
"""Share of the expected decrease that a step must bring (Armijo's constant)."""

DECAY = 0.2
"""A step that brings too little is shortened by this."""

ROUNDS = 60
"""Rounds in which a penalty is settled."""

SHORTEST = 1e-5
"""Below this share of the first step tried an image stays where it is."""


@dataclass(frozen=True)
class Part:
    """One score of an objective: what a mask keeps of each pixel ``(N, 1, H, W)``, and the score's weight.

    A deleting path ``k/S * kept`` leads from the baseline to the masked image; with `inserts` the path
    ``1 - k/S * (1 - kept)`` leads from the image to it.
    """

    kept: Tensor
    weight: float
    inserts: bool = False


@dataclass
class Objective:
    """What is minimised over masks ``(J, N, 1, h, w)``: the sum of `parts` and of `penalty` ``(N,)``.

    `steps` S points lie on each path; at each, noise of standard deviation `noise` in the net's normalised space is
    added, the same for all images, drawn by (seed, draw, point). `smooth` is the weight of the penalty's mean squared
    differences, from which its stiffness is known.
    """

    probe: Probe
    baseline: Baseline
    parts: Callable[[Tensor], Sequence[Part]]
    penalty: Callable[[Tensor], Tensor]
    smooth: float = 0.0
    steps: int = 1
    noise: float = 0.0
    seed: int = 0
    _drawn: tuple[int, Tensor] | None = field(default=None, repr=False)

    def __call__(self, masks: Tensor, images: Tensor, draw: int) -> Tensor:
        """Losses ``(N,)`` of the images numbered in `images` ``(A,)``; 0 elsewhere."""
        with torch.no_grad():
            return self._loss(self.parts(masks), self.penalty(masks), images, draw, None)

    def gradient(self, masks: Tensor, images: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """The same losses ``(N,)``, and the gradient of the parts alone ``(J, N, 1, h, w)``: integrated gradients."""
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            parts = self.parts(leaf)
            pulls = torch.zeros(len(parts), *parts[0].kept.shape, device=masks.device)
            loss = self._loss(parts, self.penalty(leaf), images, draw, pulls)
            total = sum((part.kept * pull).sum() for part, pull in zip(parts, pulls, strict=True))
            (gradient,) = torch.autograd.grad(total, leaf)
        return loss, gradient

    def settled(self, masks: Tensor, step: Tensor) -> Tensor:
        """Masks in [0, 1] that minimise ``|x - masks|² / (2 step) + penalty(x)``, `step` ``(N,)``; 0 leaves them.

        No pass of the net: accelerated gradient descent on the penalty alone, as many rounds for every image.
        """
        step = step.to(masks).view(1, -1, 1, 1, 1)
        stiffness = 16 * len(masks) * self.smooth / masks[0, 0].numel()  # squared differences have eigenvalues below 8
        length = 1 / (1 + step * stiffness)  # in units of the step
        momentum = (1 - length.sqrt()) / (1 + length.sqrt())
        x = before = masks.clamp(0, 1)
        for _ in range(ROUNDS if stiffness > 0 else 1):
            with torch.enable_grad():
                ahead = (x + momentum * (x - before)).detach().requires_grad_()
                (pull,) = torch.autograd.grad(self.penalty(ahead).sum(), ahead)
            before = x
            x = (ahead.detach() - length * (ahead.detach() - masks + step * pull)).clamp(0, 1)
        return x

    def _loss(self, parts: Sequence[Part], penalty: Tensor, images: Tensor, draw: int, pulls: Tensor | None) -> Tensor:
        """Losses ``(N,)``; the gradient with respect to what part t keeps is added to ``pulls[t]``."""
        frames, fills = self.probe.frames, self.baseline.frames.to(self.probe.frames)
        fills, noise = fills.expand_as(frames), self._noise(draw)
        part_of, share = torch.arange(len(parts)).repeat_interleave(self.steps), self._shares(len(parts))
        kept = [part.kept.detach().to(frames) for part in parts]

        def make(n: int, looks: slice) -> Tensor:
            shown = torch.stack([kept[t][n] for t in part_of[looks].tolist()])
            reach = share[looks].to(frames).view(-1, 1, 1, 1)
            inserting = torch.tensor([parts[t].inserts for t in part_of[looks].tolist()], device=frames.device)
            shown = torch.where(inserting.view(-1, 1, 1, 1), 1 - reach * (1 - shown), reach * shown)
            rows = torch.lerp(fills[n].expand(len(shown), -1, -1, -1), frames[n], shown)
            return rows if noise is None else rows.add_(noise[torch.arange(len(part_of))[looks] % self.steps])

        def take(n: int, looks: slice, gradient: Tensor) -> None:
            if pulls is not None:
                weights = torch.tensor([p.weight for p in parts])[part_of[looks]] * share[looks] / self.steps
                moved = (gradient.float() * (frames[n] - fills[n]).float()).sum(1, keepdim=True)
                moved = moved * weights.to(moved).view(-1, 1, 1, 1)
                pulls[:, n].index_add_(0, part_of[looks].to(pulls.device), moved)

        scores = self.probe.looks(len(part_of), make, images=images, take=None if pulls is None else take)
        means = scores.view(len(images), len(parts), self.steps).mean(2)
        loss = torch.zeros(len(self.probe))
        loss[images] = means @ torch.tensor([part.weight for part in parts]) + penalty.detach().cpu()[images]
        return loss

    def _shares(self, parts: int) -> Tensor:
        return (torch.arange(1, self.steps + 1) / self.steps).repeat(parts)

    def _noise(self, draw: int) -> Tensor | None:
        """Noise ``(S, C, H, W)`` of one draw, kept until another is asked for."""
        if self.noise == 0:
            return None
        if self._drawn is None or self._drawn[0] != draw:
            shape, preprocess = self.probe.frames.shape[1:], self.probe.model.preprocess
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
            noise = self.noise * torch.randn((self.steps, *shape), generator=rng)
            if preprocess is not None:
                std = torch.tensor(preprocess.std)
                noise *= (std.flip(0) if preprocess.order == "BGR" else std).view(-1, 1, 1)
            self._drawn = (draw, noise.to(self.probe.frames))
        return self._drawn[1]


@dataclass(frozen=True)
class Found:
    """Masks ``(J, N, 1, h, w)`` in [0, 1], and each image's loss before every iteration ``(T, N)``.

    In a line search `lowered` ``(T, N)`` is the loss after the step, under the same noise: never above.
    """

    masks: Tensor
    losses: Tensor
    lowered: Tensor


def descend(
    objective: Objective,
    start: Tensor,
    *,
    iterations: int,
    step: float,
    optimizer: Optimizer = "line_search",
    first: int = 0,
) -> Found:
    """Masks that lower the objective, from masks `start` ``(J, N, 1, h, w)``, each iteration under fresh noise.

    `first` is the number of the first draw.

    A step follows the gradient of the scores and then settles the penalty exactly, which may be as stiff as it likes
    (proximal gradient). "line_search" shortens the step until the loss falls as it should, judged under the noise of
    the gradient; the next iteration begins one size above what was taken. An image whose loss no step lowers twice in
    a row is done. "nesterov" takes every step whole, with momentum.
    """
    masks, count = start.clone(), start.shape[1]
    before, whole = masks, torch.full((count,), float(step))
    longest, stuck, losses, lowered = whole, torch.zeros(count), [], []
    for i in range(first, first + iterations):
        open_ = (stuck < 2).nonzero().flatten()
        if not len(open_):
            break
        if optimizer == "nesterov":
            ahead = (masks + (i - first) / (i - first + 3) * (masks - before)).clamp(0, 1)
            loss, gradient = objective.gradient(ahead, open_, i)
            before, masks, after = masks, objective.settled(ahead - step * gradient, whole), loss
        else:
            loss, gradient = objective.gradient(masks, open_, i)
            masks, taken, after = _shortened(objective, masks, gradient, loss, longest, open_, i, step * SHORTEST)
            stuck = torch.where(taken > 0, 0, stuck + 1)
            longest = torch.where(taken > 0, (taken / DECAY).clamp(max=step), whole)
        losses.append(_where_open(loss, open_))
        lowered.append(_where_open(after, open_))
    return Found(masks, torch.stack(losses), torch.stack(lowered))


def _shortened(
    objective: Objective,
    masks: Tensor,
    gradient: Tensor,
    loss: Tensor,
    first: Tensor,
    images: Tensor,
    draw: int,
    shortest: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Moved masks, the step ``(N,)`` each image took (0: none lowered its loss enough), and its loss ``(N,)`` there."""
    taken = torch.zeros_like(first).index_copy(0, images, first[images])
    after, moved, open_ = loss.clone(), masks.clone(), images
    while len(open_):
        tried = objective.settled(masks - taken.to(masks).view(1, -1, 1, 1, 1) * gradient, taken)
        way = (tried - masks).square().sum((0, 2, 3, 4)).cpu()
        reached = objective(tried, open_, draw)
        enough = reached[open_] <= loss[open_] - DECREASE * way[open_] / taken[open_]
        done, open_ = open_[enough], open_[~enough]
        after[done], moved[:, done] = reached[done], tried[:, done]
        taken[open_] *= DECAY
        taken[open_[taken[open_] < shortest]] = 0
        open_ = open_[taken[open_] > 0]
    return moved, taken, after


def _where_open(values: Tensor, images: Tensor) -> Tensor:
    return torch.full_like(values, torch.nan).index_copy(0, images, values[images])
