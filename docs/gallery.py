"""Draws docs/gallery.md: every method on the demo's two photos, with its passes and seconds.

    python docs/gallery.py [METHOD ...]

EfficientNet-Lite0 at each method's defaults, one method at a time; seconds are those of `explain` for both photos over
two. With names only those are drawn anew; the page holds what was drawn before beside them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

import whylens
from whylens import _plugins
from whylens.contract import Method
from whylens.demo import photos
from whylens.outlines import outlines
from whylens.picture import picture

HERE = Path(__file__).parent
FOLDER, PAGE = HERE / "pictures" / "gallery", HERE / "gallery.md"
FIGURES = FOLDER / "figures.json"
START, END = "<!-- gallery: start -->", "<!-- gallery: end -->"
SIDE = 280
OUTLINED = ("lime", "kernel_shap")  # partition_shap's cells are too small for outlines at this size


def drawn(name: str, model: whylens.Model, images: whylens.Images) -> dict[str, object]:
    """Pictures of one method on both photos, and its figures."""
    began = time.perf_counter()
    e = whylens.explain(model, images, method=name, precision="auto")
    seconds = (time.perf_counter() - began) / len(images)
    for row, photo in enumerate(images):
        size = (round(SIDE * photo.pixels.shape[1] / photo.pixels.shape[2]), SIDE)
        draw = outlines if name in OUTLINED else picture
        stem = Path(photo.id).stem
        draw(e, row, photo, size=size).convert("RGB").save(FOLDER / f"{name}-{stem}.jpg", quality=85, optimize=True)
    flags = sorted({flag for row in range(len(e)) for flag in e.flags(row)})
    return {
        "forwards": e.cost["forwards"],
        "backwards": e.cost["backwards"],
        "seconds": round(seconds, 2),
        "flags": flags,
        "map": "x".join(str(n) for n in e.maps.shape[1:]),
        "threads": torch.get_num_threads(),
    }


def line(name: str, said: dict[str, object], stems: list[str]) -> str:
    """One row of the page."""
    pictures = " | ".join(f"![{name} on {stem}](pictures/gallery/{name}-{stem}.jpg)" for stem in stems)
    flags = ", ".join(f"`{flag}`" for flag in said["flags"]) or "none"  # type: ignore[attr-defined]
    words = f"{said['forwards']} / {said['backwards']}"
    return f"| `{name}` | {pictures} | {said['map']} | {words} | {said['seconds']} | {flags} |"


def main(names: list[str]) -> None:
    """Draw, keep the figures, write the page."""
    torch.set_num_threads(2)
    FOLDER.mkdir(parents=True, exist_ok=True)
    model, images = whylens.load_model("efficientnet-lite0"), whylens.load_images([str(path) for path in photos()])
    held = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    every = sorted(_plugins.names("methods"), key=lambda name: (Method(name).facts.needs[0] != "layer", name))
    for name in names or every:
        held[name] = drawn(name, model, images)
        print(name, held[name], flush=True)
        FIGURES.write_text(json.dumps(dict(sorted(held.items())), indent=1) + "\n", "utf-8")
    stems = [Path(name).stem for name in images.ids]
    heads = ["method", *stems, "map", "forwards / backwards", "seconds", "flags"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    lines += [line(name, held[name], stems) for name in every if name in held]
    text = PAGE.read_text("utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(before + START + "\n" + "\n".join(lines) + "\n" + END + after, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
