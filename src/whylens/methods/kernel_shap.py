"""Shapley values of segments by least squares."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .. import regions, surrogate
from .._check import Range
from ..baseline import Choice, choose
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..regions import Kind
from ..surrogate import Subsets, Value


@MethodFacts(needs=("scores",), unit="score", signed=True, forwards="2 * count + samples + 12", backwards="0")
def kernel_shap(
    probe: Probe,
    *,
    samples: Annotated[int, Range(0)] = 2048,
    units: Kind = "slic",
    count: Annotated[int, Range(1)] = 50,
    baseline: Choice = "mean",
    value: Value = "score",
    seed: int = 0,
) -> Maps:
    """Shapley values of segments: the linear model that the Shapley kernel weighs and the ends fix.

    maps: (N, 1, H, W), unit: score, sign: both; a segment's value is spread over its pixels, so that a map adds up to
    the score's difference from the baseline. `parts` (N, 2, H, W): each pixel's segment, the standard error of its
    value.   cost: 2 * `count` + `samples` masks, no gradient; exact where that is 2^M - 2, M segments.
    Checks: `difference`, `residual`; `error`, the mean standard error over the largest value.
    fails: where removed segments leave torn images that the net never saw.

    Source: Lundberg & Lee 2017, arXiv:1705.07874, theorem 2; paired draws as in the shap package.
    Differs: no feature selection; draws are shared in a batch.
    """
    found = regions.find(probe.frames, units, count=count, seed=seed)
    filled = choose(probe, baseline, seed=seed)
    sizes = found.counts.tolist()
    chosen = {m: surrogate.subsets(m, 2 * count + samples, seed=seed) for m in dict.fromkeys(sizes)}
    scores = probe.masked_scores(_masks(chosen, sizes, found.count), filled, expand=found.expand, kind=value)
    fits = [
        surrogate.shapley(chosen[m], own[2 : 2 + len(chosen[m].masks)], own[:2])
        for m, own in zip(sizes, scores, strict=True)
    ]
    values, errors = surrogate.table(fits, found.count)
    checks = {
        **surrogate.adds_up(values, surrogate.explained(probe, filled, value)),
        "error": surrogate.share_of_largest(errors, values, found.counts),
    }
    return surrogate.mapped(probe, found, surrogate.shared_out(found, values), errors, filled, checks)


def _masks(chosen: dict[int, Subsets], sizes: list[int], units: int) -> Tensor:
    """Nothing, everything and the subsets of each image, shared ``(M, U)`` where all images have as many units.

    Rows that one image has more than another are filled up with everything, which is scored once.
    """
    rows = max(len(subsets.masks) for subsets in chosen.values())
    masks = {m: torch.ones(rows + 2, units) for m in chosen}
    for m, subsets in chosen.items():
        masks[m][0] = 0
        masks[m][2 : 2 + len(subsets.masks)] = torch.nn.functional.pad(subsets.masks, (0, units - m), value=1.0)
    return masks[sizes[0]] if len(masks) == 1 else torch.stack([masks[m] for m in sizes])
