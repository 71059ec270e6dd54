"""Folding: batch norm taken into the convolution or linear map before it, in any net, without touching the net.

In evaluation mode batch norm is affine, so ``norm(conv(x, w, b))`` is ``conv(x, w', b')``. Which calls belong together
is seen by running the net once: the tensor that a convolution gives is the one that a batch norm takes, and nothing
else takes it. Where the net runs under `Folded`, those convolutions use ``w'`` and ``b'``, and those norms give back
what they get. Nothing is copied but the folded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


@dataclass
class Folds:
    """All pairs of one net as it is now; `half` holds their weights in bfloat16 once they were asked for."""

    pairs: tuple[Fold, ...]
    versions: tuple[tuple[int, int], ...]
    half: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def mode(self, *, dtype: torch.dtype = torch.float32, leave: Collection[int] = ()) -> Folded:
        """A mode for one pass in that type; pairs whose weight's id is in `leave` stay apart."""
        return Folded([pair for pair in self.pairs if id(pair.weight) not in leave], dtype, self.half)


class Folded(TorchFunctionMode):
    """Inside: folded convolutions and linear maps, and their norms left out."""

    def __init__(self, pairs: Iterable[Fold], dtype: torch.dtype, half: dict[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}
        self._norms = set()
        for pair in pairs:
            key = id(pair.weight)
            if dtype != torch.float32 and key not in half:
                half[key] = (pair.folded_weight.to(dtype), pair.folded_bias.to(dtype))
            self._weights[key] = (pair.folded_weight, pair.folded_bias) if dtype == torch.float32 else half[key]
            self._norms.add(id(pair.norm))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Swap what belongs to a pair; pass on everything else."""
        kwargs = kwargs or {}
        if func in _AFFINE:
            given = _arguments(args, kwargs)
            held = self._weights.get(id(given[1]))
            if held is not None:
                return func(given[0], held[0], held[1], *args[3:], **_rest(kwargs))
        elif func in _NORMS and id(_norm_mean(args, kwargs)) in self._norms:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


_KNOWN: WeakKeyDictionary[nn.Module, Folds] = WeakKeyDictionary()


def folds(net: nn.Module, frame: Tensor, forward: Callable[[Tensor], Any]) -> Folds:
    """The pairs of a net, found once and again whenever a weight or buffer of it has changed since.

    `frame` is one frame ``(1, C, H, W)`` to run it on, `forward` how; the net must be in evaluation mode. A net whose
    output would change by more than rounding keeps its norms.
    """
    versions = tuple((id(t), t._version) for t in (*net.parameters(), *net.buffers()))
    known = _KNOWN.get(net)
    if known is None or known.versions != versions:
        known = Folds(_found(frame, forward), versions)
        _KNOWN[net] = known
    return known


# ---- finding them ------------------------------------------------------------------------------------------


class _Watch(TorchFunctionMode):
    """Notes which call gave each tensor and how many calls took it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}  # by id: output, weight, bias
        self.taken: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.norms: list[tuple[int, tuple[Any, ...], dict[str, Any]]] = []
        self.kept: list[Any] = []  # ids stay apart while their tensors live

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():  # what a call is made of is no use of its input
            output = func(*args, **kwargs)
        if not _tensors(output):
            return output  # a question about a tensor, such as its shape
        for value in _tensors((args, tuple(kwargs.values()))):
            if id(value) in self.made:
                self.taken[id(value)] = self.taken.get(id(value), 0) + 1
        self.kept.append(output)
        if func in _AFFINE:
            given = _arguments(args, kwargs)
            weight = given[1]
            self.uses[id(weight)] = self.uses.get(id(weight), 0) + 1
            self.made[id(output)] = (output, weight, given[2])
        elif func in _NORMS:
            self.norms.append((id(args[0] if args else kwargs["input"]), args, kwargs))
        return output


def _found(frame: Tensor, forward: Callable[[Tensor], Any]) -> tuple[Fold, ...]:
    watch = _Watch()
    with torch.no_grad():
        with watch:
            plain = forward(frame)
        pairs = [pair for entry in watch.norms if (pair := _pair(watch, *entry)) is not None]
        counted: dict[int, int] = {}
        for pair in pairs:
            counted[id(pair.norm)] = counted.get(id(pair.norm), 0) + 1
        pairs = [pair for pair in pairs if counted[id(pair.norm)] == 1]
        if not pairs:
            return ()
        with Folded(pairs, torch.float32, {}):
            folded = forward(frame)
    return tuple(pairs) if _agree(plain, folded) else ()


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
