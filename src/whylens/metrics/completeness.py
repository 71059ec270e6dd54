"""Whether the map adds up to what the image does to the score."""

from __future__ import annotations

from typing import get_args

import torch

from ..baseline import Choice, Fill, choose
from ..contract import MetricFacts, Trial, Values
from ..residual import completeness as adding_up


@MetricFacts(direction="lower", low=0.0, forwards="12")
def completeness(trial: Trial, *, baseline: Choice | None = None, seed: int = 0) -> Values:
    """What the sum of the map lacks of the score's difference from a baseline, as a share of that difference.

    values: (N,), unit: share of the difference, range: >= 0.   cost: 2 forwards, and up to 9 to search.
    |sum of the map - (f(x) - f(baseline))| / |f(x) - f(baseline)|, f the explained score. The baseline is the
    explanation's own where it has a plain one ("mean", "black", "white", "blur"), else the mean colour, or `baseline`.
    checks: `sum` of the map, `difference` of the score.
    fails: maps that are no shares of a score (Grad-CAM, RISE, a plain gradient) have no reason to add up.
    no value: `no_difference` (the baseline has the image's score).

    Source: Sundararajan et al. 2017, arXiv:1703.01365, section 3.  Differs: none.
    """
    named = trial.explanation.baseline
    own: Choice = next((known for known in get_args(Fill) if known == named), "mean")
    filled = choose(trial.probe, baseline or own, seed=seed)
    maps = trial.explanation.maps.double().to(trial.probe.frames.device)
    checks = adding_up(trial.probe, maps, filled).checks
    nothing = checks["difference"] == 0
    return Values(
        checks["residual"].masked_fill(nothing, torch.nan),
        checks={"sum": maps.flatten(1).sum(1), "difference": checks["difference"], "no_difference": nothing},
    )
