"""Conductance: how much of the score's difference from a baseline flows through each cell of several layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._state import as_found, hooked, own_precision
from .engine import memory_layout
from .layers import FeatureLayer
from .passes import ROWS_PER_PASS, Baseline, keep_output
from .probe import Probe


@dataclass
class Conducted:
    """One layer's conductance: `cells` ``(N, 1, h, w)`` summed over channels, signed.

    `total` ``(N,)`` is the sum over all that the layer gives, class tokens too: the score's difference from the
    baseline, where nothing goes around the layer.
    """

    layer: FeatureLayer
    cells: Tensor
    total: Tensor


def conductance(
    probe: Probe, baseline: Baseline, layers: tuple[FeatureLayer, ...], *, steps: int
) -> tuple[Conducted, ...]:
    """Along ``baseline + k / steps (frame - baseline)``: the change of each activation times its mean gradient.

    ``sum_k (a_k - a_(k-1)) (g_k + g_(k-1)) / 2`` with activations a and gradients g of the score: exact where the
    score is quadratic in the layer between two steps. `steps` + 1 forwards and backwards per image, in micro-batches;
    no graph below the first of the layers.
    """
    start, count = baseline.frames.to(probe.frames), len(probe)
    difference = probe.frames - start
    together = max(1, ROWS_PER_PASS // count)
    found: list[Conducted] = []
    before: list[tuple[Tensor, Tensor]] = []
    for first in range(0, steps + 1, together):
        points = range(first, min(first + together, steps + 1))
        frames = torch.cat([start + k / steps * difference for k in points])
        here = _seen(probe, frames, [layer.name for layer in layers], len(points))
        here = [(_by_point(a, count), _by_point(g, count)) for a, g in here]
        if before:
            here = [(torch.cat([a, b]), torch.cat([g, h])) for (a, g), (b, h) in zip(before, here, strict=True)]
        moved = [a.diff(dim=0) * (g[1:] + g[:-1]) / 2 for a, g in here]
        parts = [_conducted(layer, m.sum(0)) for layer, m in zip(layers, moved, strict=True)]
        found = parts if not found else [_added(a, b) for a, b in zip(found, parts, strict=True)]
        before = [(a[-1:], g[-1:]) for a, g in here]
    probe.cost.add(object(), forwards=steps + 1, backwards=steps + 1)
    return tuple(found)


def _by_point(rows: Tensor, count: int) -> Tensor:
    return rows.reshape(-1, count, *rows.shape[1:])


def _conducted(layer: FeatureLayer, moved: Tensor) -> Conducted:
    return Conducted(layer, layer.grid(moved).sum(1, keepdim=True), moved.flatten(1).sum(1))


def _added(a: Conducted, b: Conducted) -> Conducted:
    return Conducted(a.layer, a.cells + b.cells, a.total + b.total)


def _seen(probe: Probe, frames: Tensor, names: list[str], repeats: int) -> list[tuple[Tensor, Tensor]]:
    """Activations of the layers at frames ``(repeats * N, C, H, W)``, and the gradients of the score at them."""
    net, passes = probe.model.net, probe.passes
    kept: dict[str, Tensor] = {}
    named = dict(net.named_modules())
    with as_found(net), torch.no_grad(), hooked({named[name]: keep_output(name, kept) for name in names}):
        output = probe.model.forward(frames.contiguous(memory_format=memory_layout(net, frames)))
    passes.count(forwards=len(frames))
    at = [kept[name] for name in names]
    with own_precision(net), torch.enable_grad():
        scores = probe._score(output, repeats)
        if not scores.requires_grad:
            probe._refuse_cut_gradient()
            return [(a.detach().float(), torch.zeros_like(a, dtype=torch.float32)) for a in at]
        gradients = torch.autograd.grad(scores.sum(), at, allow_unused=True)
    passes.count(backwards=len(frames))
    found = [torch.zeros_like(a) if g is None else g for a, g in zip(at, gradients, strict=True)]
    return [(a.detach().float(), g.float()) for a, g in zip(at, found, strict=True)]
