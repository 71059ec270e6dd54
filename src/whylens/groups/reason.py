"""Reason: what tells a group's features from the rest, and where in a frame that lies, to the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray
from torch import Tensor

from ..model import Model
from ..passes import Passes
from . import project
from .intervene import over

if TYPE_CHECKING:
    from .grouping import Groups

Array = NDArray[Any]

CUT = 0.3
"""Share of an image's strongest pixel from which a pixel belongs to the reason."""

SMOOTH = 0.08
"""Width of the square over which pixels are averaged, and then widened, as a share of the shorter side of the frame, or
of the box that is looked at."""

_BATCH = 32


def direction(vectors: Array, group: Array, rest: Array) -> Tensor:
    """What tells points `group` from points `rest`, among vectors ``(P, K)`` of length 1: the difference of means."""
    there = vectors[rest].mean(0) if len(rest) else 0.0
    return torch.from_numpy(np.asarray(vectors[group].mean(0) - there, np.float32))


def reason_of(vectors: Array, labels: Array, classes: Array, number: int) -> Tensor:
    """The direction ``(K,)`` of group `number`: against the other points of its class, or of all, if it is alone there.

    `vectors` ``(P, K)`` of length 1, with the group and the class ``(P,)`` of each.
    """
    own = (labels == number).nonzero()[0]
    of_class = classes == classes[own[0]]
    rest = (of_class & (labels != number) & (labels >= 0)).nonzero()[0]
    return direction(vectors, own, rest if len(rest) else (~of_class).nonzero()[0])


def evidence(groups: Groups, model: Model, frames: Tensor, parts: Sequence[Tensor], number: int) -> Tensor:
    """Where frames ``(N, C, H, W)`` show the reason of a group, near the regions ``(h, w)`` of their maps."""
    said, held = groups.settings, groups.points
    along = reason_of(project.normalised(held.vectors), groups.state.labels, groups.facts.classes[held.image], number)
    layer = groups.run.method(str(said["method"]))[1].features
    near = wider(parts, frames.shape[2:])
    return near if layer is None else pixels(model, layer, frames, along, near)


def wider(parts: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Regions ``(h, w)`` of maps, one cell wider, as masks over frames ``(N, 1, H, W)``."""
    grown = F.max_pool2d(torch.stack(list(parts))[:, None].float(), 3, 1, 1)[:, 0] > 0
    return over(grown, size)


def pixels(
    model: Model, layer: str, frames: Tensor, along: Tensor, regions: Tensor, *, span: float | None = None
) -> Tensor:
    """Where frames ``(N, C, H, W)`` show a reason: masks ``(N, 1, H, W)``, inside regions ``(N, 1, H, W)`` if possible.

    The feature layer is projected on the direction `along` ``(K,)``, and its positive part, squared and summed, is
    differentiated with respect to the frame; gradient times the frame less its mean colour, in magnitude, is averaged
    over small squares and cut. Where nothing of it lies in the region, the region itself stands. `span` is the
    shorter side in pixels of what is looked at, where that is not the whole frame.
    """
    wide = SMOOTH * (min(frames.shape[2:]) if span is None else span)
    side = max(3, 2 * round(wide / 2) + 1)
    return torch.cat(
        [
            _pixels(model, layer, part, along, inside, side)
            for part, inside in zip(torch.split(frames, _BATCH), torch.split(regions, _BATCH), strict=True)
        ]
    )


def _pixels(model: Model, layer: str, frames: Tensor, along: Tensor, regions: Tensor, side: int) -> Tensor:
    passes = Passes(model, frames, layers={layer}, to_input=True)
    trace = passes.trace(layer=layer, to_input=True)
    with torch.enable_grad():
        grid = model.layer(layer, tuple(frames.shape[1:])).grid(trace.activations[layer])
        along = along.to(grid)
        total = (grid * along.view(1, -1, 1, 1)).sum(1).clamp(min=0).square().sum()
        gradient = passes.differentiate(total, trace.leaf, trace, "plain").cpu()  # type: ignore[arg-type]
    strength = (gradient.float() * (frames - frames.mean((2, 3), keepdim=True))).abs().sum(1, keepdim=True)
    strength = F.avg_pool2d(strength, side, 1, side // 2) * regions
    top = strength.amax((2, 3), keepdim=True)
    wide = F.max_pool2d((strength >= CUT * top).float() * (top > 0), side, 1, side // 2) > 0
    return torch.where(top > 0, wide, regions)
