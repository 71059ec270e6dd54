"""Excitation: a class's probability, handed down from each output to the inputs that excited it.

The rule must act where the net computes, not where it declares modules, so the forward runs under a
`torch.overrides.TorchFunctionMode`: every call keeps its value, and its backward hands on shares instead of slopes.
What each kind of call does with the shares p of its outputs (Zhang et al. 2016, arXiv:1608.00507, sec. 3.2):

linear       ``y = W x`` (linear, convolution, product with a fixed matrix, average pooling, mean, sum, upsampling):
             ``p_j = x_j sum_i w+_ij p_i / sum_k w+_ik x_k``, with ``w+ = max(w, 0)``, no bias, x at least 0: what is
             negative in x (after SiLU, GELU, a layer norm) excites nothing. 0 / 0 is 0.
attention    the matrix of attention is fixed weights and the values are x; queries and keys receive nothing.
sum          of two branches: in proportion to their positive parts, or all of it to the longer one; what a branch
             that goes around the feature layer takes is lost to the map.
product      with a constant: handed on; with a gate (the smaller operand): handed to what is gated; of equals: half.
quotient     handed to the numerator.
elementwise  handed on as it is: rectifiers and other bends, batch norm, layer norm, dropout.
routing      views, joins, max pooling: to where the value came from.

Unknown calls that keep the shape hand on as elementwise ones do, and are told; others are refused when shares reach
them. Sums are kept: what comes out of a layer goes into it, wherever a denominator is above 0.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from . import calls
from .calls import Call, tensors
from .errors import InputError

Skip = Literal["split", "ignore"]

SMALLEST = 1e-20
"""Below this sum of positive parts nothing was excited, and shares end."""

Hand = Callable[[Tensor], tuple[Tensor | None, ...]]
"""Shares of an output → shares of the inputs."""


class _Handed(torch.autograd.Function):
    """The value of a call as it is, with a backward that hands shares to its inputs."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], hand: Hand, in_place: bool, *inputs: Tensor) -> Tensor:
        ctx.hand = hand
        if not in_place:
            return compute()
        ctx.mark_dirty(inputs[0])
        return inputs[0].copy_(compute())

    @staticmethod
    def backward(ctx: Any, *shares: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *ctx.hand(shares[0]))


@dataclass(eq=False)
class _Linear:
    """``y = W x``: each input takes its part of every output's positive sum. `x` is the input's positive part."""

    x: Tensor
    run: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None = None
    learned: bool = False
    negated: bool = False

    def __call__(self, shares: Tensor) -> tuple[Tensor]:
        weight = self.weight
        if weight is not None:
            weight = (-weight if self.negated else weight).clamp(min=0)
        with torch.enable_grad():
            leaf = self.x.detach().requires_grad_()
            sums = self.run(leaf, weight)
            held = sums.detach()
            each = torch.where(held > SMALLEST, shares / held.clamp(min=SMALLEST), 0)
            (slope,) = torch.autograd.grad(sums, leaf, each)
        return (self.x * slope,)


