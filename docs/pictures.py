"""Draws the picture at the head of README and docs: ``python docs/pictures.py``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

import whylens
from whylens.demo import photos

FILE = Path(__file__).parent / "pictures" / "figure.jpg"


def main() -> None:
    """Three methods on the demo's photos."""
    images = whylens.load_images([str(path) for path in photos()])
    model = whylens.load_model("efficientnet-lite0")
    many = whylens.explain_many(model, images, methods=["grad_cam", "layer_cam", "deep_lift"])
    figure, _ = whylens.figure(many, images)
    held = BytesIO()
    figure.savefig(held, format="png", dpi=90)
    FILE.parent.mkdir(exist_ok=True)
    Image.open(held).convert("RGB").save(FILE, quality=88, optimize=True)


if __name__ == "__main__":
    main()
