"""Whether the map's maximum lies on the object."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..masks import Mask
from ..placement import Placement

TOGETHER = 4_000_000
"""Pixels looked at in one go; more only needs memory."""


@MetricFacts(direction="higher", low=0.0, high=1.0, needs_masks=True, forwards="0")
def pointing_game(trial: Trial, *, tolerance: Annotated[int, Range(0, 1000)] = 15) -> Values:
    """1 where the map's maximum lies inside the object's mask or near it, else 0.

    values: (N,), unit: share of the maxima that hit, range: [0, 1].   cost: no pass.
    The map is summed over its channels; the point is the centre of the largest cell, in the upright photo. It hits
    if it lies on an object pixel, or nearer than `tolerance` photo pixels to the centre of one. Several equal maxima
    count by the share of them that hit, so a flat map gets what a random point would. A maximum that misses on an
    ignored pixel counts neither way.
    checks: `maxima`, how many there are; `difficult`, 1 where every object is marked so.
    fails: most photos show their object in the middle, so a point there scores high; the tolerance is in pixels,
    whatever the size of the photo.
    no value: `no_object` (the net saw no pixel of it), `on_ignored` (all maxima on ignored pixels).

    Source: Zhang et al. 2016, arXiv:1608.00507, section 4.  Differs: masks instead of boxes; no mean by class.
    """
    maps = trial.explanation.maps.double()
    maps = maps.sum(1) if maps.ndim == 4 else maps[:, None]
    places = trial.explanation.placements
    found = torch.stack([_row(*row, tolerance) for row in zip(maps, trial.masks, places, strict=True)])
    value, maxima, no_object, on_ignored = found.unbind(1)
    difficult = torch.tensor([float(mask is not None and mask.difficult) for mask in trial.masks])
    return Values(
        value,
        checks={
            "maxima": maxima,
            "difficult": difficult,
            "no_object": no_object > 0,
            "on_ignored": on_ignored > 0,
        },
    )


def _row(cells: Tensor, mask: Mask | None, placement: Placement | None, tolerance: int) -> Tensor:
    """Value, number of maxima, no object, all on ignored pixels."""
    at = (cells == cells.max()).nonzero()
    if mask is None or placement is None:
        return torch.tensor([torch.nan, len(at), 1.0, 0.0])
    inside = mask.inside & ~mask.ignored
    if not bool((inside & placement.covered()).any()):
        return torch.tensor([torch.nan, len(at), 1.0, 0.0])
    side, scale, offset = (torch.tensor(v, dtype=torch.float64) for v in _geometry(placement))
    points = (at + 0.5) * side / torch.tensor(cells.shape) * scale + offset
    hits = _on(inside, points, tolerance)
    counts = hits | ~_on(mask.ignored, points, 0)
    value = hits[counts].double().mean()
    return torch.tensor([float(value), len(at), 0.0, float(not counts.any())])


def _geometry(placement: Placement) -> tuple[tuple[float, float], ...]:
    return placement.frame, placement.scale, placement.offset


def _on(region: Tensor, points: Tensor, tolerance: int) -> Tensor:
    """Whether points ``(K, 2)`` lie on a pixel of the region, or nearer than `tolerance` to the centre of one."""
    reach = torch.arange(-tolerance - 1, tolerance + 2)
    limit = torch.tensor(region.shape)[:, None]
    found = []
    for part in torch.split(points, max(1, TOGETHER // len(reach) ** 2)):
        pixels = part.floor().long()[:, :, None] + reach  # (k, 2, reach)
        away = pixels + 0.5 - part[:, :, None]
        near = away[:, 0, :, None] ** 2 + away[:, 1, None, :] ** 2 < tolerance**2
        touches, exists = away.abs() <= 0.5, (pixels >= 0) & (pixels < limit)
        near |= touches[:, 0, :, None] & touches[:, 1, None, :]
        near &= exists[:, 0, :, None] & exists[:, 1, None, :]
        rows, columns = pixels.clamp(min=torch.zeros_like(limit), max=limit - 1).unbind(1)
        found.append((region[rows[:, :, None], columns[:, None, :]] & near).flatten(1).any(1))
    return torch.cat(found)
