"""Image classifiers of Hugging Face transformers, from the hub or a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MissingExtra
from ..preprocess import Preprocess
from . import Opened, suffix
from .torchvision import downloaded, hushed
from .weights import fill, read

SPELLING = "hf:NAME"

_AGREE = 0.02
"""Mean distance of prepared values at which two preparations are the same but for the rounding of their resizing."""


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
        raise MissingExtra("Opening hf: models", "transformers", "hf") from None
    name = suffix(spec, "hf") or ""
    auto = transformers.AutoModelForImageClassification
    config = _config(transformers, name)

    def make(classes: int | None) -> Any:
        if classes is not None:
            config.num_labels = classes
        return auto.from_config(config)

    def fetch() -> Any:
        net, told = auto.from_pretrained(name, use_safetensors=True, trust_remote_code=False, output_loading_info=True)
        if told["missing_keys"]:
            listed = ", ".join(sorted(told["missing_keys"])[:3])
            raise InputError(f"hf: '{name}' holds no classifier: it has no weights for {listed}. Train one first.")
        return net

    if weights == "default":
        net: Any = downloaded(fetch, spec)
    else:
        net = make(None) if weights == "none" else _filled(make, config, weights)
    labels: dict[Any, str] = dict(net.config.id2label)
    classes = [str(labels[k]) for k in sorted(labels, key=int)]
    return Opened(net, find_preprocess=lambda: _preprocess(transformers, name), classes=classes)


def _filled(make: Any, config: Any, weights: str) -> Any:
    """A net with the weights of a file, under the net's names or under those that transformers uses on disk."""
    try:
        return fill(make, weights)
    except InputError as refusal:
        kind, state = type(make(None)), read(weights)
        try:
            with hushed():
                net, told = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
        except (RuntimeError, ValueError):
            raise refusal from None
        if told["missing_keys"] or told["unexpected_keys"]:
            raise
        return net


def _config(transformers: Any, name: str) -> Any:
    if not Path(name).is_dir() and (name.startswith((".", "/")) or name.count("/") > 1):
        raise InputError(f"hf: no folder '{name}'.")
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"hf: '{name}' cannot be opened: {first[:200].rstrip(' .')}.") from None


def _preprocess(transformers: Any, name: str) -> Preprocess:
    """What the image processor does, as a Preprocess; both are tried on one picture and must agree."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        raise InputError(f"hf: '{name}' has no image processor that can be opened. Give a preprocess.") from None
    preprocess = Preprocess.read(processor)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 300), torch.linspace(0, 1, 420), indexing="ij")
    picture = (torch.stack([rows, columns, (90 * rows * columns).sin() / 2 + 0.5]) * 255).to(torch.uint8)
    theirs = torch.as_tensor(processor(images=picture.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"][0])
    ours = preprocess.normalise(preprocess.frame(picture)[0][None])[0]
    if theirs.shape != ours.shape or float((theirs - ours).abs().mean()) > _AGREE:
        kind = type(processor).__name__
        raise InputError(f"hf: {kind} prepares photos in a way that cannot be repeated here. Give a preprocess.")
    return preprocess