class Excitation(TorchFunctionMode):
    """Forward under this mode, from a layer upwards: calls above it hand shares down in backward.

    `followed` counts the calls that the rule knows, `guessed` names the ones that it took for elementwise.
    """

    def __init__(self, skip: Skip = "split") -> None:
        super().__init__()
        self.skip = skip
        self.followed = 0
        self.guessed: list[str] = []

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every function on tensors."""
        call = Call.read(func, args, dict(kwargs or {}))
        given = tensors((call.args, call.options))
        depths = [depth for t in given if (depth := _depth(t)) is not None]
        result = self._answer(call, [t for t in given if t.requires_grad] if torch.is_grad_enabled() else [])
        if depths:
            depth = max(depths) + (call.name in calls.AFFINE | calls.PRODUCTS)
            for tensor in tensors(result):
                tensor.learned_layers_below = max(depth, _depth(tensor) or 0)  # type: ignore[attr-defined]
        return result

    def follow(self, frames: Tensor) -> Tensor:
        """The frames that the net will see; all that is computed from them is told from constants."""
        frames.learned_layers_below = 0  # type: ignore[attr-defined]
        return frames

    def _answer(self, call: Call, carried: list[Tensor]) -> Any:
        rule = self._rule(call.name)
        if not carried or call.name in calls.ROUTING:
            return call()
        if rule is None:
            return self._unknown(call, carried[0])
        self.followed += 1
        return rule(call, carried[0])

    def _rule(self, name: str) -> Callable[[Call, Tensor], Any] | None:
        if name in calls.ELEMENTWISE:
            return _hand_on
        if name in calls.ARITHMETIC:
            return self._arithmetic
        if name in calls.AFFINE:
            return _affine
        if name in calls.FIXED:
            return lambda call, x: _linear(call, x, lambda leaf, _: call.replaced(0, ("input",), leaf)())
        if name in calls.PRODUCTS:
            return _product
        return {"scaled_dot_product_attention": _attend, "multi_head_attention_forward": self._heads}.get(name)

    def _unknown(self, call: Call, first: Tensor) -> Any:
        """Handed on where the shape stays, refused when shares reach it where it does not."""
        result = call()
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and result.shape == first.shape
            and result.requires_grad
            and not (call.in_place or result.data_ptr() == first.data_ptr())
        ):
            self.guessed.append(call.name)
            return _Handed.apply(lambda: result.detach().clone(), lambda p: (p,), False, first)
        return _refusing(call.name, result)

    def _arithmetic(self, call: Call, _first: Tensor) -> Tensor:
        pair = call.args[0], call.argument(1, "other")
        carries = [isinstance(t, Tensor) and t.requires_grad for t in pair]
        moving = all(isinstance(t, Tensor) and _depth(t) is not None for t in pair)
        whole = self._parts(call, *pair) if moving else (1.0, 1.0)
        parts = tuple(part if carry else None for part, carry in zip(whole, carries, strict=True))
        takers: list[tuple[Tensor, Tensor | float | None]]
        takers = [(t, part) for t, part in zip(pair, parts, strict=True) if part is not None]
        if parts[0] is None and (call.in_place or not takers):
            takers = [(pair[0] if call.in_place else pair[carries.index(True)], None), *takers]
        shapes = [(t.shape, part) for t, part in takers]

        def hand(shares: Tensor) -> tuple[Tensor | None, ...]:
            return tuple(None if part is None else (shares * part).sum_to_size(shape) for shape, part in shapes)

        result: Tensor = _Handed.apply(call.value, hand, call.in_place, *(t for t, _ in takers))
        return result

    def _parts(self, call: Call, a: Tensor, b: Tensor) -> tuple[Tensor | float | None, Tensor | float | None]:
        """What each of two operands takes of the result's shares."""
        if call.name in calls.QUOTIENTS:
            return 1.0, None
        if call.name in ("mul", "multiply"):
            return (0.5, 0.5) if a.numel() == b.numel() else ((1.0, None) if a.numel() > b.numel() else (None, 1.0))
        longer = (_depth(a) or 0) - (_depth(b) or 0) if self.skip == "ignore" and call.name == "add" else 0
        if longer and a.shape == b.shape:
            return (1.0, None) if longer > 0 else (None, 1.0)
        a, b = (b, a) if call.name == "rsub" else (a, b)
        scale = call.options.get("alpha", 1) * (1 if call.name == "add" else -1)
        up, down = a.detach().clamp(min=0), (b.detach() * scale).clamp(min=0)
        total = up + down
        seen = total > SMALLEST
        up, down = (torch.where(seen, part / total.clamp(min=SMALLEST), 0) for part in (up, down))
        return (down, up) if call.name == "rsub" else (up, down)

    def _heads(self, call: Call, _first: Tensor) -> tuple[Tensor, Tensor | None]:
        """PyTorch's multi-head attention, which is one call, from its parts."""
        bound = inspect.signature(F.multi_head_attention_forward).bind(*call.args, **call.options)
        bound.apply_defaults()
        given = bound.arguments
        special = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v")
        if any(given[n] is not None for n in special) or given["use_separate_proj_weight"] or given["query"].ndim != 3:
            return _refusing(call.name, call())  # type: ignore[no-any-return]
        biases = (None,) * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
        sources = (given[n] for n in ("query", "key", "value"))
        heads = given["num_heads"]
        with self:
            q, k, v = (
                F.linear(source, weight, bias).view(*source.shape[:2], heads, -1).permute(1, 2, 0, 3)
                for source, weight, bias in zip(sources, given["in_proj_weight"].chunk(3), biases, strict=True)
            )
            attention = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
            joined = (attention @ v).permute(2, 0, 1, 3).flatten(2)
            out = F.linear(joined, given["out_proj_weight"], given["out_proj_bias"])
        shown = attention.mean(1) if given["average_attn_weights"] else attention
        return out, shown.detach() if given["need_weights"] else None


