"""The smallest smooth mask whose removal takes the target away, searched with integrated gradients."""

from __future__ import annotations

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
    forwards="starts * (9 * iterations + 1) * steps + 14",
    backwards="starts * iterations * steps",
)
def igos(
    probe: Probe,
    *,
    size: Annotated[int, Range(2)] = 28,
    iterations: Annotated[int, Range(1)] = 10,
    steps: Annotated[int, Range(1)] = 6,
    area: Annotated[float, Range(0.0)] = 0.3,
    smooth: Annotated[float, Range(0.0)] = 2.0,
    noise: Annotated[float, Range(0.0)] = 0.2,
    rate: Annotated[float, Range(1e-6)] = 100.0,
    optimizer: Optimizer = "line_search",
    coarse_to_fine: bool = False,
    starts: Annotated[int, Range(1, 17)] = 1,
    baseline: Choice = "auto",
    seed: int = 0,
) -> Maps:
    """What a mask removes that lowers the target's probability, is small and is smooth.

    maps: (N, 1, h, w), unit: removed share, sign: >= 0; `size` cells along the shorter side.
    cost: `iterations` x `steps` forwards and backwards, and 1 to 8 times the forwards for the line search.
    Minimises the mean probability at `steps` points from the baseline to the masked image, each under fresh `noise` (in
    units of the net's normalised input), plus `area` x removed share, plus `smooth` x mean squared step between cells.
    `starts` > 1 searches again from masks less 0.2 in one cell of a square of cells; `parts` (N, starts, h, w) has
    all, the map is that of the lowest loss. `rate` is the longest step, for 28 x 28 cells.
    Checks: `deleted`, `inserted`: the probability without the evidence, and with nothing else.
    fails: above 56 cells, on masks that disturb the net without being its evidence; igos_pp also asks to insert.

    Source: Qi, Khorram, Li 2020 (I-GOS), arXiv:1905.00954; Li et al. 2021, Applied AI Letters,
    section 3.2, eq. 2.   Differs: the penalty is settled in each step (proximal) instead of followed; the line search
    uses the noise of the gradient, and an image that no step lowers stays; weights, iterations and steps are ours,
    chosen on a few cut-outs that are not reported (theirs: area 1, smooth 20, 15 iterations, 20 steps, rate 1000).
    """
    filled = choose(probe, baseline, seed=seed)
    frame = probe.frames.shape[2:]

    def parts(masks: Tensor) -> list[Part]:
        return [Part(enlarged(masks[0], frame), 1.0)]

    def cost(masks: Tensor) -> Tensor:
        return area * penalty.removed(masks[0]) + smooth * penalty.total_variation(masks[0])

    search = Search(size, iterations, steps, noise, rate, optimizer, coarse_to_fine, starts, seed)
    return search.maps(probe, filled, parts, cost, smooth=smooth)
