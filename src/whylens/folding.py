"""Folding: batch norm taken into the convolution or linear map before it, in any net, without touching the net.

In evaluation mode batch norm is affine, so ``norm(conv(x, w, b))`` is ``conv(x, w', b')``. Which calls belong together
is seen by running the net once: the tensor that a convolution gives is the one that a batch norm takes, and nothing
else takes it. Where the net runs under `Folded`, those convolutions use ``w'`` and ``b'``, and those norms give back
what they get. The activation after a convolution, or after its norm, is taken in too where no gradient is asked for
(`fused`). Nothing is copied but the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import fused
from .fused import Activation, Fused

AGREES = 1e-4
"""Largest difference between folded and plain outputs, as a share of the largest plain one, at which folding stands."""

_AFFINE: dict[Any, int] = {F.conv1d: 0, F.conv2d: 0, F.conv3d: 0, F.linear: 0}  # axis of the weight's outputs
_AFFINE |= {torch.conv1d: 0, torch.conv2d: 0, torch.conv3d: 0}
_NORMS = (F.batch_norm, torch.batch_norm)


@dataclass(frozen=True)
class Fold:
    """One pair: the weight and bias as the net has them, its norm's running mean, and what they become together."""

    weight: Tensor
    norm: Tensor
    folded_weight: Tensor
    folded_bias: Tensor


@dataclass(frozen=True)
class Alone:
    """A convolution without a norm to fold: its weight and bias as they are."""

    weight: Tensor
    bias: Tensor | None


@dataclass
class Folds:
    """What of a net as it is now is run in another way: pairs, convolutions alone, and the activations after either.

    `after` is by the id of the net's weight; `made` holds the weights in each type, once they were asked for.
    """

    pairs: tuple[Fold, ...] = ()
    versions: tuple[tuple[int, int], ...] = ()
    alone: tuple[Alone, ...] = ()
    after: dict[int, Activation] = field(default_factory=dict)
    made: dict[torch.dtype, dict[int, Fused]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pairs or self.alone)

    def mode(self, *, dtype: torch.dtype = torch.float32, leave: Collection[int] = ()) -> Folded:
        """A mode for one pass in that type; pairs whose weight's id is in `leave` stay apart."""
        if dtype not in self.made:
            given = [(p.weight, p.folded_weight, p.folded_bias) for p in self.pairs]
            self.made[dtype] = {
                id(own): Fused(
                    weight.detach().to(dtype),
                    None if bias is None else bias.detach().to(dtype),
                    self.after.get(id(own), fused.NOTHING),
                )
                for own, weight, bias in (*given, *((a.weight, a.weight, a.bias) for a in self.alone))
            }
        return Folded(
            {key: made for key, made in self.made[dtype].items() if key not in leave},
            {id(pair.norm) for pair in self.pairs if id(pair.weight) not in leave},
        )


class Folded(TorchFunctionMode):
    """Inside: folded convolutions and linear maps, by the id of the net's weight, and what follows them left out."""

    def __init__(self, weights: dict[int, Fused], norms: set[int]) -> None:
        super().__init__()
        self._weights, self._norms = weights, norms
        self._active: dict[int, tuple[Tensor, Activation]] = {}  # convolved and already activated

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Swap what belongs to a pair; pass on everything else."""
        kwargs = kwargs or {}
        if func in _AFFINE:
            x, weight, _ = _arguments(args, kwargs)
            held = self._weights.get(id(weight))
            if held is not None:
                return self._convolved(func, x, held, args, kwargs)
        elif func in _NORMS and id(_norm_mean(args, kwargs)) in self._norms:
            return args[0] if args else kwargs["input"]
        elif self._active and args and self._is_done(func, args, kwargs):
            return self._active.pop(id(args[0]))[0]
        return func(*args, **kwargs)

    def _is_done(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether a call is the activation that the convolution of its input has already been given."""
        held = self._active.get(id(args[0]))
        return held is not None and held[1] == fused.activation(func, args, kwargs)

    def _convolved(self, func: Any, x: Tensor, held: Fused, args: Any, kwargs: Any) -> Any:
        if func in fused.CONVOLUTIONS and not torch.is_grad_enabled() and fused.available():
            found = held(x, args, kwargs)
            if found is not None:
                if held.after != fused.NOTHING:
                    self._active[id(found)] = found, held.after
                return found
        return func(x, held.weight, held.bias, *args[3:], **_rest(kwargs))


_KNOWN: WeakKeyDictionary[nn.Module, Folds] = WeakKeyDictionary()


def folds(net: nn.Module, frame: Tensor, forward: Callable[[Tensor], Any]) -> Folds:
    """The pairs of a net, found once and again whenever a weight or buffer of it has changed since.

    `frame` is one frame ``(1, C, H, W)`` to run it on, `forward` how; the net must be in evaluation mode. A net whose
    output would change by more than rounding keeps its norms.
    """
    versions = tuple((id(t), t._version) for t in (*net.parameters(), *net.buffers()))
    known = _KNOWN.get(net)
    if known is None or known.versions != versions:
        known = _found(frame, forward)
        known.versions = versions
        _KNOWN[net] = known
    return known


