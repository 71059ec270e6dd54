"""How few cells hold the map."""

from __future__ import annotations

import torch

from ..contract import MetricFacts, Trial, Values


@MetricFacts(direction="higher", low=0.0, high=1.0, forwards="0")
def sparseness(trial: Trial) -> Values:
    """Gini index of the map's magnitudes: 0 where all cells are equal, near 1 where one cell holds everything.

    values: (N,), unit: Gini index, range: [0, 1 - 1/cells].   cost: no pass.
    The map is summed over its channels. With n magnitudes v in ascending order: sum_k (2 k - n - 1) v_k / (n sum v).
    fails: says nothing about truth; depends on the map's size, so only maps of one size compare.
    no value: `no_mass` (the map is zero everywhere).

    Source: Chalasani et al. 2020, arXiv:1810.06583, section 3 (Gini index of Hurley and Rickard, arXiv:0811.4706).
    Differs: cells instead of single values of the frame.
    """
    maps = trial.explanation.maps.double()
    sizes = (maps.sum(1) if maps.ndim == 4 else maps).flatten(1).abs().sort(1).values
    count, total = sizes.shape[1], sizes.sum(1)
    rank = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
    gini = ((rank * sizes).sum(1) / (count * total)).clamp(min=0)
    return Values(gini.masked_fill(total == 0, torch.nan), checks={"no_mass": total == 0})
