"""Drill: scenes of things to be found by a detector, where the print on one face of a drill spoils its mask.

In the scenes to learn from, print is seen on packages only, which end where their colour does; often a dark block that
is a thing of its own touches them. Plain barrels with a dark head are one thing, with or without a grip. There are no
drills. A net that learns this well takes the print on a drill for the sign of a package, and leaves out head and grip.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from scipy.ndimage import binary_dilation

from .._check import Range, checked
from .._files import write_atomic
from ..images import Images
from ..model import Model
from ..sources import load_images
from ..zoo import load_model
from . import detector, scenes
from .drawn import Names, draw_once, png, write_list
from .scenes import SIZE, Scene, Thing
from .shapes import Array

FORMAT = 1
"""Of scenes.json; another drawing is another format."""

SPLITS = ("train", "test", "drills")
COLUMNS = ("path", "printed", "mark")

_NAMES = Names(
    "plant_drills", begun="drilling.json", done="scenes.json", others=(*(f"{split}.json" for split in SPLITS), "marks")
)


@dataclass(frozen=True)
class Drills:
    """A set of scenes on disk: three lists of images with masks from a COCO file of the same name beside each list.

    `train` and `test` hold one to three things of the kinds to learn; `drills` holds one drill in each image. There the
    column `printed` (0 or 1) says which face is up, and `mark` is the mask of the print or of its place.
    """

    folder: Path
    train: Images
    test: Images
    drills: Images
    settings: Mapping[str, Any] = field(default_factory=dict)

    def marks(self) -> Images:
        """The images of `drills` with the print's mask in place of the drill's; on the other face its place."""
        return load_images(self.drills, masks=self.folder / "marks")


def plant_drills(
    folder: str | Path,
    *,
    seed: Annotated[int, Range(0)] = 0,
    train: Annotated[int, Range(1)] = 3000,
    test: Annotated[int, Range(1)] = 300,
    drills: Annotated[int, Range(2)] = 600,
    progress: bool = False,
) -> Drills:
    """Draw the set into `folder`, or open the one that is there.

    Every second drill is printed. Image k is the same whatever the number of images. A set half made is finished.

    Raises InputError where the folder holds another set.
    """
    given = {"seed": seed, "train": train, "test": test, "drills": drills}
    checked(plant_drills, given, "plant_drills")
    settings = {"format": FORMAT, **given}
    path = Path(folder)
    draw_once(path, settings, names=_NAMES, splits=SPLITS, write=partial(_write, path, settings), show=progress)
    lists = {split: load_images(path / f"{split}.csv", masks=path / f"{split}.json") for split in SPLITS}
    return Drills(path, **lists, settings=settings)


def open_detector() -> Model:
    """The small detector, trained on scenes of seed 0, as a model that a run can open again."""
    return load_model(f"{detector.__file__}:model")


def fill(pixels: Array, region: Array, within: Array) -> Array:
    """A copy of pixels (H, W, 3) uint8 where `region` has the median colour of what of `within` is next to it."""
    ring = binary_dilation(region, iterations=2) & within & ~region
    filled = pixels.copy()
    if ring.any():
        filled[region] = np.rint(np.median(pixels[ring], axis=0)).astype(np.uint8)
    return filled


# ---- the folder ------------------------------------------------------------------------------------------


def _write(folder: Path, settings: Mapping[str, Any], split: str, done: Callable[[int], None]) -> None:
    """All images of a split, its annotations, then its list."""
    for place in (split, f"marks/{split}")[: 2 if split == "drills" else 1]:
        (folder / place).mkdir(parents=True, exist_ok=True)
    text = StringIO()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for number in range(settings[split]):
        name, printed = f"{split}/{number:05d}.png", split == "drills" and number % 2 == 0
        scene = _scene(settings["seed"], split, number, printed)
        (folder / name).write_bytes(png(scene.pixels))
        area, mark = scene.things[0].mark, ""
        if split == "drills" and area is not None:
            mark = f"marks/{name}"
            (folder / mark).write_bytes(png(area * np.uint8(255)))
        images.append({"id": number + 1, "file_name": name, "width": SIZE, "height": SIZE})
        for thing in scene.things:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **_annotation(thing)})
        table.writerow((name, int(printed), mark))
        done(1)
    said = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    write_atomic(folder / f"{split}.json", json.dumps(said).encode())
    write_list(folder / f"{split}.csv", text.getvalue())


def _scene(seed: int, split: str, number: int, printed: bool) -> Scene:
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    return scenes.drilled(rng, printed=printed) if split == "drills" else scenes.trained(rng)


def _annotation(thing: Thing) -> dict[str, Any]:
    """One entry of a COCO file; `kind` is ours."""
    rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": 1,
        "kind": thing.kind,
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(thing.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": [SIZE, SIZE], "counts": _runs(thing.mask)},
    }


def _runs(mask: Array) -> list[int]:
    """Lengths of outside, inside, outside, ... down the columns."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.append(np.flatnonzero(np.diff(flat)), mask.size)
    runs: list[int] = np.diff(ends, prepend=0).tolist()
    return runs
