"""Draw: the picture of a grouping with thumbnails, and contact sheets of its groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray

from ..errors import WhylensError
from ..images import Images
from ..located import around
from ..picture import UNSEEN, bounded, draw, greyed
from ..placement import Box, Placement
from ..sheet import GREY, Cell, Text, lay_out
from .describe import Group
from .evidence import region

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .grouping import Groups

OKABE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours that stay apart for every kind of colour vision (Okabe and Ito); what has none is grey."""

_SIDE = 320
_THUMB = 44
_ROOM = 0.07  # of the picture, for each thumbnail


def sheet(
    groups: Groups, which: Sequence[str | int] | None = None, *, columns: int = 6, images: Images | None = None
) -> Figure:
    """A contact sheet: one line per group with what is said of it and its nearest images, the evidence in colour.

    `which` names groups; the default is what is worth a look, at most eight. `images` are the run's, where they are
    not in files.
    """
    odd = [g for g in groups if g.reasons > 1] or list(groups)
    shown = [groups[w] for w in which] if which is not None else odd[:8]
    crops = Crops(groups, images)
    lines: list[list[Cell | None]] = []
    for group in shown:
        words = group.lines()
        told = [Text(words[0], bold=True, most=4), *(Text(w.strip(), size=6.5, colour=GREY, most=7) for w in words[1:])]
        points = nearest(groups, group, columns)
        line: list[Cell | None] = [_cell(crops, p, told if k == 0 else []) for k, p in enumerate(points)]
        lines.append(line + [None] * (columns - len(line)))
    heads: list[list[Text]] = [[] for _ in range(columns)]
    made, _ = lay_out(heads, lines, [Text("Nearest to the middle of each group first; what is no evidence is dimmed.")])
    return made


def scatter(groups: Groups, *, images: Images | None = None, thumbnails: int = 30) -> tuple[Figure, Axes]:
    """The points in the plane, coloured by group: those worth a look, else the largest; some with their evidence."""
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    made = Figure(figsize=(10, 8), dpi=110, facecolor="white", layout="constrained")
    axes = made.add_subplot()
    at, labels = groups.layout.at, groups.state.labels
    odd = [g for g in groups if g.reasons > 1]
    named = (odd or sorted(groups, key=lambda g: -g.size))[: len(OKABE)]
    rest = ~np.isin(labels, [g.number for g in named])
    size = float(np.clip(4000 / max(1, len(at)), 2, 30))
    axes.scatter(at[rest, 0], at[rest, 1], s=size, c="#bbbbbb", linewidths=0, label=f"other ({int(rest.sum())})")
    for group, colour in zip(named, OKABE, strict=False):
        axes.scatter(
            at[group.points, 0],
            at[group.points, 1],
            s=size,
            c=colour,
            linewidths=0,
            label=f"{group.name} ({len(group.points)})",
        )
    crops = Crops(groups, images)
    for point, colour in _apart(groups, named, thumbnails):
        shown = crops.find(point, _THUMB)
        if shown is not None:
            box = AnnotationBbox(OffsetImage(shown), at[point], pad=0.1, bboxprops={"edgecolor": colour})
            axes.add_artist(box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, markerscale=2)
    held = groups.settings
    what = f"{held['method']}: {len(at)} points, one per {groups.per}"
    axes.set_title(f"{what}; t-SNE of PCA, trustworthiness {groups.layout.trust:.2f}", fontsize=9)
    return made, axes


def nearest(groups: Groups, group: Group, count: int) -> list[int]:
    """Points of a group, the nearest to its middle first, one per image."""
    seen: dict[int, int] = {}
    for point in group.points.tolist():
        seen.setdefault(int(groups.points.image[point]), point)
        if len(seen) == count:
            break
    return list(seen.values())


