"""A model saved by whylens: how to open it again, and its weights as safetensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._files import write_atomic
from ..errors import InputError
from ..model import Model
from ..preprocess import Preprocess
from . import Opened, anywhere

SPELLING = "FOLDER"
FORMAT = 1


def names() -> list[str]:
    """Any folder."""
    return []


def answers(spec: str) -> bool:
    """A folder with ``model.json``, or any folder, so that a wrong one is refused by name."""
    return Path(spec).is_dir()


def save_model(model: Model, folder: str | Path) -> Path:
    """Write ``weights.safetensors``, then ``model.json``; `load_model` opens the folder again.

    Raises InputError for a net that no source can make again (one from a notebook).
    """
    from safetensors.torch import save as to_bytes

    if model.source is None or not model.differentiable:
        raise InputError(f"{model.name} cannot be opened again by name, so it cannot be saved. Use FILE.py:FUNCTION.")
    path = Path(folder)
    said = {
        "format": FORMAT,
        "kind": "whylens.Model",
        "source": model.source.get("made by") or anywhere(model.source),
        "preprocess": None if model.preprocess is None else model.preprocess.as_dict(),
        "classes": model.classes,
        "layer": model.layer_name,
        "task": model.task,
        "output": model.output,
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().clone().contiguous() for k, v in model.net.state_dict().items()}
        write_atomic(path / "weights.safetensors", to_bytes(state))
        write_atomic(path / "model.json", json.dumps(said, indent=1).encode())
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {error.strerror or error}.") from None
    return path


def open(spec: str, weights: str) -> Opened:
    """The source named in ``model.json``, made anew and filled with the folder's weights."""
    from . import sources

    path = Path(spec)
    try:
        said: dict[str, Any] = json.loads((path / "model.json").read_text("utf-8"))
        version, inner = int(said["format"]), str(said["source"]["spec"])
    except FileNotFoundError:
        raise InputError(
            f"The folder '{path}' holds no model.json. whylens.save_model(model, folder) writes one."
        ) from None
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"'{path / 'model.json'}' is damaged. Save the model again.") from None
    if version > FORMAT:
        raise InputError(f"'{path}' has format {version}, newer than the {FORMAT} known here. Update whylens.")
    source = next((s for s in sources().values() if s.SPELLING != SPELLING and s.answers(inner)), None)
    if source is None:
        raise InputError(f"'{path}' was made from '{inner}', which cannot be opened here.")
    if ".py" in inner and not Path(inner).is_absolute():
        raise InputError(
            f"'{path}' would run the code of '{inner}', which may have come along with it. "
            "Open that file yourself where you trust it: load_model('FILE.py:FUNCTION', weights=...)."
        )
    file = str(path / "weights.safetensors") if weights == "default" else weights
    opened: Opened = source.open(inner, file)
    known = {key: said.get(key, getattr(opened, key)) for key in ("classes", "output", "task", "layer")}
    held = said.get("preprocess")
    preprocess = None if held is None else Preprocess.read(held)
    again = {"spec": str(path.resolve()), "weights": weights, "made by": said["source"]}
    return replace(opened, preprocess=preprocess, find_preprocess=None, source=again, **known)
