"""Outlines: the segments that speak most for and most against a target, drawn on the photo, as LIME shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .picture import SIDE, UNSEEN, Size, as_image, bounded, check_size, draw, frame_size, greyed, placed, subject
from .placement import Placement
from .words import number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from .explanation import Explanation
    from .images import Photo

TOP = 5
"""Segments outlined on either side where the caller leaves it open: as in the figures of the LIME paper."""

FOR, AGAINST = (1.0, 0.6, 0.0), (0.0, 0.5, 1.0)
"""Orange and blue: told apart by every kind of colour vision, and in grey by their brightness."""

INKS = ("#a35f00", "#0058b8")
"""The two colours as ink on white paper."""

READING = (
    "Orange outlines speak for the target, blue ones against it, numbered from the largest value. "
    "Dashed, and in brackets: within its standard error of zero."
)
"""How the picture is read."""

_LINE = 1 / 220  # width of a line, as a share of the picture's longest side
_DASH = 4  # length of a dash and of a gap, in widths of a line
_CASING = 0.65  # darkness of the rim inside a line, which parts it from a photo of its own colour


@dataclass(frozen=True)
class Segment:
    """One segment of one row: its number in `parts`, its value, and the standard error of that, NaN where unknown."""

    number: int
    value: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether its value is further from zero than its standard error."""
        return not abs(self.value) <= self.error


def gives_segments(explanation: Explanation) -> bool:
    """Whether `parts` are each pixel's segment, with or without the standard error of its value."""
    parts, maps = explanation.parts, explanation.maps
    if parts is None or explanation.weights is not None or parts.ndim != 4 or maps.ndim != 4 or maps.shape[1] != 1:
        return False
    if "critical_area" in explanation.checks:  # a critical set is drawn by its map
        return False
    labels = parts[:, 0]
    whole = bool((labels == labels.round()).all()) and bool((labels >= 0).all())
    return parts.shape[1] in (1, 2) and parts.shape[2:] == maps.shape[2:] and whole


def leading(
    explanation: Explanation, row: int, *, top: int = TOP, against: int = TOP
) -> tuple[list[Segment], list[Segment]]:
    """The `top` segments for the target and the `against` against it, largest first; none of value zero.

    The value is the map's own where every pixel carries that of its segment, and the sum over the pixels where the
    map adds up to a difference of scores (a check `difference`).
    Raises InputError for an explanation without segments.
    """
    if min(top, against) < 0 or top + against == 0:
        raise InputError(f"outlines: top and against must be >= 0, one of them >= 1. Got {top} and {against}.")
    if not gives_segments(explanation) or explanation.parts is None:
        raise InputError(
            f"outlines: {explanation.label} gives no segments to outline. Ask a method of segments, such as lime, or "
            "draw its map."
        )
    labels = explanation.parts[row, 0].long().flatten()
    size = labels.bincount()
    layers = [explanation.maps[row, 0], *explanation.parts[row, 1:]]
    sums = [torch.zeros(len(size)).index_add_(0, labels, layer.flatten().float().cpu()) for layer in layers]
    values = sums[0] if "difference" in explanation.checks else sums[0] / size.clamp(min=1)
    errors = sums[1] / size.clamp(min=1) if len(sums) > 1 else torch.full_like(values, torch.nan)
    order = values.argsort(descending=True, stable=True).tolist()
    found = [Segment(k, float(values[k]), float(errors[k])) for k in order]
    return [s for s in found if s.value > 0][:top], [s for s in reversed(found) if s.value < 0][:against]


