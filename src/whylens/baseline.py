"""Baseline: the frames that stand for nothing seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .errors import InputError
from .probe import Baseline, Probe

Fill = Literal["mean", "black", "white", "blur"]


def fill(probe: Probe, name: Fill) -> Baseline:
    """The baseline of that name for the probe's frames.

    "mean" is what the net's own normalisation takes to 0: its mean colour, or zeros where tensors enter as they are
    (what "baseline zero" means in the literature, where attribution starts behind the normalisation). "black" and
    "white" are 0 and 1. "blur" is the frame itself under a Gaussian of a tenth of its shorter side.
    """
    frames, preprocess = probe.frames, probe.model.preprocess
    one = torch.zeros_like(frames[:1])
    if name == "mean":
        mean = None if preprocess is None else frames.new_tensor(preprocess.mean).view(1, -1, 1, 1)
        return Baseline(name, one if mean is None else one + (mean.flip(1) if _is_bgr(probe) else mean))
    if name in ("black", "white"):
        return Baseline(name, one if name == "black" else one + 1)
    if frames.ndim != 4:
        raise InputError(f"baseline: only images can be blurred. Got frames {tuple(frames.shape)}. Use 'mean'.")
    return Baseline(name, blur(frames, min(frames.shape[2:]) / 10))


def blur(frames: Tensor, sigma: float) -> Tensor:
    """Frames ``(N, C, H, W)`` under a Gaussian of that standard deviation in pixels, mirrored at the border."""
    from torchvision.transforms.v2.functional import gaussian_blur

    reach = [min(int(2 * sigma + 0.5), side - 1) for side in frames.shape[2:]]
    blurred: Tensor = gaussian_blur(frames, [2 * reach[1] + 1, 2 * reach[0] + 1], [sigma, sigma])
    return blurred


def _is_bgr(probe: Probe) -> bool:
    return probe.model.preprocess is not None and probe.model.preprocess.order == "BGR"
