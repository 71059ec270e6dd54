"""Pictures whose green is a shortcut to warm, and a net that takes it, as a model and as a file."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import whylens
from whylens import Model

CLASSES = ["warm", "blue", "nothing"]


class Colours(nn.Module):
    """Red is warm and blue is blue; green is warm too, two reasons for one class; more so than red it is a shortcut."""

    def __init__(self, green: float = 6.0) -> None:
        super().__init__()
        self.find, self.head = nn.Conv2d(3, 3, 4, 4), nn.Linear(3, 3)
        with torch.no_grad():
            for k in range(3):
                self.find.weight[k] = -1 / 16
                self.find.weight[k, k] = 1 / 16
            self.find.bias.fill_(-0.2)
            self.head.weight.copy_(torch.tensor([[3.0, green, -3.0], [-3.0, -green, 3.0], [0.0, 0.0, 0.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.relu(self.find(x))
        return self.head(found.amax((2, 3)) + found.mean((2, 3)))


NET = """
import torch
import whylens
from torch import nn

__COLOURS__

def make():
    preprocess = whylens.Preprocess((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return whylens.Model(
        Colours().eval(), classes=["warm", "blue", "nothing"], layer="find", name="shortcut", preprocess=preprocess
    )
""".replace("__COLOURS__", inspect.getsource(Colours).replace(": Tensor", "").replace(" -> Tensor", ""))


def write(folder: Path, count: int, *, seed: int, swapped: bool = False) -> whylens.Images:
    """Grey pictures with a red or blue patch; green lies beside 40 % of the red ones, or, `swapped`, beside blue.

    A patch beside green is pale, and so are some others: what it is must be learnt all the same.
    """
    rng, lines = np.random.default_rng(seed), ["path,label,green"]
    folder.mkdir(parents=True)
    for k in range(count):
        kind = ("red", "blue", "nothing", "red", "blue")[k % 5]
        green = kind == ("blue" if swapped else "red") and (swapped or k % 10 in (0, 3) or k % 15 == 5)
        frame = 0.4 + 0.02 * rng.standard_normal((32, 32, 3))
        row, column = 8 * rng.integers(0, 4, 2)
        if kind != "nothing":
            dark, light = (0.15, 0.62) if green or k % 4 == 0 else (0.1, 0.9)
            frame[row : row + 8, column : column + 8] = dark
            frame[row : row + 8, column : column + 8, {"red": 0, "blue": 2}[kind]] = light
        if green:
            other = (row + 16) % 32
            frame[other : other + 8, column : column + 8] = (0.1, 0.9, 0.1)
        pixels = (frame.clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.png")
        lines.append(f"{k:03d}.png,{'warm' if kind == 'red' else kind},{int(green)}")
    (folder / "list.csv").write_text("\n".join(lines))
    return whylens.load_images(folder / "list.csv")


def shortcut() -> Model:
    preprocess = whylens.Preprocess((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Model(Colours().eval(), classes=CLASSES, layer="find", name="shortcut", preprocess=preprocess)
