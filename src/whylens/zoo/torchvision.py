"""torchvision's classifiers by name, with the preprocessing of their own weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import InputError, no_such
from ..preprocess import Preprocess
from . import Opened, suffix
from .weights import fill

SPELLING = "torchvision:NAME"


def names() -> list[str]:
    """Every classifier torchvision registers."""
    import torchvision.models as zoo

    return sorted(f"torchvision:{name}" for name in zoo.list_models(module=zoo))


def answers(spec: str) -> bool:
    """``torchvision:...``."""
    return suffix(spec, "torchvision") is not None


def open(spec: str, weights: str) -> Opened:
    """The net, the names and the preprocessing of its default weights."""
    import torchvision.models as zoo

    name = (suffix(spec, "torchvision") or "").lower().replace("-", "_")
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise no_such("model", name, known, "All names: whylens models.")
    default = zoo.get_model_weights(name).DEFAULT
    extra: dict[str, Any] = (
        {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    )

    def make(classes: int | None) -> nn.Module:
        options = extra | ({} if classes is None else {"num_classes": classes})
        net: nn.Module = zoo.get_model(name, weights=None, **options)
        return net

    if weights == "default":
        net = downloaded(lambda: zoo.get_model(name, weights=default), spec)
    else:
        net = make(None) if weights == "none" else fill(make, weights)
    classes = list(default.meta["categories"])
    return Opened(net, Preprocess.read(default.transforms()), classes if _outputs(net) == len(classes) else None)


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


def _outputs(net: nn.Module) -> int:
    *_, last = net.parameters()
    return int(last.shape[0])
