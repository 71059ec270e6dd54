"""Scenes for `cutouts.py`: real photo cut-outs pasted on real backgrounds, with their true masks.

    python benchmarks/cutouts_scenes.py [--seed 0] [--count 24] [--sheet FILE] [--rates]

The cut-outs (stamps) come from the Debian package tuxpaint-stamps-default and the backgrounds from mate-backgrounds,
both fetched into a cache folder. They are under the GPL: nothing of them enters the repository but their names.
`cutouts_classes.csv` says which ImageNet classes count as right. Everything is drawn by (seed, round, stamp).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw

import whylens

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "whylens-benchmarks"
PACKAGES = ("tuxpaint-stamps-default", "mate-backgrounds")
BACKGROUNDS = ("Aqua", "Dune", "Storm", "Wood")
APART = ("GreenMeadow",)  # busy green holds evidence of its own
PHOTO, FRAME = 256, 224  # the net takes the middle 224 of a photo of 256 as it is
SIDES = (80, 144)  # the longest side of a stamp
OUTWARD = 0.25  # places follow a beta distribution with this parameter, so that the centre is no good guess
ROUNDS = 8

Half = Literal["choose", "report"]


@dataclass(frozen=True)
class Stamp:
    """One cut-out and the classes that count as right."""

    name: str
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """One stamp at one place on one background; `box` is left, top, right, bottom in the photo."""

    id: str
    stamp: str
    background: str
    crop: tuple[int, int, int]  # left, top and side of what is taken of the background
    box: tuple[int, int, int, int]
    predicted: int = -1
    right: bool = False
    probability: float = float("nan")
    area: float = float("nan")
    chance: float = float("nan")  # pointing game of a random point


# ---- packages ------------------------------------------------------------------------------------------------------


def fetch(cache: Path = CACHE) -> Path:
    """The folder into which both packages are unpacked; fetched where they are not there yet."""
    tree = cache / "tree"
    if (tree / "complete").exists():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not list(cache.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
        archive = max(cache.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
    (tree / "complete").touch()
    return tree


def read_stamps() -> list[Stamp]:
    """The stamps of the list, in its order."""
    lines = (HERE / "cutouts_classes.csv").read_text("utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [Stamp(row["stamp"], tuple(map(int, row["classes"].split()))) for row in rows]


def split(stamps: Sequence[Stamp], half: Half, seed: int) -> list[Stamp]:
    """One half of the stamps in an order drawn by the seed; no stamp is in both."""
    order = np.random.default_rng([seed, 1]).permutation(len(stamps))
    return [stamps[i] for i in order[0 if half == "choose" else 1 :: 2]]


# ---- one scene -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def background(tree: Path, name: str) -> Image.Image:
    path = next(tree.glob(f"usr/share/backgrounds/mate/nature/{name}.*"))
    return Image.open(path).convert("RGB")


@lru_cache(maxsize=256)
def cutout(tree: Path, name: str) -> Image.Image:
    """A stamp cut to what is not transparent."""
    picture = Image.open(tree / "usr/share/tuxpaint/stamps" / name).convert("RGBA")
    return picture.crop(picture.getchannel("A").point(lambda value: 255 * (value > 127)).getbbox())


def draw(tree: Path, stamp: Stamp, turn: int, seed: int, backgrounds: Sequence[str]) -> Scene:
    """Background, what is taken of it, size and place."""
    rng = np.random.default_rng([seed, turn, zlib.crc32(stamp.name.encode())])
    name = str(rng.choice(sorted(backgrounds)))
    width, height = background(tree, name).size
    side = int(min(width, height) * rng.uniform(0.5, 1))
    crop = (int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)), side)
    own = cutout(tree, stamp.name).size
    scale = min(rng.uniform(*SIDES), 2 * max(own)) / max(own)
    wide, high = (max(1, round(length * scale)) for length in own)
    edge = (PHOTO - FRAME) // 2
    left, top = (edge + round(rng.beta(OUTWARD, OUTWARD) * (FRAME - length)) for length in (wide, high))
    said = f"{seed}-{turn}_{Path(stamp.name).with_suffix('').as_posix().replace('/', '_')}_{name}"
    return Scene(said, stamp.name, name, crop, (left, top, left + wide, top + high))


def paint(tree: Path, scene: Scene) -> tuple[Image.Image, Image.Image]:
    """The photo and the mask (255 where the stamp is more than half opaque)."""
    x, y, side = scene.crop
    photo = background(tree, scene.background).resize(
        (PHOTO, PHOTO), Image.Resampling.LANCZOS, (x, y, x + side, y + side)
    )
    left, top, right, bottom = scene.box
    # premultiplied, so that the colour under transparent pixels does not bleed into the edge
    stamp = cutout(tree, scene.stamp).convert("RGBa").resize((right - left, bottom - top), Image.Resampling.LANCZOS)
    opaque = stamp.convert("RGBA")
    photo.paste(opaque, (left, top), opaque)
    mask = Image.new("L", (PHOTO, PHOTO))
    mask.paste(opaque.getchannel("A").point(lambda value: 255 * (value > 127)), (left, top))
    return photo, mask


# ---- scenes that the model gets right ------------------------------------------------------------------------------


def images_of(tree: Path, scenes: Sequence[Scene]) -> whylens.Images:
    """Photos and masks by the scenes' ids, written once into the cache."""
    photos, masks = tree.parent / "photos", tree.parent / "masks"
    for folder in (photos, masks):
        folder.mkdir(exist_ok=True)
    for scene in scenes:
        if not (masks / f"{scene.id}.png").exists():
            photo, mask = paint(tree, scene)
            photo.save(photos / f"{scene.id}.png")
            mask.save(masks / f"{scene.id}.png")
    files = [photos / f"{scene.id}.png" for scene in scenes]
    return whylens.load_images(files, masks=[masks / f"{scene.id}.png" for scene in scenes])


