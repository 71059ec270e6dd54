"""Backward rules on any net: what a nonlinearity does to the gradient that passes it.

A rule must act where the net computes, not where it declares modules: torchvision's DenseNet calls ``F.relu``, its
ResNet uses one in-place module twice. So the forward runs under a `torch.overrides.TorchFunctionMode` that records
every nonlinear call; which rule its backward follows is switched between passes over one retained graph.

``plain``     the derivative.
``guided``    gradients that are negative after a rectifier, or meet a negative input, stop (Springenberg et al. 2014,
              arXiv:1412.6806, sec. 3.4).
``deconv``    only negative gradients stop, whatever the input was (Zeiler & Fergus 2013, arXiv:1311.2901, sec. 2.1).
``rescale``   slope of the secant between a baseline's value and the image's (Shrikumar et al. 2017,
              arXiv:1704.02685, sec. 3.5.2); max pooling passes on what each side's winner gained, so the sum is kept.

Guided and deconv are defined for rectifiers (ReLU, ReLU6, a clamp at 0); smooth nonlinearities keep their derivative
there and are counted, so that a caller knows how much of the net the rule reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import InputError

Rule = Literal["plain", "guided", "deconv", "rescale"]
Kind = Literal["rectifier", "smooth", "pool"]

FLAT = 1e-7
"""Below this difference between image and baseline the secant is the tangent."""


@dataclass
class Switch:
    """State shared by all recorded calls of one pass: the rule in force and what a baseline gave at each call."""

    rule: Rule = "plain"
    kinds: list[Kind] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    baseline: list[Tensor] = field(default_factory=list)

    def hits(self) -> tuple[int, int]:
        """Calls that the guided and deconv rules change, and all nonlinear calls but pooling."""
        return self.kinds.count("rectifier"), len(self.kinds) - self.kinds.count("pool")


@dataclass(frozen=True)
class _Nonlinear:
    """One call of a torch function with everything but its input, never in place."""

    function: Callable[..., Tensor]
    kind: Kind
    rest: tuple[Any, ...]
    options: Mapping[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, *self.rest, **self.options)

    def tangent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Gradient times the derivative at x."""
        product: Tensor
        if self.function in _RELU:
            product = torch.ops.aten.threshold_backward(gradient, x, 0)
            return product
        if self.function in (F.relu6, F.hardtanh):
            low, high = self.options.get("min_val", -1.0), self.options.get("max_val", 1.0)
            low, high = (0.0, 6.0) if self.function is F.relu6 else (low, high)
            product = torch.ops.aten.hardtanh_backward(gradient, x, low, high)
            return product
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (product,) = torch.autograd.grad(self(leaf), leaf, gradient)
        return product

    def secant(self, x: Tensor, x0: Tensor, gradient: Tensor) -> Tensor:
        """Gradient times the slope between x0 and x; the derivative where they meet."""
        if self.function in _RELU:  # high / (high - low) of the clamped ends: no difference to divide by, no 0 / 0
            high, low = torch.maximum(x, x0).clamp_(min=0), torch.minimum(x, x0).clamp_(max=0)
            return high.div_(torch.sub(high, low, out=low).clamp_(min=1e-30)).mul_(gradient)
        difference = x - x0
        flat = difference.abs() < FLAT
        slope = (self(x) - self(x0)) / difference.masked_fill(flat, 1)
        return torch.where(flat, self.tangent(x, gradient), gradient * slope)


