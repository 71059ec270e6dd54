"""Regions: the units that are kept or removed together: cells of a grid, segments of each image, or your own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .errors import InputError

Kind = Literal["grid", "slic", "quickshift"]


@dataclass(frozen=True)
class Regions:
    """Units of a batch: `count` of them, laid out by `expand`; `labels` ``(N, H, W)`` names each pixel's unit.

    Images whose own segments are fewer than `count` leave the last units empty; `counts` ``(N,)`` says how many each
    image has.
    """

    count: int
    expand: Callable[[Tensor, Tensor], Tensor]
    labels: Tensor
    counts: Tensor

    def paint(self, values: Tensor) -> Tensor:
        """Values of units ``(N, U)`` laid out as maps ``(N, 1, H, W)``."""
        images = torch.arange(len(values), device=values.device)
        flat = self.labels.to(values.device).flatten(1)
        return values.gather(1, flat)[:, None].view(len(images), 1, *self.labels.shape[1:])

    def area(self) -> Tensor:
        """Share of the frame that each unit covers ``(N, U)``."""
        flat = self.labels.flatten(1)
        sizes = torch.zeros(len(flat), self.count).scatter_add(1, flat, torch.ones_like(flat, dtype=torch.float32))
        return sizes / flat.shape[1]


def grid(frames: Tensor, cells: int | tuple[int, int], *, smooth: bool = False) -> Regions:
    """Rows and columns of equal cells over frames ``(N, C, H, W)``; `smooth` blends neighbours bilinearly."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    H, W = frames.shape[2:]
    if rows > H or columns > W:
        raise InputError(f"regions: a grid of {rows} x {columns} does not fit frames of {H} x {W}. Ask fewer cells.")
    down = torch.arange(H) * rows // H
    across = torch.arange(W) * columns // W
    labels = (down[:, None] * columns + across[None, :]).expand(len(frames), -1, -1)

    def expand(masks: Tensor, _images: Tensor) -> Tensor:
        tiles = masks.view(-1, 1, rows, columns)
        if smooth:
            return F.interpolate(tiles, size=(H, W), mode="bilinear", align_corners=False)
        return tiles[:, :, down.to(masks.device)][:, :, :, across.to(masks.device)]

    return Regions(rows * columns, expand, labels, torch.full((len(frames),), rows * columns))


def segments(labels: Tensor) -> Regions:
    """Your own segments ``(N, H, W)``, or ``(1, H, W)`` for all; any integers, numbered anew from 0 per image."""
    renumbered = torch.stack([torch.unique(own, return_inverse=True)[1] for own in labels.long().cpu()])
    counts = renumbered.flatten(1).amax(1) + 1
    held: dict[torch.device, Tensor] = {}

    def expand(masks: Tensor, images: Tensor) -> Tensor:
        own = held.setdefault(masks.device, renumbered.to(masks.device))
        chosen = own[images if len(own) > 1 else torch.zeros_like(images)]
        return masks.gather(1, chosen.flatten(1)).view(len(masks), 1, *chosen.shape[1:])

    return Regions(int(counts.max()), expand, renumbered, counts)


def find(frames: Tensor, kind: Kind, *, count: int = 50, seed: int = 0) -> Regions:
    """Units of frames in [0, 1]: a square grid of about `count` cells, SLIC superpixels, or quickshift.

    Quickshift has the settings of the lime package (kernel 4, distance 200, ratio 0.2) and finds its own count.
    """
    if kind == "grid":
        return grid(frames, max(1, round(count**0.5)))
    from skimage.segmentation import quickshift, slic

    found = []
    for frame in frames.detach().float().cpu():
        photo: Any = np.ascontiguousarray(frame.clamp(0, 1).permute(1, 2, 0).double().numpy())
        if photo.shape[2] != 3:
            photo = np.repeat(photo.mean(2, keepdims=True), 3, axis=2)
        if kind == "slic":
            labels = slic(photo, n_segments=count, compactness=10, start_label=0, channel_axis=2)
        else:
            labels = quickshift(photo, kernel_size=4, max_dist=200, ratio=0.2, rng=seed)
        found.append(torch.from_numpy(np.asarray(labels, np.int64)))
    return segments(torch.stack(found))
