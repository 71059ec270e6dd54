"""What a linear model of the score gives each value of the frame."""

from __future__ import annotations

from torch import Tensor

from ..baseline import Fill, fill
from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(needs=("input gradient",), unit="score", signed=True, tables=True)
def input_x_gradient(probe: Probe, *, baseline: Fill = "mean") -> Tensor:
    """Gradient times the frame's distance from a baseline: the first-order share of each value in the score.

    maps: (N, C, H, W), unit: score, sign: both.   cost: 1 forward, 1 backward.
    fails: where the score bends between baseline and frame.

    Source: Shrikumar et al. 2016, arXiv:1605.01713, sec. 2.  Differs: the baseline is stated; "mean" is their zero,
    seen behind the net's normalisation.
    """
    return (probe.frames - fill(probe, baseline).frames) * probe.input_gradient()
