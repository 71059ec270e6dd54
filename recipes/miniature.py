"""A miniature of ImageNet's folders with a small net, to try a recipe in seconds.

    python recipes/miniature.py FOLDER

Writes FOLDER/val with three class folders of two pictures each, one coloured disc on noise in each picture, and
FOLDER/net.py, whose net counts colours. Give them as ``--data FOLDER/val --model FOLDER/net.py:make``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

NET = '''
import torch
from torch import nn
from whylens import Model, Preprocess


def make():
    """Three classes, red, green and blue: how much of the colour stands out."""
    first, last = nn.Conv2d(3, 3, 5, 2, 2), nn.Linear(3, 3)
    with torch.no_grad():
        first.weight.copy_((torch.eye(3) * 1.5 - 0.5)[:, :, None, None].expand(3, 3, 5, 5) / 25)
        first.bias.fill_(-0.2)
        last.weight.copy_(60 * torch.eye(3))
        last.bias.zero_()
    net = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    return Model(net.eval(), preprocess=Preprocess((56, 56), 64), classes=["red", "green", "blue"], layer="1")
'''


def write(folder: Path, *, pictures: int = 2, side: int = 72) -> None:
    """The folders, the pictures and the net."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for colour, name in enumerate(("n01", "n02", "n03")):
        (folder / "val" / name).mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            photo = rng.integers(80, 120, (side, side, 1)).repeat(3, 2).astype(np.uint8)
            y, x = rng.integers(24, side - 24, 2)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < 11**2
            photo[disc] = 40
            photo[disc, colour] = 250
            Image.fromarray(photo).save(folder / "val" / name / f"{number}.png")
    (folder / "net.py").write_text(NET, "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(Path(sys.argv[1]))
