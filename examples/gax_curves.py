"""CO score against step of the method gax for two nets, a curve per photo: figure 4 of arXiv:2201.00009.

    python examples/gax_curves.py [--out docs/pictures/gax_curves.png] [--model NAME ...] [--steps 120] [PHOTO ...]

The paper shows ResNet-34 and AlexNet; weights of those are a download, so here it is EfficientNet-Lite0 and -Lite1,
whose weights are packages. As in the paper the target is the predicted class, and the search ends at 48.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib.figure import Figure

import whylens
from whylens.demo import photos

FILE = Path(__file__).parents[1] / "docs" / "pictures" / "gax_curves.png"
MODELS = ("efficientnet-lite0", "efficientnet-lite1")
COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:purple")


def usual_photos() -> list[Path]:
    """The demo's photos and what else scikit-image holds that ImageNet has a class near to."""
    folder = photos()[0].parent
    return [*photos(), *(folder / name for name in ("rocket.jpg", "astronaut.png", "motorcycle_left.png"))]


def curves(model: whylens.Model, images: object, *, steps: int, target_score: float = 48.0) -> whylens.Explanation:
    """gax of the predicted classes; `parts` ``(N, steps + 1)`` are the curves, NaN where the search had ended."""
    params = {"steps": steps, "target_score": target_score, "states": 0}
    return whylens.explain(model, images, method="gax", params=params)


def draw(found: Mapping[str, whylens.Explanation], out: Path) -> Path:
    """One curve per photo, one colour per net."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for colour, (name, explanation) in zip(COLOURS, found.items(), strict=False):
        assert explanation.parts is not None
        for n, curve in enumerate(explanation.parts):
            axes.plot(curve.numpy(), color=colour, linewidth=1, label=f"{name}" if n == 0 else None)
    axes.axhline(explanation.params["target_score"], color="grey", linestyle="--", linewidth=0.8, label="target")
    axes.set(xlabel="step", ylabel="CO score")
    axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    return out


def main(arguments: list[str] | None = None) -> None:
    """Search, print how it went photo by photo, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--target-score", type=float, default=48.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    images = whylens.load_images([str(path) for path in options.photos or usual_photos()])
    found = {}
    for name in options.model or MODELS:
        model = whylens.load_model(name, device="cpu")
        found[name] = e = curves(model, images, steps=options.steps, target_score=options.target_score)
        for i in range(len(e)):
            reached = "no" if e.checks["score_not_reached"][i] else "yes"
            steps, co = int(e.checks["steps_taken"][i]), float(e.checks["co"][i])
            said = f"CO {co:.1f} after {steps} steps, reached: {reached}"
            print(f"{name}, {e.ids[i]}, {e.prediction_names[i]}: {said}", flush=True)
    print(draw(found, options.out))


if __name__ == "__main__":
    main()
