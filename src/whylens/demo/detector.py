"""Detector: a small Mask R-CNN made of torchvision's parts, for pictures of 128 x 128.

Nothing of the package is imported from beside this file, so that ``load_model("detector.py:model")`` can run it alone.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

SIZE = 128
CLASSES = ("background", "object")
WEIGHTS = Path(__file__).with_name("detector.safetensors")
"""Made by benchmarks/train_drill.py, in half precision."""

WIDTH = 32
"""Channels of the feature pyramid."""

_LEVELS = ("0", "1", "2")  # 4, 8 and 16 pixels a cell
_BOX_CELLS, _MASK_CELLS = 7, 14


def load(weights: Path = WEIGHTS) -> MaskRCNN:
    """The trained net, in float32 and evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # a net is made with random weights before it is filled
        net = make()
    net.load_state_dict(load_file(weights))
    return net


def model() -> Any:
    """The trained net as a `whylens.Model`."""
    from whylens import Model, Preprocess

    frame = Preprocess((SIZE, SIZE), SIZE, fit="longer")
    return Model(load(), task="detection", classes=CLASSES[1:], preprocess=frame, name="drill detector")


def make() -> MaskRCNN:
    """The net with random weights, in evaluation mode: one class besides the background."""
    return MaskRCNN(
        _Backbone(),
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        rpn_anchor_generator=AnchorGenerator(((24,), (40,), (64,)), ((0.5, 1.0, 2.0),) * 3),
        rpn_pre_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=60,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_roi_pool=_pool(_BOX_CELLS),
        box_head=TwoMLPHead(WIDTH * _BOX_CELLS**2, 128),
        box_predictor=FastRCNNPredictor(128, len(CLASSES)),
        box_batch_size_per_image=32,
        box_detections_per_img=10,
        mask_roi_pool=_pool(_MASK_CELLS),
        mask_head=MaskRCNNHeads(WIDTH, (WIDTH, WIDTH, WIDTH), 1),
        mask_predictor=MaskRCNNPredictor(WIDTH, WIDTH, len(CLASSES)),
    ).eval()


def _pool(cells: int) -> MultiScaleRoIAlign:
    """By the rule of feature pyramids, but for boxes of 56 pixels, not 224, a level below the coarsest."""
    return MultiScaleRoIAlign(list(_LEVELS), cells, 2, canonical_scale=56, canonical_level=3)


class _Backbone(nn.Module):
    """Four stages of one residual block, then a feature pyramid on the last three."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        channels = (32, 64, 96)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.stages = nn.ModuleList(
            [_Block(into, out) for into, out in zip((16, *channels[:-1]), channels, strict=True)]
        )
        self.fpn = FeaturePyramidNetwork(list(channels), WIDTH)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        found: OrderedDict[str, Tensor] = OrderedDict()
        for level, stage in zip(_LEVELS, self.stages, strict=True):
            found[level] = x = stage(x)
        levels: dict[str, Tensor] = self.fpn(found)
        return levels


class _Block(nn.Module):
    """Two convolutions beside a shortcut, at half the resolution."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(into, out, 3, 2, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, 2, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
