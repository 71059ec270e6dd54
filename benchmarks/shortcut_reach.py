"""What grouping finds and what it makes up: two shortcuts at once, by how many pictures carry them, and false alarms.

    python benchmarks/shortcut_reach.py [--kinds both none decoy] [--shares 0.1 0.3] [--seeds 0 1 2] [--work FOLDER]

"both": a tag on this share of one class and a woven ground on the same share of another. "none": no tag at all.
"decoy": the tag on 40 % of every class, where it says nothing. Per row the set is drawn, a small net learns it, an
audit and groups; every group worth a look is written down as it was tested. Columns and masks only judge. Sets in
`--work` are removed when their row is written, unless `--keep`; rows that the table has are not made again.

`shortcut_judged.py` makes tables and the picture of the rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import HERE, written

import whylens
from whylens.demo.planted import Planted, learn, plant, turned
from whylens.demo.planting import picture
from whylens.demo.shortcut import PREPROCESS
from whylens.interval import Interval
from whylens.run.read import Run

TRAIN = 4000
TEST = {"both": 2000, "none": 1000, "decoy": 1000}
PASTED = {"both": 500, "decoy": 200}
DECOY = 0.4  # the share that a shortcut has by default
CUES = ("tag", "weave")
OUT = HERE / "shortcut_reach.json"


def planted_of(kind: str, share: float, seed: int, folder: Path) -> Planted:
    """The set of a row; what is learnt from stays in memory."""
    sizes = {"train": 8, "test": TEST[kind], "swapped": 8}
    weave = share if kind == "both" else 0.0
    return plant(folder, seed=seed, tag_share=share, weave_share=weave, decoy=kind == "decoy", **sizes)


def row(kind: str, share: float, seed: int, folder: Path) -> dict[str, Any]:
    """One set, one net, one audit, one grouping."""
    planted = planted_of(kind, share, seed, folder)
    model = learnt(planted, seed)
    run = whylens.audit(
        model, planted.test, out=folder / "run", methods=["grad_cam"], metrics=["energy_inside"], workers=1
    )
    groups = whylens.group(run, seed=seed, model=model)
    carriers = {cue: cue_of(run, cue) for cue in CUES}
    return {
        "kind": kind,
        "share": share,
        "seed": seed,
        "accuracy": round(run.summary().accuracy.value, 4),
        "turns": {cue: told(turned(model, planted, what=cue, count=PASTED[kind])) for cue in cues_of(kind)},
        "carry it": {cue: int(carriers[cue].sum()) for cue in cues_of(kind)},
        "stability": round(groups.stability, 4),
        "groups": len(groups),
        "worth a look": [judged(g, carriers) for g in groups if g.reasons > 1],
    }


def learnt(planted: Planted, seed: int) -> whylens.Model:
    """The net of `fit`, of the same pictures, batches and steps, learnt in bfloat16: these are many."""
    made = [picture(planted.settings, "train", number) for number in range(TRAIN)]
    pixels = torch.from_numpy(np.stack([p.pixels for p in made])).permute(0, 3, 1, 2)
    labels = torch.tensor([planted.classes.index(p.label) for p in made])
    net = learn(pixels, labels, seed=seed, precision="bfloat16")
    return whylens.Model(net, preprocess=PREPROCESS, classes=planted.classes)


def cues_of(kind: str) -> tuple[str, ...]:
    return {"both": CUES, "decoy": ("tag",), "none": ()}[kind]


def cue_of(run: Run, cue: str) -> np.ndarray[Any, Any]:
    known = cue in run.table().column_names
    return np.array(run.table([cue]).column(0).to_pylist() if known else [0] * len(run), np.float64)


def judged(group: Any, carriers: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """A group worth a look: how it was tested, and, by the columns, what it holds."""
    tests = {} if group.tested is None else {name: told(found) for name, found in vars(group.tested).items()}
    return {
        "class": group.class_name,
        "images": group.size,
        "share": round(group.share.value, 4),
        "on the object": [round(v, 4) for v in (group.inside.value, group.inside_rest.value)],
        "named columns": [a.column for a in group.associations],
        **{cue: [int(carriers[cue][list(group.ids)].sum()), group.size] for cue in CUES if carriers[cue].any()},
        **tests,
    }


def told(found: Interval) -> list[float] | None:
    return [round(v, 4) for v in (found.value, found.low, found.high)] if found.n else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=("both", "none", "decoy"), default=["both"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.05, 0.07, 0.1, 0.2, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "reach")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = held(options.out)
    for seed in options.seeds:
        for kind in options.kinds:
            shares = options.shares if kind == "both" else [DECOY if kind == "decoy" else 0.0]
            for share in shares:
                if (kind, share, seed) not in rows:
                    folder = options.work / f"{kind}-{share}-{seed}"
                    rows[kind, share, seed] = row(kind, share, seed, folder)
                    written(options.out, [rows[k] for k in sorted(rows)], train=TRAIN, test=TEST)
                    if not options.keep:
                        shutil.rmtree(folder)


def held(path: Path) -> dict[tuple[str, float, int], dict[str, Any]]:
    found = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    return {(r["kind"], r["share"], r["seed"]): r for r in found}


if __name__ == "__main__":
    main()
