"""Fine edges where the class activation is high."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the field's name

from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import rule_reach


@MethodFacts(needs=("input gradient", "layer"), unit="score squared per frame value", signed=True, backwards="2")
def guided_grad_cam(probe: Probe) -> Maps:
    """Guided backpropagation times the upsampled Grad-CAM of the same target.

    maps: (N, C, H, W), unit: score squared per frame value, sign: both.   cost: 1 forward, 2 backwards.
    fails: inherits the edges of guided backpropagation.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, sec. 3.2.
    """
    weights = probe.activation_gradient().mean((2, 3), keepdim=True)
    coarse = (weights * probe.activation()).sum(1, keepdim=True).clamp(min=0)
    fine = F.interpolate(coarse, size=probe.frames.shape[2:], mode="bilinear", align_corners=False)
    return Maps(probe.input_gradient("guided") * fine, checks=rule_reach(probe))