def outlines(
    explanation: Explanation,
    row: int,
    photo: Photo | Tensor | None = None,
    *,
    top: int = TOP,
    against: int = TOP,
    fill: float = 0.3,
    dim: float = 0.4,
    ranks: bool = True,
    size: Size | None = None,
    side: int = SIDE,
) -> Image:
    """The upright photo with the `top` segments for the target outlined in orange, the `against` in blue.

    A line is dashed where the segment's value lies within its standard error of zero: another draw may turn it. Each
    side is numbered from its largest value, unless `ranks` is False. `fill` is the opacity of the colour inside the
    largest segment, less in others by their values; `dim` how far the rest of what the net saw fades to white.
    `photo`, `size` and what lies outside the frame are as in `picture`; without a photo the frame is plain grey.
    `side` bounds the longest side where `size` is left open.

    Raises InputError for an explanation without segments.
    """
    for name, value in (("fill", fill), ("dim", dim)):
        if not 0 <= value <= 1:
            raise InputError(f"outlines: {name} must lie in [0, 1]. Got {value}.")
    check_size(size)
    row, pixels = subject(explanation, row, photo)
    speaking = leading(explanation, row, top=top, against=against)
    if pixels is None:
        placement = Placement.identity(*frame_size(explanation))
        pixels = torch.full((3, *placement.frame), 0.5)
    else:
        placement = placed(explanation, row, pixels)
    size = size or bounded((pixels.shape[-2], pixels.shape[-1]), side)
    canvas = _Canvas(draw(pixels, size), placement, _labels(explanation, row))
    canvas.shade(speaking, fill, dim)
    for colour, segments in zip((FOR, AGAINST), speaking, strict=True):
        for segment in segments:
            canvas.outline(segment, colour)
    return canvas.image(speaking if ranks else ())


def spoken(segments: list[Segment]) -> str:
    """Values in order of rank, those within their error in brackets: "0.31, 0.12, (0.01)"."""
    return ", ".join(number(s.value) if s.sure else f"({number(s.value)})" for s in segments)


def _labels(explanation: Explanation, row: int) -> Tensor:
    if explanation.parts is None:
        raise InputError("outlines: there must be segments. Got none.")
    return explanation.parts[row, 0].cpu()


