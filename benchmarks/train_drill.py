"""Train the small Mask R-CNN of the drill case, whose weights are src/whylens/demo/detector.safetensors.

    python benchmarks/train_drill.py [--seed 0] [--steps 1600] [--work FOLDER] [--out FILE]

The scenes are drawn into `--work` once; every 100 steps the training is kept there and goes on from there. Weights are
written in half precision.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from whylens.annotations import CocoFile
from whylens.demo.detector import WEIGHTS, make
from whylens.demo.drill import Drills, plant_drills
from whylens.demo.scenes import SIZE

BATCH = 8
RATE = 1.5e-3
KEPT = 50  # steps between what is kept

Scene = tuple[Tensor, Tensor]  # pixels (3, 128, 128) and masks (things, 128, 128), uint8


def read(planted: Drills) -> list[Scene]:
    """All training scenes, in memory."""
    coco = CocoFile(planted.folder / "train.json")
    found = []
    for name, photo in zip(planted.train.ids, planted.train, strict=True):
        masks = [torch.from_numpy(thing.pixels((SIZE, SIZE)).copy()) for thing in coco.find(name).objects]
        found.append((photo.pixels, torch.stack(masks).to(torch.uint8)))
    return found


def batch(scenes: list[Scene], rng: torch.Generator) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Random scenes in random mirrors and quarter turns, as torchvision's detectors take them."""
    frames, targets = [], []
    for row in torch.randint(len(scenes), (BATCH,), generator=rng).tolist():
        way = int(torch.randint(8, (1,), generator=rng))
        pixels, masks = (turned(part, way) for part in scenes[row])
        boxes = masks_to_boxes(masks)
        boxes[:, 2:] += 1  # masks_to_boxes gives the last pixel, a box ends behind it
        frames.append(pixels.float() / 255)
        targets.append({"boxes": boxes, "labels": torch.ones(len(masks), dtype=torch.long), "masks": masks})
    return frames, targets


def turned(pixels: Tensor, way: int) -> Tensor:
    """One of the eight mirrors and quarter turns of a square."""
    pixels = pixels.flip(-1) if way & 1 else pixels
    pixels = pixels.flip(-2) if way & 2 else pixels
    return (pixels.transpose(-1, -2) if way & 4 else pixels).contiguous()


def train(scenes: list[Scene], *, steps: int, seed: int, kept: Path) -> nn.Module:
    """The net after `steps` steps, from where `kept` left off."""
    torch.manual_seed(seed)
    net = make().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.15)
    parts, step = {"net": net, "optimiser": optimiser, "schedule": schedule}, 0
    if kept.exists():
        held = torch.load(kept, weights_only=True)
        step = held["step"]
        for name, part in parts.items():
            part.load_state_dict(held[name])
    while step < steps:
        torch.manual_seed(seed * 1_000_003 + step)  # torchvision samples boxes from the global generator
        losses = net(*batch(scenes, torch.Generator().manual_seed(seed * 1_000_003 + step)))
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        step += 1
        if step % KEPT == 0 or step == steps:
            print(
                step,
                round(time.process_time()),
                {name: round(float(loss.detach()), 3) for name, loss in losses.items()},
                flush=True,
            )
            beside = kept.with_suffix(".tmp")
            torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, beside)
            os.replace(beside, kept)  # noqa: PTH105 - over what is there, on every system
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "whylens-benchmarks" / "drill")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    planted = plant_drills(options.work / f"scenes {options.seed}", seed=options.seed, progress=True)
    kept = options.work / f"training {options.seed} {options.steps}.pt"
    net = train(read(planted), steps=options.steps, seed=options.seed, kept=kept)
    whole = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file({name: t.half() if t.is_floating_point() else t for name, t in whole.items()}, options.out)
    print(
        f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {sum(p.numel() for p in net.parameters())} weights"
    )


if __name__ == "__main__":
    main()
