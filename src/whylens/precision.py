"""Precision: mean average precision of detections against annotated objects, by pycocotools, with intervals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detections import Detections
from .errors import MissingExtra
from .interval import Interval
from .references import Reference

DRAWS = 200
"""Bootstrap draws over images behind an interval."""


class Judged:
    """Detections of images held against their references once; images can then be drawn again without looking anew.

    Masks are compared where both sides have them, else boxes. `ap` is the mean over overlaps of 0.5 to 0.95 and over
    classes, COCO's first figure. Annotated objects without a class count for any.
    """

    def __init__(self, found: Sequence[Detections], known: Sequence[Sequence[Reference]]) -> None:
        coco, evaluation = _tools()
        masks = all(one.masks is not None for one in found) and all(r.inside is not None for k in known for r in k)
        classless = any(not r.named for k in known for r in k)
        truth = [
            _entry(image, 1 if classless or r.label is None else r.label, r.box, r.inside if masks else None)
            for image, own in enumerate(known)
            for r in own
            if classless or r.label is not None
        ]
        said = [
            _entry(
                image,
                1 if classless else int(one.labels[k]),
                one.boxes[k].tolist(),
                one.masks[k] if masks and one.masks is not None else None,
                float(one.scores[k]),
            )
            for image, one in enumerate(found)
            for k in range(len(one))
        ]
        self.images, self.kind = len(found), "masks" if masks else "boxes"
        with _quiet():
            self._held = evaluation(
                _dataset(coco, truth, len(found)), _dataset(coco, said, len(found)), _IOU[self.kind]
            )
            self._held.params.areaRng, self._held.params.areaRngLbl = [[0, 1e10]], ["all"]
            self._held.params.maxDets = [100]
            self._held.params.imgIds = list(range(len(found)))
            self._held.params.catIds = sorted({entry["category_id"] for entry in truth})
            self._held.evaluate()
        self._each = list(self._held.evalImgs)

    def ap(self, images: NDArray[Any] | None = None) -> float:
        """Over these images ``(M,)``, each as often as it stands there, as many as there are; NaN without truth."""
        count, classes = self.images, len(self._held.params.catIds)
        if not classes or not count:
            return float("nan")
        chosen = np.arange(count) if images is None else images
        self._held.evalImgs = [self._each[k * count + int(i)] for k in range(classes) for i in chosen]
        with _quiet():
            self._held.accumulate()
        precision = self._held.eval["precision"]
        known = precision[precision > -1]
        return float(known.mean()) if known.size else float("nan")


def average_precision(judged: Sequence[Judged], *, seed: int = 0) -> tuple[list[Interval], list[Interval]]:
    """Mean average precision of each, and of every later one less the first; bootstrap over the images they share."""
    count = judged[0].images
    rng = np.random.default_rng(seed)
    drawn = np.array([[one.ap(rows) for one in judged] for rows in rng.integers(count, size=(DRAWS, count))])
    values = [one.ap() for one in judged]
    own = [_interval(v, drawn[:, k], count) for k, v in enumerate(values)]
    change = [_interval(v - values[0], drawn[:, k] - drawn[:, 0], count) for k, v in enumerate(values) if k]
    return own, change


def _interval(value: float, drawn: NDArray[Any], n: int) -> Interval:
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) and n > 1 else (float("nan"),) * 2
    return Interval(value, float(low), float(high), n)


# ---- in the words of pycocotools -------------------------------------------------------------------------


_IOU = {"masks": "segm", "boxes": "bbox"}


def _tools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise MissingExtra("Measuring detections", "pycocotools", "detection") from None
    return COCO, COCOeval


def _entry(image: int, label: int, box: Sequence[float], inside: Any, score: float | None = None) -> dict[str, Any]:
    left, top, right, bottom = box
    said: dict[str, Any] = {
        "image_id": image,
        "category_id": label,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
    }
    if inside is not None:
        from pycocotools import mask

        said["segmentation"] = mask.encode(np.asfortranarray(inside.numpy().astype(np.uint8)))
        said["area"] = float(inside.sum())
    return said if score is None else {**said, "score": score}


def _dataset(coco: Any, entries: list[dict[str, Any]], images: int) -> Any:
    made = coco()
    made.dataset = {
        "images": [{"id": k, "height": 0, "width": 0} for k in range(images)],  # run lengths bring their own
        "categories": [{"id": k} for k in sorted({entry["category_id"] for entry in entries})],
        "annotations": [{**entry, "id": k + 1} for k, entry in enumerate(entries)],
    }
    made.createIndex()
    return made


@contextlib.contextmanager
def _quiet() -> Any:
    """pycocotools prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
