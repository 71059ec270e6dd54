"""What the recipes share: their common options, the images they take, results kept row by row."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whylens


def parser(words: str | None, *, images: int, out: str) -> argparse.ArgumentParser:
    """The options of every recipe."""
    made = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="a folder of class folders, such as ImageNet's val")
    made.add_argument("--model", default="torchvision:resnet50", help="any spelling of whylens.load_model")
    made.add_argument("--weights", default="default", help="'default', 'none' or a file")
    made.add_argument("--device", default="auto")
    made.add_argument("--images", type=int, default=images, help="how many, drawn by the seed")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path(out), help="results by image; a stopped run goes on from there")
    return made


def opened(options: argparse.Namespace) -> whylens.Model:
    """The model asked for."""
    return whylens.load_model(options.model, weights=options.weights, device=options.device)


def drawn(options: argparse.Namespace) -> whylens.Images:
    """So many images of the folder, drawn by the seed."""
    return drawn_of(whylens.load_images(options.data), options)


def drawn_of(images: whylens.Images, options: argparse.Namespace) -> whylens.Images:
    """So many of the images, drawn by the seed: the first ones of a longer draw stay the same."""
    order = np.random.default_rng(options.seed).permutation(len(images))[: options.images]
    return images.subset([images.ids[i] for i in order])


def machine(model: whylens.Model) -> str:
    """What the seconds were taken on."""
    return f"{platform.machine()}, {model.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@dataclass
class Kept:
    """Rows of a results file by their key: what was asked of what model, and which image."""

    file: Path
    model: str

    def __post_init__(self) -> None:
        self.rows = {tuple(row["key"]): row for row in self._lines()}

    def find(self, label: str, image: str) -> dict[str, Any] | None:
        """What is known about one image."""
        return self.rows.get((self.model, label, image))

    def add(self, label: str, image: str, **values: Any) -> None:
        """Keep one row, on disk too."""
        key = (self.model, label, image)
        self.rows[key] = {"key": key, **values}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(self.rows[key]) + "\n")

    def _lines(self) -> Iterator[dict[str, Any]]:
        data = self.file.read_bytes() if self.file.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # stopped while it wrote the last row
            self.file.write_bytes(whole)
        return map(json.loads, whole.splitlines())


def kept(options: argparse.Namespace) -> Kept:
    """The results file of this model and these weights."""
    return Kept(options.out, f"{options.model} {options.weights} {options.data.resolve().name} {options.seed}")


def line(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
