"""Zoo: models by name. One file per source; each says which words it answers to and opens them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from .. import _plugins
from ..errors import InputError
from ..model import Model, Output, Task, pick_device


@dataclass(frozen=True)
class Opened:
    """What a source knows of the model it opened."""

    net: nn.Module
    preprocess: Any = None
    classes: Sequence[str] | None = None
    output: Output = "logits"
    task: Task = "classification"
    layer: str | None = None
    differentiable: bool = True
    model: Model | None = None  # where the source made a whole Model


class Source(Protocol):
    """What a file in this folder must define."""

    SPELLING: str
    """How its models are written, for listings: ``torchvision:NAME``."""

    def answers(self, spec: str) -> bool:
        """Whether this source opens `spec`."""

    def open(self, spec: str, weights: str) -> Opened:
        """Open it; `weights` is "default", "none" or a file."""

    def names(self) -> list[str]:
        """The models that can be named; empty where any file may be."""


def sources() -> dict[str, Any]:
    """All sources by file name; a source whose optional package is missing says so only when asked to open."""
    return {name: import_module(f"whylens.zoo.{name}") for name in _plugins.names("zoo") if name != "weights"}


def load_model(
    spec: str | Path,
    *,
    weights: str | Path = "default",
    device: str = "auto",
    classes: Sequence[str] | str | Path | None = None,
    preprocess: Any = None,
    layer: str | None = None,
    task: Task | None = None,
    output: Output | None = None,
) -> Model:
    """Open a model by name: a short name, ``torchvision:``, ``timm:``, ``hf:``, a file, or a saved folder.

    `weights` is "default" (the source's own, fetched by its package if need be), "none" (random) or a file
    (safetensors, or a state dict that torch can read without unpickling objects). `classes` are names, or a text
    file with one per line. What is given here wins over what the source says.

    Raises InputError for an unknown name or a file that does not fit, MissingExtra for an absent package.
    """
    spec, weights = str(spec), str(weights)
    known = sources()
    source = next((s for s in known.values() if s.answers(spec)), None)
    if source is None:
        spellings = ", ".join(s.SPELLING for s in known.values())
        raise InputError(f"No model '{spec}'. A model is one of: {spellings}. Names: whylens models.")
    if weights not in ("default", "none") and not Path(weights).is_file():
        raise InputError(f"weights: no file '{weights}'. Give 'default', 'none' or a file.")
    opened: Opened = source.open(spec, weights)
    if opened.model is not None:
        model = opened.model
        model.net.to(pick_device(device))
        return model
    return Model(
        opened.net,
        preprocess=preprocess if preprocess is not None else opened.preprocess,
        classes=read_classes(classes) if classes is not None else opened.classes,
        layer=layer or opened.layer,
        task=task or opened.task,
        output=output or opened.output,
        device=device,
        name=spec,
        differentiable=opened.differentiable,
        source={"spec": spec, "weights": weights},
    )


def read_classes(classes: Sequence[str] | str | Path) -> Sequence[str]:
    """Class names as they are, or one per line of a text file."""
    if not isinstance(classes, str | Path):
        return classes
    try:
        return [line.strip() for line in Path(classes).read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"classes: '{classes}' is no readable text file with one class name per line.") from None


def suffix(spec: str, prefix: str) -> str | None:
    """What stands behind ``prefix:``, or None."""
    found = re.fullmatch(rf"{prefix}:(.+)", spec, re.IGNORECASE)
    return found[1] if found else None
