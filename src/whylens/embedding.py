"""Embedding: one vector per map, the features that the map weighs."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class Embedded:
    """Vectors ``(N, K)``; `negative` ``(N,)``, the share of the map's mass that was clamped; `empty` ``(N,)``."""

    vectors: Tensor
    negative: Tensor
    empty: Tensor


def embed(features: Tensor, maps: Tensor) -> Embedded:
    """Average of the features ``(N, K, h, w)``, each cell weighed by the map ``(N, C, h', w')`` there: ``(N, K)``.

    The map is summed over its channels, its negative values are set to 0, and it is area-pooled to the features'
    grid, which keeps the mass of thin regions. A map without a positive value has no average: its vector is 0 and
    `empty` is True.

    Source: SOXAI, eq. 1: ``f_n = sum_ij Z_nij a_ij / sum_ij a_ij``. Differs: the paper resizes the map without
    saying how, and its maps have no negative values.
    """
    if features.ndim != 4 or maps.ndim != 4 or len(features) != len(maps):
        raise InputError(
            f"embed: features (N, K, h, w) and maps (N, C, h, w) of the same N are needed. "
            f"Got {tuple(features.shape)} and {tuple(maps.shape)}."
        )
    flat = maps.to(features.device).float().sum(1, keepdim=True)
    positive = flat.clamp(min=0)
    largest = positive.amax((2, 3), keepdim=True)
    empty = largest == 0
    # divided by the largest value first: sums of denormal or huge values stay numbers
    weights = F.adaptive_avg_pool2d(positive / largest.masked_fill(empty, 1), (features.shape[2], features.shape[3]))
    total = weights.sum((2, 3)).masked_fill(empty[:, 0, 0], 1)
    vectors = (features.float() * weights).sum((2, 3)) / total
    magnitude = flat.abs().sum((1, 2, 3))
    negative = (flat.clamp(max=0).abs().sum((1, 2, 3)) / magnitude.masked_fill(magnitude == 0, 1)).clamp(0, 1)
    return Embedded(vectors, negative, empty.flatten())
