"""Overlap: where the objects of a trial lie in its frames, and how well regions cover them."""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import Trial


def shares(trial: Trial) -> tuple[Tensor, Tensor]:
    """Shares of every frame pixel ``(N, H, W)`` that the object covers, and that are not ignored; float64."""
    inside, counted = [], []
    for mask, placement in zip(trial.masks, trial.explanation.placements, strict=True):
        if mask is None or placement is None:
            inside.append(torch.zeros(trial.images.shape[-2:]))
            counted.append(torch.ones(trial.images.shape[-2:]))
            continue
        inside.append(placement.to_frame(mask.inside & ~mask.ignored))
        counted.append(1 - placement.to_frame(mask.ignored))
    return torch.stack(inside).double(), torch.stack(counted).double()


def iou(marked: Tensor, inside: Tensor, counted: Tensor | None = None) -> Tensor:
    """Intersection over union ``(N,)`` of marked pixels and object shares ``(N, H, W)``; 0 where both are empty.

    `counted` is the share of each pixel that is not ignored.
    """
    both = (marked * inside).flatten(1).sum(1)
    counted = torch.ones_like(inside) if counted is None else counted
    either = (marked * counted).flatten(1).sum(1) + inside.flatten(1).sum(1) - both
    return both / either.clamp(min=torch.finfo(either.dtype).tiny)