class Crops:
    """Photos of a grouping's points, with what is no evidence of the point grey and dark.

    `images` are the run's, where they are not in files.
    """

    def __init__(self, groups: Groups, images: Images | None = None) -> None:
        self.groups, self.images = groups, images
        self._placements = groups.run.table(["placement"]).column(0)

    def key(self, point: int) -> str:
        """The key of the point's image."""
        return str(self.groups.facts.keys[int(self.groups.points.image[point])])

    def find(self, point: int, side: int) -> NDArray[Any] | None:
        """The picture ``(rows, columns, 3)`` in [0, 1], at most `side` long; None where the photo is not at hand."""
        groups = self.groups
        image, number = int(groups.points.image[point]), int(groups.points.region[point])
        try:
            if groups.facts.images is not None:
                return self._object(image, int(groups.facts.images[image]), side)
            photo = groups.run.images_at(image)[0] if self.images is None else self.images[image]
        except WhylensError:
            return None
        size = (photo.pixels.shape[-2], photo.pixels.shape[-1])
        shown = bounded(size, side)
        picture = draw(photo.pixels, shown)
        if number < 0:
            return picture
        row = self._placements[image].as_py()
        mask = region(groups.run.maps(str(groups.settings["method"]), image)[0], number)
        placement = Placement.identity(*size) if row is None else Placement.read(row)
        frame = F.interpolate(mask[None, None].float(), size=placement.frame, mode="nearest-exact")
        kept = placement.to_photo(frame[0])[None]
        kept = F.interpolate(torch.nan_to_num(kept).view(1, 1, *kept.shape[-2:]), size=shown, mode="nearest-exact")
        return np.where(kept[0, 0, :, :, None].numpy() > 0.5, picture, UNSEEN * greyed(picture))

    def _object(self, number: int, image: int, side: int) -> NDArray[Any]:
        """The photo around an object, its map's evidence near the box in colour and the rest grey and dark."""
        run, label = self.groups.run, str(self.groups.settings["method"])
        e = run.explanation(label, [number])
        photo = run.images_at(image)[0] if self.images is None else self.images[image]
        placement = e.placements[0] or Placement.identity(*photo.pixels.shape[-2:])
        near = around(e.instances[0].box, torch.empty(placement.frame))
        mask = region(e.maps[0] * F.adaptive_avg_pool2d(near[None], (e.maps.shape[-2], e.maps.shape[-1])), -1)
        frame = F.interpolate(mask[None, None].float(), size=placement.frame, mode="nearest-exact")[0]
        kept = torch.nan_to_num(placement.to_photo(frame))[0] > 0.5
        left, top, right, bottom = _crop(placement.box_to_photo(e.instances[0].box), placement.photo)
        shown = bounded((bottom - top, right - left), side)
        picture = draw(photo.pixels[:, top:bottom, left:right], shown)
        kept = F.interpolate(kept[None, None, top:bottom, left:right].float(), size=shown, mode="nearest-exact")[0, 0]
        return np.where(kept[..., None].numpy() > 0.5, picture, UNSEEN * greyed(picture))


# ---- inside --------------------------------------------------------------------------------------------


def _apart(groups: Groups, named: Sequence[Group], count: int) -> list[tuple[int, str]]:
    """Points whose pictures do not cover one another, of every group in turn, with their colours."""
    at = groups.layout.at
    room = _ROOM * float(np.ptp(at, axis=0).max(initial=0))
    taken: list[tuple[int, str]] = []
    waiting = [(list(group.points), colour) for group, colour in zip(named, OKABE, strict=False)]
    while len(taken) < count and any(points for points, _ in waiting):
        for points, colour in waiting:
            while points:
                point = int(points.pop(0))
                if all(float(np.abs(at[point] - at[other]).max()) >= room for other, _ in taken):
                    taken.append((point, colour))
                    break
    return taken[:count]


def _cell(crops: Crops, point: int, told: list[Text]) -> Cell:
    shown, key = crops.find(point, _SIDE), crops.key(point)
    noted = [Text(key, size=6.5)] if shown is not None else [Text(f"{key}: photo not at hand", size=6.5, colour=GREY)]
    picture = None if shown is None else (shown * 255).round().astype(np.uint8)
    return Cell(picture=picture, texts=[*noted, *told])


def _crop(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box and half of its size around it, whole pixels inside the photo."""
    left, top, right, bottom = box
    wide, high = (right - left) / 2, (bottom - top) / 2
    return (
        max(0, int(left - wide)),
        max(0, int(top - high)),
        min(size[1], int(right + wide) + 1),
        min(size[0], int(bottom + high) + 1),
    )
