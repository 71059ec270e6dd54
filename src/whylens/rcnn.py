"""R-CNN: torchvision's Faster and Mask R-CNN with any backbone, run part by part; the net itself stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .detections import Detections
from .errors import InputError
from .grid import Grid
from .layers import FeatureLayer
from .placement import Box
from .segmenter import mean_inside

INSIDE = 0.5
"""Probability of the mask head from which a cell is inside the mask."""


def is_rcnn(net: nn.Module) -> bool:
    """Whether it is a two-stage detector of torchvision: a backbone, proposals, and heads on boxes."""
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.roi_heads import RoIHeads

    return isinstance(net, GeneralizedRCNN) and isinstance(net.roi_heads, RoIHeads)


def normalisation(net: Any) -> dict[str, Any]:
    """The net's own mean and standard deviation per channel."""
    return {"mean": tuple(map(float, net.transform.image_mean)), "std": tuple(map(float, net.transform.image_std))}


def check_size(net: Any, shape: tuple[int, ...], name: str) -> None:
    """Refuse frames ``(..., H, W)`` that the net would pad: its grid would then reach beyond the frame."""
    whole = int(net.transform.size_divisible)
    if len(shape) < 2 or any(side % whole for side in shape[-2:]):
        raise InputError(
            f"{name}: frames must have sides that are multiples of {whole}. Got {tuple(shape[-2:])}. Give the Model a "
            f"preprocess: Preprocess(({20 * whole}, {20 * whole}), {20 * whole}, fit='longer')."
        )


def features_of(net: Any, given: Tensor) -> dict[str, Tensor]:
    """The backbone's feature maps by name for what the net takes ``(N, C, H, W)``."""
    found = net.backbone(given)
    return {"0": found} if isinstance(found, Tensor) else dict(found)


def detect(net: Any, given: Tensor) -> Detections:
    """What the net finds in one normalised frame ``(1, C, H, W)``, by its own thresholds.

    The parts are those that the net's forward calls; only its resizing is left out.
    """
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    size = (int(given.shape[-2]), int(given.shape[-1]))
    features = features_of(net, given)
    proposals, _ = net.rpn(ImageList(given, [size]), features, None)
    (found,), _ = net.roi_heads(features, proposals, [size], None)
    masks = None
    if "masks" in found:
        masks = (paste_masks_in_image(found["masks"], found["boxes"], size)[:, 0] >= INSIDE).cpu()
    return Detections(found["boxes"].float().cpu(), found["labels"].cpu(), found["scores"].float().cpu(), masks)


def roi_pool(
    level: Tensor, pool: nn.Module, features: dict[str, Tensor], name: str, box: Tensor, size: tuple[int, int]
) -> Tensor:
    """What a pool gives at one box of frames of that size, from the map `level` of that name among `features`.

    One call for whoever watches: what happens to the numbers that say which map is read is no part of the net.
    """
    if has_torch_function((level,)):
        result: Tensor = handle_torch_function(roi_pool, (level,), level, pool, features, name, box, size)
        return result
    given = {**features, name: level}
    pooled: Tensor = pool(given, [box] * len(level), [size] * len(level))
    return pooled


