"""Held: what the checks of the contract stand on; what does not hold raises `ContractError` with the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._check import Range, parameters
from ..errors import InputError, WhylensError

TOLERANCE = 1e-5
"""Largest difference between a map in a batch and the map alone, as a share of the map's largest value."""


class ContractError(WhylensError, AssertionError):
    """A plug-in breaks its contract; the message says where and by how much."""


def refuses(where: str, function: Callable[..., Any], run: Callable[[dict[str, Any]], Any]) -> None:
    """Every value outside a declared bound or choice, and an unknown name, is refused in words that name it."""
    wrong: list[tuple[str, Any]] = [("no_such_parameter", 1)]
    for parameter in parameters(function).values():
        wrong += [(parameter.name, value) for value in _outside(parameter.range)]
        wrong += [(parameter.name, "no such choice")] if parameter.choices or str not in parameter.kinds else []
    for name, value in wrong:
        try:
            run({name: value})
        except InputError as error:
            hold(name in str(error), f"{where}: the message does not name {name}: {error}")
        else:
            raise ContractError(f"{where}: {name}={value!r} was accepted")


def _outside(bounds: Range | None) -> list[float]:
    if bounds is None:
        return []
    below = [] if bounds.low is None else [bounds.low - 1]
    return below + ([] if bounds.high is None else [bounds.high + 1])


def hold(condition: bool, otherwise: str) -> None:
    """Raise with `otherwise` where a condition does not hold."""
    if not condition:
        raise ContractError(otherwise + ".")


def close(expected: Tensor, found: Tensor, tolerance: float, where: str) -> None:
    """Hold two tensors together to a share of the largest value expected."""
    largest = float(expected.abs().max().clamp(min=1e-12))
    difference = float((expected - found).abs().max()) / largest
    hold(difference <= tolerance, f"{where}: they differ by {difference:.3g} of the largest value")


def planned(*_: Any) -> None:
    """A forward that fails."""
    raise RuntimeError("planned failure of the net")


@contextmanager
def unchanged(net: nn.Module, where: str) -> Iterator[None]:
    """Hold a net, its gradients, modes and hooks, and the random state to what they were."""

    def state() -> dict[str, Any]:
        return {
            "weights and buffers": {k: v.clone() for k, v in net.state_dict().items()},
            "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
            "requires_grad": [p.requires_grad for p in net.parameters()],
            "modes": [m.training for m in net.modules()],
            "hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()
            ],
            "random state": torch.get_rng_state(),
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    yield
    for name, value in state().items():
        hold(_same(before[name], value), f"{where}: {name} changed")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
