"""Pixel class: the target of a segmentation net, and what it predicts pixel by pixel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ._state import as_found
from .errors import InputError
from .fixed_set import FixedSet
from .layers import first_tensor
from .model import Model
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
        scores = _pixel_scores(output, self.index)
        own, there = scores[:, self.index], _predicted(self.model, scores) == self.index
        weight = (there | ~there.flatten(1).any(1).view(-1, 1, 1)).to(own)
        return (own * weight).sum((1, 2)) / weight.sum((1, 2))


def _pixel_scores(output: Any, index: int) -> Tensor:
    scores = first_tensor(output)
    if scores is None or scores.ndim != 4 or index >= scores.shape[1]:
        came = type(output).__name__ if scores is None else tuple(scores.shape)
        raise InputError(
            f"Recorder: a segmentation net must return scores (N, K, h, w), or a mapping that holds them, with more "
            f"than {index} classes. Got {came}."
        )
    return scores


def _predicted(model: Model, scores: Tensor) -> Tensor:
    """The class of every pixel ``(N, h, w)``; a net with one output has class 0 or none, -1."""
    if scores.shape[1] == 1:
        there = scores[:, 0] > (0.5 if model.output == "probabilities" else 0)
        return there.to(torch.int16) - 1
    return scores.argmax(1).to(torch.int16)


def predicted_pixels(model: Model, held: FixedSet, index: int) -> tuple[Tensor, Tensor]:
    """The class of every frame pixel ``(N, H, W)``, and the target's mean probability on the object, else anywhere."""
    size = held.frames.shape[-2:]
    where = (held.pixels == OBJECT) | ~held.has_object().view(-1, 1, 1)
    classes, shares = [], []
    with as_found(model.net), torch.no_grad():
        for batch in held.batches():
            scores = _pixel_scores(model.forward(batch.frames.to(model.device, model.dtype)), index).float().cpu()
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
            own, there = _probabilities(model, scores)[:, index], where[batch.positions]
            classes.append(_predicted(model, scores))
            shares.append((own * there).sum((1, 2)) / there.sum((1, 2)))
    return torch.cat(classes), torch.cat(shares)


def _probabilities(model: Model, scores: Tensor) -> Tensor:
    """Of every class at every pixel ``(N, K, h, w)``."""
    if model.output == "probabilities":
        return scores
    return scores.sigmoid() if model.independent(scores.shape[1]) else scores.softmax(1)
