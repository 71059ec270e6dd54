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

_TOGETHER = 500  # masks whose full-size copies are summed at once


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
    N, _, H, W = probe.frames.shape
    units, moves = _draw(samples, cells, keep, (H, W), seed)
    filled = choose(probe, baseline, seed=seed)
    expand = _Shifted(cells, (H, W))
    scores = probe.masked_scores(torch.cat([units.flatten(1), moves], 1), filled, expand=expand)
    maps = torch.zeros(N, H * W)
    nobody = torch.zeros(_TOGETHER, dtype=torch.long)
    for start in range(0, samples, _TOGETHER):
        part = slice(start, min(start + _TOGETHER, samples))
        masks = expand(torch.cat([units[part].flatten(1), moves[part]], 1), nobody[: part.stop - part.start])
        maps += scores[:, part] @ masks.flatten(1)
    maps = (maps / (samples * keep)).view(N, 1, H, W)
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
    """Lays units and shifts ``(B, cells * cells + 2)`` out: blown up to one cell more than the frame, then cut."""

    def __init__(self, cells: int, size: tuple[int, int]) -> None:
        self.cells, self.size = cells, size
        self.large = tuple((cells + 1) * -(-side // cells) for side in size)

    def __call__(self, masks: Tensor, _images: Tensor) -> Tensor:
        H, W = self.size
        units, moves = masks[:, :-2].view(-1, 1, self.cells, self.cells), masks[:, -2:].long().tolist()
        large = F.interpolate(units, size=self.large, mode="bilinear", align_corners=False)
        return torch.stack([own[:, y : y + H, x : x + W] for own, (y, x) in zip(large, moves, strict=True)])
