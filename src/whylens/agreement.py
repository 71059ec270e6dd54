"""Agreement: how alike two maps are once they lie on the same photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from . import similarity
from .placement import Placement

SIDE = 56
"""Rows and columns in which whole photos are looked at."""


def on_photo(maps: Tensor, placements: Sequence[Placement | None], side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Maps ``(N, C, h, w)``, summed over channels, laid over their photos ``(N, side, side)``, and what was seen.

    A map whose place is unknown is taken as its whole photo, a row of a table ``(N, F)`` as it is: ``(N, 1, F)``.
    """
    if maps.ndim != 4:
        return maps[:, None], torch.ones_like(maps[:, None], dtype=torch.bool)
    maps, size = maps.sum(1, keepdim=True), (side, side)
    laid, seen = [], []
    for row, placement in enumerate(placements):
        if placement is None:
            laid.append(F.interpolate(maps[row : row + 1], size=size, mode="bilinear", align_corners=False)[0, 0])
            seen.append(torch.ones(size, dtype=torch.bool))
        else:
            laid.append(placement.to_photo(maps[row], size)[0])
            seen.append(placement.covered(size))
    return torch.stack(laid), torch.stack(seen)


def cosine(first: Tensor, second: Tensor, seen: Tensor) -> Tensor:
    """Cosine ``(N,)`` of maps ``(N, h, w)`` over what was `seen` by both; NaN where one of them is zero there."""
    one, two = ((maps.double() * seen).flatten(1) for maps in (first, second))
    length = one.norm(dim=1) * two.norm(dim=1)
    found: Tensor = (one * two).sum(1) / length
    return found.clamp(-1, 1).masked_fill(length == 0, torch.nan)


def spearman(first: Tensor, second: Tensor, seen: Tensor) -> Tensor:
    """Rank correlation ``(N,)`` of maps ``(N, h, w)`` over what was `seen` by both; NaN where one is constant there."""
    if bool(seen.all()):
        return similarity.spearman(first.flatten(1), second.flatten(1))
    rows = (
        similarity.spearman(one[both][None], two[both][None])
        for one, two, both in zip(first, second, seen, strict=True)
    )
    return torch.cat(list(rows))
