"""Miniatures of the folders that the recipes read, with small nets, to try a recipe in seconds.

    python recipes/miniature.py FOLDER

Writes FOLDER/val, class folders like those of ImageNet; FOLDER/voc, like VOC 2012; FOLDER/chest_xray and FOLDER/covid,
like the two X-ray sets: a few pictures each, a disc on noise in each picture; and FOLDER/saws, where chain saws are
discs of four colours, each a reason of its own. FOLDER/metagrasp, like MetaGraspNet, holds planted drills,
FOLDER/logos.csv where their print is. FOLDER/net.py holds the nets: `make` counts colours, `animals` does so under the
names of VOC, `saws` knows the four colours, `random`, `two` and `four` have random weights and three, two and four
outputs, `drills` is the trained detector of whylens.demo. Give them as
``--data FOLDER/val --model FOLDER/net.py:make``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from whylens.demo import scenes

NET = '''
import torch
from torch import nn
from whylens import Model, Preprocess

FRAME = Preprocess((56, 56), 64)


def colours():
    """Three outputs, red, green and blue: how much of the colour stands out."""
    first, last = nn.Conv2d(3, 3, 5, 2, 2), nn.Linear(3, 3)
    with torch.no_grad():
        first.weight.copy_((torch.eye(3) * 1.5 - 0.5)[:, :, None, None].expand(3, 3, 5, 5) / 25)
        first.bias.fill_(-0.2)
        last.weight.copy_(60 * torch.eye(3))
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


def random_net(outputs):
    """A small net whose weights are random, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs),
        ).eval()


def make():
    return Model(colours(), preprocess=FRAME, classes=["red", "green", "blue"], layer="1")


def animals():
    return Model(colours(), preprocess=FRAME, classes=["cat", "dog", "bird"], layer="1")


def saws():
    """Chain saw by any of four colours, axe by blue, else nothing; each colour has a channel of its own."""
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]]).float()
    first, last = nn.Conv2d(3, 5, 5, 2, 2), nn.Linear(5, 3)
    with torch.no_grad():
        bright, dark = (part / part.sum(1, keepdim=True) for part in (colours, 1 - colours))
        first.weight.copy_((bright - dark)[:, :, None, None].expand(5, 3, 5, 5) / 25)
        first.bias.fill_(-0.6)  # a disc of the channel's own colour passes, one that shares a colour with it does not
        last.weight.copy_(60 * torch.tensor([[1, 1, 1, 1, -1], [-1, -1, -1, -1, 1], [0, 0, 0, 0, 0]]).float())
        last.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    net = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    unscaled = Preprocess((56, 56), 64, mean=(0, 0, 0), std=(1, 1, 1))
    return Model(net, preprocess=unscaled, classes=["chain saw", "axe", "nothing"], layer="1")


def random():
    return Model(random_net(3), preprocess=FRAME, classes=["cat", "dog", "bird"], layer="3")


def two():
    return Model(random_net(2), preprocess=FRAME, classes=["NORMAL", "PNEUMONIA"], layer="3")


def four():
    names = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]
    return Model(random_net(4), preprocess=FRAME, classes=names, layer="3")


def drills():
    from whylens.demo import detector

    frame = Preprocess((128, 128), 128, fit="longer")
    return Model(detector.load(), task="detection", classes=["object"], preprocess=frame)
