"""Pixels: arrays of every depth as uint8 or float32 in [0, 1], alpha over white."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import ImageError

Array = np.ndarray[Any, Any]


def to_pixels(values: Array, name: str) -> Tensor:
    """(C, H, W) pixels of an (H, W) or (H, W, 1 to 4) array; of 2 or 4 channels the last is alpha, put over white."""
    values = values[..., None] if values.ndim == 2 else values
    if 0 in values.shape:
        raise ImageError(f"{name} has no pixels: its size is {values.shape[1]} x {values.shape[0]}.")
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    if values.dtype != np.uint8:
        values = unit(values, name)
    if values.shape[2] in (2, 4):
        values = _over_white(values[..., :-1], values[..., -1:])
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def unit(values: Array, name: str, bits: int = 0) -> Array:
    """float32 in [0, 1]: unsigned integers over their largest value, floats as they are where they lie in it."""
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.float32) / np.float32(2 ** (bits or 8 * values.dtype.itemsize) - 1)
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    if values.dtype.kind != "f":
        raise ImageError(
            f"{name} has {values.dtype} values, which have no fixed range. Save it as uint8, uint16 or float in [0, 1]."
        )
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # a NaN fails too
        raise ImageError(
            f"{name}: float values must lie in [0, 1]. Got {low:g} to {high:g}. Scale it, or save it as uint8."
        )
    return values.astype(np.float32)


def _over_white(colour: Array, alpha: Array) -> Array:
    if colour.dtype == np.uint8:
        wide = alpha.astype(np.uint16)  # at most 255 * 255 + 127, so 16 bits hold it
        return np.asarray((colour * wide + 255 * (255 - wide) + 127) // 255, dtype=np.uint8)
    return np.asarray(colour * alpha + (1 - alpha))


def too_large(name: str) -> str:
    """Why such a picture is refused."""
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return (
        f"{name} has more than {most:,} pixels and is refused as a decompression bomb. "
        "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
    )


def check_area(width: int, height: int, name: str) -> None:
    """Refuse what pillow refuses: a picture so large that it can only be an attack, or must be trusted by hand."""
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise ImageError(too_large(name))