class _Canvas:
    """A photo ``(rows, columns, 3)`` on which segments of its frame are drawn."""

    def __init__(self, colours: NDArray[np.floating[Any]], placement: Placement, labels: Tensor) -> None:
        self.photo, self.colours = colours, colours.astype(np.float32)
        self.placement, self.labels = placement, labels
        rows, columns = self.size = colours.shape[0], colours.shape[1]
        self.width = max(1, round(max(self.size) * _LINE))
        finest = max(rows / placement.photo[0] * placement.scale[0], columns / placement.photo[1] * placement.scale[1])
        self.steep = max(1.0, finest)  # pixels of the picture per pixel of the frame
        self.covers: dict[int, NDArray[np.float32]] = {}
        self.depths: dict[int, NDArray[np.floating[Any]]] = {}

    def cover(self, number: int) -> NDArray[np.float32]:
        """How much of each pixel a segment covers: 0 or 1 but for the pixels that its edge runs through."""
        if number not in self.covers:
            laid = self.placement.to_photo((self.labels == number).float()[None], self.size)[0].numpy()
            self.covers[number] = ((laid - 0.5) * self.steep + 0.5).clip(0, 1)
        return self.covers[number]

    def depth(self, number: int) -> NDArray[np.floating[Any]]:
        """Distance of each pixel of a segment from the nearest one outside it; the picture's border is outside."""
        from scipy.ndimage import distance_transform_edt

        if number not in self.depths:
            inside = self.cover(number) >= 0.5
            depth = self.depths[number] = np.zeros(inside.shape)
            if inside.any():
                box = tuple(slice(int(np.min(k)), int(np.max(k)) + 1) for k in np.nonzero(inside))
                depth[box] = distance_transform_edt(np.pad(inside[box], 1))[1:-1, 1:-1]
        return self.depths[number]

    def shade(self, speaking: tuple[list[Segment], list[Segment]], fill: float, dim: float) -> None:
        """The rest paler, the segments tinted by their values."""
        chosen = np.zeros(self.size, np.float32)
        largest = max((abs(s.value) for segments in speaking for s in segments), default=1.0)
        for segment in (s for segments in speaking for s in segments):
            chosen = np.maximum(chosen, self.cover(segment.number))
        self._lay(np.ones(3), dim * (1 - chosen))
        for colour, segments in zip((FOR, AGAINST), speaking, strict=True):
            for segment in segments:
                self._lay(np.array(colour), fill * abs(segment.value) / largest * self.cover(segment.number))

    def outline(self, segment: Segment, colour: tuple[float, float, float]) -> None:
        """A line along the inside of the segment's edge, with a thin dark rim where the picture has room for one."""
        cover, depth = self.cover(segment.number), self.depth(segment.number)
        line = (self.width + 1 - depth).clip(0, 1) * cover
        rim = (self.width + self.width // 3 + 1 - depth).clip(0, 1) * cover
        if not segment.sure:
            drawn = self._dashes(depth >= 1, rim > 0)
            line, rim = line * drawn, rim * drawn
        self._lay(np.zeros(3), _CASING * rim * (self.width > 2))
        self._lay(np.array(colour), line)

    def image(self, ranks: Sequence[list[Segment]]) -> Image:
        """The picture, what the net did not see grey and dark, each rank where its segment is widest."""
        from PIL import ImageDraw, ImageFont

        seen = self.placement.covered(self.size)[..., None].numpy()
        image = as_image(np.where(seen, self.colours, UNSEEN * greyed(self.photo)))
        points = max(self.size) / 24
        if points < 8:
            return image
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(points)
        kind: Any = {"anchor": "mm", "stroke_width": max(1, round(points / 8)), "stroke_fill": "black"}
        for rank, segment in (pair for segments in ranks for pair in enumerate(segments, 1)):
            for row, column in _middles(self.depth(segment.number)):
                pen.text((column, row), str(rank), "white", font, **kind)
        return image

    def _dashes(self, inside: NDArray[np.bool_], where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which pixels of a line are drawn: every other stretch of the edge that they are nearest to."""
        from scipy.spatial import cKDTree
        from skimage.measure import find_contours

        drawn = np.zeros(inside.shape, bool)
        edges = [edge - 1 for edge in find_contours(np.pad(inside, 1).astype(float), 0.5)]
        if not edges:
            return drawn
        steps = [np.hypot(*np.diff(edge, axis=0).T) for edge in edges]
        along = [np.concatenate([[0], step.cumsum()]) for step in steps]
        pairs = [max(1, round(way[-1] / (2 * _DASH * self.width))) for way in along]  # so that an edge closes evenly
        share = np.concatenate([way / way[-1] * count % 1 for way, count in zip(along, pairs, strict=True)])
        points = np.argwhere(where)
        _, nearest = cKDTree(np.concatenate(edges)).query(points)
        drawn[tuple(points.T)] = share[nearest] < 0.5
        return drawn

    def _lay(self, colour: NDArray[np.floating[Any]], opacity: NDArray[np.floating[Any]]) -> None:
        part = opacity[..., None].astype(np.float32)
        self.colours = (1 - part) * self.colours + part * colour.astype(np.float32)


def _middles(depth: NDArray[np.floating[Any]]) -> list[tuple[int, int]]:
    """Where a segment is widest, and its other pieces too that are at least half as wide: (row, column) of each."""
    from scipy.ndimage import label

    pieces, count = label(depth > 0)
    found = []
    for k in range(1, count + 1):
        own = np.argwhere(pieces == k)
        deep = depth[tuple(own.T)]
        if 2 * deep.max() >= depth.max():
            widest = own[deep > deep.max() - 1]  # of several places as wide, that nearest to the centre
            row, column = widest[((widest - own.mean(0)) ** 2).sum(1).argmin()]
            found.append((int(row), int(column)))
    return found
