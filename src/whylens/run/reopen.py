"""Reopen: what a run must know of its model, to open it again and to tell it from another."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..black_box import BlackBox
from ..errors import InputError, WhylensError
from ..model import Model
from ..zoo import anywhere, load_model

_GIVEN = ("classes", "preprocess", "layer", "task", "output")
"""What `load_model` may be given beside name and weights."""


def describe(model: Model) -> dict[str, Any]:
    """The model as plain values; `source` says how it is opened again, `closed` why it cannot be."""
    said: dict[str, Any] = {"name": model.name, **_facts(model), "device": model.device.type, "closed": ""}
    said["source"] = None if model.source is None else {"given": {}, **anywhere(model.source)}
    try:
        if said["source"] is None:
            raise InputError("it was made in Python; one from load_model('FILE.py:FUNCTION') can be opened again")
        plain = _facts(_open(said))
        said["source"]["given"] = {k: said[k] for k in _GIVEN if plain[k] != said[k]}
        if any(plain[k] != said[k] for k in plain):
            open_again(said)
    except WhylensError as error:
        said["closed"] = str(error).rstrip(".")
    return said


def weights_hash(model: Model) -> str:
    """sha256 over every parameter and buffer, by name; over the file or the function's source, where it is one."""
    digest = sha256()
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            held = value.detach().cpu().contiguous().reshape(-1)
            digest.update(held.view(torch.uint8).numpy().data if held.numel() else b"")
        else:
            digest.update(repr(value).encode())
    spec = "" if model.source is None else str(model.source["spec"])
    if spec.endswith(".onnx") and Path(spec).is_file():
        digest.update(Path(spec).read_bytes())
    elif isinstance(model.net, BlackBox):
        digest.update(model.net.identity().encode())
    return digest.hexdigest()


def open_again(said: Mapping[str, Any], device: str | None = None) -> Model:
    """The model that `describe` told of; InputError where it has become another one."""
    if said["closed"]:
        raise InputError(f"The model '{said['name']}' cannot be opened again: {said['closed']}.")
    model = _open(said, device)
    found = _facts(model)
    for word, value in found.items():
        if value != said[word]:
            raise InputError(
                f"The model '{said['name']}' opened again from '{said['source']['spec']}' is another one: "
                f"{words(word)} differ."
            )
    return model


def words(fact: str) -> str:
    """What a fact is called in a sentence."""
    return {
        "sha256": "their weights",
        "task": "their tasks",
        "output": "what their nets return",
        "classes": "their class names",
        "preprocess": "the ways photos enter them",
        "layer": "their feature layers",
        "dtype": "their number types",
        "device": "their devices",
    }[fact]


def _open(said: Mapping[str, Any], device: str | None = None) -> Model:
    """By its source and what was given beside it; not compared yet."""
    source, given = said["source"], said["source"]["given"]
    options = {k: v for k, v in given.items() if v is not None}
    model = load_model(source["spec"], weights=source["weights"], device=device or said["device"], **options)
    model.name = said["name"]
    for word, value in given.items():
        if value is None:
            setattr(model, "_layer" if word == "layer" else word, None)
    return model


def _facts(model: Model) -> dict[str, Any]:
    """What must be equal for two models to be one."""
    return {
        "sha256": weights_hash(model),
        "task": model.task,
        "output": model.output,
        "classes": None if model.classes is None else list(model.classes),
        "preprocess": None if model.preprocess is None else _plain(model.preprocess.as_dict()),
        "layer": model.layer_name,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would give it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
