"""The small net of the planted set, in a file that ``load_model("net.py:make")`` opens."""

from __future__ import annotations

from torch import nn

CLASSES = 8


def make(width: int = 16) -> nn.Module:
    """Five convolutions down to a grid of 8 x 8 cells for frames of 64 x 64, their mean, one linear head.

    `width` is the first convolution's channels.
    """
    return nn.Sequential(
        *_stage(3, width, stride=2),
        *_stage(width, 2 * width),
        nn.MaxPool2d(2),
        *_stage(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *_stage(4 * width, 4 * width),
        *_stage(4 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    ).eval()


def _stage(into: int, out: int, *, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU; no bias before the norm, which has its own."""
    return [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