# ---- finding them ------------------------------------------------------------------------------------------


class _Watch(TorchFunctionMode):
    """Notes which call gave each tensor, how many calls took it, and which was the first."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}  # by id: output, weight, bias
        self.taken: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.norms: list[tuple[int, int, tuple[Any, ...], dict[str, Any]]] = []  # ids of input and output
        self.then: dict[int, tuple[Activation | None, bool]] = {}  # what the first taker is, whether it acts in place
        self.kept: list[Any] = []  # ids stay apart while their tensors live

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():  # what a call is made of is no use of its input
            output = func(*args, **kwargs)
        if not _tensors(output):
            return output  # a question about a tensor, such as its shape
        for value in _tensors((args, tuple(kwargs.values()))):
            self.taken[id(value)] = self.taken.get(id(value), 0) + 1
            self.then.setdefault(id(value), (fused.activation(func, args, kwargs), output is value))
        self.kept.append(output)
        if func in _AFFINE:
            given = _arguments(args, kwargs)
            weight = given[1]
            self.uses[id(weight)] = self.uses.get(id(weight), 0) + 1
            self.made[id(output)] = (output, weight, given[2])
        elif func in _NORMS:
            self.norms.append((id(args[0] if args else kwargs["input"]), id(output), args, kwargs))
        return output

    def after(self, made: int) -> Activation | None:
        """The activation that is all that becomes of a tensor, if there is one."""
        found, in_place = self.then.get(made, (None, False))
        return found if in_place or self.taken.get(made) == 1 else None


def _found(frame: Tensor, forward: Callable[[Tensor], Any]) -> Folds:
    watch = _Watch()
    with torch.no_grad():
        with watch:
            plain = forward(frame)
        found = [(_pair(watch, entered, args, kwargs), out) for entered, out, args, kwargs in watch.norms]
        entries = [(pair, out) for pair, out in found if pair is not None]
        counted: dict[int, int] = {}
        for pair, _ in entries:
            counted[id(pair.norm)] = counted.get(id(pair.norm), 0) + 1
        entries = [(pair, out) for pair, out in entries if counted[id(pair.norm)] == 1]
        pairs = tuple(pair for pair, _ in entries)
        paired = {id(pair.weight) for pair in pairs}
        ends = {id(pair.weight): out for pair, out in entries}
        alone = []
        for out, weight, bias in watch.made.values():
            if id(weight) not in paired and _convolves(watch, weight):
                alone.append(Alone(weight, bias))
                ends[id(weight)] = id(out)
        after = {weight: then for weight, out in ends.items() if (then := watch.after(out)) is not None}
        known = Folds(pairs, (), tuple(alone) if fused.available() else (), after)
        if not known:
            return known
        with known.mode():
            folded = forward(frame)
    return known if _agree(plain, folded) else Folds()


def _convolves(watch: _Watch, weight: Tensor) -> bool:
    """Whether a weight is one of a single 2-d convolution, in the type that is folded."""
    return weight.ndim == 4 and weight.dtype == torch.float32 and watch.uses[id(weight)] == 1


def _pair(watch: _Watch, entered: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fold | None:
    """The pair of a norm and what made its input, if nothing else took that and the norm does not train."""
    if entered not in watch.made or watch.taken.get(entered) != 1:
        return None
    _, weight, bias = watch.made[entered]
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    said = dict(zip(names, args, strict=False)) | kwargs
    mean, variance = said.get("running_mean"), said.get("running_var")
    if watch.uses[id(weight)] != 1 or mean is None or variance is None or said.get("training"):
        return None
    if weight.dtype != torch.float32 or weight.ndim < 2:
        return None
    scale = torch.rsqrt(variance.double() + float(said.get("eps", 1e-5)))
    if said.get("weight") is not None:
        scale = scale * said["weight"].double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale
    if said.get("bias") is not None:
        shift = shift + said["bias"].double()
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    folded = (weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))).float().contiguous(memory_format=layout)
    return Fold(weight, mean, folded.detach(), shift.float().detach())


def _agree(plain: Any, folded: Any) -> bool:
    """Whether all tensors of two outputs are equal up to rounding."""
    for a, b in zip(_tensors(plain), _tensors(folded), strict=True):
        if not a.dtype.is_floating_point:
            continue
        largest = float(a.abs().max()) if a.numel() else 0.0
        if not float((a - b).abs().max() if a.numel() else 0.0) <= AGREES * max(largest, 1e-6):
            return False
    return True


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in _tensors(v)]
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Input, weight and bias of an affine call."""
    given = list(args[:3]) + [None] * (3 - len(args[:3]))
    for position, name in enumerate(("input", "weight", "bias")):
        given[position] = kwargs.get(name, given[position])
    return given[0], given[1], given[2]


def _rest(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in ("input", "weight", "bias")}


def _norm_mean(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("running_mean")
