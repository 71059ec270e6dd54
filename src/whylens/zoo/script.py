"""A net made by the user's own code: ``FILE.py:FUNCTION``. The file is run, and that is said."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError, kind_and_line
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
    file, name = _parts(spec)
    function = user_function(spec)
    try:
        made = function()
    except (Exception, SystemExit) as error:
        raise InputError(f"{file.name}:{name} cannot be run: {kind_and_line(error)}.") from error
    opened = _opened(made)
    if not isinstance(opened.net, nn.Module):
        raise InputError(
            f"{file.name}:{name} must return a torch module, (module, preprocess) or a whylens.Model. "
            f"Got {type(made).__name__}."
        )
    if weights not in ("default", "none"):
        fill(lambda _classes: opened.net, weights)
    return opened


def user_function(spec: str) -> Callable[..., Any]:
    """FUNCTION of FILE.py, which is run for it. InputError where there is no such file or function."""
    file, name = _parts(spec)
    if not file.is_file():
        raise InputError(f"No file '{file}'.")
    if not name:
        raise InputError(f"'{spec}' names no function. Write {file.name}:FUNCTION, one that the file defines.")
    log.info("Running the code of %s.", file)
    module_spec = importlib.util.spec_from_file_location(f"whylens_user_{file.stem}", file)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"'{file}' is no Python file.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{file.name} cannot be run: {kind_and_line(error)}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{file.name} has no function '{name}'.")
    made: Callable[..., Any] = function
    return made


def _parts(spec: str) -> tuple[Path, str]:
    path, _, name = spec.rpartition(":") if re.search(r"\.py:\w*$", spec) else (spec, "", "")
    return Path(path), name


def _opened(made: Any) -> Opened:
    if not isinstance(made, Model):
        return Opened(*made) if isinstance(made, tuple) and len(made) == 2 else Opened(made)
    return Opened(
        made.net,
        made.preprocess,
        classes=made.classes,
        output=made.output,
        task=made.task,
        layer=made.layer_name,
        differentiable=made.differentiable,
        reshape_transform=made.reshape_transform,
        name=made.name,
    )