class _Ruled(torch.autograd.Function):
    """One elementwise nonlinearity whose backward follows the switch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: _Nonlinear, switch: Switch, in_place: bool) -> Tensor:
        ctx.function, ctx.switch, ctx.index = function, switch, len(switch.kinds)
        if not in_place:
            ctx.save_for_backward(x)
            return function(x)
        ctx.save_for_backward(x.clone())
        ctx.mark_dirty(x)
        return x.relu_() if function.function in _RELU else x.copy_(function(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,), gradient, rule, function = ctx.saved_tensors, gradients[0], ctx.switch.rule, ctx.function
        if rule == "rescale":
            return function.secant(x, ctx.switch.baseline[ctx.index], gradient), None, None, None
        if rule == "plain" or function.kind != "rectifier":
            return function.tangent(x, gradient), None, None, None
        passed = gradient if rule == "deconv" else function.tangent(x, gradient)
        return passed.clamp(min=0), None, None, None


@dataclass(frozen=True)
class _Pool:
    """One call of a max pooling with everything but its input; `indexed` also gives the winners' flat indices."""

    function: Callable[..., Tensor]
    indexed: Callable[..., tuple[Tensor, Tensor]]
    rest: tuple[Any, ...]
    options: Mapping[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, *self.rest, **self.options)

    def tangent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Every window's gradient at its winner."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (product,) = torch.autograd.grad(self(leaf), leaf, gradient)
        return product

    def secant(self, x: Tensor, x0: Tensor, gradient: Tensor) -> Tensor:
        """What each side's winner gained over the other side's, over its own difference; windows may overlap.

        Where the image's winner also wins in the baseline it is the baseline's winner: on a constant baseline all
        cells of a window tie, and the first one would take losses that are not its own.
        """
        values, winners = self.indexed(x, *self.rest, **self.options)
        values0, winners0 = (t.expand_as(values) for t in self.indexed(x0, *self.rest, **self.options))
        same = x0.expand_as(x).flatten(2).gather(2, winners.flatten(2)).view(winners.shape)
        winners0 = torch.where(same == values0, winners, winners0)
        top = torch.maximum(values, values0)
        moved = _scatter(gradient * (top - values0), winners, x) + _scatter(gradient * (values - top), winners0, x)
        difference = x - x0
        flat = difference == 0  # elsewhere the gain is no larger than the difference
        return torch.where(flat, self.tangent(x, gradient), moved / difference.masked_fill(flat, 1))


class _RuledPool(torch.autograd.Function):
    """One max pooling whose backward follows the switch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: _Pool, switch: Switch) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.switch, ctx.index = function, switch, len(switch.kinds)
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), gradient, function = ctx.saved_tensors, gradients[0], ctx.function
        if ctx.switch.rule == "rescale":
            return function.secant(x, ctx.switch.baseline[ctx.index], gradient), None, None
        return function.tangent(x, gradient), None, None


class _Affine(torch.autograd.Function):
    """Batch norm in evaluation: one scale and one shift per channel, and a backward that is one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


def _scatter(values: Tensor, winners: Tensor, like: Tensor) -> Tensor:
    """Values added at the flat indices of their winners, in the shape of `like`; windows may overlap."""
    out = torch.zeros(like.shape, dtype=values.dtype, device=values.device).flatten(2)
    return out.scatter_add_(2, winners.flatten(2), values.flatten(2)).view(like.shape)


class Recording(TorchFunctionMode):
    """Forward under this mode: every nonlinear call is recorded on the switch and obeys it in backward.

    With `into` the inputs of the calls are kept there instead: how a baseline is recorded, without a graph.
    """

    def __init__(self, switch: Switch, into: list[Tensor] | None = None) -> None:
        super().__init__()
        self.switch, self.into = switch, into

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every function on tensors."""
        options = dict(kwargs or {})
        if func is F.batch_norm and not options["training"] and options["weight"] is not None:
            return _batch_norm(args[0], args[1], args[2], options)
        x = args[0] if args else options.get("input")
        kind = _kind(func, args[1:], options)
        if kind is None or not isinstance(x, Tensor) or not x.is_floating_point():
            return func(*args, **options)
        options.pop("input", None)
        if kind == "pool":
            return self._pool(func, x, args[1:], options)
        in_place = func in _IN_PLACE or bool(options.pop("inplace", False))
        return self._elementwise(_Nonlinear(_IN_PLACE.get(func, func), kind, args[1:], options), x, in_place)

    def _elementwise(self, function: _Nonlinear, x: Tensor, in_place: bool) -> Tensor:
        if self.into is None and x.requires_grad and torch.is_grad_enabled():
            result: Tensor = _Ruled.apply(x, function, self.switch, in_place)
            self._note(function.kind, result)
            return result
        if self.into is not None:
            self.into.append(x.detach().clone() if in_place else x.detach())
        return x.copy_(function(x)) if in_place else function(x)

    def _pool(self, func: Any, x: Tensor, rest: tuple[Any, ...], options: dict[str, Any]) -> Any:
        batched = x.ndim == _POOLED_AXES[func] + 2
        recorded = self.into is not None or (x.requires_grad and torch.is_grad_enabled())
        if options.pop("return_indices", False) or not batched or not recorded:
            return func(x, *rest, **options)

        function = _Pool(func, _INDEXED[func], rest, options)
        if self.into is not None:
            self.into.append(x.detach())
            return function(x)
        values = _RuledPool.apply(x, function, self.switch)
        self._note("pool", x)
        return values

    def _note(self, kind: Kind, x: Tensor) -> None:
        self.switch.kinds.append(kind)
        self.switch.shapes.append(tuple(x.shape[1:]))


def _batch_norm(x: Tensor, mean: Tensor, variance: Tensor, options: Mapping[str, Any]) -> Tensor:
    scale = options["weight"] * (variance + options["eps"]).rsqrt()
    channels = (-1, *[1] * (x.ndim - 2))
    result: Tensor = _Affine.apply(x, scale.view(channels), (options["bias"] - mean * scale).view(channels))
    return result


def pair(switch: Switch, recorded: list[Tensor]) -> None:
    """Take a baseline's recorded inputs; the net must have made the same calls for it as for the images."""
    if [tuple(t.shape[1:]) for t in recorded] != switch.shapes:
        raise InputError(
            "deep_lift: the net takes another path for the baseline than for the image, so their values cannot be "
            "paired. Use integrated_gradients."
        )
    switch.baseline = recorded


