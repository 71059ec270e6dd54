"""References: annotated objects laid into the frame, and which of them each detection is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from .detections import Detections
from .masks import Annotated
from .model import Model
from .placement import Box, Placement

MATCH = 0.3
"""Overlap of boxes (intersection over union) from which a detection is of an object: its mask may be far from whole."""

WHOLE = 0.9
"""Share of an object's mask that a predicted mask must cover to be whole."""


@dataclass(frozen=True)
class Reference:
    """One annotated object in the frame: its class's output (None: the model knows none such), box, and mask."""

    label: int | None
    named: bool  # whether the annotation names a class at all
    box: Box
    inside: Tensor | None  # (H, W) bool


@dataclass(frozen=True)
class Match:
    """What a detection is of: the object's number among the image's, the boxes' overlap, the share of its mask covered.

    `covered` is not a number where one of the two has no mask.
    """

    reference: int
    overlap: float
    covered: float

    @property
    def incomplete(self) -> bool | None:
        """Whether the predicted mask leaves too much of the object out; None where that is unknown."""
        return None if self.covered != self.covered else self.covered < WHOLE


def references(objects: Sequence[Annotated], model: Model, placement: Placement) -> list[Reference]:
    """Annotated objects as far as they lie in the frame."""
    rows, columns = placement.frame
    found = []
    for one in objects:
        inside = None if one.inside is None else placement.to_frame(one.inside) >= 0.5
        left, top, right, bottom = placement.box_to_frame(one.box)
        box = (max(left, 0.0), max(top, 0.0), min(right, float(columns)), min(bottom, float(rows)))
        if box[0] < box[2] and box[1] < box[3] and (inside is None or bool(inside.any())):
            found.append(Reference(_label(one.name, model), one.name is not None, box, inside))
    return found


def matched(found: Detections, known: Sequence[Reference], *, least: float = MATCH) -> list[Match | None]:
    """For each detection the object it is of: the surest choose first, each object once, of the same class if named."""
    if not len(found) or not known:
        return [None] * len(found)
    overlaps = box_iou(found.boxes, torch.tensor([one.box for one in known]))
    free, matches = set(range(len(known))), []
    for k in range(len(found)):
        fits = [j for j in free if float(overlaps[k, j]) >= least and _same(int(found.labels[k]), known[j])]
        best = max(fits, key=lambda j: (float(overlaps[k, j]), -j), default=None)
        matches.append(None if best is None else Match(best, float(overlaps[k, best]), _covered(found, k, known[best])))
        free -= {best} if best is not None else set()
    return matches


def _label(name: str | None, model: Model) -> int | None:
    if name is None or model.classes is None:
        return None
    low = name.strip().lower()
    return next((k for k, known in enumerate(model.classes) if known.strip().lower() == low), None)


def _same(label: int, one: Reference) -> bool:
    return not one.named or one.label == label


def _covered(found: Detections, k: int, one: Reference) -> float:
    if found.masks is None or one.inside is None:
        return float("nan")
    return float((found.masks[k] & one.inside).sum() / one.inside.sum())
