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
    step: Annotated[float, Range(1e-6)] = 100.0,
    optimizer: Optimizer = "line_search",
    coarse_to_fine: bool = False,
    starts: Annotated[int, Range(1, 17)] = 1,
    baseline: Choice = "auto",
    seed: int = 0,
) -> Maps:
    """What a mask removes that lowers the target's probability, is small and is smooth.

    maps: (N, 1, size, size), unit: removed share, sign: >= 0; `size` counts cells along the shorter side.
    cost: `iterations` x `steps` forwards and backwards, and 1 to 8 times the forwards for the line search.
    Minimises the mean probability at `steps` points from the baseline to the masked image, each under fresh `noise` (in
    units of the net's normalised input), plus `area` x removed share, plus `smooth` x mean squared step between cells.
    `starts` > 1 searches again from masks with one corner removed; `parts` (N, starts, h, w) holds all, the map is that
    of the lowest loss. Checks: `deleted`, `inserted`: the probability without the evidence, and with nothing else.
    fails: above 56 cells, on masks that disturb the net without being its evidence; igos_pp also asks to insert.

    Source: Qi, Khorram, Li 2020 (I-GOS), eq. 4 to 7.   Differs: the line search uses the noise of the gradient, and an
    image that no step lowers stays; steps are those of 28 x 28 cells and scale with their number; the baseline is
    searched (`baseline`).
    """
    filled = choose(probe, baseline, seed=seed)
    frame = probe.frames.shape[2:]

    def parts(masks: Tensor) -> list[Part]:
        return [Part(enlarged(masks[0], frame), 1.0)]

    def cost(masks: Tensor) -> Tensor:
        return area * penalty.removed(masks[0]) + smooth * penalty.total_variation(masks[0])

    search = Search(size, iterations, steps, noise, step, optimizer, coarse_to_fine, starts, seed)
    return search.maps(probe, filled, parts, cost, smooth=smooth)
