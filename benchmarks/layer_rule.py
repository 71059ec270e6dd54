"""The feature-layer rule against the hand-written list: right, refused, wrong, with a Grad-CAM from each.

    python benchmarks/layer_rule.py [--out benchmarks/layer_rule.csv] [--only WORD]

Weights are random, so no download; rows that are there already are kept, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path

import torch

import whylens

HERE = Path(__file__).parent
FIELDS = ["architecture", "family", "verdict", "layer", "grid", "true_grid", "grad_cam", "seconds", "says"]


def judge(row: dict[str, str]) -> dict[str, str]:
    """One architecture: what the rule takes, whether the list accepts it, and whether Grad-CAM there lives."""
    start = time.perf_counter()
    accepted = row["accepted"].split("|")
    found = {"architecture": row["architecture"], "family": row["family"], "true_grid": row["grid"]}
    torch.manual_seed(0)
    model = whylens.load_model(row["architecture"], weights="none", device="cpu")
    side = int(row["input"])
    shape = (3, side, side)
    try:
        layer = model.layer(shape=shape)
    except whylens.InputError as error:
        verdict = "right (refused)" if "REFUSE" in accepted else "refused"
        return {**found, "verdict": verdict, "says": str(error)[:300], "seconds": f"{time.perf_counter() - start:.1f}"}
    with torch.no_grad():  # heads that start at zero would make every map zero, wherever it is taken
        for weight in model.net.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.normal_(std=0.02)
    frames = torch.rand((1, *shape), generator=torch.Generator().manual_seed(1))
    raw = whylens.Model(model.net, layer=layer.name)
    method = whylens.Method("grad_cam", params={"relu": False})
    maps = whylens.explain(raw, frames, method=method, target=0).maps
    alive = bool(maps.isfinite().all()) and float(maps.abs().max()) > 0
    grid = "x".join(map(str, layer.grid.size))
    return {
        **found,
        "verdict": "right" if layer.name in accepted else "wrong",
        "layer": layer.name,
        "grid": grid,
        "grad_cam": "finite, not zero" if alive else "dead",
        "seconds": f"{time.perf_counter() - start:.1f}",
        "says": layer.reason,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE / "layer_rule.csv")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    done = {}
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            done = {r["architecture"]: r for r in csv.DictReader(file)}
    with (HERE / "layer_truth.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if options.only in r["architecture"]]
    for row in rows:
        if row["architecture"] not in done:
            try:
                done[row["architecture"]] = judge(row)
            except Exception as error:
                done[row["architecture"]] = {
                    "architecture": row["architecture"], "family": row["family"], "verdict": "error",
                    "says": f"{type(error).__name__}: {error}"[:300],
                }  # fmt: skip
            print(*(done[row["architecture"]].get(k, "") for k in ("architecture", "verdict", "layer", "grid", "says")))
            with options.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(done.values())
    verdicts = [r["verdict"] for r in done.values()]
    print({v: verdicts.count(v) for v in sorted(set(verdicts))})


if __name__ == "__main__":
    main()
