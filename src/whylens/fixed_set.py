"""Fixed set: images that are prepared once and looked at again and again, and what maps of them are measured by."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import torch
from torch import Tensor

from .batches import Frames, batched
from .contract import Metric
from .errors import InputError
from .explain import BATCH
from .explanation import Explanation
from .images import Images, Photo, Unreadable
from .masks import Mask
from .model import Model
from .placement import Placement
from .run.plan import label_index
from .snapshot import IGNORED, OBJECT, THRESHOLDS
from .trial import score_batch, trial_of


class FixedSet:
    """The images, prepared once: frames ``(N, C, H, W)``, placements, masks, and labels ``(N,)``, -1 where unknown."""

    def __init__(self, images: Images, frames: Tensor, placements: list[Placement | None], labels: Tensor) -> None:
        self.images, self.frames, self.placements, self.labels = images, frames, placements, labels
        self.ids: tuple[str, ...] = images.ids
        self.masks: list[Mask | None] = [images.mask(i) for i in range(len(images))]
        self.pixels = torch.stack([self._mask(k) for k in range(len(frames))])  # (N, H, W): 1 object, 2 ignored

    @classmethod
    def read(cls, model: Model, images: Images) -> FixedSet:
        """Read and prepare all of them; one that cannot be read, or has a frame of another shape, is refused."""
        photos: list[Photo] = []
        for photo in images.stream():
            if isinstance(photo, Unreadable):
                raise InputError(f"Recorder: '{photo.id}' cannot be read: {photo.reason}")
            photos.append(photo)
        found = list(batched(model, photos, BATCH, {}))
        shapes = {tuple(batch.frames.shape[1:]) for batch in found}
        if len(shapes) > 1 or len(next(iter(shapes))) != 3:
            raise InputError(
                f"Recorder: all images must have frames of one shape (C, H, W). Got {sorted(shapes)}. "
                "Give the Model a preprocess."
            )
        known = [label_index(photo.label, model, images.classes) for photo in photos]
        labels = torch.tensor([-1 if number is None else number for number in known])
        placements = [placement for batch in found for placement in batch.placements]
        return cls(images, torch.cat([batch.frames for batch in found]), placements, labels)

    def batches(self) -> Iterator[Frames]:
        """All frames, batch by batch."""
        for start in range(0, len(self.frames), BATCH):
            stop = min(start + BATCH, len(self.frames))
            yield Frames(self.frames[start:stop], list(range(start, stop)), self.placements[start:stop])

    def mark(self) -> str:
        """What tells these frames and masks from others."""
        digest = sha256(self.frames.contiguous().numpy().tobytes())
        digest.update(self.pixels.numpy().tobytes())
        return digest.hexdigest()

    def has_object(self) -> Tensor:
        """The images with an object in their frame ``(N,)``."""
        return (self.pixels == OBJECT).flatten(1).any(1)

    def _mask(self, k: int) -> Tensor:
        mask, placement = self.masks[k], self.placements[k]
        pixels = torch.zeros(self.frames.shape[-2:], dtype=torch.uint8)
        if mask is None or placement is None:
            return pixels
        pixels[placement.to_frame(mask.inside & ~mask.ignored) >= 0.5] = OBJECT
        pixels[placement.to_frame(mask.ignored) >= 0.5] = IGNORED
        return pixels


def eight_bit(frames: Tensor) -> Tensor:
    """Frames to look at; values outside [0, 1] are stretched between the smallest and the largest of each frame."""
    low, high = (getattr(frames.flatten(1), side)(1).view(-1, 1, 1, 1) for side in ("amin", "amax"))
    odd = (low < 0) | (high > 1)
    shown = torch.where(odd, (frames - low) / (high - low).clamp(min=1e-12), frames)
    return (shown * 255).round().to(torch.uint8)


def overlap_of(region: Tensor, held: FixedSet) -> Tensor:
    """IoU ``(N,)`` of a predicted region ``(N, H, W)`` and the object; NaN without mask."""
    found = _ratio(region & (held.pixels != IGNORED), held.pixels == OBJECT)
    return found.masked_fill(~held.has_object(), torch.nan).float()


def _ratio(one: Tensor, two: Tensor) -> Tensor:
    return (one & two).sum((-2, -1)).double() / (one | two).sum((-2, -1))


def on_object(model: Model, e: Explanation, held: FixedSet) -> tuple[Tensor, Tensor]:
    """How maps lie on the masks: IoU ``(N, T)`` at `THRESHOLDS` (the curve of `iou`) and `energy_inside` ``(N,)``."""
    trial = trial_of(model, held.images, e, held.frames, masks=held.masks, labels=[None] * len(held.ids))
    cut = score_batch(Metric("iou"), trial, seed=0)
    curve = torch.full((len(held.ids), len(THRESHOLDS)), torch.nan) if cut.curve is None else cut.curve
    return curve.masked_fill(~held.has_object()[:, None], torch.nan), score_batch(
        Metric("energy_inside"), trial, seed=0
    ).values
