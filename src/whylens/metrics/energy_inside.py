"""Share of the map's mass that lies on the object."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import MetricFacts, Trial, Values
from ..overlap import shares


@MetricFacts(direction="higher", low=0.0, high=1.0, needs_masks=True, forwards="0")
def energy_inside(trial: Trial) -> Values:
    """Share of the map's positive mass that lies inside the object's mask.

    values: (N,), unit: share, range: [0, 1].   cost: no pass.
    The map is summed over its channels, its negative values are set to 0, and the value of a cell is spread evenly
    over the part of the frame that it covers. Ignored pixels are taken out of both sides of the share.
    checks: `area`, the object's share of the frame, is what an even map gets.
    fails: a map that marks one pixel of the object gets 1; on coarse maps thin objects cannot reach 1.
    no value: `no_object` (the net saw no pixel of it), `no_positive_mass` (none, or all of it on ignored pixels).

    Source: Wang et al. 2020, arXiv:1910.01279, energy-based pointing game.  Differs: a mask instead of a box, and
    mass spread over cells instead of bilinear enlargement, which changes the sum.
    """
    maps = trial.explanation.maps.double()
    mass = (maps.sum(1) if maps.ndim == 4 else maps[:, None]).clamp(min=0)
    inside, counted = shares(trial)
    rows, columns = (_cover(n, side) for n, side in zip(mass.shape[1:], inside.shape[1:], strict=True))
    on_object, in_all = ((mass * (rows @ share @ columns.T)).sum((1, 2)) for share in (inside, counted))
    no_object, no_mass = inside.sum((1, 2)) == 0, in_all == 0
    return Values(
        (on_object / in_all).masked_fill(no_object | no_mass, torch.nan),
        checks={
            "area": inside.sum((1, 2)) / counted.sum((1, 2)),
            "no_object": no_object,
            "no_positive_mass": no_mass & ~no_object,
        },
    )


def _cover(cells: int, side: int) -> Tensor:
    """How much of each cell, as a share of it, lies on each pixel: ``(cells, side)``, rows add up to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * (side / cells)
    pixels = torch.arange(side + 1, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], pixels[None, :-1])
    high = torch.minimum(edges[1:, None], pixels[None, 1:])
    return (high - low).clamp(min=0) * (cells / side)
