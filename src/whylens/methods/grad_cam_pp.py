"""Feature maps weighted so that every instance of the object counts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(needs=("layer",), unit="score", signed=False)
def grad_cam_pp(probe: Probe, *, normalize_alpha: bool = False) -> Tensor:
    """Sum of the feature maps, each weighted by its positive gradients with closed-form pixel weights alpha.

    maps: (N, 1, h, w), unit: score up to the factor exp(score), sign: >= 0.   cost: 1 forward, 1 backward above the
    layer.   fails: the powers of the gradient stand for higher derivatives, true for piecewise linear nets only.

    Source: Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19 (weights of exp(score)).  Differs: the common factor
    exp(score) is left out (it would overflow and cancels); `normalize_alpha` divides the alphas of a channel by their
    sum where the gradient is positive, as the authors' code does and their paper does not.
    """
    activation, gradient = probe.activation(), probe.activation_gradient()
    positive = gradient > 0
    total = activation.sum((2, 3), keepdim=True)
    denominator = 2 * gradient**2 + total * gradient**3
    usable = positive & (denominator > 0)
    alpha = torch.where(usable, gradient**2 / denominator.masked_fill(~usable, 1), 0)
    if normalize_alpha:
        sums = alpha.sum((2, 3), keepdim=True)
        alpha = alpha / sums.masked_fill(sums == 0, 1)
    weights = (alpha * gradient.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weights * activation).sum(1, keepdim=True).clamp(min=0)
