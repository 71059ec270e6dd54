"""The gap on two sets: do CO scores of seven requests tell right predictions from wrong ones?

    python benchmarks/gap.py [--sets planted,cutouts] [--epochs 7] [--images 1000] [--threads 2] [--figures DIR]

`planted`: test pictures of the planted set, with its small net stopped early, so that it is often wrong. `cutouts`: one
scene of each of the 171 cut-outs of `cutouts_scenes.py`, right and wrong, with EfficientNet-Lite0; the label of a
scene is the class that counts as right and that the net finds likeliest, for right scenes and wrong ones alike. The
six methods of the paper, its Grad-CAM at the feature layer and, as in the paper, at the first convolution. The map is
added to the frame and, as in the paper's code, behind the normalisation. Nets, scenes and runs are kept in the cache
folder, so a stopped run goes on. Figures are written to a folder to look at.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from cutouts_scenes import BACKGROUNDS, CACHE, draw, fetch, images_of, judged, read_stamps
from side_by_side import HERE, written

import whylens
from whylens.demo.planted import fit, plant
from whylens.gap import PAPER

SEED = 0
METRICS = ("co_score", "co_score:space=normalised")


def planted(epochs: int, images: int) -> whylens.Run:
    folder = CACHE / "gap" / "planted"
    held = plant(folder, test=max(images, 8), seed=SEED)
    net = fit(held, epochs=epochs, name=f"model-{epochs}")
    return audited(net, held.test, folder / f"run-{epochs}", "0")


def cutouts(_epochs: int, _images: int) -> whylens.Run:
    tree, model = fetch(), whylens.load_model("efficientnet-lite0", device="cpu")
    stamps = read_stamps()
    right = {stamp.name: stamp.classes for stamp in stamps}
    made = [draw(tree, stamp, 0, SEED, BACKGROUNDS) for stamp in stamps]
    scenes = [s for k in range(0, len(made), 32) for s in judged(model, tree, made[k : k + 32], right)]
    images = images_of(tree, scenes)
    labels = []
    for photo, scene in zip(images, scenes, strict=True):
        shares = model.predict(model.prepare(photo.pixels, photo.orientation)[0][None])[0]
        labels.append(max(right[scene.stamp], key=lambda k: float(shares[k])))
    return audited(model, whylens.load_images(images, labels=labels), CACHE / "gap" / "cutouts-run", "conv_stem")


def audited(model: whylens.Model, images: whylens.Images, out: Path, first: str) -> whylens.Run:
    """The run with all that is asked for; `first` is the first convolution."""
    methods = [*PAPER, f"grad_cam:layer={first}"]
    return whylens.audit(model, images, out=out, methods=methods, metrics=["co_score"], workers=1)


SETS = {"planted": planted, "cutouts": cutouts}


def row(name: str, found: whylens.Gap) -> dict[str, Any]:
    said = found.as_dict()
    del said["format"], said["run"]
    return {"set": name, **said}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables of benchmarks/README.md."""
    heads = ["set", "added", "method", "right, wrong", "median right, wrong", "AUROC", "KS", "verdict", "threshold"]
    heads += ["accuracy of all → of kept", "kept", "wrong rejected"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]

    def near(i: dict[str, Any]) -> str:
        return "none" if i["value"] is None else f"{i['value']:.3f} [{i['low']:.3f}, {i['high']:.3f}]"

    for held in rows:
        for label, m in (*held["methods"].items(), ("its probability", held["confidence"])):
            t = m["threshold"]
            cut = (
                [
                    f"{t['value']:.3g}",
                    f"{near(t['before'])} → {near(t['accuracy'])}",
                    near(t["kept"]),
                    near(t["wrong_rejected"]),
                ]
                if t
                else ["-"] * 4
            )
            cells = [
                held["set"], "behind" if "=" in held["metric"] else "in the frame", f"`{label}`",
                f"{m['right']}, {m['wrong']}",
                f"{m['median_right']:.3g}, {m['median_wrong']:.3g}", near(m["auroc"]),
                f"{m['ks']:.2f} (p {m['ks_p']:.1g})", m["verdict"], *cut,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="planted,cutouts")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    parser.add_argument("--out", type=Path, default=HERE / "gap.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.sets.split(","):
        run = SETS[name](options.epochs, options.images)
        for metric in METRICS:
            found = whylens.gap(run, metric=metric, seed=SEED, workers=1)
            print(found)
            if options.figures:
                options.figures.mkdir(parents=True, exist_ok=True)
                found.figure()[0].savefig(options.figures / f"gap_{name}_{metric.partition('=')[2]}.png")
            rows.append(row(name, found))
    written(options.out, rows, epochs=options.epochs, seed=SEED)
    print(markdown(rows))


if __name__ == "__main__":
    main()
