"""What an explanation is checked against: the score it should add up to, the nonlinearities it should have met."""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import Maps
from .passes import Baseline
from .probe import Probe

COMPLETE = 0.05
"""Residual, as a share of the score's difference, up to which a map counts as adding up."""

REACHED = 0.5
"""Share of nonlinear calls that a backward rule must reach to count as applied."""


def completeness(probe: Probe, maps: Tensor, baseline: Baseline) -> Maps:
    """Maps that should add up to the score's difference from a baseline, with what is missing.

    Checks: `difference` (score minus the baseline's), `residual` (what is missing, as a share of it), `incomplete`,
    `baseline_probability` (what the baseline alone leaves of the target), `baseline_keeps_target`.
    """
    at_baseline, _ = probe.at_baseline(baseline)
    difference = probe.score - at_baseline
    missing = (maps.flatten(1).sum(1) - difference).abs()
    residual = missing / difference.abs().clamp(min=1e-6)
    checks = {
        "difference": difference,
        "residual": residual,
        "incomplete": (residual > COMPLETE) & (missing > 1e-4),
        **keeps_target(probe, baseline),
    }
    return Maps(maps, checks=checks, extra={"baseline": baseline.name})


def keeps_target(probe: Probe, baseline: Baseline) -> dict[str, Tensor]:
    """What the baseline alone leaves of the target, and the flag where that is more than half of its probability."""
    _, left = probe.at_baseline(baseline)
    return {"baseline_probability": left, "baseline_keeps_target": left > 0.5 * probe.probability}


def rule_reach(probe: Probe) -> dict[str, Tensor]:
    """How much of the net a rectifier rule met: `rule_hits` calls, `rule_share` of all nonlinear calls."""
    hits, all_calls = probe.rule_hits()
    share = hits / all_calls if all_calls else 0.0
    rows = probe.frames.new_ones(len(probe), dtype=torch.float32)
    return {"rule_hits": rows * hits, "rule_share": rows * share, "rule_not_applied": rows * share < REACHED}
