"""Plain nets for the speed tables: one forward loop, with batching, memory layout, folding and bfloat16 switched on
one after another, so that it is seen what each is worth."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from side_by_side import channels_last
from torch import Tensor, nn

import whylens
from whylens.folding import Fold, folds

SIZES = (1, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Plain:
    """A net as a plain program runs it: frames in [0, 1] → logits, so many at once."""

    net: nn.Module
    normalise: Callable[[Tensor], Tensor]
    size: int = 16
    layout: torch.memory_format = torch.contiguous_format
    half: bool = False

    def __call__(self, frames: Tensor) -> Tensor:
        mode = torch.autocast("cpu", torch.bfloat16) if self.half else nullcontext()
        with mode:
            output: Tensor = self.net(self.normalise(frames.contiguous(memory_format=self.layout)))
        return output.float()

    def logits(self, frames: Tensor) -> Tensor:
        """Logits of any number of frames ``(B, C, H, W)``, without gradients."""
        with torch.no_grad():
            return torch.cat([self(part) for part in frames.split(self.size)])

    def forwards(self, frames: Tensor, rows: int) -> None:
        """At least so many rows through the net, and nothing else."""
        batch = frames[:1].expand(self.size, -1, -1, -1).contiguous(memory_format=self.layout)
        with torch.no_grad():
            for _ in range(-(-rows // self.size)):
                self(batch)


def folded(net: nn.Module, pairs: tuple[Fold, ...]) -> nn.Module:
    """A copy whose batch norms are in the convolutions before them; a norm's own activation stays."""
    found, new = dict(net.named_modules()), copy.deepcopy(net)
    by_weight, norms = {id(pair.weight): pair for pair in pairs}, {id(pair.norm) for pair in pairs}
    for name, module in list(new.named_modules()):
        pair = by_weight.get(id(getattr(found[name], "weight", None)))
        if pair is not None:
            module.weight, module.bias = nn.Parameter(pair.folded_weight), nn.Parameter(pair.folded_bias)
        if id(getattr(found[name], "running_mean", None)) in norms:
            above, _, own = name.rpartition(".")
            setattr(new.get_submodule(above), own, getattr(module, "act", nn.Identity()))
    return new.eval()


def ladder(model: whylens.Model, frame: Tensor) -> dict[str, Plain]:
    """The plain net, and what each step of ours makes of it; each has the steps above it too."""
    normalise = model.preprocess.normalise if model.preprocess is not None else nn.Identity()
    net = model.net.eval()
    first = Plain(net, normalise)
    last = replace(first, net=channels_last(net), layout=torch.channels_last)
    fold = replace(last, net=channels_last(folded(net, folds(net, frame, model.forward).pairs)))
    torch.testing.assert_close(fold.logits(frame), first.logits(frame), rtol=1e-3, atol=1e-3)
    return {
        "float32": first,
        "channels last": last,
        "channels last, folded": fold,
        "channels last, folded, bfloat16": replace(fold, half=True),
        "channels last, bfloat16": replace(last, half=True),
    }


def best_size(plain: Plain, frame: Tensor, sizes: Sequence[int] = SIZES) -> Plain:
    """The same with the quickest of these batch sizes; each is tried twice and its better time counts."""
    pace = dict.fromkeys(sizes, float("inf"))
    for size in (*sizes, *sizes):
        began = time.perf_counter()
        replace(plain, size=size).forwards(frame, size)
        pace[size] = min(pace[size], (time.perf_counter() - began) / size)
    return replace(plain, size=min(sizes, key=lambda size: pace[size]))
