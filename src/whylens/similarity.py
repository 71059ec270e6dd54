"""Similarity of two maps: rank correlation, and structural similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
"""Width and standard deviation, in cells, of the Gaussian window of structural similarity."""

_K1, _K2 = 0.01, 0.03


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation ``(N,)`` of the rows of two tensors ``(N, U)``; NaN where a row is constant."""
    first, second = (_centred(_ranks(v)) for v in (a, b))
    power = first.square().sum(1) * second.square().sum(1)
    return ((first * second).sum(1) / power.sqrt()).masked_fill(power == 0, torch.nan).clamp(-1, 1)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity ``(N,)`` of maps ``(N, h, w)`` whose values lie in [0, 1].

    The mean over all windows that lie whole on the map; on maps of fewer than 11 cells the window is as wide as fits.

    Source: Wang et al. 2004, Image quality assessment: from error visibility to structural similarity, eq. 13.
    """
    width = [min(WINDOW, n - (n + 1) % 2) for n in a.shape[1:]]
    rows, columns = (torch.exp(-0.5 * ((torch.arange(n) - n // 2) / SIGMA).double() ** 2) for n in width)
    kernel = (rows[:, None] * columns / (rows.sum() * columns.sum()))[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values[:, None], kernel)[:, 0]

    a, b = a.double(), b.double()
    at, bt = mean(a), mean(b)
    spread_a, spread_b, shared = mean(a * a) - at * at, mean(b * b) - bt * bt, mean(a * b) - at * bt
    light = (2 * at * bt + _K1**2) / (at * at + bt * bt + _K1**2)
    structure = (2 * shared + _K2**2) / (spread_a + spread_b + _K2**2)
    return (light * structure).mean((1, 2))


def _ranks(values: Tensor) -> Tensor:
    """Place ``(N, U)`` of every value in its row; equal ones share the mean of their places."""
    ordered = values.sort(1).values.contiguous()
    values = values.contiguous()
    low, high = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (low + high - 1).double() / 2


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
