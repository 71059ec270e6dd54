"""Bounds live once, in the signature: from it come the check, the message, the help and the negative tests."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import InputError, no_such


@dataclass(frozen=True)
class Range:
    """Closed interval a number must lie in: ``Annotated[int, Range(1)]``."""

    low: float | None = None
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f">= {self.low:g}" if self.low is not None else "any number"
        return f"in [{self.low:g}, {self.high:g}]" if self.low is not None else f"<= {self.high:g}"


@dataclass(frozen=True)
class Parameter:
    """One keyword-only parameter of a plug-in, read from its signature."""

    name: str
    kinds: tuple[type, ...]
    default: Any
    range: Range | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def expects(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(repr(c) for c in self.choices)
        words = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
        text = " or ".join(words.get(k, k.__name__) for k in self.kinds)
        text += f" {self.range}" if self.range else ""
        return text + (" or none" if self.optional else "")

    def accept(self, value: Any, where: str) -> Any:
        """The value in its own type, or an `InputError` that says what was expected."""
        value = self._read(value) if isinstance(value, str) else value
        if float in self.kinds and type(value) is int:
            value = float(value)
        fits = (value is None and self.optional) or type(value) in self.kinds or self._is_object(value)
        if fits and self.choices:
            fits = value in self.choices
        if fits and self.range is not None and value is not None:
            fits = value in self.range
        if not fits:
            raise InputError(f"{where}: {self.name} must be {self.expects}. Got {value!r}.")
        return value

    def _is_object(self, value: Any) -> bool:
        return any(k not in (int, float, bool, str) and isinstance(value, k) for k in self.kinds)

    def _read(self, text: str) -> Any:
        if self.optional and text.lower() == "none":
            return None
        if bool in self.kinds and text.lower() in ("true", "false", "yes", "no"):
            return text.lower() in ("true", "yes")
        for kind in (int, float):
            if kind in self.kinds:
                try:
                    return kind(text)
                except ValueError:
                    continue
        return text


@cache
def parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The keyword-only parameters of a plug-in by name, in order."""
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found[name] = _parameter(name, hints.get(name, str), parameter.default)
    return types.MappingProxyType(found)


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    bounds: Range | None = None
    choices: tuple[str, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        bounds = next((n for n in notes if isinstance(n, Range)), None)
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds: list[type] = []
    for part in parts:
        if get_origin(part) is Literal:
            choices += get_args(part)
            kinds.append(str)
        elif part is not type(None):
            kinds.append(part)
    return Parameter(name, tuple(kinds), default, bounds, choices, type(None) in parts)


def checked(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters of a plug-in: the given ones checked and typed, the others at their defaults."""
    known = parameters(function)
    for name in given:
        if name not in known:
            own = ", ".join(known) or "none"
            raise no_such("parameter", name, list(known), f"{where} takes: {own}.")
    missing = next((n for n, p in known.items() if n not in given and p.default is inspect.Parameter.empty), None)
    if missing is not None:
        raise InputError(f"{where} needs the parameter '{missing}'.")
    return {name: p.accept(given[name], where) if name in given else p.default for name, p in known.items()}
