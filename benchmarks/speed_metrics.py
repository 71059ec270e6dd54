"""Speed of insertion and deletion over Quantus' pixel flipping, side by side in one process.

    pip install --target /tmp/quantus --no-deps quantus cachetools
    PYTHONPATH=/tmp/quantus python benchmarks/speed_metrics.py [--repeats 5] [--photos 16] [--threads 2] [--busy]
                                                               [--model efficientnet-lite0] [--out FILE]

Quantus is not a dependency of whylens; beside torch it needs numpy, scipy, scikit-image, scikit-learn, pandas,
matplotlib, tqdm and OpenCV, which the dev extra brings.

The same photos, the same Grad-CAM maps, enlarged, with a little noise so that no two pixels are equal. Quantus' steps
must divide the frame, so both sides take 48 steps instead of 50: Quantus 3,136 of the 150,528 values of a frame's three
channels at a time. Its pixel flipping is a deletion and it has no insertion, so it flips twice, by the map and by its
reverse: two curves on both sides. Two figures: against Quantus as its users call it, all photos in one batch (the bar),
and given our memory layout, in which float32 is what both compute; a third folds its batch norm too. Ours runs a second
time with precision="auto". Runs are taken in turn; a figure is a ratio of medians. `agreement` is the largest
difference between the two deletion curves, as a share of the largest probability: Quantus cuts a pixel's channels apart
where a step ends. `--busy` counts CPU seconds of the process instead of the clock's, for a machine that does other
things: then with `--threads 1`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_speed import photographs
from plain_nets import folded
from side_by_side import HERE, channels_last, interleaved, medians, rounded, written
from torch import Tensor, nn

import whylens
from whylens.engine import Precision
from whylens.folding import folds

STEPS, VALUES = 48, 3136


class Laid(nn.Module):
    """A net whose input is brought into channels last, as its weights are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = channels_last(net)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return output


def flipped(net: nn.Module, frames: np.ndarray, targets: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Probabilities after each step ``(N, 48)``, by Quantus; 0 is the mean colour of normalised frames."""
    import quantus

    metric = quantus.PixelFlipping(
        features_in_step=VALUES, perturb_baseline=0.0, normalise=False, disable_warnings=True, display_progressbar=False
    )
    found = metric(net, frames, targets, maps, softmax=True, device="cpu", batch_size=len(frames))
    return np.asarray(found)


def row(model: whylens.Model, images: whylens.Images, options: argparse.Namespace) -> dict[str, Any]:
    explanation = whylens.explain(model, images, method="grad_cam")
    maps = explanation.at((224, 224))
    maps = maps + 1e-3 * maps.max() * torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))  # no ties
    explanation = replace(explanation, maps=maps)
    frames = torch.stack([model.prepare(photo.pixels)[0] for photo in images])
    given = model.preprocess.normalise(frames).numpy()
    maps, targets = maps.numpy(), explanation.targets.numpy()
    net = model.net.eval()
    peers = {
        "Quantus": net,
        "Quantus, channels last": Laid(net).eval(),
        "Quantus, channels last, folded": Laid(folded(net, folds(net, frames[:1], model.forward).pairs)).eval(),
    }

    def theirs(peer: nn.Module) -> None:
        for order in (maps, maps.max() - maps):
            flipped(peer, given, targets, order)

    def ours(precision: Precision = "float32") -> None:
        for name in ("insertion", "deletion"):
            whylens.measure(model, images, explanation, metric=f"{name}:steps={STEPS}", precision=precision)

    mine = whylens.measure(model, images, explanation, metric=f"deletion:steps={STEPS},baseline=mean").curve
    apart = {
        name: np.abs(flipped(peer, given, targets, maps) - mine.numpy()[:, 1:]).max() for name, peer in peers.items()
    }
    runs = {name: lambda peer=peer: theirs(peer) for name, peer in peers.items()} | {
        "whylens": ours,
        "whylens, auto": lambda: ours("auto"),
    }
    clock = time.process_time if options.busy else time.perf_counter
    seconds = interleaved(runs, options.repeats, warm=False, clock=clock)  # each has run above, but for auto
    median = medians(seconds)
    over = {name: round(median[name] / median["whylens"], 2) for name in peers}
    return {
        "row": "insertion and deletion",
        "work": f"insertion and deletion, {STEPS} steps, {len(images)} photos, {model.name}, 224, Grad-CAM, float32",
        "repeats": options.repeats,
        "clock": "CPU seconds of the process" if options.busy else "seconds",
        "seconds": rounded(seconds),
        "medians": {name: round(s, 2) for name, s in median.items()},
        "over Quantus as called (bar 4, aim 8)": over["Quantus"],
        "precision auto, over Quantus as called": round(median["Quantus"] / median["whylens, auto"], 2),
        "over Quantus in our layout (above 1)": over["Quantus, channels last"],
        "over Quantus in our layout, folded": over["Quantus, channels last, folded"],
        "agreement": {name: float(f"{d / float(mine.max()):.2g}") for name, d in apart.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="efficientnet-lite0", help="any that load_model opens, with frames of 224")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "speed_metrics.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    model = whylens.load_model(options.model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        images = whylens.load_images([str(path) for path in photographs(Path(folder), options.photos)])
        found = row(model, images, options)
    written(options.out, [found])


if __name__ == "__main__":
    main()
