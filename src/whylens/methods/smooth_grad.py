"""Mean gradient of noisy copies."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .._check import Range
from ..contract import MethodFacts
from ..probe import Probe


@MethodFacts(
    needs=("input gradient",),
    unit="score per frame value",
    signed=True,
    tables=True,
    forwards="samples + 1",
    backwards="samples",
)
def smooth_grad(
    probe: Probe,
    *,
    samples: Annotated[int, Range(1)] = 25,
    noise: Annotated[float, Range(0.0)] = 0.15,
    seed: int = 0,
) -> Tensor:
    """Mean gradient over copies of the frame with Gaussian noise added.

    maps: (N, C, H, W), unit: score per frame value, sign: both.   cost: `samples` + 1 forwards, `samples` backwards.
    fails: like the gradient where the score is saturated over the whole noise.

    Source: Smilkov et al. 2017, arXiv:1706.03825, sec. 3; `noise` is their noise level, the standard deviation over
    the range of the frame's values.  Differs: all images meet the same draws, so a map does not depend on its batch.
    """
    frames = probe.frames
    flat = frames.flatten(1)
    spread = noise * (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (frames.ndim - 1))

    def moved(draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
        return frames + spread * torch.randn(frames.shape[1:], generator=generator).to(frames)

    return probe.path_gradient(moved, [1 / samples] * samples)
