"""What a plug-in declares, receives and gives back; what a request for one looks like."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import Tensor, nn

from . import _plugins
from ._check import checked, parameters
from .errors import InputError, WhylensError

if TYPE_CHECKING:
    from .explanation import Explanation
    from .masks import Mask
    from .probe import Probe

Plugin = TypeVar("Plugin", bound=Callable[..., Any])
Need = Literal["input gradient", "layer", "scores"]


@dataclass(frozen=True)
class MethodFacts:
    """What holds of a method whatever it explains; used as a decorator, shown by ``whylens methods``.

    `needs` is what it asks of the probe: an input gradient, a feature layer, or scores alone (then a black box is
    enough). `forwards` and `backwards` bound the passes per image, as arithmetic on the method's parameters.
    `unit` is what a map's values are measured in, `signed` whether they may be negative. `tables` says that it also
    takes rows ``(N, F)``. A method is local (one image at a time) unless `scope` says otherwise.
    """

    needs: tuple[Need, ...]
    unit: str
    signed: bool
    forwards: str = "1"
    backwards: str = "1"
    tables: bool = False
    scope: Literal["local", "global"] = "local"

    def __call__(self, function: Plugin) -> Plugin:
        """Declare the facts of `function`."""
        function.facts = self  # type: ignore[attr-defined]
        return function

    @property
    def black_box(self) -> bool:
        """Whether scores are all it needs."""
        return self.needs == ("scores",)

    def passes(self, params: Mapping[str, Any]) -> tuple[int, int]:
        """Bound on forwards and backwards per image with these parameters."""
        return _arithmetic(self.forwards, params), _arithmetic(self.backwards, params)


@dataclass(frozen=True)
class MetricFacts:
    """What holds of a metric; used as a decorator, shown by ``whylens metrics``.

    `direction` says which values are better, `low` and `high` the range they lie in. With `needs_masks` the trial
    brings masks, and a row without one has no value. `forwards` bounds the passes per image that are asked of the
    probe, and `explanations` how often the trial's method explains again, as arithmetic on the metric's parameters.
    """

    direction: Literal["higher", "lower", "none"]
    low: float | None = None
    high: float | None = None
    needs_masks: bool = False
    forwards: str = "1"
    explanations: str = "0"

    def __call__(self, function: Plugin) -> Plugin:
        """Declare the facts of `function`."""
        function.facts = self  # type: ignore[attr-defined]
        return function

    def passes(self, params: Mapping[str, Any]) -> int:
        """Bound on forwards per image with these parameters."""
        return _arithmetic(self.forwards, params)

    def repeats(self, params: Mapping[str, Any]) -> int:
        """Bound on further explanations with these parameters."""
        return _arithmetic(self.explanations, params)


@dataclass(frozen=True)
class Maps:
    """What a method returns when it has more to say than its maps ``(N, C, h, w)``.

    `checks` holds ``(N,)`` tensors: bool ones are flags (True: something is wrong with this map), float ones are
    measurements shown beside it. `extra` is recorded as it is.
    """

    maps: Tensor
    checks: Mapping[str, Tensor] = field(default_factory=dict)
    history: Tensor | None = None
    parts: Tensor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Values:
    """What a metric returns when it has more than its values ``(N,)``: a curve ``(N, T)``, checks ``(N,)``.

    A row to which the metric does not apply has the value NaN, and a bool check that is True there says why.
    """

    values: Tensor
    curve: Tensor | None = None
    checks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """What a metric receives: the probe of one batch, its explanation, and what is known about the images.

    `images` are the frames ``(N, C, H, W)``; `masks` those of the upright photos, None where there is none or the
    metric does not declare that it needs them; `labels` the true outputs ``(N,)``, -1 where unknown.
    ``again(images=None, model=None, targets=None)`` explains once more, moved images ``(N, C, H, W)``, another model
    or other outputs ``(N,)``, with the same method and, where they are not given, the same targets; it returns maps.
    """

    probe: Probe
    explanation: Explanation
    images: Tensor
    masks: tuple[Mask | None, ...] = ()
    labels: Tensor | None = None
    again: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Method:
    """One request: a method by name (or a function of your own) with its layer, target and parameters.

    `label` is the key of its result; the default spells the request: ``grad_cam:layer=layer2``.
    """

    name: str | Callable[..., Any]
    layer: str | nn.Module | None = field(default=None, kw_only=True)
    target: Any = field(default=None, kw_only=True)
    params: Mapping[str, Any] | None = field(default=None, kw_only=True)
    label: str | None = field(default=None, kw_only=True)

    @classmethod
    def read(cls, request: Method | str | Callable[..., Any]) -> Method:
        """A Method as it is, a function of your own, or words: ``"rise:samples=8000,layer=layer2"``."""
        if isinstance(request, Method):
            return request
        if not isinstance(request, str):
            if not callable(request):
                raise InputError(f"A method is a name, a Method or a function. Got {type(request).__name__}.")
            return cls(request)
        name, params = _read_words(request, "Method")
        layer, target = params.pop("layer", None), params.pop("target", None)
        return cls(name, layer=layer, target=target, params=params or None)

    @property
    def function(self) -> Callable[..., Any]:
        """The function behind the name."""
        return _plugins.find("methods", self.name) if isinstance(self.name, str) else self.name

    @property
    def plain_name(self) -> str:
        """The name in its one spelling."""
        return self.function.__name__

    @property
    def facts(self) -> MethodFacts:
        """The declared facts."""
        facts: MethodFacts | None = getattr(self.function, "facts", None)
        if facts is None:
            raise WhylensError(
                f"The method {self.plain_name} declares no facts. Put @MethodFacts(needs=..., unit=..., signed=...) "
                "above it."
            )
        return facts

    @property
    def key(self) -> str:
        """The label, or the request in words."""
        if self.label is not None:
            return self.label
        said = {} if self.layer is None else {"layer": _said(self.layer)}
        said |= {} if self.target is None else {"target": _said(self.target)}
        said |= {k: _said(v) for k, v in (self.params or {}).items()}
        return _in_words(self.plain_name, said)

    def checked_params(self, seed: int) -> dict[str, Any]:
        """All parameters, the given ones checked, `seed` filled in where the method draws."""
        return _checked_params(self.function, self.params, seed)


@dataclass(frozen=True)
class Metric:
    """One request: a metric by name (or a function of your own) with its parameters; `label` as in `Method`."""

    name: str | Callable[..., Any]
    params: Mapping[str, Any] | None = field(default=None, kw_only=True)
    label: str | None = field(default=None, kw_only=True)

    @classmethod
    def read(cls, request: Metric | str | Callable[..., Any]) -> Metric:
        """A Metric as it is, a function of your own, or words: ``"pointing_game:tolerance=10"``."""
        if isinstance(request, Metric):
            return request
        if not isinstance(request, str):
            if not callable(request):
                raise InputError(f"A metric is a name, a Metric or a function. Got {type(request).__name__}.")
            return cls(request)
        name, params = _read_words(request, "Metric")
        return cls(name, params=params or None)

    @property
    def function(self) -> Callable[..., Any]:
        """The function behind the name."""
        return _plugins.find("metrics", self.name) if isinstance(self.name, str) else self.name

    @property
    def plain_name(self) -> str:
        """The name in its one spelling."""
        return self.function.__name__

    @property
    def facts(self) -> MetricFacts:
        """The declared facts."""
        facts: MetricFacts | None = getattr(self.function, "facts", None)
        if not isinstance(facts, MetricFacts):
            raise WhylensError(
                f"The metric {self.plain_name} declares no facts. Put @MetricFacts(direction=...) above it."
            )
        return facts

    @property
    def key(self) -> str:
        """The label, or the request in words."""
        said = {k: _said(v) for k, v in (self.params or {}).items()}
        return self.label if self.label is not None else _in_words(self.plain_name, said)

    def checked_params(self, seed: int) -> dict[str, Any]:
        """All parameters, the given ones checked, `seed` filled in where the metric draws."""
        return _checked_params(self.function, self.params, seed)


def _read_words(request: str, kind: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = request.partition(":")
    params: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, sign, value = part.partition("=")
        if not sign:
            raise InputError(f"{kind} '{request}': write parameters as name=value. Got '{part}'.")
        params[key.strip().replace("-", "_")] = value.strip()
    return name.strip(), params


def _in_words(name: str, said: Mapping[str, str]) -> str:
    return name + (":" + ",".join(f"{k}={v}" for k, v in said.items()) if said else "")


def _checked_params(function: Callable[..., Any], params: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    given = dict(params or {})
    if "seed" in parameters(function):
        given.setdefault("seed", seed)
    return checked(function, given, function.__name__)


def _said(value: Any) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Tensor) or (callable(value) and not isinstance(value, str)):
        return getattr(value, "__name__", type(value).__name__)
    return str(value)


_OPERATIONS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _arithmetic(text: str, params: Mapping[str, Any]) -> int:
    """A declared bound such as ``"samples + 1"`` with the parameters' values."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return int(params[node.id])
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)](value(node.left), value(node.right))
        raise WhylensError(f"A bound on passes is a sum or product of parameters and integers. Got {text!r}.")

    return value(ast.parse(text, mode="eval").body)