def judge(model: whylens.Model, tree: Path, scenes: Sequence[Scene], right: dict[str, tuple[int, ...]]) -> list[Scene]:
    """The scenes with what the model sees in them, the mask's area and a random point's chance."""
    images = images_of(tree, scenes)
    seen = whylens.explain(model, images, method="grad_cam")
    flat = replace(seen, maps=torch.ones(len(seen), 1, 28, 28))
    area = whylens.measure(model, images, flat, metric="energy_inside").values.tolist()
    chance = whylens.measure(model, images, flat, metric="pointing_game").values.tolist()
    found = seen.predictions.tolist()
    odds = seen.probabilities.tolist()
    return [
        replace(
            s, predicted=p, right=p in right[s.stamp], probability=round(q, 4), area=round(a, 5), chance=round(c, 5)
        )
        for s, p, q, a, c in zip(scenes, found, odds, area, chance, strict=True)
    ]


def scenes_of(
    model: whylens.Model, tree: Path, half: Half, count: int, seed: int, backgrounds: Sequence[str] = BACKGROUNDS
) -> list[Scene]:
    """The first `count` scenes of a half that the model gets right, every stamp once before one comes twice."""
    stamps = split(read_stamps(), half, seed)
    right = {stamp.name: stamp.classes for stamp in stamps}
    kept: list[Scene] = []
    for turn in range(ROUNDS):
        made = [draw(tree, stamp, turn, seed, backgrounds) for stamp in stamps]
        for start in range(0, len(made), 32):
            if len(kept) >= count:
                return kept[:count]
            kept += [scene for scene in judged(model, tree, made[start : start + 32], right) if scene.right]
    raise SystemExit(f"{half}: only {len(kept)} scenes of {count} that the model gets right in {ROUNDS} rounds.")


def judged(model: whylens.Model, tree: Path, scenes: list[Scene], right: dict[str, tuple[int, ...]]) -> list[Scene]:
    """As `judge`, remembered in the cache as long as the drawing and the list stay the same."""
    key = json.dumps([[asdict(scene), right[scene.stamp]] for scene in scenes], sort_keys=True)
    file = tree.parent / "judged" / f"{zlib.crc32(key.encode()):08x}.json"
    if file.exists():
        held = json.loads(file.read_text("utf-8"))
        return [Scene(**{**s, "crop": tuple(s["crop"]), "box": tuple(s["box"])}) for s in held]
    found = judge(model, tree, scenes, right)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([asdict(scene) for scene in found]), "utf-8")
    return found


def rates(model: whylens.Model, tree: Path, seed: int) -> dict[str, float]:
    """Share of all stamps that the model gets right on each background, place and size as drawn."""
    stamps = read_stamps()
    right = {stamp.name: stamp.classes for stamp in stamps}
    shares = {}
    for name in (*BACKGROUNDS, *APART):
        made = [draw(tree, stamp, 0, seed, (name,)) for stamp in stamps]
        found = judged(model, tree, made, right)
        shares[name] = round(sum(scene.right for scene in found) / len(found), 3)
    return shares


# ---- looking at them -----------------------------------------------------------------------------------------------


def sheet(tree: Path, scenes: Sequence[Scene], names: Sequence[str]) -> Image.Image:
    """Photos, and beside them what the masks hold, four scenes a row."""
    wide, high = 2 * PHOTO, PHOTO + 14
    made = Image.new("RGB", (4 * wide, -(-len(scenes) // 4) * high), "white")
    for k, scene in enumerate(scenes):
        x, y = k % 4 * wide, k // 4 * high
        photo, mask = paint(tree, scene)
        made.paste(photo, (x, y))
        made.paste(Image.composite(photo, photo.point(lambda value: value // 4), mask), (x + PHOTO, y))
        words = (
            f"{scene.stamp} {scene.background}: {names[scene.predicted]} {scene.probability:.2f}, area {scene.area:.2f}"
        )
        ImageDraw.Draw(made).text((x + 2, y + PHOTO), words, fill="black")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--half", choices=("choose", "report"), default="report")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the scenes")
    parser.add_argument("--rates", action="store_true", help="share right on each background")
    options = parser.parse_args()
    torch.set_num_threads(2)
    tree, model = fetch(), whylens.load_model("efficientnet-lite0", device="cpu")
    scenes = scenes_of(model, tree, options.half, options.count, options.seed)
    print(f"{len(scenes)} scenes, mean area {np.mean([s.area for s in scenes]):.3f}")
    if options.sheet:
        sheet(tree, scenes, model.classes or ()).save(options.sheet)
    if options.rates:
        print(rates(model, tree, options.seed))


if __name__ == "__main__":
    main()
