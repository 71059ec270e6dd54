"""Detections: the objects that a net finds in one frame, and one of them as what an explanation speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .placement import Box

if TYPE_CHECKING:
    from torch import Tensor


Of = Literal["class", "mask"]
"""What is explained at a box: the score of its class, or its mask."""


@dataclass(frozen=True)
class Detections:
    """The objects of one frame, the surest first: what `Model.detect` gives.

    `boxes` ``(D, 4)`` are left, top, right, bottom in pixels of the frame, `labels` ``(D,)`` outputs of the net (0 is
    the background and never found), `scores` ``(D,)`` probabilities, `masks` ``(D, H, W)`` bool, None where the net
    has no mask head.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: Tensor) -> Detections:
        """Some of them: positions, or a bool ``(D,)``."""
        masks = None if self.masks is None else self.masks[rows]
        return Detections(self.boxes[rows], self.labels[rows], self.scores[rows], masks)


@dataclass(frozen=True)
class Instance:
    """One object of one image: the box that an explanation holds fixed.

    `number` counts the objects of its image, `box` is in pixels of the frame, `label` and `name` are its class.
    `score` is the probability it was detected with, not a number for a box that was given. `of` says what is
    explained there: "class", the class's score at the box, or "mask", the mask head's. `layer` is the feature map the
    box is pooled from, `reason` why it is that one.
    """

    number: int
    box: Box
    label: int
    name: str
    score: float
    of: Of = "class"
    layer: str = ""
    reason: str = ""

    def __str__(self) -> str:
        left, top, right, bottom = (round(edge) for edge in self.box)
        return f"{self.name} #{self.number} at ({left}, {top}, {right}, {bottom})"

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Instance:
        """From the plain values that ``vars`` gives, as read from JSON, where no number is null."""
        score = float("nan") if said["score"] is None else said["score"]
        return cls(**{**said, "box": tuple(said["box"]), "score": score})
