"""Feature maps weighted cell by cell."""

from __future__ import annotations

from torch import Tensor

from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(needs=("layer",), unit="score", signed=False)
def layer_cam(probe: Probe) -> Tensor:
    """Sum of the feature maps, every cell weighted by its own positive gradient, positive part.

    maps: (N, 1, h, w), unit: score, sign: >= 0.   cost: 1 forward, 1 backward above the layer.
    fails: noisy at the lowest layers.

    Source: Jiang et al. 2021, LayerCAM, IEEE TIP 30, eq. 6 and 7; finer than Grad-CAM at early layers.
    """
    return (probe.activation_gradient().clamp(min=0) * probe.activation()).sum(1, keepdim=True).clamp(min=0)
