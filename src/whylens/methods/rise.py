"""Importance by random masks."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .._check import Range
from ..baseline import Choice, choose
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import keeps_target


@MethodFacts(needs=("scores",), unit="probability", signed=False, forwards="samples + 10", backwards="0")
def rise(
    probe: Probe,
    *,
    samples: Annotated[int, Range(1)] = 4000,
    cells: Annotated[int, Range(2)] = 7,
    keep: Annotated[float, Range(0.01, 0.99)] = 0.5,
    baseline: Choice = "mean",
    seed: int = 0,
) -> Maps:
    """Mean of random smooth masks, each weighed by the target's probability under it.

    maps: (N, 1, H, W), unit: probability, sign: >= 0.   cost: `samples` forwards, no gradient.
    A mask is a grid of `cells` x `cells`, each kept with probability `keep`, blown up bilinearly and shifted at random
    by less than a cell. `baseline` fills what is removed.
    fails: on evidence smaller than a cell; the map never falls to 0 where the net is sure whatever is removed.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, eq. 5.   Differs: masks are shared within a batch; a function as
    target is weighed as it is.
    """
    size = (probe.frames.shape[2], probe.frames.shape[3])
    units, moves = _draw(samples, cells, keep, size, seed)
    filled = choose(probe, baseline, seed=seed)
    expand = _Shifted(cells, size)
    scores = probe.masked_scores(torch.cat([units.flatten(1), moves], 1), filled, expand=expand)
    maps = expand.weighed(units, moves, scores)[:, None] / (samples * keep)
    flat = scores.amax(1) - scores.amin(1) <= 1e-6 * scores.abs().amax(1).clamp(min=1e-12)
    maps = torch.where(flat.view(-1, 1, 1, 1), maps.mean((2, 3), keepdim=True), maps)  # a constant score, to the bit
    return Maps(maps.to(probe.frames), checks=keeps_target(probe, filled), extra={"baseline": filled.name})


def _draw(samples: int, cells: int, keep: float, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Cells kept ``(M, cells, cells)`` and shifts in pixels ``(M, 2)``; the first draws do not depend on how many."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.rand((samples, cells * cells + 2), generator=rng)
    units = (drawn[:, : cells * cells] < keep).float().view(samples, cells, cells)
    step = torch.tensor([-(-side // cells) for side in size])
    return units, (drawn[:, cells * cells :] * step).floor()


class _Shifted:
    """Lays units and shifts ``(B, cells * cells + 2)`` out: blown up to one cell more than the frame, then cut.

    Bilinear blowing up is linear and apart in rows and columns, so a mask is ``rows[y] @ units @ columns[x].T``.
    """

    def __init__(self, cells: int, size: tuple[int, int]) -> None:
        self.cells = cells
        self.rows, self.columns = (_blown_up(cells, side) for side in size)

    def __call__(self, masks: Tensor, _images: Tensor) -> Tensor:
        units, moves = masks[:, :-2].view(-1, self.cells, self.cells), masks[:, -2:].long()
        rows, columns = self.rows.to(masks)[moves[:, 0]], self.columns.to(masks)[moves[:, 1]]
        return (rows @ (units @ columns.mT))[:, None]

    def weighed(self, units: Tensor, moves: Tensor, weights: Tensor) -> Tensor:
        """Sum of masks with weights ``(N, M)``: ``(N, H, W)``; units of one shift are summed before being laid out."""
        down, across, flat = len(self.rows), len(self.columns), units.flatten(1)
        shift = moves[:, 0].long() * across + moves[:, 1].long()
        empty = flat.new_zeros(down * across, flat.shape[1])
        total = torch.stack([empty.index_add(0, shift, own[:, None] * flat) for own in weights])
        total = total.view(-1, down, across, self.cells, self.cells)
        return torch.einsum("yhi,nyxij,xwj->nhw", self.rows, total, self.columns)


def _blown_up(cells: int, side: int) -> Tensor:
    """For each shift the part of each cell in each pixel of a side ``(shifts, side, cells)``."""
    step = -(-side // cells)
    large = F.interpolate(torch.eye(cells)[None], size=(cells + 1) * step, mode="linear", align_corners=False)[0].T
    return torch.stack([large[shift : shift + side] for shift in range(step)])
