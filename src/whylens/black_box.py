"""Black box: what is no net, a Python function or a session of another runtime, as a module that gives scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InputError, NetError, WhylensError, kind_and_line


class BlackBox(nn.Module):
    """A callable, frames ``(N, C, H, W)`` → scores ``(N, K)``, as a module without parameters or gradients.

    The callable gets a copy of its own, contiguous float32, on `device` where that is given; what it returns may be a
    tensor, an array, or a list of rows. Anything else that it returns is passed on as it is.
    """

    def __init__(
        self, function: Callable[[Tensor], Any], *, name: str | None = None, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.function, self.name = function, name or spoken(function)
        if device is not None:
            self.register_buffer("device", torch.empty(0, device=device), persistent=False)

    def forward(self, x: Tensor) -> Any:
        """What the callable gives, its numbers as tensors; computed outside autograd."""
        given = x.detach().float().clone(memory_format=torch.contiguous_format)
        try:
            with torch.no_grad():
                output = tensors(self.function(given), x.device)
        except (WhylensError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the caller's code raises what it likes
            if "allocate memory" in str(error):
                raise
            raise NetError(
                f"{self.name} cannot score frames {tuple(x.shape)}: {kind_and_line(error)[:200]}. "
                "It is called with a float tensor of that shape and must give scores (N, K)."
            ) from error
        if isinstance(output, Tensor) and (output.ndim == 0 or len(output) != len(x)):
            raise InputError(
                f"{self.name} must give one row of scores per frame, ({len(x)}, K). Got {tuple(output.shape)}. "
                "Keep the first axis."
            )
        return output

    def identity(self) -> str:
        """What tells the callable from another one: its name and, where it is known, its source text."""
        written = _written(self.function)
        try:
            return f"{self.name}\n{inspect.getsource(written)}"
        except (OSError, TypeError):
            return self.name


def spoken(function: Callable[..., Any]) -> str:
    """The name of a callable; that of its class where it has none."""
    name = str(getattr(_written(function), "__name__", type(function).__name__))
    return "function" if name == "<lambda>" else name


def tensors(output: Any, device: torch.device) -> Any:
    """Arrays and lists of numbers as float32 tensors, also those inside mappings and tuples; the rest as it is."""
    if isinstance(output, Tensor):
        return output.detach().to(device, torch.float32)
    if isinstance(output, Mapping):
        return {k: tensors(v, device) for k, v in output.items()}
    if isinstance(output, tuple):
        return tuple(tensors(v, device) for v in output)
    if isinstance(output, list) and any(isinstance(row, Tensor) for row in output):
        return torch.stack([torch.as_tensor(row).detach() for row in output]).to(device, torch.float32)
    if not isinstance(output, list | float | int) and not hasattr(output, "__array__"):
        return output
    array = np.asarray(output)
    return torch.from_numpy(array.astype(np.float32)).to(device) if array.dtype.kind in "fiub" else output


def _written(function: Any) -> Any:
    """Where the code of a callable stands: the function itself, behind partial, or the class of an object."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__name__") else type(function)
