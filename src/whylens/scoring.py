"""Scoring: the arithmetic of metrics that move the image: orders, curves and their areas, CO scores."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .baseline import Choice, choose, fill, search
from .contract import Trial, Values
from .errors import InputError
from .model import Model
from .passes import Baseline
from .probe import Probe

Mode = Literal["rise", "igospp", "igospp_published"]

KERNEL, SIDE = 11, 224
"""Width of the RISE blur, of a frame of so many rows; its standard deviation is the whole part of half of it."""


# ---- orders --------------------------------------------------------------------------------------------------


def units(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Cells ``(N, U)`` of maps ``(N, C, h, w)`` summed over channels, or of their enlargement; rows ``(N, F)`` as is.

    Each map is divided by its largest magnitude. Equal cells stay equal under the enlargement.
    """
    cells = maps.double().sum(1, keepdim=True) if maps.ndim == 4 else maps.double()
    largest = cells.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float64).tiny)
    cells = cells / largest.view(-1, *[1] * (cells.ndim - 1))
    if size is not None and cells.ndim == 4 and cells.shape[2:] != size:
        cells = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
    return cells.flatten(1).float()  # rounded after summing: what differs by rounding alone is equal


def ranks(values: Tensor, seed: int) -> Tensor:
    """Place ``(N, U)`` of every unit from the highest, 0, to the lowest; equal ones in a random order, one for all."""
    shuffled = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed))
    order = shuffled[values.cpu()[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return torch.empty_like(order).scatter_(1, order, torch.arange(values.shape[1]).expand_as(order))


def tied(values: Tensor) -> Tensor:
    """Share ``(N,)`` of units whose value another unit has too."""
    ascending = values.sort(1).values
    same = F.pad(ascending[:, 1:] == ascending[:, :-1], (1, 1))
    return (same[:, 1:] | same[:, :-1]).float().mean(1)


# ---- curves --------------------------------------------------------------------------------------------------


def even_counts(count: int, steps: int) -> Tensor:
    """How many of so many units are moved after each step ``(T,)``: equal shares, rounded, never none in a step."""
    return torch.tensor(sorted({(k * count + steps // 2) // steps for k in range(steps + 1)}))


def chunk_counts(count: int, steps: int) -> Tensor:
    """The same in chunks of ``max(1, count // steps)`` units, the last one smaller where they do not divide."""
    return torch.tensor([*range(0, count, max(1, count // steps)), count])


def area(curve: Tensor, counts: Tensor, mode: Mode = "rise") -> Tensor:
    """Area ``(N,)`` under curves ``(N, T)`` whose points lie at `counts` ``(T,)``, as a share of the last count.

    "rise": trapezoids. "igospp": the value after each chunk times its size. "igospp_published": the same, but the
    last chunk counts with its size alone, as if its value were 1; that is how the published code computes it.
    """
    curve, width = curve.double(), counts.diff().double()
    if mode == "rise":
        return ((curve[:, 1:] + curve[:, :-1]) / 2) @ width / counts[-1]
    after = curve[:, 1:].clone()
    if mode == "igospp_published":
        after[:, -1] = 1.0
    return after @ width / counts[-1]


def normalised(of: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``(of - low) / (high - low)``, NaN where high is not above low."""
    reach = high - low
    return torch.where(reach > 1e-6, (of - low) / reach, torch.nan)


def removal_values(trial: Trial, *, insert: bool, mode: Mode, steps: int, baseline: Choice | None, seed: int) -> Values:
    """Values, curve and checks of insertion or deletion: the target's probability while the highest units move."""
    probe, maps = trial.probe, trial.explanation.maps
    size = _size(probe)
    values = units(maps, size if mode == "rise" else None)
    layout = maps.shape[2:] if mode != "rise" and maps.ndim == 4 else size
    counts = (even_counts if mode == "rise" else chunk_counts)(values.shape[1], steps)
    filled = choose(probe, baseline, seed=seed) if baseline else _usual_baseline(probe, insert, mode, seed)
    expand = Prefixes(ranks(values, seed), counts, layout, size, insert)
    curve = probe.masked_scores(torch.eye(len(counts)), filled, expand=expand).double()
    value, corrected = area(curve, counts, mode), area(curve, counts, "rise" if mode == "rise" else "igospp")
    if probe.function is None:
        value = value.clamp(0, 1)  # rounding
    empty, full = (curve[:, 0], curve[:, -1]) if insert else (curve[:, -1], curve[:, 0])
    checks = {
        "full": full,
        "baseline": empty,
        "normalised": normalised(corrected, empty, full),
        "step": torch.full_like(value, float(counts[1]) / values.shape[1]),
        "tied": tied(values),
    }
    return Values(value, curve, checks)


class Prefixes:
    """Lays out step t of T, one-hot ``(B, T)``: the first `counts[t]` units of each image's own order are moved."""

    def __init__(
        self, places: Tensor, counts: Tensor, layout: tuple[int, ...] | None, size: tuple[int, int] | None, insert: bool
    ) -> None:
        self.places, self.counts, self.layout, self.size, self.insert = places, counts, layout, size, insert

    def __call__(self, masks: Tensor, images: Tensor) -> Tensor:
        """How much of each pixel is kept ``(B, 1, H, W)``; soft between cells that are coarser than pixels."""
        moved = self.counts.to(masks.device)[masks.argmax(1)]
        before = self.places.to(masks.device)[images] < moved[:, None]
        kept = (before if self.insert else ~before).to(masks)
        if self.layout is None or self.size is None:
            return kept
        kept = kept.view(-1, 1, *self.layout)
        if tuple(self.layout) == self.size:
            return kept
        return F.interpolate(kept, size=self.size, mode="bilinear", align_corners=True)  # as the published code does


def _usual_baseline(probe: Probe, insert: bool, mode: Mode, seed: int) -> Baseline:
    if mode != "rise":
        return search(probe, seed=seed)
    return rise_blur(probe) if insert and probe.frames.ndim == 4 else fill(probe, "mean")


def _size(probe: Probe) -> tuple[int, int] | None:
    return (probe.frames.shape[2], probe.frames.shape[3]) if probe.frames.ndim == 4 else None


def rise_blur(probe: Probe) -> Baseline:
    """Frames under the blur of the RISE code: at 224 rows 11 pixels wide, else in proportion; the mean colour around.

    Its kernel is a Gaussian of standard deviation 5 whose tails are folded back into the 11 pixels: nearly a box.
    """
    mean, frames = fill(probe, "mean").frames, probe.frames
    half = max(1, round(KERNEL // 2 * min(frames.shape[2:]) / SIDE))
    width = 2 * half + 1
    away = torch.arange(-4 * half, 4 * half + 1)
    weight = torch.exp(-0.5 * (away / half).double() ** 2)
    at = (torch.arange(width)[:, None] + away) % (2 * width)
    at = torch.where(at >= width, 2 * width - 1 - at, at)
    kernel = ((at == half) * weight / weight.sum()).sum(1).to(frames).expand(frames.shape[1], 1, 1, -1)
    blurred = F.conv2d(frames - mean, kernel, padding=(0, half), groups=frames.shape[1])
    blurred = F.conv2d(blurred, kernel.transpose(2, 3), padding=(half, 0), groups=frames.shape[1])
    return Baseline("RISE blur", blurred + mean)


def highest(trial: Trial, share: float, seed: int) -> Tensor:
    """Pixels of the frame that the map ranks highest, in the frame's shape ``(N, 1, H, W)``: the same number in all."""
    values = units(trial.explanation.maps, size := _size(trial.probe))
    chosen = ranks(values, seed) < round(share * values.shape[1])
    return chosen if size is None else chosen.view(-1, 1, *size)


# ---- outputs of moved frames ---------------------------------------------------------------------------------


def outputs_of(probe: Probe, frames: Tensor) -> Tensor:
    """Class scores ``(N, K)`` of other frames, one per image, without gradients, on the CPU."""

    def read(output: Any, _images: Tensor) -> Tensor:
        return probe.model.scores(output)

    probe.cost.add(object(), forwards=1)
    images = torch.arange(len(frames), device=probe.frames.device)
    return probe.passes.engine.plain(frames.to(probe.frames), images, read)


def co(before: Tensor, after: Tensor, truth: Tensor) -> Tensor:
    """``kappa . (after - before)`` ``(N,)`` of scores ``(N, K)``; what is added to all scores alike cancels."""
    return margin(after.double() - before.double(), truth)


def margin(scores: Tensor, truth: Tensor) -> Tensor:
    """``kappa . scores`` ``(N,)``, differentiable: kappa is 1 for the truth and -1 / (K - 1) for the other classes.

    A single class has no others: its score.
    """
    own = scores.gather(1, truth[:, None])[:, 0]
    others = scores.scatter(1, truth[:, None], 0.0).sum(1)
    return own - others / max(1, scores.shape[1] - 1)


def refuse_saturated(model: Model, where: str, otherwise: str = "") -> None:
    """CO scores are of raw logits; a net that gives probabilities is refused, with another way if there is one."""
    if model.output == "probabilities":
        raise InputError(
            f"{where} needs raw logits, and {model.name} gives probabilities, which saturate: where the net is sure "
            f"nothing can be gained. Leave out its softmax{otherwise}."
        )


# ---- explaining again ----------------------------------------------------------------------------------------


def again(trial: Trial, metric: str, **changed: Any) -> Tensor:
    """Maps ``(N, C, h, w)`` of the explanation's method once more; `changed` is what `Trial.again` takes."""
    if trial.again is None:
        raise InputError(f"{metric} explains again, and this trial brings no method to do it with.")
    maps, found = trial.explanation.maps, trial.again(**changed)
    if found.shape != maps.shape:
        raise InputError(
            f"{metric} explains again, and {trial.explanation.method} gives maps {tuple(found.shape[1:])} where those "
            f"of the explanation are {tuple(maps.shape[1:])}. Measure the maps as the method gave them."
        )
    return found
