"""What a student of the black box needs to see of the image, learnt from its answers alone."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .. import regions, surrogate
from .._check import Range
from .._state import own_precision
from ..contract import Maps, MethodFacts
from ..passes import Baseline
from ..probe import Probe
from ..regions import Kind, Regions
from ..residual import keeps_target
from ..student import Learnt, Price, learn, lesson
from ..surrogate import CHUNK, Fill, Value

LEARNT = 0.8
"""R² on copies not learnt from, below which the student did not follow the black box."""

FLAT = 0.05
"""Spread of a mask up to which it chose nothing: its mean stands for it."""


@MethodFacts(needs=("scores",), unit="share kept", signed=False, forwards="samples + 10", backwards="0")
def dax(
    probe: Probe,
    *,
    samples: Annotated[int, Range(10)] = 1000,
    units: Kind = "slic",
    count: Annotated[int, Range(1)] = 50,
    baseline: Fill = "mean",
    width: Annotated[float, Range(0.01)] = 0.25,
    value: Value = "probability",
    steps: Annotated[int, Range(1)] = 300,
    area: Annotated[float, Range(0.0)] = 0.5,
    change: Annotated[float, Range(0.0)] = 0.1,
    undecided: Annotated[float, Range(0.0)] = 0.1,
    seed: int = 0,
) -> Maps:
    """Mask of what a small student net must see of copies with segments removed, to say what the black box says.

    maps: (N, 1, h, w), h and w at most 64, unit: share kept, sign: >= 0, for and against alike.   cost: `samples`
    forwards, no gradient of the model; its own two nets take `steps` steps per image on area-pooled copies.
    `area`, `change` (within segments) and `undecided` are the mask's price in shares of the scores' variance.
    Checks: `student_r_squared` on a fifth of the draws that is not learnt from; `mask_area`.
    fails: where that R² is low, as on photos whose evidence is spread; the mask does not say which way it speaks.

    Source: our reading of the abstract of DAX, arXiv:2409.11123, and LIME's kernel.   Differs: noise on what the
    student sees; copies enter less their fill; where the mask hardly varies it is its mean.
    """
    found = regions.find(probe.frames, units, count=count, seed=seed)
    filled = surrogate.filled(probe, found, baseline, units=surrogate.spoken(units, count, seed), seed=seed)
    chunks = [surrogate.draws(k, found.count, seed=seed) for k in range(-(-samples // CHUNK))]
    masks = torch.cat(chunks)[:samples].clone()
    masks[0] = 1
    scores = probe.masked_scores(surrogate.own(masks, found), filled, expand=found.expand, kind=value)
    price = Price(area, change, undecided)
    learnt = [_learnt(probe, filled, found, n, masks, scores[n], width, price, steps, seed) for n in range(len(probe))]
    r_squared = torch.tensor([one.r_squared for one in learnt])
    maps = torch.stack([one.mask for one in learnt])[:, None]
    checks = {
        "student_r_squared": r_squared,
        "student_fails": r_squared < LEARNT,
        "mask_area": maps.mean((1, 2, 3)),
        **keeps_target(probe, filled),
    }
    spread = maps.amax((2, 3), keepdim=True) - maps.amin((2, 3), keepdim=True)
    maps = torch.where(spread <= FLAT, maps.mean((2, 3), keepdim=True), maps)
    return Maps(maps.to(probe.frames), checks=checks, extra={"baseline": filled.name})


def _learnt(
    probe: Probe,
    filled: Baseline,
    found: Regions,
    n: int,
    masks: Tensor,
    scores: Tensor,
    width: float,
    price: Price,
    steps: int,
    seed: int,
) -> Learnt:
    """What the networks of image `n` learn; a constant score teaches nothing, and nothing is shown."""
    own = masks[:, : int(found.counts[n])]
    with own_precision(probe.model.net), torch.enable_grad():
        given = lesson(probe.frames.clone(), filled, found, n, own, scores, surrogate.nearness(own, width))
        if surrogate.steady(scores):
            return Learnt(torch.zeros_like(given.picture[0]), 1.0)
        return learn(given, price, steps=steps, seed=seed)
