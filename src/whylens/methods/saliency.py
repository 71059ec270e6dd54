"""Gradient of the score with respect to every value of the frame."""

from __future__ import annotations

from torch import Tensor

from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(needs=("input gradient",), unit="score per frame value", signed=True, tables=True)
def saliency(probe: Probe) -> Tensor:
    """Gradient of the target's score with respect to every value of the frame, signed.

    maps: (N, C, H, W), unit: score per frame value, sign: both.   cost: 1 forward, 1 backward.
    fails: where the score is saturated; noisy on deep nets.

    Source: Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1.  Differs: the sign and the channels are kept; their
    picture is the largest absolute value over the channels.
    """
    return probe.input_gradient()
