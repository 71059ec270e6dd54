"""Planting: the lists, images and masks of a planted set, written to a folder once and opened again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .._check import Range, checked
from ..images import Images
from ..sources import load_images
from . import shapes
from .drawn import Names, draw_once, png, write_list
from .shapes import CLASSES, SIZE, Box

FORMAT = 1
"""Of planted.json; another drawing is another format."""

TAGGED = "square"  # near the hexagon, so hard to tell by its shape: the tag is the easier way
SPLITS = ("train", "test", "swapped")
COLUMNS = ("path", "label", "mask", "tag", "tag_left", "tag_top", "tag_right", "tag_bottom", "tag_mask")

_NAMES = Names("plant", begun="planting.json", done="planted.json", others=("masks", "tags"))
_PICTURE, _ORDER = 0, 1  # what a draw is for: no two share a key


@dataclass(frozen=True)
class Planted:
    """A planted set on disk: three lists of images with labels, masks and where the tag is.

    In `swapped` the tagged class never carries the tag and all others do. The columns `tag` (0 or 1), `tag_left`,
    `tag_top`, `tag_right`, `tag_bottom` (right and bottom outside) and `tag_mask` say where it is.
    """

    folder: Path
    classes: tuple[str, ...]
    tagged: str
    train: Images
    test: Images
    swapped: Images
    settings: Mapping[str, Any] = field(default_factory=dict)

    def tag_mask(self, images: Images) -> Images:
        """The same images with the tag's mask in place of the shape's; empty where there is no tag."""
        return load_images(images, masks=self.folder / "tags")


def plant(
    folder: str | Path,
    *,
    seed: Annotated[int, Range(0)] = 0,
    train: Annotated[int, Range(8)] = 4000,
    test: Annotated[int, Range(8)] = 2000,
    swapped: Annotated[int, Range(8)] = 1000,
    tag_share: Annotated[float, Range(0, 1)] = 0.4,
    decoy: bool = False,
    progress: bool = False,
) -> Planted:
    """Draw the set into `folder`, or open the one that is there.

    `tag_share` of the tagged class carry the tag; with `decoy` this share of every class does, so that the tag says
    nothing. Image k is the same whatever the number of images. A set half made is finished.

    Raises InputError where the folder holds another set.
    """
    given = {"seed": seed, "train": train, "test": test, "swapped": swapped, "tag_share": tag_share, "decoy": decoy}
    settings = checked(plant, given, "plant")
    del settings["progress"]
    settings = {"format": FORMAT, "classes": list(CLASSES), "tagged": TAGGED, **settings}
    path = Path(folder)
    draw_once(path, settings, names=_NAMES, splits=SPLITS, write=partial(_write, path, settings), show=progress)
    lists = {split: load_images(path / f"{split}.csv") for split in SPLITS}
    return Planted(path, CLASSES, TAGGED, **lists, settings=settings)


# ---- the folder ------------------------------------------------------------------------------------------


def _write(folder: Path, settings: Mapping[str, Any], split: str, done: Callable[[int], None]) -> None:
    """All images of a split, then its list."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in _drawn(folder, split, settings):
        table.writerow(row)
        done(1)
    write_list(folder / f"{split}.csv", text.getvalue())


def _drawn(folder: Path, split: str, settings: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Every image of a split, drawn and written: its row of the list."""
    for kind in ("", "masks/", "tags/"):
        (folder / f"{kind}{split}").mkdir(parents=True, exist_ok=True)
    blank = png(np.zeros((SIZE, SIZE), np.uint8))
    for number in range(settings[split]):
        name = f"{split}/{number:05d}.png"
        label = _label(settings["seed"], split, number)
        rng = _rng(settings["seed"], split, _PICTURE, number)
        scene = shapes.draw(label, rng)
        pixels, box, tag = scene.pixels, None, blank
        if _carries(label, split, number, settings):
            box = shapes.tag_place(scene.mask, rng)
            pixels, tag = shapes.stamp(pixels, box), png(_filled(box))
        (folder / name).write_bytes(png(pixels))
        (folder / "masks" / name).write_bytes(png(scene.mask * np.uint8(255)))
        (folder / "tags" / name).write_bytes(tag)
        yield name, label, f"masks/{name}", int(box is not None), *(box or ("",) * 4), f"tags/{name}"


def _filled(box: Box) -> shapes.Array:
    left, top, right, bottom = box
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


# ---- what each image is ----------------------------------------------------------------------------------


def _rng(seed: int, split: str, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), purpose, number])


def _label(seed: int, split: str, number: int) -> str:
    """Every eight images hold each class once, in random order."""
    block, place = divmod(number, len(CLASSES))
    return CLASSES[_rng(seed, split, _ORDER, block).permutation(len(CLASSES))[place]]


def _carries(label: str, split: str, number: int, settings: Mapping[str, Any]) -> bool:
    """Whether this image carries the tag: the share is exact in every class that does, evenly along the list."""
    if not settings["decoy"] and (label == TAGGED) == (split == "swapped"):
        return False
    nth, share = number // len(CLASSES), settings["tag_share"]
    shift = CLASSES.index(label) / len(CLASSES)  # so that not all classes do at the same numbers
    return int((nth + 1) * share + shift) > int(nth * share + shift)