def hand_down(outputs: list[Tensor], prior: list[Tensor], at: Tensor, *, contrast: bool = False) -> Tensor:
    """Shares at a tensor of a forward under `Excitation`, from the `prior` over its outputs; kept for another call.

    With `contrast` the weights of the classifier, the uppermost learned layers, are negated: what speaks against.
    Raises InputError where a call does not hand shares on.
    """
    roots = [t.grad_fn for t in outputs if t.grad_fn is not None]
    classifier = [rule for node in _nodes(roots, stop=_learned) if (rule := _learned(node)) is not None]
    for rule in classifier:
        rule.negated = contrast
    try:
        (shares,) = torch.autograd.grad(outputs, at, prior, retain_graph=True, allow_unused=True)
    finally:
        for rule in classifier:
            rule.negated = False
    _refuse_unseen(roots)
    return torch.zeros_like(at) if shares is None else shares.detach()


def _refuse_unseen(roots: list[Node]) -> None:
    """Calls that the mode never saw: functions with a backward of their own, parts that torch compiled."""
    for node in _nodes(roots):
        name = re.sub(r"Backward\d*$", "", node.name()).split("::")[-1]
        own = issubclass(type(node), torch.autograd.function.BackwardCFunction) and not hasattr(node, "hand")
        if own or name in calls.UNSEEN:
            raise InputError(_refusal(name))