'''
SIDE = 72
VOC = {"cat": 8, "dog": 12, "bird": 3}
"""Classes by their numbers in a mask picture of VOC."""

SAWS = {"cutting part": ((0,), 16), "handle": ((1,), 12), "ear-muffs": ((0, 1), 12), "logs": ((0, 2), 10)}
"""Reasons for a chain saw: the channels that are bright, and in how many of the 50 pictures."""

DRILL, BOX = 8, 60
"""The power drill and a box among the categories of MetaGraspNet."""

_BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
_XML = "<annotation><size><width>{0}</width><height>{0}</height></size>{1}</annotation>"


def write(folder: Path, *, pictures: int = 2) -> None:
    """All folders, their pictures and the nets."""
    for colour, name in enumerate(("n01", "n02", "n03")):
        for number in range(pictures):
            save(drawn(colour, number)[0], folder / "val" / name / f"{number}.png")
    for colour, name in enumerate(VOC):
        for number in range(pictures):
            write_voc(folder / "voc", name, *drawn(colour, 10 + number), f"2007_{colour:03d}{number:03d}")
    for kind in ("NORMAL", "PNEUMONIA"):
        for number in range(3 * pictures):
            grey = np.asarray(Image.fromarray(drawn(number % 3, 20 + number)[0]).convert("L"))
            save(grey, folder / "chest_xray" / "test" / kind / f"person{number}.jpeg")
    for kind in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for number in range(1, 3 * pictures + 1):
            grey = np.asarray(Image.fromarray(drawn(number % 3, 40 + number)[0]).convert("L"))
            save(grey, folder / "covid" / kind / "images" / f"{kind}-{number}.png")
            save(np.zeros_like(grey), folder / "covid" / kind / "masks" / f"{kind}-{number}.png")
    number = 0
    for channels, count in SAWS.values():
        for _ in range(count):
            save(drawn(channels, 60 + number)[0], folder / "saws" / "n03000684" / f"{number:02d}.png")
            number += 1
    for number in range(20):
        save(drawn(2, 120 + number)[0], folder / "saws" / "n02764044" / f"{number:02d}.png")
    write_bins(folder, 6 * pictures)
    (folder / "net.py").write_text(NET, "utf-8")


def write_bins(folder: Path, pictures: int) -> None:
    """Scenes like those of MetaGraspNet, two views each, a drill in all but the first; and where their print is."""
    logos = []
    for number in range(pictures + 1):
        rng, printed = np.random.default_rng([60, number]), number % 2 == 0
        scene = scenes.drilled(rng, printed=printed) if number else scenes.trained(rng)
        view = folder / "metagrasp" / f"scene{number // 2}" / f"{number % 2}_rgb.png"
        save(scene.pixels, view)
        things, kinds = np.zeros((2, scenes.SIZE, scenes.SIZE), np.uint16)
        for place, thing in enumerate(scene.things, 1):
            things[thing.mask], kinds[thing.mask] = place, DRILL if thing.kind == "drill" else BOX
        np.savez_compressed(view.with_name(f"{number % 2}.npz"), instances_objects=things, instances_semantic=kinds)
        if number and printed:
            inside = np.argwhere(scene.things[0].mark)
            (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
            logos.append((f"{view.parent.name}/{view.name}", left, top, right, bottom))
    with (folder / "logos.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "left", "top", "right", "bottom"), *logos])


def drawn(colour: int | tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc of one colour, or of several at once, on grey noise, and where it is."""
    rng = np.random.default_rng([seed, *np.atleast_1d(colour)])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    photo = rng.integers(80, 120, (SIDE, SIDE, 1)).repeat(3, 2).astype(np.uint8)
    y, x = rng.integers(24, SIDE - 24, 2)
    disc = (rows - y) ** 2 + (columns - x) ** 2 < 11**2
    photo[disc] = np.where(np.isin(range(3), colour), 250, 40)
    return photo, disc


def write_voc(root: Path, name: str, photo: np.ndarray, disc: np.ndarray, stem: str) -> None:
    """One image of VOC: the photo, its annotation, its mask by class with a rim of 255."""
    save(photo, root / "JPEGImages" / f"{stem}.jpg")
    inside = np.argwhere(disc)
    (top, left), (bottom, right) = inside.min(0) + 1, inside.max(0) + 1
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    found = f"<object><name>{name}</name>{_BOX.format(left, top, right, bottom)}</object>"
    (root / "Annotations" / f"{stem}.xml").write_text(_XML.format(SIDE, found), "utf-8")
    mask = Image.fromarray((disc * VOC[name]).astype(np.uint8), "P")
    mask.putpalette([v for k in range(256) for v in (k, (k * 7) % 256, (k * 29) % 256)])
    save(mask, root / "SegmentationClass" / f"{stem}.png")


def save(picture: Image.Image | np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(Path(sys.argv[1]))
