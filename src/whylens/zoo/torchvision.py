"""torchvision's nets by name, with the preprocessing of their own weights: classifiers, detectors, segmenters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import InputError, no_such
from ..model import Task
from ..preprocess import Preprocess
from ..rcnn import normalisation
from . import Opened, suffix
from .weights import fill, read

SPELLING = "torchvision:NAME"


def names() -> list[str]:
    """Every classifier and segmentation net torchvision registers, and its Faster and Mask R-CNN."""
    return sorted(f"torchvision:{name}" for known in _known().values() for name in known)


def answers(spec: str) -> bool:
    """``torchvision:...``."""
    return suffix(spec, "torchvision") is not None


def open(spec: str, weights: str) -> Opened:
    """The net, the names and the preprocessing of its default weights."""
    import torchvision.models as zoo

    name = (suffix(spec, "torchvision") or "").lower().replace("-", "_")
    known = _known()
    task = next((task for task, names in known.items() if name in names), None)
    if task is None:
        raise no_such("model", name, [n for names in known.values() for n in names], "All names: whylens models.")
    default = zoo.get_model_weights(name).DEFAULT
    extra: dict[str, Any] = (
        {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    )
    extra |= {} if task == "classification" else {"weights_backbone": None}
    if task == "segmentation" and weights not in ("default", "none"):
        extra |= {"aux_loss": True} if any("aux_classifier" in key for key in read(weights)) else {}

    def make(classes: int | None) -> nn.Module:
        options = extra | ({} if classes is None else {"num_classes": classes})
        net: nn.Module = zoo.get_model(name, weights=None, **options)
        return net

    if weights == "default":
        net = downloaded(lambda: zoo.get_model(name, weights=default), spec)
    else:
        net = make(None) if weights == "none" else fill(make, weights)
    classes = list(default.meta["categories"])
    known_names = classes if _outputs(net, task) == len(classes) else None
    return Opened(net, _preprocess(net, task, default), known_names, task=task)


def _known() -> dict[Task, list[str]]:
    """The names of each task."""
    import torchvision.models as zoo

    detectors = [n for n in zoo.list_models(module=zoo.detection) if n.startswith(("fasterrcnn", "maskrcnn"))]
    return {
        "classification": zoo.list_models(module=zoo),
        "detection": detectors,
        "segmentation": zoo.list_models(module=zoo.segmentation),
    }


def _preprocess(net: Any, task: Task, default: Any) -> Preprocess:
    """A detector and a segmentation net see the whole photo in a square frame of the size they were trained for."""
    if task == "classification":
        return Preprocess.read(default.transforms())
    if task == "detection":
        whole = int(net.transform.size_divisible)
        side = -(-int(net.transform.min_size[-1]) // whole) * whole
        return Preprocess((side, side), side, fit="longer", **normalisation(net))
    preset = default.transforms()
    side = preset.resize_size[0]
    return Preprocess((side, side), side, mean=tuple(preset.mean), std=tuple(preset.std), fit="longer")


def downloaded(make: Any, spec: str) -> nn.Module:
    """A net with weights that its package fetches; without a connection one sentence."""
    try:
        with hushed():
            net: nn.Module = make()
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The default weights of {spec} cannot be fetched: {first[:200].rstrip(' .')}. "
            "Give a file as weights, or 'none' for random ones."
        ) from None
    return net


@contextmanager
def hushed() -> Iterator[None]:
    """Without the pages that packages log about a failed download: the error says it in one sentence."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _outputs(net: Any, task: Task) -> int:
    if task == "detection":
        return int(net.roi_heads.box_predictor.cls_score.out_features)
    parts = net.classifier.modules() if task == "segmentation" else net.modules()
    *_, last = [p for part in parts for p in part.parameters(recurse=False)]
    return int(last.shape[0])
