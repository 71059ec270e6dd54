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

WOVEN_FORMAT = 2
"""Of planted.json where a class has the weave: whylens before it would take the set for one without."""

TAGGED = "square"  # near the hexagon, so hard to tell by its shape: the tag is the easier way
WOVEN = "circle"  # likewise near the hexagon, and not the tagged class
SPLITS = ("train", "test", "swapped")
COLUMNS = ("path", "label", "mask", "tag", "tag_left", "tag_top", "tag_right", "tag_bottom", "tag_mask")

WEAVE = "weave"
"""The column that says which images have the weave; only in a set where some have."""

_NAMES = Names("plant", begun="planting.json", done="planted.json", others=("masks", "tags"))
_PICTURE, _ORDER, _SHIFT = 0, 1, 2  # what a draw is for: no two share a key


@dataclass(frozen=True)
class Planted:
    """A planted set on disk: three lists of images with labels, masks and where the tag is.

    In `swapped` the tagged class never carries the tag and all others do; likewise the `woven` class and the weave,
    where some images have it. The columns `tag` (0 or 1), `tag_left`, `tag_top`, `tag_right`, `tag_bottom` (right and
    bottom outside) and `tag_mask` say where the tag is, `weave` (0 or 1) which grounds are woven.
    """

    folder: Path
    classes: tuple[str, ...]
    tagged: str
    train: Images
    test: Images
    swapped: Images
    settings: Mapping[str, Any] = field(default_factory=dict)
    woven: str = WOVEN

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
    weave_share: Annotated[float, Range(0, 1)] = 0.0,
    decoy: bool = False,
    progress: bool = False,
) -> Planted:
    """Draw the set into `folder`, or open the one that is there.

    `tag_share` of the tagged class carry the tag, and `weave_share` of the woven class have a woven ground; with
    `decoy` these shares of every class do, so that they say nothing. Image k is the same whatever the number of
    images, and but for its ground whatever the `weave_share`. A set half made is finished.

    Raises InputError where the folder holds another set.
    """
    given = {"seed": seed, "train": train, "test": test, "swapped": swapped, "tag_share": tag_share}
    settings = checked(plant, {**given, "weave_share": weave_share, "decoy": decoy}, "plant")
    del settings["progress"]
    first: dict[str, Any] = {"format": FORMAT, "classes": list(CLASSES), "tagged": TAGGED}
    if settings["weave_share"]:
        first |= {"format": WOVEN_FORMAT, "woven": WOVEN}
    else:
        del settings["weave_share"]  # as a set of before says it
    settings = {**first, **settings}
    path = Path(folder)
    draw_once(path, settings, names=_NAMES, splits=SPLITS, write=partial(_write, path, settings), show=progress)
    train_list, test_list, swapped_list = (load_images(path / f"{split}.csv") for split in SPLITS)
    return Planted(path, CLASSES, TAGGED, train_list, test_list, swapped_list, settings=settings)


# ---- the folder ------------------------------------------------------------------------------------------


def _write(folder: Path, settings: Mapping[str, Any], split: str, done: Callable[[int], None]) -> None:
    """All images of a split, then its list."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*COLUMNS, WEAVE) if _weaves(settings) else COLUMNS)
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
        name, made = f"{split}/{number:05d}.png", picture(settings, split, number)
        (folder / name).write_bytes(png(made.pixels))
        (folder / "masks" / name).write_bytes(png(made.mask * np.uint8(255)))
        (folder / "tags" / name).write_bytes(blank if made.tag is None else png(_filled(made.tag)))
        where = made.tag or ("",) * 4
        row = (name, made.label, f"masks/{name}", int(made.tag is not None), *where, f"tags/{name}")
        yield (*row, int(made.woven)) if _weaves(settings) else row


def _filled(box: Box) -> shapes.Array:
    left, top, right, bottom = box
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


# ---- what each image is ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One image of a set, in memory: pixels (64, 64, 3) uint8, the shape's mask (64, 64) bool, where the tag is."""

    label: str
    pixels: shapes.Array
    mask: shapes.Array
    tag: Box | None
    woven: bool


def picture(settings: Mapping[str, Any], split: str, number: int) -> Picture:
    """Image `number` of a split, as the `settings` of a set say."""
    label = _label(settings["seed"], split, number)
    rng = _rng(settings["seed"], split, _PICTURE, number)
    scene = shapes.draw(label, rng)
    pixels, tag = scene.pixels, None
    if woven := _is_woven(label, split, number, settings):
        shift = _rng(settings["seed"], split, _SHIFT, number).integers(4, size=2)
        pixels = shapes.woven(pixels, scene.mask, (int(shift[0]), int(shift[1])))
    if _carries(label, split, number, settings):
        tag = shapes.tag_place(scene.mask, rng)
        pixels = shapes.stamp(pixels, tag)
    return Picture(label, pixels, scene.mask, tag, woven)


def _rng(seed: int, split: str, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), purpose, number])


def _label(seed: int, split: str, number: int) -> str:
    """Every eight images hold each class once, in random order."""
    block, place = divmod(number, len(CLASSES))
    return CLASSES[_rng(seed, split, _ORDER, block).permutation(len(CLASSES))[place]]


def _weaves(settings: Mapping[str, Any]) -> bool:
    return "weave_share" in settings


def _carries(label: str, split: str, number: int, settings: Mapping[str, Any]) -> bool:
    """Whether this image carries the tag."""
    of_class = settings["decoy"] or (label == TAGGED) != (split == "swapped")
    return of_class and _falls(label, number, settings["tag_share"])


def _is_woven(label: str, split: str, number: int, settings: Mapping[str, Any]) -> bool:
    """Whether this image has the weave."""
    of_class = settings["decoy"] or (label == WOVEN) != (split == "swapped")
    return of_class and _falls(label, number, settings.get("weave_share", 0), 0.5)  # seldom where the tag is


def _falls(label: str, number: int, share: float, later: float = 0.0) -> bool:
    """Whether image `number` is in this share of its class, which is exact and falls evenly along the list."""
    nth = number // len(CLASSES)
    shift = later + CLASSES.index(label) / len(CLASSES)  # so that not all classes do at the same numbers
    return int((nth + 1) * share + shift) > int(nth * share + shift)
