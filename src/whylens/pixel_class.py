"""Pixel class: the target of a segmentation net that is recorded, and what it predicts pixel by pixel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ._state import as_found
from .errors import InputError
from .fixed_set import FixedSet
from .model import Model
from .segmenter import mean_inside, pixel_scores, predicted_classes, predicted_region
from .snapshot import OBJECT


class PixelClass:
    """The target of a segmentation net: the mean score of a class over the pixels it is predicted at, else over all."""

    def __init__(self, model: Model, target: Any) -> None:
        if isinstance(target, str):
            target = model.class_index(target)
        if not isinstance(target, int) or isinstance(target, bool) or target < 0:
            raise InputError(
                "Recorder: a segmentation net needs target=, the class whose pixels are explained, by number or name. "
                f"Got {target!r}."
            )
        self.model, self.index, self.__name__ = model, target, model.class_name(target)

    def __call__(self, output: Any) -> Tensor:
        """The score of every image ``(N,)``."""
        scores = pixel_scores(output, self.index)
        region, _ = predicted_region(scores, self.index, probabilities=self.model.output == "probabilities")
        return mean_inside(scores[:, self.index], region.to(scores))


def predicted_pixels(model: Model, held: FixedSet, index: int) -> tuple[Tensor, Tensor]:
    """The class of every frame pixel ``(N, H, W)``, and the target's mean probability on the object, else anywhere."""
    size = held.frames.shape[-2:]
    where = (held.pixels == OBJECT) | ~held.has_object().view(-1, 1, 1)
    classes, shares = [], []
    with as_found(model.net), torch.no_grad():
        for batch in held.batches():
            scores = pixel_scores(model.forward(batch.frames.to(model.device, model.dtype)), index).float().cpu()
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
            own, there = _probabilities(model, scores)[:, index], where[batch.positions]
            classes.append(predicted_classes(scores, probabilities=model.output == "probabilities"))
            shares.append((own * there).sum((1, 2)) / there.sum((1, 2)))
    return torch.cat(classes), torch.cat(shares)


def _probabilities(model: Model, scores: Tensor) -> Tensor:
    """Of every class at every pixel ``(N, K, h, w)``."""
    if model.output == "probabilities":
        return scores
    return scores.sigmoid() if model.independent(scores.shape[1]) else scores.softmax(1)
