"""Placement: the exact affine between the frame a net sees and the photo it was cut from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]
"""Left, top, right, bottom; pixel edges, so the first pixel is (0, 0, 1, 1)."""

# what undoes each EXIF orientation: (swap axes, flip rows, flip columns), applied in this order
_STORED = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in its upright photo.

    A point on pixel edges at ``(row, column)`` of the frame lies in the photo at ``(row * scale[0] + offset[0],
    column * scale[1] + offset[1])``. Sizes are ``(rows, columns)``. The photo is upright: its EXIF ``orientation``
    has been applied; `as_stored` undoes it for pictures that must lie over the file's own pixels.
    """

    frame: tuple[int, int]
    photo: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    orientation: int = 1

    @classmethod
    def identity(cls, rows: int, columns: int, orientation: int = 1) -> Placement:
        """The frame is the photo."""
        return cls((rows, columns), (rows, columns), orientation=orientation)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Placement:
        """From the plain values that ``vars`` gives, as read from JSON."""
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
        return cls(**pairs)

    def to_photo(self, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Maps ``(C, h, w)`` that cover the frame, laid over the photo: ``(C, *size)``, 0 where the net saw nothing.

        `size` draws the whole photo at another size; the default is the photo's own. Bilinear between cells.
        """
        size = size or self.photo
        rows, columns = (
            ((torch.arange(n) + 0.5) * (full / n) - off) / (s * side) * 2 - 1
            for n, full, off, s, side in zip(size, self.photo, self.offset, self.scale, self.frame, strict=True)
        )
        return self._sample(maps, rows, columns, "bilinear") * self.covered(size)

    def covered(self, size: tuple[int, int] | None = None) -> Tensor:
        """The part of the photo ``(rows, columns)`` that the net saw: bool, at the photo's size or `size`."""
        size = size or self.photo
        inside = []
        for n, full, off, s, side in zip(size, self.photo, self.offset, self.scale, self.frame, strict=True):
            centre = (torch.arange(n) + 0.5) * (full / n)
            inside.append((centre >= off) & (centre < off + s * side))
        return inside[0][:, None] & inside[1][None, :]

    def to_frame(self, mask: Tensor) -> Tensor:
        """Share of each frame pixel that a mask ``(rows, columns)`` of the photo covers: ``(H, W)`` in [0, 1]."""
        if tuple(mask.shape) != self.photo:
            raise InputError(
                f"Placement.to_frame: the mask must have the upright photo's size {self.photo}. "
                f"Got {tuple(mask.shape)}."
            )
        steps = [max(2, ceil(s)) for s in self.scale]
        rows, columns = (
            (((torch.arange(side * k) + 0.5) / k) * s + off) / full * 2 - 1
            for side, k, s, off, full in zip(self.frame, steps, self.scale, self.offset, self.photo, strict=True)
        )
        fine = self._sample(mask[None].float(), rows, columns, "nearest")
        fine = fine * ((rows.abs() <= 1)[:, None] & (columns.abs() <= 1)[None, :])
        return F.avg_pool2d(fine[None], kernel_size=(steps[0], steps[1]))[0, 0]

    def box_to_photo(self, box: Box) -> Box:
        """A box of the frame in photo coordinates."""
        (sy, sx), (oy, ox) = self.scale, self.offset
        left, top, right, bottom = box
        return left * sx + ox, top * sy + oy, right * sx + ox, bottom * sy + oy

    def box_to_frame(self, box: Box) -> Box:
        """A box of the photo in frame coordinates; it may reach beyond the frame."""
        (sy, sx), (oy, ox) = self.scale, self.offset
        left, top, right, bottom = box
        return (left - ox) / sx, (top - oy) / sy, (right - ox) / sx, (bottom - oy) / sy

    def as_stored(self, picture: Tensor) -> Tensor:
        """An upright picture ``(..., rows, columns)`` turned back to how the file stores its pixels."""
        swap, rows, columns = _STORED[self.orientation]
        picture = picture.transpose(-2, -1) if swap else picture
        flips = [axis for axis, flip in ((-2, rows), (-1, columns)) if flip]
        return picture.flip(flips) if flips else picture

    @staticmethod
    def _sample(values: Tensor, rows: Tensor, columns: Tensor, how: str) -> Tensor:
        y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
        grid = torch.stack([x, y], -1)[None]
        return F.grid_sample(values[None].float().cpu(), grid, mode=how, padding_mode="border", align_corners=False)[0]
