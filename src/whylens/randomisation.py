"""Randomisation: a net's weights drawn anew, layer by layer from the output to the input."""

from __future__ import annotations

from itertools import pairwise
from zlib import crc32

import torch
from torch import Tensor, nn

from ._state import Hook, PreHook, as_found, hooked
from .calls import tensors
from .model import Model

Names = tuple[str, ...]


def cascade(model: Model, frame: Tensor, count: int) -> list[Names]:
    """Names of the modules that hold weights, from the output to the input, in at most `count` steps of equal number.

    The order is that in which they run on a frame ``(1, C, H, W)``. A module that is used without being called runs
    with the one around it; what is not used is left out. Norms, whose weights are vectors, go with the layer before.
    """
    named = dict(model.net.named_modules())
    calls = _calls(model, frame)
    layers: list[list[str]] = []
    for name in sorted((n for n in named if n in calls and _own(named[n])), key=lambda n: calls[n]):
        if layers and all(p.ndim < 2 for p in _own(named[name])):
            layers[-1].append(name)
        else:
            layers.append([name])
    layers.reverse()
    parts = min(count, len(layers))
    edges = [round(k * len(layers) / parts) for k in range(parts + 1)] if parts else []
    return [tuple(n for layer in layers[a:b] for n in layer) for a, b in pairwise(edges)]


def redraw(net: nn.Module, names: Names, seed: int) -> None:
    """Draw the weights of these modules anew, in place, each as it is initialised; its norms forget what they saw.

    A module that does not say how it is initialised has its own values shuffled. The random state is left as found.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    for name in names:
        module = net.get_submodule(name)
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(seed * 1_000_003 + crc32(name.encode()))
            if callable(reset):
                reset()
                continue
            for weights in _own(module):
                weights.copy_(weights.flatten()[torch.randperm(weights.numel())].view_as(weights))


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _calls(model: Model, frame: Tensor) -> dict[str, int]:
    """When each module first ran; one whose weights were used without a call, when the nearest one around it did."""
    net, calls = model.net, dict[nn.Module, int]()

    def note(module: nn.Module, _inputs: object) -> None:
        calls.setdefault(module, len(calls))

    unhooked: dict[nn.Module, Hook] = {}
    watched: dict[nn.Module, PreHook] = dict.fromkeys(net.modules(), note)
    with as_found(net), hooked(unhooked, watched), torch.enable_grad():
        leaves = {n: p.detach().requires_grad_() for n, p in net.named_parameters() if p.is_floating_point()}
        given = frame if model.preprocess is None else model.preprocess.normalise(frame)
        ends = [t.sum() for t in tensors(torch.func.functional_call(net, leaves, (given,))) if t.requires_grad]
        slopes = torch.autograd.grad(ends, list(leaves.values()), allow_unused=True) if ends else ()
    used = {name.rpartition(".")[0] for name, slope in zip(leaves, slopes, strict=False) if slope is not None}
    when = {name: calls[module] for name, module in net.named_modules() if module in calls}
    for name in used - when.keys():
        around = name
        while around not in when:
            around = around.rpartition(".")[0]
        when[name] = when[around]
    return when