class AtBox(nn.Module):
    """A detector at one fixed box: normalised frames ``(N, C, H, W)`` → class scores ``(N, K)``, 0 the background.

    The features are pooled at the box, from the map named `level`, and go through the box head; there are no
    proposals, thresholds or suppression. With `cells` ``(m, m)`` the scores are the mask head's logits, averaged over
    these cells of the box. Its parts keep the names they have in the net, and the map is a layer of its own.

    Source: Khorram, Lawson, Li 2021 (iGOS++), explanations of detectors.   Differs: no weights are loaded anew.
    """

    def __init__(self, net: Any, box: Box, level: str, cells: Tensor | None = None) -> None:
        super().__init__()
        self.backbone, self.roi_heads, self.name = net.backbone, net.roi_heads, level
        self.level = nn.ModuleDict({level: nn.Identity()})
        self.box: Tensor
        self.cells: Tensor | None
        self.register_buffer("box", torch.tensor([box], dtype=torch.float32), persistent=False)
        self.register_buffer("cells", cells, persistent=False)
        self.training = False

    def forward(self, given: Tensor) -> Tensor:
        """Scores of the classes."""
        if self.cells is None:
            return self.class_logits(given)
        return mean_inside(self.mask_logits(given), self.cells)

    def class_logits(self, given: Tensor) -> Tensor:
        """Of the box head ``(N, K)``."""
        heads: Any = self.roi_heads
        scores: Tensor = heads.box_predictor(heads.box_head(self._pooled(heads.box_roi_pool, given)))[0]
        return scores

    def mask_logits(self, given: Tensor) -> Tensor:
        """Of the mask head ``(N, K, m, m)``, cells over the box."""
        heads: Any = self.roi_heads
        logits: Tensor = heads.mask_predictor(heads.mask_head(self._pooled(heads.mask_roi_pool, given)))
        return logits

    def _pooled(self, pool: nn.Module, given: Tensor) -> Tensor:
        features, size = features_of(self, given), (int(given.shape[-2]), int(given.shape[-1]))
        level = self.level[self.name](features[self.name])
        return roi_pool(level, pool, features, self.name, self.box.to(given.dtype), size)


@dataclass(frozen=True)
class Pyramid:
    """The feature maps that boxes are pooled from, for frames of one size: names, sizes and channels."""

    frame: tuple[int, int]
    names: tuple[str, ...]  # of all maps of the backbone, in its order
    sizes: Mapping[str, tuple[int, int]]
    channels: Mapping[str, int]

    @classmethod
    def of(cls, net: Any, given: Tensor) -> Pyramid:
        """Seen on one frame ``(1, C, H, W)``."""
        found = features_of(net, given)
        bad = next((name for name, value in found.items() if "." in name or value.ndim != 4), None)
        if bad is not None:
            raise InputError(f"The detector's feature map '{bad}' must be (N, C, h, w), its name without dots.")
        sizes = {name: (int(value.shape[2]), int(value.shape[3])) for name, value in found.items()}
        frame = (int(given.shape[-2]), int(given.shape[-1]))
        return cls(frame, tuple(found), sizes, {name: int(value.shape[1]) for name, value in found.items()})

    def finest(self, pool: Any) -> tuple[int, int]:
        """The largest grid that boxes are pooled from."""
        return max(self.sizes[name] for name in self.pooled(pool))

    def pooled(self, pool: Any) -> tuple[str, ...]:
        """The maps that a pool reads, in the backbone's order."""
        known = getattr(pool, "featmap_names", self.names)
        return tuple(name for name in self.names if name in known) or self.names

    def level(self, box: Box, pool: Any) -> tuple[str, FeatureLayer]:
        """The map that a box is pooled from, by its area: its name, and as a layer of `AtBox`.

        Source: Lin et al. 2017 (feature pyramid networks), eq. 1: ``k = floor(k0 + log2(sqrt(area) / s0))`` within
        the levels there are; k0 = 4 and s0 = 224 unless the pool has others.
        """
        names = self.pooled(pool)
        name, reason = names[0], "the only map that boxes are pooled from"
        if len(names) > 1:
            k0, s0 = getattr(pool, "canonical_level", 4), getattr(pool, "canonical_scale", 224)
            width, height = box[2] - box[0], box[3] - box[1]
            low, high = self._level(names[0]), self._level(names[-1])
            k = math.floor(k0 + math.log2(max(math.sqrt(width * height), 1e-6) / s0) + 1e-6)
            number = min(max(k, low), high)
            name = names[number - low]
            reason = f"level P{number} of a box of {width:.0f} x {height:.0f} pixels: k = {k} of {low} to {high}"
        return name, FeatureLayer(f"level.{name}", Grid("NCHW", self.sizes[name], self.channels[name]), reason)

    def _level(self, name: str) -> int:
        """The level whose stride is 2^k."""
        return round(math.log2(self.frame[0] / self.sizes[name][0]))
