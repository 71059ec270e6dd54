"""Inquiry: what a decision loses when regions are removed, and the fewest regions whose removal undoes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .passes import Baseline
from .probe import Probe
from .regions import Regions
from .surrogate import STEADY

ORDERS = 4
"""Orders in which a walk goes through the regions: the ranking, turned by a quarter each time."""

TOGETHER = 16
"""Prefixes of the ranking that are tried at once."""


@dataclass(frozen=True)
class Critical:
    """The regions ``(N, U)`` of each critical set, the share of the decision it leaves, whether it undoes it."""

    chosen: Tensor
    left: Tensor
    undone: Tensor


@dataclass(frozen=True)
class Inquiry:
    """One batch whose regions are removed and kept, and what fills what is removed."""

    probe: Probe
    found: Regions
    filled: Baseline

    @cached_property
    def has(self) -> Tensor:
        """Which regions each image has ``(N, U)``."""
        return torch.arange(self.found.count) < self.found.counts[:, None]

    @cached_property
    def area(self) -> Tensor:
        """Share of the frame of each region ``(N, U)``."""
        return self.found.area()

    @cached_property
    def ends(self) -> Tensor:
        """Decisions ``(N, 2)`` on everything and on nothing."""
        return self._decisions(torch.tensor([[1.0], [0.0]]).expand(2, self.found.count))

    def shares(self, masks: Tensor) -> Tensor:
        """The target's probability under masks ``(N, M, U)``, over that of the whole image ``(N, M)``.

        Of a target function: its difference from the baseline's value, over that of the whole image.
        """
        return self._shares(self._decisions(masks))

    def steady(self, seen: Tensor) -> Tensor:
        """Images ``(N,)`` whose shares ``(N, M)`` are one number: their score does not depend on the regions."""
        return seen.amax(1) - seen.amin(1) <= STEADY * seen.abs().amax(1).clamp(min=1e-12)

    def ranked(self, theta: Tensor) -> Tensor:
        """Regions ``(N, U)`` from the highest to the lowest; what differs by rounding alone keeps its number's order.

        Regions that an image has not come last.
        """
        largest = theta.amax(1, keepdim=True).clamp(min=torch.finfo(theta.dtype).tiny)
        rounded = (theta / largest * 1e4).round()
        return rounded.masked_fill(~self.has, -1).argsort(dim=1, descending=True, stable=True)

    def credits(self, top: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What each of at most `k` regions `top` ``(N, T)`` is worth to the decision ``(N, T)``, and all shares seen.

        They are removed one by one, and shown one by one on the baseline, each time in `ORDERS` orders; the credit
        is the mean fall and rise at a region's turn: its Shapley value over these orders. Where an image has fewer
        regions, `k` still sets the orders: what is seen does not depend on the other images.
        """
        units = self.found.count
        turns = list(dict.fromkeys(i * k // ORDERS for i in range(ORDERS)))
        place = torch.stack([torch.roll(torch.arange(k), turn) for turn in turns])  # (orders, k): when it moves
        moved = (place[:, None] < torch.arange(k + 1)[None, :, None]).float()  # (orders, k + 1, k)
        named = torch.cat([top, torch.arange(units, units + k - top.shape[1]).expand(len(top), -1)], 1)
        walks = torch.zeros(len(top), len(turns) * (k + 1), max(units, units + k - top.shape[1]))
        walks.scatter_(2, named[:, None].expand(-1, walks.shape[1], -1), moved.flatten(0, 1).expand(len(top), -1, -1))
        walks = walks[..., :units]
        seen = self.shares(torch.cat([1 - walks, walks], 1))
        removed, shown = seen.view(len(top), 2, len(turns), k + 1).unbind(1)
        gains = ((shown.diff(dim=2) - removed.diff(dim=2)) / 2).gather(2, place.expand(len(top), -1, -1))
        return gains.mean(1)[:, : top.shape[1]], seen

    def critical(self, theta: Tensor, *, tau: float, area: float, most: int) -> Critical:
        """The shortest prefix of the ranking whose removal undoes the decision, within a share `area` of the frame.

        Undone: the target is no longer what the net decides for, or at most `tau` of its probability is left. Where
        none of the first `most` prefixes does it, the one that leaves least. The first one is always tried.
        """
        order = self.ranked(theta)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        within = self.area.gather(1, order).cumsum(1) <= area + 1e-6
        lengths = min(most, max(1, int(within.sum(1).max())))
        length, undone = torch.ones(len(theta), dtype=torch.long), torch.zeros(len(theta), dtype=torch.bool)
        least = torch.full((len(theta),), torch.inf)
        for start in range(0, lengths, TOGETHER):
            tried = torch.arange(start, min(start + TOGETHER, lengths))
            allowed = (within[:, tried] | (tried == 0)) & ~undone[:, None]
            kept = (place[:, None] > tried[:, None]) | ~allowed[..., None]
            decisions = self._decisions(kept.float())
            left = self._shares(decisions)
            enough = allowed & self._undoes(decisions, left, tau)
            enough[:, tried == 0] &= within[:, :1]
            found, first = enough.any(1), enough.float().argmax(1)
            left = left.masked_fill(~allowed, torch.inf)
            first = torch.where(found, first, (left * 1e5).round().argmin(1))
            value = left.gather(1, first[:, None])[:, 0]
            better = ~undone & (found | (value < least - 1e-5))
            length, least = torch.where(better, tried[first] + 1, length), torch.where(better, value, least)
            undone |= found
            if bool(undone.all()):
                break
        return Critical(place < length[:, None], least, undone)

    def _undoes(self, decisions: Tensor, left: Tensor, tau: float) -> Tensor:
        if self.probe.function is not None:
            whole, nothing = self.ends.unbind(1)
            return (left <= tau) & (whole > nothing)[:, None]
        return (left <= tau) | ((self.ends[:, :1] > 0) & (decisions < 0))

    def _shares(self, decisions: Tensor) -> Tensor:
        whole, nothing = self.ends[:, :1], self.ends[:, 1:]
        if self.probe.function is not None:
            reach = whole - nothing
            return (decisions - nothing) / torch.where(reach.abs() > 1e-12, reach.abs(), 1)
        return decisions.abs() / whole.abs().clamp(min=torch.finfo(whole.dtype).tiny)

    def _decisions(self, masks: Tensor) -> Tensor:
        return self.probe.masked_scores(masks, self.filled, expand=self.found.expand, kind="decision")
