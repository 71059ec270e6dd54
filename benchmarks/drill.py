"""The drill case by the public interface alone: audit, groups of objects, the print's group filled, precision anew.

    python benchmarks/drill.py [--seeds 1000 1001 1002] [--drills 600] [--work FOLDER] [--out FILE]

Per seed: scenes with one drill each, half of them with the printed face up, are audited with Grad-CAM of the masks of
the detector's objects; the objects are grouped; the first group with annotated objects is filled. The column that says
which face is up only judges. Runs in `--work` are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import HERE, written

import whylens
from whylens.demo.drill import open_detector, plant_drills
from whylens.interval import Interval, wilson


def told(found: Interval) -> list[float]:
    return [round(v, 4) for v in (found.value, found.low, found.high)]


def row(seed: int, drills: int, work: Path) -> dict[str, Any]:
    planted = plant_drills(work / f"seen {seed} {drills}", seed=seed, train=1, drills=drills)
    asked = whylens.Instances(of="mask")
    out = work / f"run {seed} {drills}"
    run = whylens.audit(open_detector(), planted.drills, out=out, methods=["grad_cam"], target=asked, workers=1)
    groups = whylens.group(run, seed=seed, name=f"drill {seed}")
    printed = np.array(planted.drills.columns["printed"], np.int64)
    rows = run.instances(embeddings=False).to_pylist()
    incomplete = [one for one in rows if one["incomplete"] is not None]
    found = [described(rows, group.ids, printed) for group in groups]
    place = next(k for k, one in enumerate(found) if one["with a reference"])
    group = list(groups)[place]
    effect = whylens.act(run, group, "mask", seed=seed)
    return {
        "seed": seed,
        "drills": len(planted.drills),
        "objects": len(rows),
        "incomplete, printed": told(share(incomplete, printed, 1)),
        "incomplete, other face": told(share(incomplete, printed, 0)),
        "groups in their order": found,
        "stability": round(groups.stability, 4),
        "filled group": place + 1,
        "share of printed drills in it": round(held(rows, group.ids, printed), 4),
        "whole before": told(effect.before),
        "whole after": told(effect.after),
        "change": told(effect.change),
        "controls": {name: told(one) for name, one in effect.controls.items()},
        "said": {key: str(value) for key, value in effect.said.items()},
        "verdict": effect.verdict,
    }


def share(rows: Sequence[dict[str, Any]], printed: np.ndarray, face: int) -> Interval:
    own = [one["incomplete"] for one in rows if printed[one["image_id"]] == face]
    return wilson(sum(own), len(own))


def described(rows: Sequence[dict[str, Any]], ids: Sequence[int], printed: np.ndarray) -> dict[str, Any]:
    """A group by what only judges: how many of its objects are in images with the printed face up, and incomplete."""
    own = [rows[k] for k in ids]
    known = [one["incomplete"] for one in own if one["incomplete"] is not None]
    return {
        "objects": len(own),
        "printed": round(float(np.mean([printed[one["image_id"]] for one in own])), 4),
        "with a reference": len(known),
        "incomplete": told(wilson(sum(known), len(known))) if known else None,
    }


def held(rows: Sequence[dict[str, Any]], ids: Sequence[int], printed: np.ndarray) -> float:
    """The share of images with the printed face up whose drill is in the group."""
    images = {rows[k]["image_id"] for k in ids if rows[k]["reference"] is not None}
    return float(np.mean([image in images for image in np.flatnonzero(printed)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--drills", type=int, default=600)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "drill")
    parser.add_argument("--out", type=Path, default=HERE / "drill.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    written(options.out, [row(seed, options.drills, options.work) for seed in options.seeds])


if __name__ == "__main__":
    main()
