"""Removal: what the score loses as regions of the frame go one by one, in the order of a map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from . import regions
from .baseline import choose
from .contract import Trial, Values
from .engine import Expand
from .passes import Baseline
from .probe import Kind, Probe
from .scoring import Prefixes, ranks, tied, units

Fill = Literal["noise", "auto", "mean", "black", "white", "blur"]
Scored = Literal["probability", "explained"]


def region_values(
    trial: Trial,
    *,
    least_first: bool,
    side: int,
    steps: int,
    baseline: Fill,
    samples: int,
    score: Scored,
    seed: int,
) -> Values:
    """Area over the perturbation curve ``(N,)``, the curve and checks of `morf` and `lerf`.

    The score f after each removal, k = 0 to L, is the curve ``(N, L + 1)``; the area is the mean of f(0) - f(k).
    """
    probe = trial.probe
    relevance, lay_out = _regions(trial, side)
    places = ranks(-relevance if least_first else relevance, seed)
    counts = torch.arange(min(steps, places.shape[1]) + 1)
    prefixes = Prefixes(places, counts, None, None, insert=False)

    def expand(masks: Tensor, images: Tensor) -> Tensor:
        return lay_out(prefixes(masks, images), images)

    kind: Kind = "score" if score == "explained" else "probability"
    fills = _fills(probe, baseline, samples, seed)
    found = [probe.masked_scores(torch.eye(len(counts)), fill, expand=expand, kind=kind) for fill in fills]
    curve = torch.stack(found).double().mean(0)
    return Values(
        (curve[:, :1] - curve).mean(1),
        curve,
        checks={
            "full": curve[:, 0],
            "left": curve[:, -1],
            "removed": torch.full((len(probe),), float(counts[-1]) / places.shape[1]),
            "tied": tied(relevance),
        },
    )


def _regions(trial: Trial, side: int) -> tuple[Tensor, Expand]:
    """Mean of the enlarged map in every region ``(N, U)``, and how regions lie on the frame; features of a table."""
    frames, maps = trial.probe.frames, trial.explanation.maps
    if frames.ndim != 4:
        return units(maps), lambda masks, _images: masks
    H, W = frames.shape[2:]
    tiles = regions.grid(frames[:1], (max(1, round(H / side)), max(1, round(W / side))))
    owner = tiles.labels[0].flatten().expand(len(maps), -1)
    values = units(maps, (H, W)).double()
    sums = torch.zeros(len(maps), tiles.count, dtype=torch.float64).scatter_add(1, owner, values)
    return (sums / tiles.labels.flatten().bincount()).float(), tiles.expand


def _fills(probe: Probe, name: Fill, samples: int, seed: int) -> list[Baseline]:
    """The baseline of that name, or so many of uniform noise, the same for all images."""
    if name != "noise":
        return [choose(probe, name, seed=seed)]
    if probe.frames.ndim != 4:
        return [choose(probe, "mean")]
    shape, fills = probe.frames.shape[1:], []
    for draw in range(samples):
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + draw))
        fills.append(Baseline(f"noise {draw}", noise[None].to(probe.frames)))
    return fills
