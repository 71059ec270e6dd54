"""The whole loop on the planted shortcut, seed by seed: find the tag's group, test it, act on it, measure the effect.

    python benchmarks/shortcut_loop.py [--seeds 0 1 2 3 4] [--work FOLDER] [--threads 2] [--out FILE]

Per seed: the set is drawn, a small net learns it and takes the shortcut, an audit, groups, `keep` and `retrain`. Masks
and the tag's column only judge what was found. A seed whose net is turned by the tag on fewer than half of the pictures
it is pasted on is no shortcut and is told apart. Nets and runs in `--work` are kept, rows of the table too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import HERE, written

import whylens
from whylens.demo.planted import fit, plant, turned
from whylens.interval import Interval

FIRST = 3  # groups "worth a look" among which the tag's must be


def told(found: Interval) -> list[float]:
    return [round(v, 4) for v in (found.value, found.low, found.high)]


def row(seed: int, work: Path) -> dict[str, Any]:
    planted = plant(work / str(seed), seed=seed, train=4000, test=2000, swapped=400)
    model = fit(planted, seed=seed)
    run = whylens.audit(model, planted.test, out=work / str(seed) / "run", methods=["grad_cam"], workers=1)
    groups = whylens.group(run, seed=seed, name=f"loop {seed}")
    tag = np.array(run.table(["tag"]).column(0).to_pylist(), np.float64)
    tagged = tag.sum()
    first = list(groups)[:FIRST]
    purity = [float(tag[list(g.ids)].mean()) for g in first]
    place = int(np.argmax(purity))
    group = first[place]
    keep = whylens.act(run, group, "keep", seed=seed)
    given = {"train": planted.train, "images": planted.swapped, "seed": seed}
    mended = whylens.act(run, group, "retrain", **given)
    anew = whylens.act(run, group, "retrain", anew=True, **given)
    turns = turned(model, planted)
    return {
        "seed": seed,
        "tag turns": told(turns),
        "a shortcut": turns.value >= 0.5,
        "place": place + 1,
        "purity": round(purity[place], 4),
        "share of tagged": round(float(tag[list(group.ids)].sum() / tagged), 4),
        "stability": round(groups.stability, 4),
        "worth a look": sum(g.reasons > 1 for g in groups),
        "carries, random": [group.tested.carries.value, group.tested.carries_control.value] if group.tested else None,
        "keep": told(keep.after),
        "keep, random": told(next(iter(keep.controls.values()))),
        "accuracy on swapped before": told(mended.before),
        "after": told(mended.after),
        "change": told(mended.change),
        "controls": {name: told(found) for name, found in mended.controls.items()},
        "verdict": mended.verdict,
        "anew: change": told(anew.change),
        "anew: controls": {name: told(found) for name, found in anew.controls.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "shortcut")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "shortcut_loop.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    held = json.loads(options.out.read_text("utf-8"))["rows"] if options.out.exists() else []
    rows = {found["seed"]: found for found in held}
    for seed in options.seeds:
        if seed not in rows:
            rows[seed] = row(seed, options.work)
            written(options.out, [rows[k] for k in sorted(rows)])
            print(json.dumps(rows[seed]), flush=True)


if __name__ == "__main__":
    main()
