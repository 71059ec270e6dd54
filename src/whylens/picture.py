"""Pictures: one map over the photo it explains, and where the photo is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .colour import Look, Scale
from .errors import InputError
from .placement import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from .explanation import Explanation
    from .images import Images, Photo

SIDE = 1000
"""Longest side of a picture whose size the caller leaves open; larger photos are drawn scaled down."""

UNSEEN = 0.4
"""Brightness left outside the frame."""

Size = tuple[int, int]
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
_PALE = 0.45  # white mixed into the photo under a pixel-fine map, so that blue and red stand out


def picture(
    explanation: Explanation,
    row: int,
    photo: Photo | Tensor | None = None,
    *,
    colours: str = "auto",
    scale: Scale = "image",
    alpha: float = 0.5,
    size: Size | None = None,
) -> Image:
    """One row's map over its upright photo (or pixels ``(C, rows, columns)``); without a photo, the map on its frame.

    What the net never saw stays visible, grey and dark. Coarse maps and one-signed maps cover the photo with the
    opacity `alpha`. Pixel-fine signed maps lie on the greyed photo, their opacity the magnitude to the power of
    ``(1 / alpha - 1) / 2``: its square root at 0.5, the map alone at 1. `colours` is "auto" (blue, white, red for
    signed maps, jet for others) or any colour map of matplotlib; `scale` is "image", or "shared": one for all rows
    of the explanation. `size` is ``(rows, columns)``; the default is the photo's own, at most 1,000 a side.

    Raises InputError where the map's place on the photo is unknown or the photo is another one.
    """
    row, pixels = subject(explanation, row, photo)
    rows = range(len(explanation)) if scale == "shared" else [row]
    look = Look.of(explanation, rows, colours=colours, scale=scale)
    return overlay(look, row, pixels, alpha=alpha, size=size)


def overlay(
    look: Look, row: int, pixels: Tensor | None, *, alpha: float = 0.5, size: Size | None = None, side: int = SIDE
) -> Image:
    """`picture` with the look given; `side` bounds the longest side where `size` is left open."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must lie in [0, 1]. Got {alpha}.")
    check_size(size)
    values = look.values(row)
    if pixels is None:
        size = size or bounded(frame_size(look.explanation), side)
        laid = F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        return boxed(as_image(look.paint(laid, row)), look.explanation, row)
    placement = placed(look.explanation, row, pixels)
    size = size or bounded((pixels.shape[-2], pixels.shape[-1]), side)
    photo = draw(pixels, size)
    laid = placement.to_photo(values[None], size)[0]
    grey = greyed(photo)
    if look.fine and look.signed:
        opacity = _opacity(look.strength(laid, row), alpha)[..., None].numpy()
        inside = (1 - opacity) * (_PALE + (1 - _PALE) * grey) + opacity * look.paint(laid, row)
    else:
        inside = (1 - alpha) * photo + alpha * look.paint(laid, row)
    made = as_image(np.where(placement.covered(size)[..., None].numpy(), inside, UNSEEN * grey))
    return boxed(made, look.explanation, row, placement)


def boxed(image: Image, explanation: Explanation, row: int, placement: Placement | None = None) -> Image:
    """A picture of the frame, or of the photo it is placed on, with the box of the object that the row is of."""
    from PIL import ImageDraw

    if not explanation.instances:
        return image
    box, (rows, columns) = explanation.instances[row].box, frame_size(explanation)
    if placement is not None:
        box, (rows, columns) = placement.box_to_photo(box), placement.photo
    across, down = image.width / columns, image.height / rows
    corners = [round(edge * scale) for edge, scale in zip(box, (across, down) * 2, strict=True)]
    wide = max(1, round(max(image.size) / 250))
    drawn = ImageDraw.Draw(image)
    drawn.rectangle(
        [c + s for c, s in zip(corners, (-wide, -wide, wide, wide), strict=True)], outline=(0, 0, 0), width=3 * wide
    )
    drawn.rectangle(corners, outline=(255, 255, 255), width=wide)
    return image


def subject(explanation: Explanation, row: int, photo: Photo | Tensor | None) -> tuple[int, Tensor | None]:
    """The row from the front, and the photo's pixels ``(C, rows, columns)``; what cannot be drawn is refused."""
    if not -len(explanation) <= row < len(explanation):
        raise InputError(f"picture: row must be below {len(explanation)}, the rows explained. Got {row}.")
    pixels = photo if photo is None or isinstance(photo, Tensor) else photo.pixels
    if pixels is not None and pixels.ndim != 3:
        raise InputError(f"picture: pixels must have shape (C, rows, columns). Got {tuple(pixels.shape)}.")
    return row % len(explanation), pixels


