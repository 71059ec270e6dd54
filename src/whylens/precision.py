"""Precision: mean average precision of detections against annotated objects, by pycocotools, with intervals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .detections import Detections
from .errors import MissingExtra
from .interval import Interval
from .placement import Box
from .references import Reference

DRAWS = 200
"""Bootstrap draws over images behind an interval."""


class Judged:
    """Detections of images held against their references once; images can then be drawn again without looking anew.

    Images are added one by one, and only run lengths of their masks are kept. Masks are compared where both sides
    have them everywhere, else boxes. `ap` is the mean over overlaps of 0.5 to 0.95 and over classes, COCO's first
    figure. Annotated objects without a class count for any.
    """

    def __init__(self) -> None:
        self.images = 0
        self._truth: list[_Entry] = []
        self._said: list[_Entry] = []

    def add(self, found: Detections, known: Sequence[Reference]) -> None:
        """One more image: what is detected in it, and its annotated objects."""
        for r in known:
            self._truth.append(_Entry(self.images, r.label, r.named, r.box, _run_lengths(r.inside)))
        for k in range(len(found)):
            mask = None if found.masks is None else _run_lengths(found.masks[k])
            box: Any = found.boxes[k].tolist()
            self._said.append(_Entry(self.images, int(found.labels[k]), True, box, mask, float(found.scores[k])))
        self.images += 1
        self.__dict__.pop("_held", None)

    @property
    def kind(self) -> str:
        """What is compared: "masks" or "boxes"."""
        return "masks" if all(one.mask is not None for one in (*self._truth, *self._said)) else "boxes"

    @cached_property
    def _held(self) -> tuple[Any, list[Any]]:
        """pycocotools' evaluation, and what it found in each image and class."""
        coco, evaluation = _tools()
        classless = any(not one.named for one in self._truth)
        entries = [
            [one.told(1 if classless else one.label, self.kind) for one in side if classless or one.label is not None]
            for side in (self._truth, self._said)
        ]
        with _quiet():
            held = evaluation(*(_dataset(coco, side, self.images) for side in entries), _IOU[self.kind])
            held.params.areaRng, held.params.areaRngLbl = [[0, 1e10]], ["all"]
            held.params.maxDets = [100]
            held.params.imgIds = list(range(self.images))
            held.params.catIds = sorted({entry["category_id"] for entry in entries[0]})
            held.evaluate()
        return held, list(held.evalImgs)

    def ap(self, images: NDArray[Any] | None = None) -> float:
        """Over these images ``(M,)``, each as often as it stands there, as many as there are; NaN without truth."""
        held, each = self._held
        count, classes = self.images, len(held.params.catIds)
        if not classes or not count:
            return float("nan")
        chosen = np.arange(count) if images is None else images
        held.evalImgs = [each[k * count + int(i)] for k in range(classes) for i in chosen]
        with _quiet():
            held.accumulate()
        precision = held.eval["precision"]
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


@dataclass(frozen=True)
class _Entry:
    """An object, annotated or detected (then with its score), with the run lengths of its mask."""

    image: int
    label: int | None
    named: bool
    box: Box
    mask: dict[str, Any] | None
    score: float | None = None

    def told(self, category: int | None, kind: str) -> dict[str, Any]:
        """As the tools want it."""
        left, top, right, bottom = self.box
        said: dict[str, Any] = {
            "image_id": self.image,
            "category_id": category,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if kind == "masks":
            from pycocotools import mask

            said |= {"segmentation": self.mask, "area": float(mask.area(self.mask))}
        return said if self.score is None else {**said, "score": self.score}


def _run_lengths(inside: Tensor | None) -> dict[str, Any] | None:
    """A mask ``(H, W)`` in the tools' own form."""
    if inside is None:
        return None
    _tools()
    from pycocotools import mask

    made: dict[str, Any] = mask.encode(np.asfortranarray(inside.cpu().numpy().astype(np.uint8)))
    return made


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
