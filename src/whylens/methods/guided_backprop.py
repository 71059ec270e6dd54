"""Backward pass that stops negative evidence at every rectifier."""

from __future__ import annotations

from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import rule_reach


@MethodFacts(needs=("input gradient",), unit="score per frame value", signed=True)
def guided_backprop(probe: Probe) -> Maps:
    """Gradient in which rectifiers pass on positive gradients only, and only where they were active.

    maps: (N, C, H, W), unit: score per frame value, sign: both.   cost: 1 forward, 1 backward.
    fails: shows edges more than reasons (Adebayo et al. 2018); nets without rectifiers are flagged.

    Source: Springenberg et al. 2014, arXiv:1412.6806, sec. 3.4.
    """
    return Maps(probe.input_gradient("guided"), checks=rule_reach(probe))
