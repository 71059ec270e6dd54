"""Fused convolutions: a convolution and the activation after it in one call of oneDNN, its weight laid out for it once.

torch's own compiler writes the same calls. They have no gradient, and exist on CPUs only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

Activation = tuple[str, tuple[float, ...]]
"""What oneDNN calls an activation, and its numbers."""

NOTHING: Activation = ("none", ())

CONVOLUTIONS = (F.conv2d, torch.conv2d)
_RELU = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
_HARDTANH = (F.hardtanh, F.hardtanh_)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this machine's torch has these calls and they give what it gives without them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    made = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, 8, 8, generator=made), torch.randn(6, 2, 3, 3, generator=made)
    with torch.no_grad():
        plain = F.conv2d(x, weight, None, 2, 1, 1, 2).relu()
        try:
            fused = Fused(weight, None, ("relu", ()))(x, (x, weight, None, 2, 1, 1, 2), {})
        except (RuntimeError, AttributeError, NotImplementedError, TypeError):
            return False
    return fused is not None and torch.allclose(fused, plain, atol=1e-5)


def activation(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Activation | None:
    """What a call is to oneDNN, None where it is no activation known here."""
    if func in _RELU:
        return "relu", ()
    if func is F.relu6:
        return "hardtanh", (0.0, 6.0)
    if func in _HARDTANH:
        said = dict(zip(("min_val", "max_val"), args[1:], strict=False)) | kwargs
        return "hardtanh", (float(said.get("min_val", -1.0)), float(said.get("max_val", 1.0)))
    return None


@dataclass
class Fused:
    """A convolution ``weight`` ``(O, I, h, w)``, ``bias`` ``(O,)``, followed by `after`, in the weight's own type."""

    weight: Tensor
    bias: Tensor | None
    after: Activation
    _laid_out: Tensor | None = field(default=None, repr=False)

    def __call__(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What ``conv2d(*args, **kwargs)`` and the activation give for x; None where these calls cannot do it."""
        said = dict(zip(("stride", "padding", "dilation", "groups"), args[3:], strict=False)) | kwargs
        stride, padding, dilation = (_two(said.get(k, d)) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1)))
        if x.ndim != 4 or x.device.type != "cpu" or stride is None or padding is None or dilation is None:
            return None
        if x.dtype != self.weight.dtype:
            if self.weight.dtype != torch.bfloat16:
                return None
            x = x.to(torch.bfloat16)  # as autocast would
        groups = int(said.get("groups", 1))
        if self._laid_out is None:
            lay_out = torch.ops.mkldnn._reorder_convolution_weight
            self._laid_out = lay_out(self.weight, padding, stride, dilation, groups, list(x.shape))
        name, numbers = self.after
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._laid_out, self.bias, padding, stride, dilation, groups, name, list(numbers), ""
        )
        return found


def _two(value: Any) -> list[int] | None:
    """A number or two for height and width; None for a word such as "same"."""
    if isinstance(value, str):
        return None
    return [int(value)] * 2 if isinstance(value, int) else [int(v) for v in value] * (2 // len(value))
