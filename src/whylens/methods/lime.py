"""A linear model of the target's probability over segments kept and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .. import regions, surrogate
from .._check import Range
from ..contract import Maps, MethodFacts
from ..passes import Baseline
from ..probe import Probe
from ..regions import Kind, Regions
from ..surrogate import CHUNK, Fill, Fit, Value


@MethodFacts(needs=("scores",), unit="probability", signed=True, forwards="samples + 10", backwards="0")
def lime(
    probe: Probe,
    *,
    samples: Annotated[int, Range(2)] = 1000,
    units: Kind = "quickshift",
    count: Annotated[int, Range(1)] = 50,
    baseline: Fill = "segments",
    width: Annotated[float, Range(0.01)] = 0.25,
    ridge: Annotated[float, Range(0.0)] = 1.0,
    value: Value = "probability",
    paired: bool = True,
    stable: Annotated[int, Range(0)] = 0,
    seed: int = 0,
) -> Maps:
    """Coefficients of a ridge regression of the target's probability on which segments of the image are kept.

    maps: (N, 1, H, W), unit: probability, sign: both; a segment carries its coefficient. `parts` (N, 2, H, W): each
    pixel's segment, the standard error of its coefficient.   cost: `samples` forwards, no gradient.
    Quickshift finds its own `count`. `baseline` "segments" is each one's mean colour. `paired` draws come with their
    complements. `stable` > 0 ends an image's draws when that many largest coefficients stay for three hundred.
    Checks: `r_squared`; `error`, the mean standard error over the largest coefficient; `draws`.
    fails: where R² is low; on segments as plain as their mean colour.

    Source: Ribeiro et al. 2016, arXiv:1602.04938, and the lime package.   Differs: draws are shared in a batch.
    """
    found = regions.find(probe.frames, units, count=count, seed=seed)
    filled = surrogate.filled(probe, found, baseline, units=surrogate.spoken(units, count, seed), seed=seed)
    model = _Model(probe, found, filled, value, width, ridge, paired)
    chunks = [_chunk(start, samples, found.count, seed, paired) for start in range(0, samples, CHUNK)]
    fits, draws = _until_stable(model, chunks if stable else [torch.cat(chunks)], stable)
    values, errors = surrogate.table(fits, found.count)
    checks = {
        "r_squared": torch.tensor([f.r_squared for f in fits]),
        "error": surrogate.share_of_largest(errors, values, found.counts),
        "draws": draws.float(),
    }
    return surrogate.mapped(probe, found, found.paint(values), errors, filled, checks)


@dataclass(frozen=True)
class _Model:
    """What is scored and how it is fitted."""

    probe: Probe
    found: Regions
    filled: Baseline
    value: Value
    width: float
    ridge: float
    paired: bool

    def scores(self, masks: Tensor, asked: Tensor) -> Tensor:
        """Scores ``(N, M)``; an image that is not `asked` ``(N,)`` is only seen whole."""
        own = surrogate.own(masks, self.found)
        if not bool(asked.all()):
            own = torch.where(asked.view(-1, 1, 1), own, 1)
        return self.probe.masked_scores(own, self.filled, expand=self.found.expand, kind=self.value)

    def fit(self, n: int, masks: Tensor, scores: Tensor) -> Fit:
        """The linear model of image `n`."""
        own = masks[:, : int(self.found.counts[n])]
        groups = torch.arange(len(own)) // 2 if self.paired else None
        return surrogate.fit(own, scores, surrogate.nearness(own, self.width), ridge=self.ridge, groups=groups)


def _chunk(start: int, samples: int, units: int, seed: int, paired: bool) -> Tensor:
    """Masks from number `start` on; the first of all is the whole image."""
    masks = surrogate.draws(start // CHUNK, units, seed=seed, paired=paired)[: samples - start].clone()
    if start == 0:
        masks[0] = 1
    return masks


def _until_stable(model: _Model, chunks: list[Tensor], stable: int) -> tuple[list[Fit], Tensor]:
    """The linear model of each image and its draws ``(N,)``, chunk by chunk until its largest units stay the same."""
    count = len(model.probe)
    asked, draws, scores = torch.ones(count, dtype=torch.bool), torch.zeros(count), torch.zeros(count, 0)
    fits: dict[int, Fit] = {}
    tops: list[list[frozenset[int]]] = [[] for _ in range(count)]
    for k, chunk in enumerate(chunks, 1):
        scores = torch.cat([scores, model.scores(chunk, asked)], 1)
        draws[asked] += len(chunk)
        for n in asked.nonzero().flatten().tolist():
            fits[n] = model.fit(n, torch.cat(chunks[:k]), scores[n])
            largest = fits[n].coefficients.topk(min(stable, len(fits[n].coefficients))).indices
            tops[n].append(frozenset(largest.tolist()))
            asked[n] = not stable or len(tops[n]) < 3 or len(set(tops[n][-3:])) > 1
        if not bool(asked.any()):
            break
    return [fits[n] for n in range(count)], draws
