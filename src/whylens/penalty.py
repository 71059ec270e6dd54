"""Penalty: what a mask pays for its size and its roughness; 1 keeps, 0 removes."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor


def removed(masks: Tensor) -> Tensor:
    """Mean share ``(N,)`` that masks ``(N, 1, h, w)`` remove."""
    return (1 - masks).abs().mean((1, 2, 3))


def total_variation(masks: Tensor, power: float = 2.0, edges: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Mean of ``|difference|^power`` between neighbours of masks ``(N, 1, h, w)``, down plus across ``(N,)``.

    With `edges` each difference is weighed by them (`edge_weights`): a mask may jump where the image does.
    """
    total = masks.new_zeros(len(masks))
    for k, axis in enumerate((2, 3)):
        steps = masks.diff(dim=axis).abs() ** power
        if steps.numel():
            total = total + (steps if edges is None else steps * edges[k]).mean((1, 2, 3))
    return total


def roughness(masks: Tensor, power: float) -> Tensor:
    """Mean of ``(down² + across²)^(power / 2)`` over the cells of masks ``(N, 1, h, w)``, differences to the next ones.

    At the last row and column the missing difference is 0.
    """
    down = F.pad(masks.diff(dim=2), (0, 0, 0, 1))
    across = F.pad(masks.diff(dim=3), (0, 1))
    square = down**2 + across**2
    return (square.clamp(min=1e-12) ** (power / 2)).where(square > 1e-12, 0.0).mean((1, 2, 3))


def edge_weights(frames: Tensor, shape: tuple[int, int], width: float = 0.1) -> tuple[Tensor, Tensor]:
    """``exp(-d² / width²)`` between neighbouring cells of frames in [0, 1], down ``(N, 1, h-1, w)`` and across.

    d² is the mean over channels of the squared difference of cells' mean colours, alike in both directions.
    """
    means = F.adaptive_avg_pool2d(frames.float(), shape)
    down, across = (means.diff(dim=axis).square().mean(1, keepdim=True) for axis in (2, 3))
    return (-down / width**2).exp(), (-across / width**2).exp()
