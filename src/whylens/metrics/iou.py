"""How well the region that the map marks covers the object."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..overlap import iou as overlap_of
from ..overlap import shares
from ..scoring import units

LEVELS = torch.arange(1, 20, dtype=torch.float64) / 20
"""Thresholds of the curve, as shares of the map's maximum."""


@MetricFacts(direction="higher", low=0.0, high=1.0, needs_masks=True, forwards="0")
def iou(trial: Trial, *, threshold: Annotated[float | None, Range(0.0, 1.0)] = 0.15) -> Values:
    """Intersection over union of the object's mask and the region where the map reaches a share of its maximum.

    values: (N,), unit: share, range: [0, 1].   cost: no pass.
    The map is summed over its channels and enlarged to the frame; marked is what is above 0 and at least `threshold`
    times its largest value. With `threshold` none it is the best of 0.05, 0.1 ... 0.95 for this image and mask, which
    flatters. Areas are counted in frame pixels, by the share that the object covers; ignored pixels do not count.
    curve: at 0.05, 0.1 ... 0.95; the best one for all images is where the mean of the curves is largest.
    checks: `best` of the curve, `best_threshold`, `area` of the object; `correct`, 1 where the net predicts the label.
    fails: depends on the threshold; a net that looks at a part of the object is shown rightly by a map that scores low.
    no value: `no_object` (the net saw no pixel of it), `no_positive_mass` (the map is nowhere above 0).

    Source: Selvaraju et al. 2017, arXiv:1610.02391, section 4.1 (15 % of the maximum).  Differs: masks, not boxes.
    """
    inside, counted = shares(trial)
    maps = units(trial.explanation.maps, (inside.shape[1], inside.shape[2])).double().view_as(inside)
    top = maps.amax((1, 2), keepdim=True)

    def at(level: float) -> Tensor:
        return overlap_of((maps > 0) & (maps >= level * top), inside, counted)

    curve = torch.stack([at(float(level)) for level in LEVELS], 1)
    place = curve.argmax(1)
    best = curve.gather(1, place[:, None])[:, 0]
    no_object, no_mass = inside.sum((1, 2)) == 0, top.flatten() <= 0
    none = no_object | no_mass
    return Values(
        (best if threshold is None else at(threshold)).masked_fill(none, torch.nan),
        curve.masked_fill(none[:, None], torch.nan),
        checks={
            "best": best.masked_fill(none, torch.nan),
            "best_threshold": LEVELS[place].masked_fill(none, torch.nan),
            "area": inside.sum((1, 2)) / counted.sum((1, 2)),
            "correct": _correct(trial),
            "no_object": no_object,
            "no_positive_mass": no_mass & ~no_object,
        },
    )


def _correct(trial: Trial) -> Tensor:
    """1 where the predicted class is the label, NaN where either is unknown."""
    predicted = trial.explanation.predictions
    labels = torch.full_like(predicted, -1) if trial.labels is None else trial.labels
    return (predicted == labels).double().masked_fill((labels < 0) | (predicted < 0), torch.nan)
