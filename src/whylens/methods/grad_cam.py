"""Feature maps weighted by their mean gradient."""

from __future__ import annotations

from torch import Tensor

from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(needs=("layer",), unit="score", signed=False)
def grad_cam(probe: Probe, *, relu: bool = True) -> Tensor:
    """Sum of the feature maps, each weighted by the mean of its gradient, positive part.

    maps: (N, 1, h, w), unit: score, sign: >= 0 (both with relu=false).   cost: 1 forward, 1 backward above the layer.
    fails: coarse; all zero where every part speaks against the target (flagged).

    Source: Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2; equals CAM / (h * w) on pooled linear heads.
    """
    weights = probe.activation_gradient().mean((2, 3), keepdim=True)
    maps = (weights * probe.activation()).sum(1, keepdim=True)
    return maps.clamp(min=0) if relu else maps
