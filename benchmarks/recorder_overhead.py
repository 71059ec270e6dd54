"""What a recorder adds to a training: seconds of an epoch with it over those without, and that nothing else changes.

    python benchmarks/recorder_overhead.py [--images 2000] [--recorded 16,64] [--repeats 5] [--threads 2]

The small net of the planted set, one epoch over `--images` pictures of 64 x 64 in batches of 64; `resnet18` of
torchvision, one epoch over `--images` / 20 pictures enlarged to 224. Recorded are 16 or 64 pictures with Grad-CAM,
IoU and focus, written to disk. Epochs with and without are taken in turn, from the same weights; at the end the
weights must be equal to the bit. Medians; the share is of an epoch this short: over a longer one it is less.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import HERE, interleaved, written
from torch import Tensor, nn

import whylens
from whylens.demo import net as small
from whylens.demo.planted import plant

BATCH = 64
ROOMY = 20  # times as few pictures for the large net


def epoch(net: nn.Module, preprocess: whylens.Preprocess, pixels: Tensor, labels: Tensor) -> None:
    """One plain pass over all pictures, as a user writes it."""
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    for rows in torch.randperm(len(pixels)).split(BATCH):
        frames = pixels[rows].float() / 255
        if frames.shape[2:] != preprocess.size:
            frames = F.interpolate(frames, size=preprocess.size, mode="bilinear")
        loss = F.cross_entropy(net(preprocess.normalise(frames)), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def measured(name: str, recorded: int, images: int, repeats: int, room: Path) -> dict[str, Any]:
    """One net and one number of recorded pictures."""
    size, side = (images, 64) if name == "small" else (max(BATCH, images // ROOMY), 224)
    held = plant(room / f"planted-{size}-{recorded}", train=size, test=max(recorded, 8), swapped=8)
    classes = list(held.classes)
    pixels = torch.stack([photo.pixels for photo in held.train])
    labels = torch.tensor([classes.index(str(label)) for label in held.train.labels])
    torch.manual_seed(0)
    start = small.make() if name == "small" else whylens.load_model("torchvision:resnet18", weights="none").net
    preprocess = whylens.Preprocess((side, side))
    nets = {"without": copy.deepcopy(start), "with": copy.deepcopy(start)}
    model = whylens.Model(nets["with"], preprocess=preprocess, classes=classes + ["none"] * (992 if side == 224 else 0))
    made = whylens.Recorder(model, held.test.subset(slice(0, recorded)), out=room / f"{name}-{recorded}")
    numbers = count()

    def without() -> None:
        torch.manual_seed(1)
        epoch(nets["without"], preprocess, pixels, labels)

    def watched() -> None:
        torch.manual_seed(1)
        epoch(nets["with"], preprocess, pixels, labels)
        made.step(next(numbers))

    seconds = interleaved({"without": without, "with": watched}, repeats)
    same = all(torch.equal(a, b) for a, b in zip(*(n.state_dict().values() for n in nets.values()), strict=True))
    if not same:
        raise SystemExit(f"{name}: the weights differ.")
    plain, beside = (statistics.median(seconds[key]) for key in ("without", "with"))
    return {
        "net": name,
        "trained on": size,
        "recorded": recorded,
        "epoch": round(plain, 3),
        "with recorder": round(beside, 3),
        "added": round(beside / plain - 1, 3),
        "a step": round(statistics.median(row["seconds"] for row in made.table()[1:]), 3),
        "bytes of an epoch": next((made.folder / "epochs").glob("*.safetensors")).stat().st_size,
        "weights equal": same,
        "seconds": {key: [round(s, 3) for s in values] for key, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--recorded", default="16,64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nets", default="small,resnet18")
    parser.add_argument("--out", type=Path, default=HERE / "recorder_overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as room:
        rows = [
            measured(name, int(recorded), options.images, options.repeats, Path(room))
            for name in options.nets.split(",")
            for recorded in options.recorded.split(",")
        ]
    written(options.out, rows, repeats=options.repeats)


if __name__ == "__main__":
    main()
