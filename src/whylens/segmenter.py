"""Segmenter: what a segmentation net returns, pixel by pixel, and the net at a region of its pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .layers import first_tensor


def pixel_scores(output: Any, index: int = 0) -> Tensor:
    """The scores ``(N, K, h, w)`` in what the net returned: a tensor, or a mapping that holds them; K above `index`."""
    scores = first_tensor(output)
    if scores is None or scores.ndim != 4 or index >= scores.shape[1]:
        came = type(output).__name__ if scores is None else tuple(scores.shape)
        raise InputError(
            f"A segmentation net must return scores (N, K, h, w), or a mapping that holds them, with more than {index} "
            f"classes. Got {came}."
        )
    return scores


def predicted_classes(scores: Tensor, *, probabilities: bool = False) -> Tensor:
    """The class of every pixel ``(N, h, w)``; a net with one output has class 0 or none, -1."""
    if scores.shape[1] == 1:
        there = scores[:, 0] > (0.5 if probabilities else 0)
        return there.to(torch.int16) - 1
    return scores.argmax(1).to(torch.int16)


def predicted_region(scores: Tensor, index: int, *, probabilities: bool = False) -> tuple[Tensor, Tensor]:
    """The pixels a class is predicted at ``(N, h, w)``, else all of them; and whether there are any ``(N,)``."""
    there = predicted_classes(scores, probabilities=probabilities) == index
    some = there.flatten(1).any(1)
    return there | ~some.view(-1, 1, 1), some


def mean_inside(scores: Tensor, weights: Tensor) -> Tensor:
    """Mean of scores ``(N, ..., h, w)`` over pixels weighed by ``(h, w)`` or ``(N, ..., h, w)``."""
    return (scores * weights).sum((-2, -1)) / weights.sum((-2, -1))


class AtPixels(nn.Module):
    """A segmentation net at a fixed region: frames ``(N, C, H, W)`` → mean score of every class there ``(N, K)``.

    `weights` ``(h, w)`` say how much each pixel of the net's output counts; without them all count alike. Its parts
    keep the names they have in the net.
    """

    def __init__(self, net: nn.Module, weights: Tensor | None = None) -> None:
        super().__init__()
        for name, child in net.named_children():
            self.add_module(name, child)
        self.whole_net = net  # last, so that its parts keep their own names
        self.register_buffer("weights", weights, persistent=False)
        self.training = False

    def forward(self, given: Tensor) -> Tensor:
        """Mean scores of the classes."""
        scores = pixel_scores(self.whole_net(given))
        weights: Any = torch.ones_like(scores[0, 0]) if self.weights is None else self.weights
        return mean_inside(scores, weights.to(scores))
