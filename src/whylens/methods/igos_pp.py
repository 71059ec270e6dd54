"""The smallest mask that takes the target away when removed and brings it back when alone."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from torch import Tensor

from .. import penalty
from .._check import Range
from ..baseline import Choice, choose
from ..contract import Maps, MethodFacts
from ..mask_search import Search, enlarged
from ..optimise import Optimizer, Part
from ..probe import Probe


@MethodFacts(
    needs=("input gradient",),
    unit="removed share",
    signed=False,
    forwards="4 * starts * (9 * iterations + 1) * steps + 14",
    backwards="4 * starts * iterations * steps",
)
def igos_pp(
    probe: Probe,
    *,
    size: Annotated[int, Range(2)] = 28,
    iterations: Annotated[int, Range(1)] = 10,
    steps: Annotated[int, Range(1)] = 6,
    area: Annotated[float, Range(0.0)] = 0.3,
    smooth: Annotated[float, Range(0.0)] = 0.5,
    noise: Annotated[float, Range(0.0)] = 0.2,
    rate: Annotated[float, Range(1e-6)] = 100.0,
    optimizer: Optimizer = "line_search",
    coarse_to_fine: bool = False,
    starts: Annotated[int, Range(1, 17)] = 1,
    baseline: Choice = "auto",
    seed: int = 0,
) -> Maps:
    """What a pair of masks removes whose removal lowers the target's probability and whose content alone raises it.

    maps: (N, 1, h, w), unit: removed share, sign: >= 0; `size` cells along the shorter side.
    cost: 4 x `iterations` x `steps` forwards and backwards, and 1 to 8 times the forwards for the line search.
    A deleting mask, an inserting mask, and both by their product, which is the result: half of (deletion of each less
    insertion of each), every score the mean of `steps` points of a path under fresh `noise`, plus `area` x removed
    share, plus `smooth` x mean squared step between cells, cheaper where the image has an edge. `starts` and `parts`,
    `deleted` and `inserted` are as in igos.
    fails: slow; where the baseline keeps the target (flagged) nothing can be deleted.

    Source: Khorram, Lawson, Li 2021 (iGOS++), arXiv:2012.15783; Li et al. 2021, Applied AI Letters,
    section 3.3.   Differs: the line search tests the objective of the gradient; the bilateral weight is
    alike down and across and taken at the mask's own cells; else as in igos, `smooth` 0.5 against their 20.
    """
    filled = choose(probe, baseline, seed=seed)
    frame = probe.frames.shape[2:]

    def parts(masks: Tensor) -> list[Part]:
        delete, insert = (enlarged(mask, frame) for mask in masks)
        both = delete * insert
        return [
            Part(delete, 0.5),
            Part(both, 0.5),
            Part(1 - insert, -0.5, inserts=True),
            Part(1 - both, -0.5, inserts=True),
        ]

    @cache
    def edges(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return penalty.edge_weights(probe.frames, shape)

    def cost(masks: Tensor) -> Tensor:
        both = masks.prod(0)
        return area * penalty.removed(both) + smooth * penalty.total_variation(
            both, edges=edges((both.shape[2], both.shape[3]))
        )

    search = Search(size, iterations, steps, noise, rate, optimizer, coarse_to_fine, starts, seed)
    return search.maps(probe, filled, parts, cost, smooth=smooth, together=2)
