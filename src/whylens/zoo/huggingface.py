"""Image classifiers of Hugging Face transformers, from the hub or a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, MissingExtra
from ..preprocess import Preprocess
from . import Opened, suffix
from .torchvision import downloaded
from .weights import fill

SPELLING = "hf:NAME"


def names() -> list[str]:
    """Any name on the hub; none are listed."""
    return []


def answers(spec: str) -> bool:
    """``hf:...``."""
    return suffix(spec, "hf") is not None


def open(spec: str, weights: str) -> Opened:
    """The classifier, its id2label names and its image processor; safetensors only, no code from the hub."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra("hf: models", "transformers", "hf") from None
    name = suffix(spec, "hf") or ""
    auto = transformers.AutoModelForImageClassification
    config = _config(transformers, name)

    def make(classes: int | None) -> Any:
        if classes is not None:
            config.num_labels = classes
        return auto.from_config(config)

    if weights == "default":
        net: Any = downloaded(lambda: auto.from_pretrained(name, use_safetensors=True, trust_remote_code=False), spec)
    else:
        net = make(None) if weights == "none" else fill(make, weights)
    labels: dict[Any, str] = dict(net.config.id2label)
    classes = [str(labels[k]) for k in sorted(labels, key=int)]
    return Opened(net, _preprocess(transformers, name, config), classes)


def _config(transformers: Any, name: str) -> Any:
    if not Path(name).is_dir() and (name.startswith((".", "/")) or name.count("/") > 1):
        raise InputError(f"hf: no folder '{name}'.")
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"hf: '{name}' cannot be opened: {first[:200]}") from None


def _preprocess(transformers: Any, name: str, config: Any) -> Preprocess:
    try:
        return Preprocess.read(transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False))
    except (OSError, ValueError, ImportError):
        side = getattr(config, "image_size", None)
        if not isinstance(side, int):
            raise InputError(f"hf: '{name}' has no image processor. Give preprocess=.") from None
        return Preprocess((side, side), None, "bicubic", (0.5,) * 3, (0.5,) * 3)
