"""How far the map moves when the image hardly does."""

from __future__ import annotations

from typing import Annotated

import torch

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..scoring import again


@MetricFacts(direction="lower", low=0.0, forwards="0", explanations="samples")
def max_sensitivity(
    trial: Trial,
    *,
    radius: Annotated[float, Range(0)] = 0.02,
    samples: Annotated[int, Range(1)] = 10,
    seed: int = 0,
) -> Values:
    """Largest change of the map, as a share of it, over images that differ by at most `radius` in every value.

    values: (N,), unit: share of the map's norm, range: >= 0.   cost: `samples` more explanations by the same method.
    max |map(x + d) - map(x)| / |map(x)| over `samples` draws of d, uniform in [-radius, radius] in frame values, the
    same for all images, by `seed`. A method that draws draws the same each time.
    checks: `mean`, the mean instead of the largest.
    fails: a map that ignores the image, or the net, scores best; a few draws miss the worst one.
    no value: `no_mass` (the map is zero everywhere).

    Source: Yeh et al. 2019, arXiv:1901.09392, definition 3.1.  Differs: divided by the map's norm, as in their code.
    """
    maps, frames = trial.explanation.maps.double(), trial.images
    norm = maps.flatten(1).norm(dim=1)
    moved = []
    for draw in range(samples):
        rng = torch.Generator().manual_seed(seed * 1_000_003 + draw)
        change = radius * (2 * torch.rand(frames.shape[1:], generator=rng) - 1)
        other = again(trial, "max_sensitivity", images=frames + change.to(frames)).double()
        moved.append((other - maps).flatten(1).norm(dim=1))
    share = torch.stack(moved) / norm.masked_fill(norm == 0, 1)
    return Values(
        share.amax(0).masked_fill(norm == 0, torch.nan),
        checks={"mean": share.mean(0).masked_fill(norm == 0, torch.nan), "no_mass": norm == 0},
    )
