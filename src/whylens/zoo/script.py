"""A net made by the user's own code: ``FILE.py:FUNCTION``. The file is run, and that is said."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path

from torch import nn

from ..errors import InputError
from ..model import Model
from . import Opened
from .weights import fill

SPELLING = "FILE.py:FUNCTION"

log = logging.getLogger("whylens")


def names() -> list[str]:
    """Any file."""
    return []


def answers(spec: str) -> bool:
    """``....py:name``, or a bare ``.py`` so that the missing function is named."""
    return re.search(r"\.py(:\w*)?$", spec) is not None


def open(spec: str, weights: str) -> Opened:
    """What FUNCTION() returns: a torch module, ``(module, preprocess)``, or a whole `Model`."""
    path, _, name = spec.rpartition(":") if re.search(r"\.py:\w*$", spec) else (spec, "", "")
    file = Path(path)
    if not file.is_file():
        raise InputError(f"No file '{file}'.")
    if not name:
        raise InputError(f"'{spec}' names no function. Write {file.name}:FUNCTION, a function that returns the net.")
    log.info("Running the code of %s.", file)
    module_spec = importlib.util.spec_from_file_location(f"whylens_user_{file.stem}", file)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"'{file}' is no Python file.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{file.name} cannot be run: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{file.name} has no function '{name}'.")
    made = function()
    if isinstance(made, Model):
        return Opened(made.net, model=made) if weights in ("default", "none") else _filled_model(made, weights)
    net, preprocess = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(net, nn.Module):
        raise InputError(
            f"{file.name}:{name} must return a torch module, (module, preprocess) or a whylens.Model. "
            f"Got {type(made).__name__}."
        )
    return Opened(net if weights in ("default", "none") else fill(lambda _classes: net, weights), preprocess)


def _filled_model(model: Model, weights: str) -> Opened:
    fill(lambda _classes: model.net, weights)
    return Opened(model.net, model=model)
