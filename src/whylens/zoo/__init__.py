"""Zoo: models by name. One file per source; each says which words it answers to and opens them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from .. import _plugins
from ..errors import InputError
from ..model import Model, Output, Task

_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


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
    reshape_transform: Callable[[Tensor], Tensor] | None = None
    name: str | None = None  # another than the words it was asked with
    source: Mapping[str, Any] | None = None  # how to make it again, where not by those words
    find_preprocess: Callable[[], Any] | None = None  # asked only where the caller gives none


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
        raise _unknown(spec, known)
    if weights not in ("default", "none") and not Path(weights).is_file():
        raise InputError(f"weights: no file '{weights}'. Give 'default', 'none' or a file.")
    opened: Opened = source.open(spec, weights)
    if preprocess is None:
        preprocess = opened.preprocess if opened.find_preprocess is None else opened.find_preprocess()
    return Model(
        opened.net,
        preprocess=preprocess,
        classes=read_classes(classes) if classes is not None else opened.classes,
        layer=layer or opened.layer,
        task=task or opened.task,
        output=output or opened.output,
        device=device,
        reshape_transform=opened.reshape_transform,
        name=opened.name or spec,
        differentiable=opened.differentiable,
        source=opened.source or {"spec": spec, "weights": weights},
    )


def anywhere(source: Mapping[str, Any]) -> dict[str, Any]:
    """A model's source with its paths made whole, so that it opens from any folder."""
    file, colon, name = str(source["spec"]).rpartition(":")
    spec, weights = str(source["spec"]), str(source.get("weights", "default"))
    if colon and file.endswith(".py"):
        spec = f"{Path(file).resolve()}:{name}"
    elif Path(spec).exists():
        spec = str(Path(spec).resolve())
    if weights not in ("default", "none"):
        weights = str(Path(weights).resolve())
    return {**source, "spec": spec, "weights": weights}


def read_classes(classes: Sequence[str] | str | Path) -> Sequence[str]:
    """Class names as they are, or one per line of a text file."""
    if not isinstance(classes, str | Path):
        return classes
    try:
        names = [line.strip() for line in Path(classes).read_text("utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"classes: '{classes}' is no readable text file with one class name per line.") from None
    if "" in names:
        raise InputError(f"classes: every line of '{classes}' must hold a name. Line {names.index('') + 1} is empty.")
    return names


def _unknown(spec: str, known: Mapping[str, Any]) -> InputError:
    """The sentence for words no source answers to; a short name is met with its full spelling."""
    if Path(spec).suffix.lower() in _WEIGHTS:
        return InputError(
            f"'{spec}' can hold weights, not how the net is built. Name the net, and give the file as weights."
        )
    full = {name.rpartition(":")[2]: name for source in known.values() for name in source.names()}
    near = get_close_matches(spec.lower(), full, n=1)
    hint = f" Did you mean '{full[near[0]]}'?" if near else ""
    spellings = ", ".join(source.SPELLING for source in known.values())
    return InputError(f"No model '{spec}'.{hint} A model is one of: {spellings}. Names: whylens models.")


def suffix(spec: str, prefix: str) -> str | None:
    """What stands behind ``prefix:``, or None."""
    found = re.fullmatch(rf"{prefix}:(.+)", spec, re.IGNORECASE)
    return found[1] if found else None
