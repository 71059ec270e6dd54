"""Mask search: from a probe to maps: which masks a search starts from, from coarse to fine, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .contract import Maps
from .optimise import Objective, Optimizer, Part, descend
from .passes import Baseline
from .probe import Probe
from .residual import keeps_target

CELLS = 28 * 28
"""Cells of the mask for which steps are given; a cell's gradient falls with their number, so the step rises with it."""

DEPTH = 0.2
"""How much of its cell a start other than the first removes."""


@dataclass(frozen=True)
class Search:
    """How a mask is searched: its size, how long, how, and from where."""

    size: int
    iterations: int
    steps: int
    noise: float
    step: float
    optimizer: Optimizer
    coarse_to_fine: bool
    starts: int
    seed: int

    def maps(
        self,
        probe: Probe,
        baseline: Baseline,
        parts: Callable[[Tensor], Sequence[Part]],
        penalty: Callable[[Tensor], Tensor],
        *,
        smooth: float,
        together: int = 1,
    ) -> Maps:
        """Removed shares ``(N, 1, h, w)``: 1 less the product of `together` masks; with several starts the best one.

        Checks: `deleted` and `inserted`, the probability without the evidence and with nothing else.
        """
        objective = Objective(probe, baseline, parts, penalty, smooth, self.steps, self.noise, self.seed)
        best = torch.zeros(len(probe), dtype=torch.long)
        with probe.held():
            found = [self._from(objective, start, together) for start in starts(self.starts, (7, 7), DEPTH)]
            if len(found) > 1:
                last = [objective(masks, torch.arange(len(probe)), self.iterations) for masks in found]
                best = torch.stack(last).argmin(0)
        kept = torch.stack([masks.prod(0) for masks in found])
        mask = kept[best, torch.arange(len(probe))]
        over = enlarged(mask, probe.frames.shape[2:])
        checks = {**ends(probe, baseline, over), **keeps_target(probe, baseline)}
        every = None if len(found) == 1 else 1 - kept[:, :, 0].transpose(0, 1)
        return Maps(1 - mask, checks=checks, parts=every, extra={"baseline": baseline.name})

    def _from(self, objective: Objective, start: Tensor, together: int) -> Tensor:
        """Masks ``(J, N, 1, h, w)`` found from one start ``(1, h, w)``, from coarse to fine."""
        frames = objective.probe.frames
        sizes = coarse_to_fine(self.size) if self.coarse_to_fine else [self.size]
        sizes = sizes[-self.iterations :]
        masks = start.to(frames).float().expand(together * len(frames), 1, -1, -1)
        for k, size in enumerate(sizes):
            shape = cells(size, frames)
            masks = enlarged(masks, shape)
            own = self.iterations * (k + 1) // len(sizes) - self.iterations * k // len(sizes)
            step = self.step * shape[0] * shape[1] / CELLS
            given = masks.reshape(together, len(frames), 1, *shape)
            first = self.iterations * k // len(sizes)
            found = descend(objective, given, iterations=own, step=step, optimizer=self.optimizer, first=first)
            masks = found.masks.flatten(0, 1)
        return masks.view(together, len(frames), 1, *masks.shape[2:])


def ends(probe: Probe, baseline: Baseline, over: Tensor) -> dict[str, Tensor]:
    """The target's probability ``(N,)`` where only `over` ``(N, 1, H, W)`` is kept, and where only the rest is."""
    both = torch.stack([over, 1 - over]).detach().to(probe.frames)
    scores = probe.masked_scores(torch.eye(2), baseline, expand=lambda masks, images: both[masks.argmax(1), images])
    return {"deleted": scores[:, 0], "inserted": scores[:, 1]}


# ---- masks -------------------------------------------------------------------------------------------------


def cells(size: int, frames: Tensor) -> tuple[int, int]:
    """Rows and columns of a mask over frames ``(N, C, H, W)``: `size` along the shorter side, square cells."""
    H, W = frames.shape[2:]
    size = min(size, H, W)
    return min(H, round(size * H / min(H, W))), min(W, round(size * W / min(H, W)))


def enlarged(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks ``(N, 1, h, w)`` over the frame ``(N, 1, *size)``, bilinear with the corner cells on the corners."""
    if masks.shape[2:] == tuple(size):
        return masks
    return F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=True)


def coarse_to_fine(size: int, smallest: int = 7) -> list[int]:
    """Sizes from `smallest`, doubled until `size`."""
    sizes = [size]
    while sizes[0] >= 2 * smallest:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def starts(count: int, shape: tuple[int, ...], depth: float) -> Tensor:
    """`count` masks ``(count, 1, h, w)`` to start from: ones, then ones less `depth` in one cell of a square of cells.

    Source: diverse starts of Khorram & Li (iGOS++ code); there the cell is never set, an indexing slip.
    """
    masks = torch.ones(count, 1, *shape)
    side = 1
    while side * side < count - 1:
        side += 1
    for k in range(count - 1):
        row, column = divmod(k, side)
        down = slice(shape[0] * row // side, shape[0] * (row + 1) // side)
        across = slice(shape[1] * column // side, shape[1] * (column + 1) // side)
        masks[k + 1, 0, down, across] = 1 - depth
    return masks
