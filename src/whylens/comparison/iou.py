"""Intersection over union of map and object, at one share of the map's maximum and at nineteen."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .. import overlap
from .._check import Range
from ..contract import MetricFacts, Trial, Values

LEVELS = torch.arange(1, 20, dtype=torch.float64) / 20
"""Shares of the map's maximum at which it is cut for the curve."""


@MetricFacts(direction="higher", low=0.0, high=1.0, needs_masks=True, forwards="0")
def iou(trial: Trial, *, threshold: Annotated[float, Range(0.0, 1.0)] = 0.5) -> Values:
    """Intersection over union of the object's mask and the region where the map reaches a share of its maximum.

    values: (N,), unit: share, range: [0, 1], at `threshold`.   cost: no pass.   curve: at `LEVELS`.
    The map is summed over its channels and enlarged to the frame; ignored pixels count on neither side.
    no value: `no_object` (the net saw no pixel of it), `no_positive_mass` (the map is nowhere positive).
    """
    inside, counted = overlap.shares(trial)
    maps = trial.explanation.maps.double()
    maps = maps.sum(1, keepdim=True) if maps.ndim == 4 else maps[:, None, None]
    laid = F.interpolate(maps, size=inside.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    highest = laid.amax((1, 2), keepdim=True)

    def at(level: float) -> Tensor:
        return overlap.iou(((laid > 0) & (laid >= level * highest)).double(), inside, counted)

    no_object, no_mass = inside.sum((1, 2)) == 0, highest.flatten() <= 0
    none = no_object | no_mass
    return Values(
        at(threshold).masked_fill(none, torch.nan),
        curve=torch.stack([at(float(level)) for level in LEVELS], 1).masked_fill(none[:, None], torch.nan),
        checks={"no_object": no_object, "no_positive_mass": no_mass & ~no_object},
    )
