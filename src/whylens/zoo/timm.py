"""timm's classifiers by name, with the data configuration of their own weights."""

from __future__ import annotations

from torch import nn

from ..errors import no_such
from ..preprocess import Preprocess
from . import Opened, suffix
from .efficientnet_lite import imagenet_classes
from .torchvision import downloaded
from .weights import fill

SPELLING = "timm:NAME"


def names() -> list[str]:
    """Every architecture timm registers."""
    import timm

    return sorted(f"timm:{name}" for name in timm.list_models())


def answers(spec: str) -> bool:
    """``timm:...``."""
    return suffix(spec, "timm") is not None


def open(spec: str, weights: str) -> Opened:
    """The net and its resolved data configuration; a tag behind a dot picks one of its weights."""
    import timm

    name = suffix(spec, "timm") or ""
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise no_such("model", name, timm.list_models(), "All names: whylens models.")
    tags = timm.list_pretrained(f"{plain}.*")
    if tag and name not in tags:
        raise no_such("weights", name, tags, f"Those of {plain}: {', '.join(tags) or 'none'}.")

    def make(classes: int | None) -> nn.Module:
        options = {} if classes is None else {"num_classes": classes}
        net: nn.Module = timm.create_model(name, pretrained=False, **options)
        return net

    if weights == "default":
        net = downloaded(lambda: timm.create_model(name, pretrained=True), spec)
    else:
        net = make(None) if weights == "none" else fill(make, weights)
    config = timm.data.resolve_model_data_config(net)
    outputs = int(getattr(net, "num_classes", 0))
    return Opened(net, Preprocess.read(config), imagenet_classes() if outputs == 1000 else None)
