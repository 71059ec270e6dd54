"""How often a drill's mask is incomplete by the face that is up, and mAP with the logo filled: Mask R-CNN, MetaGraspNet.

    python recipes/drill.py --data dataset_real --model net.py:make [--logos logos.csv] [--images 200]

`--data` holds folders scene*/ with V_rgb.png and V.npz (instances_objects, instances_semantic) for each view V, as the
authors give them; views with a thing of `--category` (8, the power drill) are taken. `net.py:make` gives a torchvision
Mask R-CNN. `--logos` is a list of your own of where the logo is: path, left, top, right, bottom, in pixels of the
photo. A run in `--out` that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from resumed import line, opened, parser

import whylens

DRILL = 8
"""The power drill among the categories of MetaGraspNet."""

PAPER = {"logo up": 0.37, "other face": 0.14, "mAP": 0.592, "mAP, logo filled": 0.618}
"""A published summary (SOXAI, arXiv 2023): share of incomplete masks by face, mAP before and after."""


# ---- the folder ------------------------------------------------------------------------------------------


def views(root: Path, category: int) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    """Every photo that shows the category, with its pixels' instance and category numbers (H, W)."""
    for photo in sorted(root.glob("scene*/*_rgb.png"), key=lambda p: (len(p.parent.name), str(p))):
        known = photo.with_name(photo.name.replace("_rgb.png", ".npz"))
        if not known.exists():
            continue
        with np.load(known, allow_pickle=False) as held:
            things, kinds = held["instances_objects"], held["instances_semantic"]
        if (kinds == category).any():
            yield photo, things.astype(np.int64), kinds.astype(np.int64)


def write_coco(root: Path, file: Path, options: argparse.Namespace) -> list[str]:
    """The masks of so many views as one COCO file; every thing is an 'object'. Gives the photos' names."""
    found = list(views(root, options.category))
    order = np.random.default_rng(options.seed).permutation(len(found))[: options.images]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for photo, things, kinds in (found[k] for k in sorted(order)):
        name = photo.relative_to(root).as_posix()
        images.append({"id": len(images) + 1, "file_name": name, "height": len(things), "width": things.shape[1]})
        for thing in np.unique(things[things > 0]).tolist():
            mask = things == thing
            kind = int(np.bincount(kinds[mask]).argmax())
            annotations.append(annotation(mask, len(annotations) + 1, len(images), kind))
    said = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(said), "utf-8")
    return [image["file_name"] for image in images]


def annotation(mask: np.ndarray, number: int, image: int, kind: int) -> dict[str, Any]:
    """One thing, its mask as run lengths down the columns."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.append(np.flatnonzero(np.diff(flat)), mask.size)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "kind": kind,
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()},
    }
