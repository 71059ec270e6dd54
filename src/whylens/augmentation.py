"""Augmentation: the image with its map added to it or multiplied with it, and the class that counts as true."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .baseline import fill
from .contract import Trial
from .errors import InputError
from .probe import Probe

Mode = Literal["add", "multiply"]
Space = Literal["frame", "normalised"]


def relative(trial: Trial) -> tuple[Tensor, Tensor]:
    """The map over the frame ``(N, C, H, W)``, its largest magnitude 1, and where it is zero everywhere ``(N,)``."""
    maps, frames = trial.explanation.maps.double(), trial.probe.frames
    if maps.ndim == 4 and maps.shape[2:] != frames.shape[2:]:
        maps = F.interpolate(maps, size=frames.shape[2:], mode="bilinear", align_corners=False)
    largest = maps.flatten(1).abs().amax(1)
    h = maps / largest.masked_fill(largest == 0, 1).view(-1, *[1] * (maps.ndim - 1))
    return h.to(frames), largest == 0


def augmented(probe: Probe, h: Tensor, mode: Mode, space: Space) -> Tensor:
    """Frames with h added or multiplied: in the frame, or behind the net's normalisation, given back as frames."""
    x, preprocess = probe.frames, probe.model.preprocess
    if space == "frame" or preprocess is None:
        return x + h if mode == "add" else x * h
    if mode == "multiply":
        mean = fill(probe, "mean").frames
        return mean + (x - mean) * h
    std = x.new_tensor(preprocess.std).view(-1, 1, 1)
    return x + h * (std.flip(0) if preprocess.order == "BGR" else std)


def truth(trial: Trial, K: int, *, otherwise_target: bool = False) -> tuple[Tensor, Tensor]:
    """The output that counts as true ``(N,)``, 0 where none of the `K` is known to be, and where that is so ``(N,)``.

    With `otherwise_target` the explained class stands in for a label that is not known.
    """
    known = torch.full((len(trial.probe),), -1) if trial.labels is None else trial.labels.cpu()
    if otherwise_target and trial.probe.index is not None:
        known = torch.where(known < 0, trial.probe.index.cpu(), known)
    unknown = (known < 0) | (known >= K)
    return known.masked_fill(unknown, 0), unknown


def refuse_single(metric: str, probe: Probe, K: int) -> None:
    """A single output has no other class to be told from."""
    if K == 1:
        raise InputError(
            f"{metric} compares the true class with the others, and {probe.model.name} has one output. "
            "Use insertion or deletion."
        )
