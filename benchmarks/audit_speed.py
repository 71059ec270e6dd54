"""Throughput of a whole audit (decode, predict, Grad-CAM, embedding, store) as a share of plain DataLoader loops.

    python benchmarks/audit_speed.py [--images 256] [--repeats 5] [--out benchmarks/audit_speed.json]

Two plain loops, as users write them: one only predicts, one also makes Grad-CAM with hooks; neither stores anything.
Each in torch's own memory layout and in channels last. Loader workers: two, as torch recommends on two cores. All of
it in this process with two threads, runs taken in turn, ratios of medians. Beside it the audit by two worker
processes, which pays their start.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import whylens
from whylens.model import Model

HERE = Path(__file__).parent
BATCH = 16


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 x 480 cut from the photos that scikit-image and scikit-learn bring."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    held = [getattr(skimage.data, name)()[..., :3] for name in ("coffee", "chelsea", "rocket", "astronaut")]
    held += list(load_sample_images().images)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        photo = Image.fromarray(held[i % len(held)])
        left, top = (int(rng.integers(0, side // 4)) for side in photo.size)
        cut = photo.crop((left, top, left + photo.width * 3 // 4, top + photo.height * 3 // 4))
        path = folder / f"{i:05d}.jpg"
        cut.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


class Photographs(Dataset[Tensor]):
    """What a user's dataset does: open, prepare as the net was trained, normalise."""

    def __init__(self, paths: list[Path], model: Model) -> None:
        self.paths, self.preprocess = paths, model.preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        pixels = torch.from_numpy(np.array(Image.open(self.paths[i]).convert("RGB"))).permute(2, 0, 1)
        frame, _ = self.preprocess.frame(pixels)  # type: ignore[union-attr]
        return self.preprocess.normalise(frame[None])[0]  # type: ignore[union-attr]


def loader(paths: list[Path], model: Model) -> DataLoader[Tensor]:
    return DataLoader(Photographs(paths, model), batch_size=BATCH, num_workers=2)


def predict_loop(paths: list[Path], model: Model, layout: torch.memory_format) -> None:
    net = model.net.to(memory_format=layout).eval()
    with torch.no_grad():
        for batch in loader(paths, model):
            net(batch.contiguous(memory_format=layout)).argmax(1)


def grad_cam_loop(paths: list[Path], model: Model, layout: torch.memory_format) -> None:
    net = model.net.to(memory_format=layout).eval()
    kept: list[Tensor] = []
    layer = net.get_submodule(model.layer().name)
    handle = layer.register_forward_hook(lambda _m, _i, output: kept.append(output))
    try:
        for batch in loader(paths, model):
            kept.clear()
            scores = net(batch.contiguous(memory_format=layout))
            (gradient,) = torch.autograd.grad(scores.amax(1).sum(), kept[0])
            (kept[0] * gradient.mean((2, 3), keepdim=True)).sum(1).relu().detach()
    finally:
        handle.remove()


def measured(count: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        (folder / "photos").mkdir()
        paths = photographs(folder / "photos", count)
        model, plain = (whylens.load_model("efficientnet-lite0", device="cpu") for _ in range(2))
        images = whylens.load_images(folder / "photos")
        number = iter(range(10_000))

        def run(**options: Any) -> None:
            made = whylens.audit(model, images, out=folder / f"run {next(number)}", **options)
            assert made.finished

        first, last = torch.contiguous_format, torch.channels_last
        runs: dict[str, Callable[[], None]] = {
            "audit, one worker of two threads": lambda: run(workers=1, threads=2),
            "audit, two workers of one thread, their start included": lambda: run(workers=2, threads=1),
            "predict": lambda: predict_loop(paths, plain, first),
            "predict, channels last": lambda: predict_loop(paths, plain, last),
            "predict and Grad-CAM": lambda: grad_cam_loop(paths, plain, first),
            "predict and Grad-CAM, channels last": lambda: grad_cam_loop(paths, plain, last),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for lap in range(repeats + 1):
            for name, work in runs.items():
                began = time.perf_counter()
                work()
                if lap:
                    seconds[name].append(time.perf_counter() - began)
                print(name, round(time.perf_counter() - began, 2), flush=True)
    medians = {name: statistics.median(held) for name, held in seconds.items()}
    audits, loops = list(runs)[:2], list(runs)[2:]
    return {
        "images per second": {name: round(count / s, 2) for name, s in medians.items()},
        "audit over loop": {a: {loop: round(medians[loop] / medians[a], 3) for loop in loops} for a in audits},
        "seconds": {name: [round(s, 3) for s in held] for name, held in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "audit_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(2)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    said = {
        "commit": commit.strip(),
        "machine": f"{platform.machine()}, 2 cores, torch {torch.__version__}",
        "images": options.images,
        "repeats": options.repeats,
        **measured(options.images, options.repeats),
    }
    options.out.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    print(json.dumps(said["audit over loop"], indent=1))


if __name__ == "__main__":
    main()
