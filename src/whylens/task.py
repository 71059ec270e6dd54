"""Task: what an act receives, and what all acts share: frames, evidence, hits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._progress import track
from .errors import InputError
from .groups.describe import Group
from .groups.evidence import region
from .groups.grouping import Groups
from .groups.reason import evidence
from .images import Images
from .model import Model
from .run.read import Run

Array = NDArray[Any]

_BATCH = 64


@dataclass(frozen=True)
class Task:
    """What an act receives: the run, the grouping and one group of it, the model, and images.

    `images` are those on which the effect is measured, `train` those that a model may learn from; both may be None.
    """

    run: Run
    groups: Groups
    group: Group
    model: Model
    given_images: Images | None
    train: Images | None
    seed: int
    progress: bool

    def own_images(self) -> Images:
        """All images of the run: as given where it is they, else read again."""
        given = self.given_images
        if given is not None and len(given) == len(self.run) and given.ids == tuple(self.groups.facts.keys.tolist()):
            return given
        return self.run.images

    def evidence(self) -> Iterator[Shown]:
        """The group's images with its evidence in them, by number, some at a time."""
        images, method = self.own_images(), str(self.groups.settings["method"])
        own: dict[int, list[int]] = {}
        for point in self.group.points.tolist():
            own.setdefault(int(self.groups.points.image[point]), []).append(int(self.groups.points.region[point]))
        ids = sorted(own)
        batches = [ids[k : k + _BATCH] for k in range(0, len(ids), _BATCH)]
        for batch in track(batches, total=len(batches), label="act", show=self.progress):
            frames, maps = framed(self.model, images, batch), self.run.maps(method, batch)
            parts = [torch.stack([region(m, r) for r in own[i]]).any(0) for m, i in zip(maps, batch, strict=True)]
            yield Shown(frames, evidence(self.groups, self.model, frames, parts, self.group.number), batch)


@dataclass(frozen=True)
class Shown:
    """Frames ``(N, C, H, W)`` of some images, a group's evidence there ``(N, 1, H, W)``, and the images' numbers."""

    frames: Tensor
    evidence: Tensor
    ids: list[int]

    @property
    def area(self) -> Array:
        """Share of each frame that is evidence ``(N,)``."""
        found: Array = self.evidence.float().mean((1, 2, 3)).numpy()
        return found


def framed(model: Model, images: Images, ids: Any) -> Tensor:
    """Frames ``(N, C, H, W)`` of some images."""
    made = [model.prepare(images[i].pixels, images[i].orientation)[0] for i in ids]
    return torch.stack(made)


def hits(model: Model, frames: Tensor, truth: Array) -> Array:
    """Whether the model predicts the truth ``(N,)`` for frames ``(N, C, H, W)``: 1 or 0."""
    if not len(frames):
        return np.zeros(0)
    found = torch.cat([model.predict(part).argmax(1).cpu() for part in torch.split(frames, _BATCH)])
    right: Array = (found.numpy() == truth).astype(np.float64)
    return right


def truth_of(model: Model, images: Images, ids: Any, what: str) -> Array:
    """True outputs of images; InputError where one has no label that the model knows."""
    found = []
    for i in ids:
        label = images.labels[i]
        if label is None:
            raise InputError(f"{what}: image '{images.ids[i]}' has no label, and accuracy needs one. Give labels.")
        found.append(output_of(model, label, what))
    return np.array(found, np.int64)


def output_of(model: Model, label: str | int, what: str) -> int:
    """The output of a class by name or number; InputError for one that the model does not have."""
    if isinstance(label, str):
        return model.class_index(label)
    if label < 0 or (model.classes is not None and label >= len(model.classes)):
        raise InputError(f"{what}: {model.name} has no output {label}. It knows {len(model.classes or ())} classes.")
    return int(label)
