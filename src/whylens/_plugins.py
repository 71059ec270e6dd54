"""A folder is a registry: ``methods/rise.py`` defines ``rise``, and nothing else lists it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from .errors import WhylensError, no_such


@cache
def names(room: str) -> tuple[str, ...]:
    """Names of all plug-ins in a room of the package (``"methods"``), sorted, without importing them."""
    package = import_module(f"whylens.{room}")
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def find(room: str, name: str) -> Callable[..., Any]:
    """The plug-in of that name; ``-`` and ``_`` are the same."""
    name = name.strip().replace("-", "_").lower()
    if name not in names(room):
        kind = room.removesuffix("s")
        raise no_such(kind, name, list(names(room)), f"All {room}: whylens {room}.")
    function: Callable[..., Any] | None = getattr(import_module(f"whylens.{room}.{name}"), name, None)
    if function is None:
        raise WhylensError(f"whylens/{room}/{name}.py must define a function '{name}'.")
    return function
