"""From what a layer gives to a grid of cells: feature maps, channels-last maps, rows of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import InputError

Size = tuple[int, int]
Layout = Literal["NCHW", "NHWC", "tokens", "given"]

MAX_PREFIX = 16
"""Class, distillation and register tokens that may stand before the patches."""


@dataclass(frozen=True)
class Grid:
    """How one layer's output is laid out over the frame."""

    layout: Layout
    size: Size
    channels: int
    prefix: int = 0
    transform: Callable[[Tensor], Tensor] | None = None

    def __call__(self, output: Tensor) -> Tensor:
        """The layer's output, or a gradient of its shape, as ``(N, C, h, w)``; class and register tokens dropped."""
        if self.transform is not None:
            grid = self.transform(output)
            if grid.ndim != 4:
                raise InputError(f"reshape_transform must give (N, C, h, w). Got {tuple(grid.shape)}.")
            return grid
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.layout == "tokens":
            patches = output[:, self.prefix :]
            return patches.transpose(1, 2).reshape(len(output), -1, *self.size)
        return output


def infer(shape: tuple[int, ...], frame: Size, patches: Size | None = None) -> Grid | None:
    """The grid of an output of that shape for a frame ``(H, W)``, or None where there is none.

    `patches` is the net's own patch grid where one was seen. Four axes: channels first unless only the channels-last
    reading has the frame's aspect. Three axes: tokens; rows and columns in the frame's aspect after at most
    16 class and register tokens. A grid has more than one cell.
    """
    if len(shape) == 4:
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        if _fits(first, frame) or not _fits(last, frame):
            return Grid("NCHW", first, shape[1]) if _fits(first, frame) else None
        return Grid("NHWC", last, shape[3])
    if len(shape) == 3:
        size = _token_grid(shape[1], frame, patches)
        return None if size is None else Grid("tokens", size, shape[2], shape[1] - size[0] * size[1])
    return None


def _fits(size: Size, frame: Size) -> bool:
    """More than one cell, none smaller than a pixel, in the frame's aspect within the rounding of one cell."""
    (h, w), (H, W) = size, frame
    if h * w <= 1 or h > H + 2 or w > W + 2:
        return False
    return abs(h * W - w * H) <= max(H, W)


def _token_grid(tokens: int, frame: Size, patches: Size | None) -> Size | None:
    candidates = [] if patches is None else [patches]
    (H, W) = frame
    short = min(H, W)
    for cells in range(int(tokens**0.5) + 1, 1, -1):
        h, w = (cells, round(cells * W / H)) if short == H else (round(cells * H / W), cells)
        candidates.append((h, w))
    for h, w in candidates:
        if h * w > 1 and 0 <= tokens - h * w <= MAX_PREFIX:
            return h, w
    return None