def _kind(func: Any, rest: tuple[Any, ...], options: Mapping[str, Any]) -> Kind | None:
    """What a torch function does: rectify at zero, bend in another way, pool by the maximum; None: neither."""
    if func in _RELU or func is F.relu6:
        return "rectifier"
    if func in _SMOOTH:
        return "smooth"
    if func in _INDEXED:
        return "pool"
    if func in _BOUNDED:
        if any(isinstance(bound, Tensor) for bound in (*rest, *options.values())):
            return None
        low = next((options[k] for k in ("min", "min_val", "threshold") if k in options), rest[0] if rest else None)
        return "rectifier" if low == 0 else "smooth"
    return None


# ---- which torch functions are nonlinear -------------------------------------------------------------------------

_IN_PLACE: dict[Any, Any] = {
    torch.relu_: torch.relu, Tensor.relu_: torch.relu, Tensor.clamp_: torch.clamp, Tensor.clamp_min_: torch.clamp_min,
    torch.clamp_: torch.clamp, torch.clamp_min_: torch.clamp_min, F.hardtanh_: F.hardtanh,
    Tensor.sigmoid_: torch.sigmoid, torch.sigmoid_: torch.sigmoid, Tensor.tanh_: torch.tanh, torch.tanh_: torch.tanh,
    F.leaky_relu_: F.leaky_relu, F.elu_: F.elu, torch.selu_: torch.selu, torch.celu_: torch.celu,
}  # fmt: skip
_RELU = {F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_}
_BOUNDED = {
    F.hardtanh, F.hardtanh_, torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clamp_, torch.clamp_min,
    Tensor.clamp_min, Tensor.clamp_min_, torch.clamp_min_, F.threshold,
}  # fmt: skip
_SMOOTH = {
    F.leaky_relu, F.elu, F.selu, F.celu, F.silu, F.mish, F.gelu, F.hardswish, F.hardsigmoid, F.softplus, F.softsign,
    F.logsigmoid, F.prelu, torch.prelu, F.hardshrink, F.softshrink, F.tanhshrink, torch.selu, torch.celu,
    torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh,
    Tensor.sigmoid_, torch.sigmoid_, Tensor.tanh_, torch.tanh_, F.leaky_relu_, F.elu_, torch.selu_, torch.celu_,
}  # fmt: skip
_INDEXED: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {
    F.max_pool1d: F.max_pool1d_with_indices, torch.max_pool1d: F.max_pool1d_with_indices,
    F.max_pool2d: F.max_pool2d_with_indices, torch.max_pool2d: F.max_pool2d_with_indices,
    F.max_pool3d: F.max_pool3d_with_indices, torch.max_pool3d: F.max_pool3d_with_indices,
    F.adaptive_max_pool1d: F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d: F.adaptive_max_pool3d_with_indices,
}  # fmt: skip
_POOLED_AXES = {func: next(int(d) for d in "123" if f"{d}d" in name.__name__) for func, name in _INDEXED.items()}
