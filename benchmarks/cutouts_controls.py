"""Controls of `cutouts.py`: maps that know nothing of the model."""

from __future__ import annotations

import zlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import whylens


def control(function: Any) -> Any:
    return whylens.MethodFacts(needs=("scores",), unit="none", signed=False, forwards="0", backwards="0")(function)


@control
def random_cells(probe: whylens.Probe) -> Tensor:
    """7 x 7 random values, drawn anew for every image."""
    return torch.stack([torch.rand((1, 7, 7), generator=_generator(frame)) for frame in probe.frames])


@control
def random_pixels(probe: whylens.Probe) -> Tensor:
    """A random value for every pixel, drawn anew for every image."""
    return torch.stack([torch.rand((1, *frame.shape[1:]), generator=_generator(frame)) for frame in probe.frames])


@control
def centre(probe: whylens.Probe) -> Tensor:
    """A bell around the middle of the frame, a quarter of its side wide."""
    sides = probe.frames.shape[2:]
    rows, columns = (torch.exp(-(torch.linspace(-1, 1, side) ** 2) / (2 * 0.5**2)) for side in sides)
    return (rows[:, None] * columns).expand(len(probe.frames), 1, *sides).clone()


@control
def edges(probe: whylens.Probe) -> Tensor:
    """Size of the grey image's gradient (Sobel), averaged over 5 x 5 pixels."""
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    grey = F.pad(probe.frames.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None])
    return F.avg_pool2d(slopes.norm(dim=1, keepdim=True), 5, 1, 2, count_include_pad=False)


def _generator(frame: Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(frame.numpy().tobytes()))


CONTROLS = (random_cells, random_pixels, centre, edges)
