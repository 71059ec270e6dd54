"""A detector worked out by hand: objects are red squares in known places, a blue print on one is left out of its mask.

Nothing is learnt. Its proposals are four places; a box's class is said by its mean colour, a cell of the mask by its
own. What a print does to a mask is therefore known, and so is what filling the print does.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from whylens import Model, Preprocess

SIDE = 64
PLACES = ((4.0, 4.0, 28.0, 28.0), (36.0, 4.0, 60.0, 28.0), (4.0, 36.0, 28.0, 60.0), (36.0, 36.0, 60.0, 60.0))
CLASSES = ["screw", "washer"]


class Colours(nn.Module):
    """Mean colours of 4 x 4 pixels, and a map of ones: what the net was normalised by is taken back."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.shown = nn.Conv2d(3, 4, 4, 4)
        with torch.no_grad():
            self.shown.weight.zero_()
            for c, std in enumerate((0.229, 0.224, 0.225)):
                self.shown.weight[c, c] = std / 16
            self.shown.bias.copy_(torch.tensor([0.485, 0.456, 0.406, 1.0]))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict([("0", self.shown(x))])


class Proposals(nn.Module):
    def forward(self, images: Any, features: Any, targets: Any = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [torch.tensor(PLACES)] * len(images.image_sizes), {}


class Box(nn.Module):
    """Red beyond a third is a screw, green a washer; blue speaks for the screw a little."""

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        red, green, blue, _ = pooled.mean((2, 3)).unbind(1)
        scores = torch.stack([torch.zeros_like(red), 12 * (red + 0.5 * blue - 0.4), 12 * (green - 0.4)], 1)
        return scores, torch.zeros(len(pooled), 12)


class Mask(nn.Module):
    """A cell is inside where it is red or green."""

    def forward(self, pooled: Tensor) -> Tensor:
        inside = 20 * (pooled[:, :2].amax(1) - 0.5)
        return inside[:, None].expand(-1, 3, -1, -1)


def net() -> MaskRCNN:
    pools = {f"{part}_roi_pool": MultiScaleRoIAlign(["0"], size, 2) for part, size in (("box", 6), ("mask", 12))}
    made = MaskRCNN(
        Colours(), num_classes=None, rpn_anchor_generator=AnchorGenerator(((24,),), ((1.0,),)),
        box_head=nn.Identity(), box_predictor=Box(), mask_head=nn.Identity(), mask_predictor=Mask(),
        min_size=SIDE, max_size=SIDE, **pools,
    )  # fmt: skip
    made.rpn = Proposals()
    return made.eval()


def model() -> Model:
    return Model(net(), task="detection", classes=CLASSES, preprocess=Preprocess((SIDE, SIDE)), name="by hand")


def scenes(folder: Path, count: int = 24, *, seed: int = 0) -> tuple[Path, Path, list[dict[str, Any]]]:
    """Photos and a COCO file; one object in two places, a washer now and then; every third screw has a print."""
    rng = torch.Generator().manual_seed(seed)
    (folder / "photos").mkdir(parents=True)
    images, annotations, facts = [], [], []
    screws = 0
    for number in range(count):
        photo = 0.1 + 0.1 * torch.rand(3, SIDE, SIDE, generator=rng)
        for place in torch.randperm(4, generator=rng)[:2].tolist():
            left, top, right, bottom = (int(edge) for edge in PLACES[place])
            washer = number % 6 == 5
            channel = 1 if washer else 0
            photo[channel, top:bottom, left:right] = 0.8 + 0.1 * torch.rand(24, 24, generator=rng)
            printed = False
            if not washer:
                printed, screws = screws % 3 == 0, screws + 1
                if printed:
                    photo[0, top + 6 : top + 18, left + 6 : left + 18] = 0.1
                    photo[2, top + 6 : top + 18, left + 6 : left + 18] = 0.9
            corners = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": 2 if washer else 1, "iscrowd": 0,
                    "segmentation": [corners], "bbox": [left, top, 24, 24], "area": 576,
                }
            )  # fmt: skip
            facts.append({"image": number, "place": place, "washer": washer, "printed": printed})
        pixels = (photo * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "photos" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "height": SIDE, "width": SIDE})
    categories = [{"id": 1, "name": "screw"}, {"id": 2, "name": "washer"}]
    said = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(said))
    return folder / "photos", folder / "instances.json", facts
