"""GAX on photos that EfficientNet-Lite0 classifies right: how many reach CO 48, in how many steps, by how large an h.

    python benchmarks/gax_reach.py [--steps 300] [--threads 2] [--out benchmarks/gax_reach.json]

Packages hold seven photos whose subject is an ImageNet class that the net finds; central crops of them, as long as
the net still finds it, make ten. Beside each search: one gradient-sign step with the same largest change, one with
the same mean change, and gradient-sign steps of 1/255 one after another, until they reach what the search reached.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
from pathlib import Path

import sklearn.datasets
import torch
from torch import Tensor

import whylens
from whylens.demo import photos
from whylens.scoring import margin

HERE = Path(__file__).parent
TARGET, PHOTOS, SHARE = 48.0, 10, 0.8

RIGHT = {
    "coffee.png": ("espresso",),
    "chelsea.png": ("tiger cat", "tabby", "Egyptian cat"),
    "camera.png": ("tripod",),
    "rocket.jpg": ("missile",),
    "motorcycle_left.png": ("moped", "motor scooter"),
    "china.jpg": ("palace",),
    "flower.jpg": ("daisy",),
}
"""What each photo shows, in the words of ImageNet; the nearest ones where it has none (motorcycle, rocket)."""


def files() -> list[Path]:
    skimage, sklearn_ = photos()[0].parent, Path(sklearn.datasets.__file__).parent / "images"
    return [(sklearn_ if name in ("china.jpg", "flower.jpg") else skimage) / name for name in RIGHT]


def chosen(model: whylens.Model) -> dict[str, Tensor]:
    """Pixels by name: whole photos, then central crops, of those whose predicted class is right."""
    found: dict[str, Tensor] = {}
    loaded = list(whylens.load_images([str(path) for path in files()]))
    for share in (1.0, SHARE):
        for name, photo in zip(RIGHT, loaded, strict=True):
            rows, columns = photo.pixels.shape[1:]
            top, left = (round(side * (1 - share) / 2) for side in (rows, columns))
            pixels = photo.pixels[:, top : rows - top, left : columns - left].contiguous()
            with torch.no_grad():
                guess = model.class_name(int(model.forward(model.prepare(pixels)[0][None]).argmax()))
            if guess in RIGHT[name] and len(found) < PHOTOS:
                found[name if share == 1 else f"{name}, {share:.0%} of it"] = pixels
    return found


def by_sign_steps(model: whylens.Model, frame: Tensor, target: int, goal: float, most: int) -> dict[str, float]:
    """Steps of 1/255 up the sign of the slope until the CO score is `goal`."""
    truth, start = torch.tensor([target]), frame[None]
    moved, co, before = start.clone(), 0.0, 0.0
    for step in range(most + 1):
        leaf = moved.detach().requires_grad_()
        score = margin(model.scores(model.forward(leaf)), truth).sum()
        before = float(score.detach()) if step == 0 else before
        co = float(score.detach()) - before
        if co >= goal or step == most:
            break
        moved = moved + torch.autograd.grad(score, leaf)[0].sign() / 255
    return {"co": round(co, 2), "steps": step, "linf": round(float((moved - start).abs().max()), 4)}


def measured(model: whylens.Model, steps: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    params = {"steps": steps, "target_score": TARGET, "states": 0}
    for name, pixels in chosen(model).items():
        e = whylens.explain(model, [pixels], method="gax", params=params)
        target = int(e.targets[0])
        said = {k: round(float(v[0]), 4) for k, v in e.checks.items() if v.dtype != torch.bool and k != "stride"}
        control = by_sign_steps(model, model.prepare(pixels)[0], target, min(TARGET, said["co"]), 100)
        rows.append({
            "photo": name, "class": e.target_names[0], "probability": round(float(e.probabilities[0]), 3),
            "reached": not bool(e.checks["score_not_reached"][0]), **said, "mean_h": round(float(e.maps.mean()), 4),
            "sign_steps": control, "seconds": e.cost["seconds"],
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "gax_reach.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = whylens.load_model("efficientnet-lite0", device="cpu")
    model.net.eval()
    rows = measured(model, options.steps)
    taken = sorted(float(row["steps_taken"]) for row in rows if row["reached"])  # type: ignore[arg-type]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    said = {
        "commit": commit.strip(),
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
        "model": "efficientnet-lite0",
        "target_score": TARGET,
        "steps": options.steps,
        "photos": len(rows),
        "reached": len(taken),
        "steps_taken": {"least": taken[0], "median": statistics.median(taken), "most": taken[-1]} if taken else {},
        "rows": rows,
    }
    options.out.write_text(json.dumps(said, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