def prior(value: Tensor, made: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What the net made that a value ``(N,)`` depends on, and its prior over that: where the shares begin.

    The positive part of the value's gradient, one in all for each image: one-hot where the value is a class's score.
    """
    nodes = {t.grad_fn for t in made if t.grad_fn is not None and t.shape[:1] == value.shape}
    reached = {n for n in _nodes([value.grad_fn], stop=nodes.__contains__) if n in nodes} if value.grad_fn else set()
    direct = [t for t in made if t.grad_fn in reached] or [value]
    gradients = torch.autograd.grad(value.sum(), direct, retain_graph=True)
    positive = [g.clamp(min=0) for g in gradients]
    total = torch.stack([g.flatten(1).sum(1) if g.ndim > 1 else g for g in positive]).sum(0)
    total = total.masked_fill(total == 0, 1)
    return direct, [g / total.view(-1, *[1] * (g.ndim - 1)) for g in positive]


# ---- what one call does ----------------------------------------------------------------------------------------------


def _hand_on(call: Call, x: Tensor) -> Tensor:
    result: Tensor = _Handed.apply(call.value, lambda p: (p.sum_to_size(x.shape),), call.in_place, x)
    return result


def _linear(
    call: Call, x: Tensor, run: Callable[[Tensor, Any], Tensor], weight: Tensor | None = None, learned: bool = False
) -> Tensor:
    hand = _Linear(x.detach().clamp(min=0), run, weight, learned)
    result: Tensor = _Handed.apply(call.value, hand, False, x)
    return result


def _affine(call: Call, _x: Tensor) -> Tensor:
    """Linear layers and convolutions, without their bias."""
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    if not x.requires_grad:
        return _refusing(call.name, call())  # type: ignore[no-any-return]
    bare = call.replaced(2, ("bias",), None)

    def run(leaf: Tensor, positive: Tensor) -> Tensor:
        result: Tensor = bare.replaced(0, ("input",), leaf).replaced(1, ("weight",), positive)()
        return result

    return _linear(call, x, run, weight.detach(), learned=True)


def _product(call: Call, x: Tensor) -> Tensor:
    """A product of two matrices: the one that is fixed, or whose rows are attention, holds the weights."""
    places = [i for i, a in enumerate(call.args) if isinstance(a, Tensor)]
    moving = [i for i in places if _depth(call.args[i]) is not None]
    values = [i for i in moving if len(moving) == 1 or not _is_attention(call.args[i])]
    if len(places) != 2 or len(values) != 1:
        return _refusing(call.name, call())  # type: ignore[no-any-return]
    if not call.args[values[0]].requires_grad:
        return _passed_by(call, x)
    (own,) = values
    (other,) = (i for i in places if i != own)
    weight = call.args[other].detach()

    def run(leaf: Tensor, positive: Tensor) -> Tensor:
        result: Tensor = call.replaced(own, (), leaf).replaced(other, (), positive)()
        return result

    return _linear(call, call.args[own], run, weight, learned=len(moving) == 1)


def _attend(call: Call, x: Tensor) -> Tensor:
    names = "query", "key", "value"
    query, key, value = (call.argument(i, name) for i, name in enumerate(names))
    if not value.requires_grad:
        return _passed_by(call, x)
    fixed = call.replaced(0, names[:1], query.detach()).replaced(1, names[1:2], key.detach())
    return _linear(call, value, lambda leaf, _: fixed.replaced(2, names[2:], leaf)())


def _passed_by(call: Call, x: Tensor) -> Tensor:
    """The values come from below the layer: all shares go around it."""
    result: Tensor = _Handed.apply(call.value, lambda _: (None,), False, x)
    return result


def _depth(tensor: Tensor) -> int | None:
    """Learned layers on the longest way from the frames to here; None where it does not depend on them."""
    return getattr(tensor, "learned_layers_below", None)


def _is_attention(matrix: Tensor) -> bool:
    """Nothing below 0, and sums of 1 along its rows or columns: what a softmax gives."""
    held = matrix.detach()
    return bool((held >= 0).all()) and any(bool(((held.sum(axis) - 1).abs() < 1e-3).all()) for axis in (-1, -2))


def _refusing(name: str, result: Any) -> Any:
    """A result through which no shares may pass: they would have to, if any came."""

    def refuse(shares: Tensor) -> None:
        if bool(shares.any()):
            raise InputError(_refusal(name))

    for tensor in tensors(result):
        if tensor.requires_grad:
            tensor.register_hook(refuse)  # type: ignore[no-untyped-call]
    return result


def _refusal(name: str) -> str:
    return f"excitation_backprop: no rule says how '{name}' hands its shares on. Use grad_cam, or name a later layer."


def _learned(node: Node) -> _Linear | None:
    """The rule of a call with learned weights."""
    hand = getattr(node, "hand", None)
    return hand if isinstance(hand, _Linear) and hand.learned else None


def _nodes(roots: Iterable[Node], stop: Callable[[Node], Any] = lambda _: False) -> Iterator[Node]:
    """Every call below these, once; not what is below a call to stop at."""
    waiting, seen = list(roots), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if not stop(node):
            waiting.extend(n for n, _ in node.next_functions if n is not None)
