"""How complete the small detector's masks are: drills with and without print, with the print and a control filled.

    python benchmarks/drill_masks.py [--seeds 1000 1001] [--drills 600] [--work FOLDER] [--out FILE]

The detector was trained on scenes of another seed. A mask is incomplete where it covers less than 0.9 of the reference.
Each printed drill is seen as it is, with the print filled by the colour around it, and with an equal area elsewhere on
the drill filled likewise. AP is COCO's mean over IoU 0.50 to 0.95, of masks, by pycocotools.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import HERE, written
from torch import nn

from whylens.annotations import CocoFile
from whylens.demo.detector import load
from whylens.demo.drill import Drills, fill, plant_drills
from whylens.demo.scenes import SIZE
from whylens.images import Images
from whylens.interval import Interval, mean, wilson

SCORE = 0.5  # a detection that counts as found
COVER = 0.9  # of the reference: a mask that covers less is incomplete
BATCH = 20
DRAWS = 500

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Found:
    """What is detected in one image: scores (D,) and masks (D, H, W) bool."""

    scores: Array
    masks: Array


def detected(net: nn.Module, pictures: Sequence[Array]) -> list[Found]:
    found = []
    for start in range(0, len(pictures), BATCH):
        frames = [torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in pictures[start : start + BATCH]]
        with torch.inference_mode():
            found += [Found(o["scores"].numpy(), (o["masks"][:, 0] > 0.5).numpy()) for o in net(frames)]
    return found


def covered(found: Found, reference: Array) -> float:
    """The share of the reference under the detection that fits it best; NaN where nothing is found."""
    masks = found.masks[found.scores >= SCORE]
    both, either = (masks & reference).sum((1, 2)), (masks | reference).sum((1, 2))
    if not both.any():
        return float("nan")
    return float(both[(both / either).argmax()] / reference.sum())


def incomplete(shares: Array) -> Interval:
    """Of the drills that are found."""
    there = shares[~np.isnan(shares)]
    return wilson(int((there < COVER).sum()), len(there))


def elsewhere(mark: Array, within: Array, rng: np.random.Generator) -> Array:
    """The mark's area turned and moved to a random place on the thing, clear of the mark: the largest part of it that
    fits in many tries.
    """
    spots = np.argwhere(mark)
    centred, free = spots - spots.mean(0), within & ~mark
    best = np.zeros_like(mark)
    for _ in range(200):
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        place = np.rint(centred @ turn.T + rng.choice(np.argwhere(free))).astype(int)
        place = place[((place >= 0) & (place < SIZE)).all(1)]
        moved = np.zeros_like(mark)
        moved[place[:, 0], place[:, 1]] = True
        moved &= free
        best = moved if moved.sum() > best.sum() else best
    return best


# ---- AP --------------------------------------------------------------------------------------------------


class Precision:
    """COCO's evaluation of masks, whose images can be drawn again for an interval."""

    def __init__(self, coco: Any, numbers: Sequence[int], found: Sequence[Found]) -> None:
        from pycocotools.cocoeval import COCOeval
        from pycocotools.mask import encode

        rows = [
            {"image_id": number, "category_id": 1, "score": float(score), "segmentation": encode(np.asfortranarray(m))}
            for number, one in zip(numbers, found, strict=True)
            for score, m in zip(one.scores, one.masks.astype(np.uint8), strict=True)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            self.of = COCOeval(coco, coco.loadRes(rows), "segm")
            self.of.params.imgIds = list(numbers)
            self.of.params.areaRng, self.of.params.areaRngLbl = [[0, 1e10]], ["all"]
            self.of.evaluate()
        self.rows = list(self.of.evalImgs)

    def at(self, rows: Array) -> float:
        """AP over these rows of images, which may come more than once."""
        self.of.evalImgs = [self.rows[k] for k in rows]
        self.of._paramsEval.imgIds = list(range(len(rows)))
        self.of.params.imgIds = self.of._paramsEval.imgIds
        with contextlib.redirect_stdout(io.StringIO()):
            self.of.accumulate()
        found = self.of.eval["precision"][..., 0, -1]
        return float(found[found > -1].mean())


def compared(before: Precision, after: Precision, *, seed: int = 0) -> tuple[Interval, Interval, Interval]:
    """AP before, after, and its change, each with an interval over the images, drawn alike for both."""
    n, rng = len(before.rows), np.random.default_rng(seed)
    whole = np.arange(n)
    values = [(before.at(whole), after.at(whole))]
    values += [(before.at(rows), after.at(rows)) for rows in rng.integers(n, size=(DRAWS, n))]
    table = np.array(values)
    table = np.column_stack([table, table[:, 1] - table[:, 0]])
    low, high = np.quantile(table[1:], [0.025, 0.975], axis=0)
    first, second, change = (Interval(*map(float, (table[0, k], low[k], high[k])), n) for k in range(3))
    return first, second, change


# ---- the table -------------------------------------------------------------------------------------------


def told(found: Interval) -> list[float]:
    return [round(v, 4) for v in (found.value, found.low, found.high)]


def known(net: nn.Module, planted: Drills) -> dict[str, Any]:
    """How good the net is on new scenes of what it was trained on."""
    coco = coco_of(planted, "test")
    found = detected(net, pictures(planted.test))
    ap = Precision(coco, [n + 1 for n in range(len(planted.test))], found)
    records, shares = CocoFile(planted.folder / "test.json"), []
    for name, one in zip(planted.test.ids, found, strict=True):
        shares += [covered(one, thing.pixels((SIZE, SIZE))) for thing in records.find(name).objects]
    return {"AP": round(ap.at(np.arange(len(ap.rows))), 4), "incomplete": told(incomplete(np.array(shares)))}


def row(net: nn.Module, planted: Drills, seed: int) -> dict[str, Any]:
    images, marks = planted.drills, planted.marks()
    printed = np.array(images.columns["printed"], np.int64) == 1
    references = [images.mask(k).inside.numpy() for k in range(len(images))]
    areas = [marks.mask(k).inside.numpy() for k in range(len(images))]
    others = [elsewhere(a, references[k], np.random.default_rng([seed, k])) for k, a in enumerate(areas)]
    seen = pictures(images)
    ways = {
        "as it is": seen,
        "print filled": [fill(*each) for each in zip(seen, areas, references, strict=True)],
        "elsewhere filled": [fill(*each) for each in zip(seen, others, references, strict=True)],
    }
    found = {way: detected(net, changed) for way, changed in ways.items()}
    area = np.mean([o.sum() / a.sum() for o, a in zip(others, areas, strict=True)])
    report = {
        "seed": seed,
        "things it was trained on": known(net, planted),
        "area filled elsewhere, of the print's": round(float(area), 3),
    }
    coco = coco_of(planted, "drills")
    for face, which in {"printed": printed, "other face": ~printed, "both faces": printed | True}.items():
        rows = np.flatnonzero(which)
        report[face] = {"drills": len(rows), **judged(coco, rows, found, [references[k] for k in rows])}
    return report


def judged(coco: Any, rows: Array, found: dict[str, list[Found]], references: list[Array]) -> dict[str, Any]:
    """Of these rows, for each way they are shown: how many are found, incomplete, AP and how it changes."""
    of = {way: [each[k] for k in rows] for way, each in found.items()}
    aps = {way: Precision(coco, (rows + 1).tolist(), each) for way, each in of.items()}
    first, said = next(iter(aps.values())), {}
    for way, each in of.items():
        shares = np.array([covered(one, reference) for one, reference in zip(each, references, strict=True)])
        _, ap, change = compared(first, aps[way])
        said[way] = {
            "found": int((~np.isnan(shares)).sum()),
            "incomplete": told(incomplete(shares)),
            "covered": told(mean(shares)),
            "AP": told(ap),
        } | ({} if aps[way] is first else {"change of AP": told(change)})
    return said


def pictures(images: Images) -> list[Array]:
    return [photo.pixels.permute(1, 2, 0).numpy().copy() for photo in images]


def coco_of(planted: Drills, split: str) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(planted.folder / f"{split}.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001])
    parser.add_argument("--drills", type=int, default=600)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "drill")
    parser.add_argument("--out", type=Path, default=HERE / "drill_masks.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    net = load(options.weights) if options.weights else load()
    rows = []
    for seed in options.seeds:
        folder = options.work / f"seen {seed} {options.drills}"
        rows.append(row(net, plant_drills(folder, seed=seed, train=1, drills=options.drills), seed))
    written(options.out, rows)


if __name__ == "__main__":
    main()
