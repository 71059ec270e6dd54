"""Surrogate: a weighed linear model of what a score does when units of an image are kept or removed.

Shared by the methods that fit one: masks by seed, their weights, least squares with the errors that come from the
draws, what fills a removed unit, and maps of what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import torch
from torch import Tensor

from . import baseline
from .contract import Maps
from .passes import Baseline
from .probe import Probe
from .regions import Kind, Regions
from .residual import COMPLETE, keeps_target

Value = Literal["probability", "score"]
"""What of the target is explained: its probability, or the score that `explain` was asked for."""

Fill = Literal["segments", "auto", "mean", "black", "white", "blur"]
"""What fills a removed unit: its own mean colour, or a baseline by name."""

CHUNK = 100
"""Masks drawn from one random stream; the first draws do not depend on how many are asked."""

STEADY = 1e-6
"""Spread of an image's scores, as a share of the largest, up to which they count as constant."""


@dataclass(frozen=True)
class Fit:
    """Coefficients ``(U,)`` of a linear model, their standard errors over the draws, and its weighed R²."""

    coefficients: Tensor
    errors: Tensor
    r_squared: float


# ---- masks -----------------------------------------------------------------------------------------------------------


def draws(chunk: int, units: int, *, seed: int, paired: bool = False) -> Tensor:
    """Chunk of `CHUNK` masks ``(CHUNK, units)``, each unit kept with probability 0.5.

    The draws of a unit do not depend on how many units there are. With `paired` each even row is followed by its
    complement.
    """
    rng = torch.Generator().manual_seed(seed * 1_000_003 + chunk)
    if not paired:
        return (torch.rand((units, CHUNK), generator=rng) < 0.5).float().T
    half = (torch.rand((units, CHUNK // 2), generator=rng) < 0.5).float().T
    return torch.stack([half, 1 - half], 1).flatten(0, 1)


def own(masks: Tensor, regions: Regions) -> Tensor:
    """Shared masks ``(M, U)`` as ``(N, M, U)``, 0 in units an image has not; ``(1, M, U)`` if all have all."""
    if bool((regions.counts == regions.count).all()):
        return masks[None]
    has = torch.arange(regions.count) < regions.counts[:, None]
    return masks * has[:, None]


def nearness(masks: Tensor, width: float) -> Tensor:
    """Weights ``(M,)`` of masks ``(M, U)``: ``sqrt(exp(-d² / width²))``, d the cosine distance to the whole image."""
    distance = 1 - masks.double().mean(1).sqrt()
    return (-(distance**2) / width**2).exp().sqrt()


@dataclass(frozen=True)
class Subsets:
    """Subsets of M units as masks ``(S, M)``, their weights ``(S,)``, the draw each is from, -1 where none."""

    masks: Tensor
    weights: Tensor
    groups: Tensor


def subsets(units: int, budget: int, *, seed: int) -> Subsets:
    """At most `budget` subsets under the Shapley kernel: whole sizes from the outside in, then pairs by chance.

    A size and its complement are taken whole while the share of the budget that the kernel gives them covers them;
    of the others pairs of complements are drawn, which share out what is left of the kernel.
    """
    kernel = {s: (units - 1) / (s * (units - s)) for s in range(1, units)}
    masks, weights = [torch.zeros(0, units)], [torch.zeros(0)]
    left = min(budget, 2**units - 2)
    for s in range(1, units // 2 + 1):
        sizes = {s, units - s}
        covered = sum(comb(units, k) for k in sizes)
        if left * sum(kernel[k] for k in sizes) < (1 - 1e-8) * covered * sum(kernel.values()):
            break
        for k in sorted(sizes):
            chosen = torch.tensor(list(combinations(range(units), k)))
            masks.append(torch.zeros(len(chosen), units).scatter_(1, chosen, 1.0))
            weights.append(torch.full((len(chosen),), kernel.pop(k) / len(chosen)))
        left -= covered
    whole, pairs = sum(map(len, masks)), left // 2 if kernel else 0
    if pairs:
        masks.append(_pairs(kernel, pairs, units, seed))
        weights.append(torch.full((2 * pairs,), sum(kernel.values()) / (2 * pairs)))
    groups = torch.cat([torch.full((whole,), -1), torch.arange(2 * pairs) // 2])
    return Subsets(torch.cat(masks), torch.cat(weights), groups)


def _pairs(kernel: dict[int, float], pairs: int, units: int, seed: int) -> Tensor:
    """Subsets of sizes drawn by the kernel, each followed by its complement ``(2 * pairs, units)``."""
    rng = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(torch.tensor(list(kernel.values())), pairs, replacement=True, generator=rng)
    order = torch.rand((pairs, units), generator=rng).argsort(1)
    drawn = (order < torch.tensor(list(kernel))[picked][:, None]).float()
    return torch.stack([drawn, 1 - drawn], 1).flatten(0, 1)


# ---- least squares ---------------------------------------------------------------------------------------------------


def fit(masks: Tensor, scores: Tensor, weights: Tensor, *, ridge: float = 0.0, groups: Tensor | None = None) -> Fit:
    """Linear model with an intercept of scores ``(M,)`` on masks ``(M, U)``; `ridge` does not touch the intercept.

    Rows with the same number in `groups` ``(M,)`` were drawn together. Scores that are constant give zeros.
    """
    x, y, w = masks.double(), scores.double(), weights.double()
    if steady(scores):
        zeros = x.new_zeros(x.shape[1])
        return Fit(zeros, zeros, 1.0)
    share = w / w.sum()
    x, y = x - share @ x, y - share @ y
    coefficients, covariance = solve(x, y, w, ridge=ridge, groups=groups)
    total, left = share @ y**2, share @ (y - x @ coefficients) ** 2
    r_squared = 1.0 if float(total) == 0 else 1 - float(left / total)
    return Fit(coefficients, covariance.diagonal().clamp(min=0).sqrt(), r_squared)


def solve(
    x: Tensor, y: Tensor, w: Tensor, *, ridge: float = 0.0, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Coefficients ``(U,)`` that minimise ``sum w (y - x c)² + ridge |c|²``, and their covariance over the draws.

    The covariance is the sandwich of groups of rows drawn together; rows of group -1 were not drawn at all. With
    fewer rows than units and no ridge the shortest solution is taken.
    """
    inverse = torch.linalg.pinv(
        x.T @ (w[:, None] * x) + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), hermitian=True
    )
    coefficients = inverse @ (x.T @ (w * y))
    groups = torch.arange(len(x)) if groups is None else groups
    count = int(groups.max()) + 1 if len(groups) else 0
    if count < 2:
        return coefficients, torch.zeros_like(inverse)
    drawn = groups >= 0
    pulls = (w * (y - x @ coefficients))[:, None] * x
    pulls = x.new_zeros(count, x.shape[1]).index_add_(0, groups[drawn], pulls[drawn])
    pulls = pulls - pulls.mean(0)
    freedom = max(1, count - x.shape[1])
    return coefficients, inverse @ (pulls.T @ pulls) @ inverse * (count / freedom)


def shapley(chosen: Subsets, scores: Tensor, ends: Tensor) -> Fit:
    """Least squares over subsets whose coefficients add up to the difference of the `ends` (nothing, everything).

    The constraint is met exactly: the last unit has what the others leave, and the others are fitted without it.
    """
    x, y, (nothing, everything) = chosen.masks.double(), scores.double(), ends.double().unbind()
    difference = everything - nothing
    if steady(torch.cat([scores, ends])):
        return Fit(x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1]), 1.0)
    last = x[:, -1:]
    y = y - nothing - difference * last[:, 0]
    others, covariance = solve(x[:, :-1] - last, y, chosen.weights.double(), groups=chosen.groups)
    back = torch.cat([torch.eye(len(others), dtype=x.dtype), -x.new_ones(1, len(others))])
    errors = (back @ covariance @ back.T).diagonal().clamp(min=0).sqrt()
    return Fit(torch.cat([others, (difference - others.sum())[None]]), errors, torch.nan)


def steady(scores: Tensor) -> bool:
    """Whether scores ``(M,)`` are one number, up to rounding."""
    return bool(scores.max() - scores.min() <= STEADY * scores.abs().max().clamp(min=1e-12))


# ---- fills and checks ------------------------------------------------------------------------------------------------


def filled(probe: Probe, regions: Regions, name: Fill, *, units: str, seed: int) -> Baseline:
    """The baseline of that name; "segments" paints each unit in its own mean colour, `units` says which units."""
    if name != "segments":
        return baseline.choose(probe, name, seed=seed)
    frames = probe.frames
    labels = regions.labels.to(frames.device).flatten(1)[:, None].expand(-1, frames.shape[1], -1)
    total = frames.new_zeros(*labels.shape[:2], regions.count).scatter_add(2, labels, frames.flatten(2))
    pixels = (regions.area() * labels.shape[2]).to(frames)[:, None].clamp(min=1)
    return Baseline(f"mean of each segment ({units})", (total / pixels).gather(2, labels).view_as(frames))


def spoken(kind: Kind, count: int, seed: int) -> str:
    """Units in words, different words for different units."""
    return f"{kind}, seed {seed}" if kind == "quickshift" else f"{kind} {count}"


def explained(probe: Probe, filled: Baseline, value: Value) -> Tensor:
    """What the units of each image share out ``(N,)``: its score or probability less that of the baseline."""
    score, probability = probe.at_baseline(filled)
    if value == "score" or probe.index is None:
        return probe.score - score
    return probe.probability - probability


def adds_up(values: Tensor, difference: Tensor) -> dict[str, Tensor]:
    """Whether values of units ``(N, U)`` add up to the difference ``(N,)`` that they should share out."""
    difference = difference.detach().cpu()
    missing = (values.sum(1) - difference).abs()
    residual = missing / difference.abs().clamp(min=1e-6)
    return {"difference": difference, "residual": residual, "incomplete": (residual > COMPLETE) & (missing > 1e-4)}


def shared_out(found: Regions, values: Tensor) -> Tensor:
    """Values of units ``(N, U)``, spread over their pixels ``(N, 1, H, W)``: a map adds up to the values' sum."""
    pixels = (found.area() * found.labels[0].numel()).clamp(min=1)
    return found.paint(values / pixels)


def table(fits: Sequence[Fit], units: int) -> tuple[Tensor, Tensor]:
    """Coefficients and standard errors of all images ``(N, units)``, 0 where an image has no such unit."""
    values, errors = torch.zeros(2, len(fits), units).unbind()
    for n, one in enumerate(fits):
        values[n, : len(one.coefficients)], errors[n, : len(one.errors)] = one.coefficients, one.errors
    return values, errors


def mapped(
    probe: Probe, found: Regions, maps: Tensor, errors: Tensor | None, filled: Baseline, checks: dict[str, Tensor]
) -> Maps:
    """Maps ``(N, 1, H, W)`` with `parts`: each pixel's unit, and the standard error ``(N, U)`` of that unit's value."""
    labels = found.labels[:, None].float()
    parts = labels if errors is None else torch.cat([labels, found.paint(errors)], 1)
    checks = {**checks, **keeps_target(probe, filled)}
    return Maps(maps.to(probe.frames), checks=checks, parts=parts, extra={"baseline": filled.name})


def share_of_largest(errors: Tensor, values: Tensor, counts: Tensor) -> Tensor:
    """Mean standard error over the largest value, per image ``(N,)``; 0 where there are no values."""
    largest = values.abs().amax(1)
    return torch.where(largest > 0, errors.sum(1) / counts / largest, 0)
