"""Intervene: what becomes of the decision when evidence is kept alone, removed, or pasted on other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ..baseline import search
from ..interval import Interval, wilson
from ..model import Model
from ..passes import Passes
from ..probe import Probe

RING = 0.06
"""Width of the surroundings whose mean colour fills a hole, as a share of the frame's shorter side."""

PLACES = 16
"""Random places tried for a control region; the one that covers least of the evidence is taken."""

_BATCH = 32


@dataclass(frozen=True)
class Tested:
    """Shares of images, each beside that of random regions of the same shape in the same images.

    `decides`: the evidence alone still gives the class. `needed`: without it the class is lost. `carries`: pasted on
    images of other classes it makes them this one.
    """

    decides: Interval
    decides_control: Interval
    needed: Interval
    needed_control: Interval
    carries: Interval
    carries_control: Interval

    @property
    def gain(self) -> float:
        """How much more often the evidence carries the class than a random region does; 0 where it was not pasted."""
        return self.carries.value - self.carries_control.value if self.carries.n else 0.0

    def __str__(self) -> str:
        def share(found: Interval) -> str:
            return f"{found.value:.0%}" if found.n else "-"

        return (
            f"alone it decides {share(self.decides)} (a random region {share(self.decides_control)}); without it "
            f"{share(self.needed)} lose the class ({share(self.needed_control)}); pasted on others it turns "
            f"{share(self.carries)} ({share(self.carries_control)})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def intervene(
    model: Model, frames: Tensor, masks: Tensor, target: int, hosts: Tensor, *, keys: Sequence[int], seed: int = 0
) -> Tested:
    """What the evidence `masks` ``(N, 1, H, W)`` of frames ``(N, C, H, W)`` does for class `target`.

    `hosts` ``(M, C, H, W)`` are frames that the model takes for other classes; host i gets the evidence of frame
    i modulo N, where it lay. `keys` ``(N,)`` name the images, so that an image's control is the same in any company.
    """
    control = elsewhere(masks, keys, seed)
    found: list[Interval] = []
    with torch.no_grad():
        blank = nothing(model, frames, target)
        for own in (masks, control):
            found.append(_share(model, torch.where(own, frames, blank), target))
        for own in (masks, control):
            found.append(_share(model, removed(frames, own), target, lost=True))
        donors = torch.arange(len(hosts)) % max(1, len(frames))
        for own in (masks, control):
            found.append(_share(model, torch.where(own[donors], frames[donors], hosts), target))
    return Tested(*found)


def over(regions: Tensor, size: Sequence[int]) -> Tensor:
    """Regions ``(N, h, w)`` as masks over frames ``(N, 1, H, W)``: every cell as large as it stands for."""
    return F.interpolate(regions[:, None].float(), size=tuple(size), mode="nearest-exact") > 0.5


def removed(frames: Tensor, masks: Tensor) -> Tensor:
    """Frames ``(N, C, H, W)`` whose masked pixels have the mean colour of what surrounds them."""
    reach = max(1, round(RING * min(frames.shape[2:])))
    wider = F.max_pool2d(masks.float(), 2 * reach + 1, stride=1, padding=reach) > 0
    ring = wider & ~masks
    ring = torch.where(ring.any((2, 3), keepdim=True), ring, ~masks)  # the region reaches the border all round
    weight = ring.to(frames)
    colour = (frames * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(masks, colour, frames)


def elsewhere(masks: Tensor, keys: Sequence[int], seed: int) -> Tensor:
    """Masks ``(N, 1, H, W)`` of the same shape and area at random places that cover least of the given ones."""
    found, size = [], masks.shape[2:]
    for mask, key in zip(masks, keys, strict=True):
        rng = np.random.default_rng([seed, key])
        moved = [mask.roll((int(rng.integers(size[0])), int(rng.integers(size[1]))), (1, 2)) for _ in range(PLACES)]
        covered = [int((place & mask).sum()) for place in moved]
        found.append(moved[covered.index(min(covered))])
    return torch.stack(found) if found else masks


def nothing(model: Model, frames: Tensor, target: int) -> Tensor:
    """For each frame the gentlest fill under which the class is gone, on the CPU."""
    if not len(frames):
        return frames
    parts = []
    for part in torch.split(frames, _BATCH):
        probe = Probe(Passes(model, part), torch.full((len(part),), target, device=model.device))
        parts.append(search(probe).frames.cpu().expand_as(part))
    return torch.cat(parts)


def _share(model: Model, frames: Tensor, target: int, *, lost: bool = False) -> Interval:
    """The share of frames that the model takes for the class, or, `lost`, for another one."""
    hits = 0
    for part in torch.split(frames, _BATCH) if len(frames) else ():
        hits += int((model.predict(part).argmax(1) == target).sum())
    return wilson(len(frames) - hits if lost else hits, len(frames))
