"""Owen values on a tree of units: Shapley values that keep together what lies together."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .. import hierarchy, regions, surrogate
from .._check import Range
from ..baseline import Choice, choose
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..regions import Kind
from ..surrogate import Value


@MethodFacts(needs=("scores",), unit="score", signed=True, forwards="max_evals + 10", backwards="0")
def partition_shap(
    probe: Probe,
    *,
    max_evals: Annotated[int, Range(2)] = 500,
    units: Kind = "grid",
    count: Annotated[int, Range(1)] = 196,
    baseline: Choice = "blur",
    value: Value = "score",
) -> Maps:
    """Owen values: Shapley values over the orders that show a tree of regions branch by branch.

    maps: (N, 1, H, W), unit: score, sign: both; a unit's value is spread over its pixels, so that a map adds up to the
    score's difference from the baseline. `parts` (N, 1, H, W): each pixel's unit.
    cost: `max_evals` forwards, no gradient.
    The tree halves the longer side of a grid of about `count` cells, or merges touching superpixels (`hierarchy`).
    Branches open by their effect times their weight; one left closed is spread evenly over its pixels.
    Checks: `difference`, `residual`, `opened` (branches).
    fails: on evidence split between far branches; what stays closed looks smooth.

    Source: Owen 1977; the shap package's PartitionExplainer.   Differs: branches open eight at a time.
    """
    found = regions.find(probe.frames, units, count=count)
    filled = choose(probe, baseline)
    seen: list[Tensor] = []

    def ask(masks: Tensor) -> Tensor:
        seen.append(probe.masked_scores(masks, filled, expand=found.expand, kind=value))
        return seen[-1]

    closed, opened = hierarchy.opened(ask, hierarchy.trees(probe.frames, found.labels, units), found.count, max_evals)
    values = torch.stack([hierarchy.spread(own, area) for own, area in zip(closed, found.area(), strict=True)])
    values[[surrogate.steady(own) for own in torch.cat(seen, 1)]] = 0
    checks = {**surrogate.adds_up(values, surrogate.explained(probe, filled, value)), "opened": opened}
    return surrogate.mapped(probe, found, surrogate.shared_out(found, values), None, filled, checks)
