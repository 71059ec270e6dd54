"""A small net learns the planted set, and a recorder keeps what it looks at: a film strip, and curves beside accuracy.

    python examples/training_film.py [--folder DIR] [--epochs 12] [--train 4000] [--recorded 64] [--out docs/pictures]

Recorded are test pictures with Grad-CAM of the true class; the accuracy drawn is that of 500 other test pictures.
Draws ``film.jpg`` and ``film_curves.png`` and prints when focus and accuracy stopped moving. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import whylens
from whylens.demo import net as small
from whylens.demo.planted import Planted, plant

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PREPROCESS = whylens.Preprocess((64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
OTHERS = 500
SHOWN = 5  # epochs in the film


def tensors(images: whylens.Images, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Pixels ``(N, 3, 64, 64)`` and labels ``(N,)``."""
    labels = torch.tensor([classes.index(str(label)) for label in images.labels])
    return torch.stack([photo.pixels for photo in images]), labels


def train(planted: Planted, epochs: int, recorded: int, out: Path) -> whylens.Record:
    """A plain loop, and one line that records."""
    pixels, labels = tensors(planted.train, planted.classes)
    others, truth = tensors(planted.test.subset(slice(recorded, recorded + OTHERS)), planted.classes)
    torch.manual_seed(0)
    net = small.make()
    model = whylens.Model(net, preprocess=PREPROCESS, classes=planted.classes, name="small net")
    recorder = whylens.Recorder(model, planted.test.subset(slice(0, recorded)), out=out, replace=True)
    optimiser = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=0.01)
    steps = epochs * -(-len(pixels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.25)
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(pixels)).split(64):
            loss = functional.cross_entropy(net(PREPROCESS.normalise(pixels[rows].float() / 255)), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        right = model.predict(others.float() / 255).argmax(1) == truth
        recorder.step(epoch, accuracy=float(right.float().mean()))
    return recorder.record


def main(words: Sequence[str] | None = None) -> None:
    """Plant, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the set and the record go; default: a temporary one")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--recorded", type=int, default=64)
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as room:
        folder = options.folder or Path(room)
        planted = plant(folder / "planted", train=options.train, test=options.recorded + OTHERS, swapped=8)
        record = train(planted, options.epochs, options.recorded, folder / "record")
        options.out.mkdir(parents=True, exist_ok=True)
        tagged = [k for k, tag in enumerate(planted.test.columns["tag"][: options.recorded]) if tag]
        plain = [k for k in range(options.recorded) if k not in tagged]
        shown = sorted({record.epochs[round(k * (len(record) - 1) / (SHOWN - 1))] for k in range(SHOWN)})
        held = BytesIO()
        record.film(images=[*tagged[:1], *plain[:3]], epochs=shown)[0].savefig(held, format="png", dpi=72)
        Image.open(held).convert("RGB").save(options.out / "film.jpg", quality=88, optimize=True)
        record.figure()[0].savefig(options.out / "film_curves.png")
        print(record)


if __name__ == "__main__":
    main()
