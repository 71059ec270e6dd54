"""The smallest smooth part of the image whose replacement takes the target away, learnt by gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .. import penalty
from .._check import Range
from ..baseline import Choice, blur, choose
from ..contract import Maps, MethodFacts
from ..mask_search import cells, ends
from ..passes import Baseline
from ..probe import Probe
from ..residual import keeps_target

RADII = 35
"""Discs tried for the start, from nothing to the whole frame."""

GONE = 0.01
"""Share of the score's fall, down to which a disc must take it to be the start."""


@MethodFacts(
    needs=("input gradient",),
    unit="removed share",
    signed=False,
    forwards="iterations + 50",
    backwards="iterations",
)
def meaningful_perturbation(
    probe: Probe,
    *,
    size: Annotated[int, Range(2)] = 28,
    iterations: Annotated[int, Range(1)] = 300,
    area: Annotated[float, Range(0.0)] = 0.08,
    smooth: Annotated[float, Range(0.0)] = 8.0,
    power: Annotated[float, Range(1.0)] = 3.0,
    rate: Annotated[float, Range(1e-6)] = 0.1,
    jitter: Annotated[int, Range(1)] = 4,
    baseline: Choice = "auto",
    seed: int = 0,
) -> Maps:
    """What a mask removes that lowers the target's probability however the image is shifted by a few pixels.

    maps: (N, 1, h, w), unit: removed share, sign: >= 0; `size` counts cells along the shorter side.
    cost: `iterations` forwards and backwards, 35 forwards for the start.
    Adam at `rate` on probability + `area` x removed share + `smooth` x mean (squared step down and across)^(power / 2),
    the image shifted anew each time by one of `jitter` whole pixels around 0, down and across; starts from the smallest
    disc whose removal is enough.
    Checks: `deleted`, `inserted`: the probability without the evidence, and with nothing else.
    fails: on evidence off the centre that is small beside the disc; where the baseline keeps the target (flagged).

    Source: Fong & Vedaldi 2017, arXiv:1704.03296.   Differs: weights are of means over cells (theirs, of
    sums over 28 x 28, are these over 784); the gradient passes the mask's blur; the baseline is searched.
    """
    filled = choose(probe, baseline, seed=seed)
    size_ = probe.frames.shape[2:]
    masks = _disc(probe, filled, cells(size, probe.frames))
    rng = torch.Generator().manual_seed(seed)
    shifts = torch.randint(0, jitter, (iterations, 2), generator=rng) - jitter // 2
    mean, square = torch.zeros_like(masks), torch.zeros_like(masks)
    for i in range(iterations):
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            over = _over(leaf, size_)
            price = area * penalty.removed(leaf) + smooth * penalty.roughness(leaf, power)
            total = (over * _pull(probe, filled, over.detach(), shifts[i].tolist())).sum() + price.sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        moved = (mean / (1 - 0.9 ** (i + 1))) / ((square / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
        masks = (masks - rate * moved).clamp(0, 1)
    checks = {**ends(probe, filled, _over(masks, size_)), **keeps_target(probe, filled)}
    return Maps(1 - masks, checks=checks, extra={"baseline": filled.name})


def _pull(probe: Probe, filled: Baseline, over: Tensor, shift: list[int]) -> Tensor:
    """Gradient ``(N, 1, H, W)`` of the probability with respect to what is kept of each pixel of the shifted image."""
    frames, fills = (_shifted(t.to(probe.frames), shift) for t in (probe.frames, filled.frames))
    fills, pulls = fills.expand_as(frames), torch.zeros_like(over)

    def make(n: int, _looks: slice) -> Tensor:
        return torch.lerp(fills[n], frames[n], over[n].to(frames))[None]

    def take(n: int, _looks: slice, gradient: Tensor) -> None:
        pulls[n] = (gradient[0].float() * (frames[n] - fills[n]).float()).sum(0, keepdim=True)

    probe.looks(1, make, take=take)
    return pulls


def _shifted(frames: Tensor, shift: list[int]) -> Tensor:
    """Frames moved down and across by so many pixels, their border repeated."""
    H, W = frames.shape[2:]
    down, across = shift
    rows = (torch.arange(H, device=frames.device) - down).clamp(0, H - 1)
    columns = (torch.arange(W, device=frames.device) - across).clamp(0, W - 1)
    return frames[:, :, rows][:, :, :, columns]


def _over(masks: Tensor, size: torch.Size) -> Tensor:
    """Masks ``(N, 1, h, w)`` over the frame: repeated, then blurred as 5 pixels blur a frame of 224 rows."""
    return blur(F.interpolate(masks, size=tuple(size), mode="nearest-exact"), 5 * size[0] / 224)


def _disc(probe: Probe, filled: Baseline, shape: tuple[int, int]) -> Tensor:
    """Masks ``(N, 1, *shape)`` less the smallest centred disc whose removal takes the target; ones if none does."""
    H, W = probe.frames.shape[2:]
    away = torch.hypot(torch.arange(H)[:, None] - (H - 1) / 2, torch.arange(W)[None, :] - (W - 1) / 2)
    radii = torch.linspace(0, float(away.max()) + 1, RADII)
    discs = (away >= radii.view(-1, 1, 1)).float()[:, None]
    kept = blur(discs, 10 * H / 224)
    kept[0], kept[-1] = 1, 0
    scores = probe.masked_scores(torch.eye(RADII), filled, expand=_pick(kept))
    fall = scores[:, :1] - scores[:, -1:]
    left = (scores - scores[:, -1:]) / fall.clamp(min=1e-12)
    chosen = torch.where(fall[:, 0] > 1e-6, (left < GONE).float().argmax(1), 0)
    return F.interpolate(kept[chosen].to(probe.frames).float(), size=shape, mode="nearest-exact")


def _pick(kept: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Lays out disc k of all, one-hot."""
    return lambda masks, _images: kept.to(masks)[masks.argmax(1)]
