"""Leave the world as found: modes, gradients, hooks and random state come back, after errors too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Hook = Callable[[nn.Module, Any, Any], Any]
PreHook = Callable[[nn.Module, Any], Any]


NOTHING: Mapping[nn.Module, PreHook] = MappingProxyType({})


@contextmanager
def own_precision(net: nn.Module) -> Iterator[None]:
    """A caller's inference mode and autocast do not reach inside, neither a forward nor a backward."""
    kind = next((p.device.type for p in net.parameters()), "cpu")
    with torch.inference_mode(False), torch.autocast(kind, enabled=False):
        yield


@contextmanager
def as_found(net: nn.Module) -> Iterator[None]:
    """Inside: evaluation mode, no parameter asks for a gradient. After: every module and parameter as before.

    Frozen parameters also keep their gradients out of the graph, so a pass stores only what the input needs.
    Random state is kept, since a net may draw even when evaluated (stochastic depth written by hand, dropout
    as a function). Precision is the net's own.
    """
    training = [module for module in net.modules() if module.training]
    asking = [parameter for parameter in net.parameters() if parameter.requires_grad]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        for module in training:
            module.training = False
        for parameter in asking:
            parameter.requires_grad_(False)
        with own_precision(net), torch.random.fork_rng(devices):
            yield
    finally:
        for module in training:
            module.training = True
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def hooked(hooks: Mapping[nn.Module, Hook], before: Mapping[nn.Module, PreHook] = NOTHING) -> Iterator[None]:
    """Forward hooks by module, and hooks before the forward, removed on leaving."""
    handles: list[RemovableHandle] = []
    try:
        handles.extend(module.register_forward_pre_hook(hook) for module, hook in before.items())
        handles.extend(module.register_forward_hook(hook) for module, hook in hooks.items())
        yield
    finally:
        for handle in handles:
            handle.remove()
