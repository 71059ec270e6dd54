"""Whether removing what the map marks changes the decision."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .._check import Range
from ..baseline import Choice, choose
from ..contract import MetricFacts, Trial, Values
from ..probe import Probe
from ..scoring import highest, outputs_of


@MetricFacts(direction="higher", low=0.0, high=1.0, forwards="11")
def impact_score(
    trial: Trial,
    *,
    area: Annotated[float, Range(0, 1)] = 0.1,
    tau: Annotated[float, Range(0, 1)] = 0.5,
    strict: bool = False,
    baseline: Choice = "auto",
    seed: int = 0,
) -> Values:
    """1 where removing the map's top `area` of the frame changes the predicted class or halves its probability, else 0.

    values: (N,), unit: share of the decisions that change, range: [0, 1].   cost: 2 forwards, and up to 9 to search.
    The pixels that the enlarged map ranks highest, the same number for every map, are replaced by the baseline. With z
    the probability of the predicted class it counts where that class is predicted no more, or z after <= `tau` * z
    before; with `strict` only the first. Equal values are ranked at random, by `seed`.
    checks: `area` really removed, `left` (z after / z before), `flipped` (the strict value).
    fails: rises with the area, so only equal areas compare; it judges the decision, also where another class was
    explained; a filled region may disturb a net without being its evidence.
    no value: never; of a flat map random pixels are removed.

    Source: Lin et al. 2019, arXiv:1910.07387, section 3 (tau 0.5).  Differs: the regions are the top of a map, of
    equal area; the fill is the baseline that removes the target.
    """
    probe = trial.probe
    chosen = highest(trial, area, seed)
    filled = choose(probe, baseline, seed=seed).frames.to(probe.frames)
    removed = torch.where(chosen.to(probe.frames.device), filled, probe.frames)
    before, after = (_probabilities(probe, frames) for frames in (probe.frames, removed))
    label = before.argmax(1)
    z, left = (p.gather(1, label[:, None])[:, 0] for p in (before, after))
    flipped = after.argmax(1) != label
    changed = flipped if strict else flipped | (left <= tau * z)
    return Values(
        changed.double(),
        checks={
            "area": chosen.flatten(1).double().mean(1),
            "left": left / z.clamp(min=torch.finfo(z.dtype).tiny),
            "flipped": flipped.double(),
        },
    )


def _probabilities(probe: Probe, frames: Tensor) -> Tensor:
    """Probabilities ``(N, K)``; a single output is its own yes and no."""
    found = probe.model.probabilities(outputs_of(probe, frames))
    return torch.cat([1 - found, found], 1) if found.shape[1] == 1 else found