def placed(explanation: Explanation, row: int, pixels: Tensor) -> Placement:
    """Where the row's frame lies on a photo with these pixels, which may be a scaled copy of the one explained."""
    size = (pixels.shape[-2], pixels.shape[-1])
    placement = explanation.placements[row] if explanation.placements else None
    if placement is None:
        if explanation.frame[-2:] == size:
            return Placement.identity(*size)
        raise InputError(
            f"'{explanation.ids[row]}': where its frame lies on the photo is not known. Leave the photo out."
        )
    known = placement.photo
    if abs(known[0] * size[1] - known[1] * size[0]) > 0.02 * known[0] * size[1]:
        raise InputError(
            f"'{explanation.ids[row]}': the photo must have the shape of the one explained, {known[0]} x {known[1]}. "
            f"Got {size[0]} x {size[1]}."
        )
    return placement


def draw(pixels: Tensor, size: Size) -> NDArray[np.floating[Any]]:
    """Pixels ``(C, rows, columns)`` as RGB ``(*size, 3)`` in [0, 1]; other channel counts as their mean.

    Floats outside [0, 1] (a net's own input) are stretched between their smallest and largest value.
    """
    values = pixels.detach().cpu()
    values = values.float() / 255 if values.dtype == torch.uint8 else torch.nan_to_num(values.float())
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdim=True)
    if tuple(values.shape[1:]) != tuple(size):
        values = F.interpolate(values[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    colours: NDArray[np.floating[Any]] = values.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return colours


def photo_picture(pixels: Tensor, side: int = SIDE) -> Image:
    """The photo alone, at most `side` long."""
    return as_image(draw(pixels, bounded((pixels.shape[-2], pixels.shape[-1]), side)))


class Photos:
    """Finds the photo of a row: in the images given, in the explanation's own, or in the file it came from."""

    def __init__(self, images: Any = None) -> None:
        from .sources import load_images

        self._given: Images | None = None if images is None else load_images(images)
        self._positions: dict[int, dict[str, int]] = {}
        self._last: tuple[tuple[int, str], Photo] | None = None  # methods of one image follow each other

    def find(self, explanation: Explanation, row: int) -> tuple[Photo | None, str]:
        """The photo, or None and the reason in a few words; a row of a table has neither."""
        if explanation.maps.ndim != 4:
            return None, ""
        try:
            photo = self._read(explanation, row)
            if photo is None:
                return None, "photo not at hand"
            placed(explanation, row, photo.pixels)
        except InputError as error:
            return None, f"no photo: {error}"
        return photo, ""

    def _read(self, explanation: Explanation, row: int) -> Photo | None:
        name = explanation.ids[row]
        for images in (self._given, explanation.images):
            if images is not None:
                known = self._positions.setdefault(id(images), {n: i for i, n in enumerate(images.ids)})
                if name in known:
                    return self._kept(images, known[name])
        uri = explanation.uris[row] if explanation.uris else None
        if uri is None or not Path(uri).is_file():
            return None
        from .sources import load_images

        return load_images(uri)[0]

    def _kept(self, images: Images, position: int) -> Photo:
        key = (id(images), images.ids[position])
        if self._last is None or self._last[0] != key:
            self._last = (key, images[position])
        return self._last[1]


def _opacity(strength: Tensor, alpha: float) -> Tensor:
    return strength ** (0.5 / alpha - 0.5) if alpha > 0 else torch.zeros_like(strength)


def check_size(size: Size | None) -> None:
    """Refuse a size that no picture has."""
    if size is not None and min(size) < 1:
        raise InputError(f"size must be (rows, columns), both >= 1. Got {size}.")


def greyed(colours: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Colours ``(rows, columns, 3)`` as grey of the same brightness."""
    return np.broadcast_to((colours @ _GREY)[..., None], colours.shape)


def frame_size(explanation: Explanation) -> Size:
    """Rows and columns of the frame; of the maps where that is unknown."""
    rows, columns = explanation.frame[-2:] if len(explanation.frame) >= 2 else explanation.maps.shape[-2:]
    return rows, columns


def bounded(size: Size, side: int) -> Size:
    """The size, scaled down so that its longest side is at most `side`."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def as_image(colours: NDArray[np.floating[Any]]) -> Image:
    """Colours ``(rows, columns, 3)`` in [0, 1] as a picture."""
    from PIL import Image

    return Image.fromarray((colours.clip(0, 1) * 255).round().astype(np.uint8))
