"""Whether the map finds a patch that is known to have turned the decision."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..errors import InputError
from ..overlap import iou
from ..probe import Probe
from ..scoring import again, outputs_of, ranks, units

Place = tuple[slice, slice]


@MetricFacts(direction="higher", low=0.0, high=1.0, forwards="steps + 2", explanations="1")
def impact_coverage(
    trial: Trial,
    *,
    area: Annotated[float, Range(0.001, 0.5)] = 0.05,
    steps: Annotated[int, Range(1)] = 50,
    rate: Annotated[float, Range(0.001, 1)] = 0.05,
    seed: int = 0,
) -> Values:
    """Intersection over union of a patch that turned the decision and the top of the map for the wrong class.

    values: (N,), unit: share, range: [0, 1].   cost: up to `steps` forwards and backwards, one more explanation.
    A square patch of the share `area` of the frame, at one random place for all images, by `seed`, starts as the image
    itself and takes gradient-sign steps of `rate` until the class that came second is predicted. The same method then
    explains that class on the patched image, and as many pixels as the patch has are taken from the top of its map.
    checks: `steps` taken; `chance`, what random pixels get on average, about `area` / 2.
    fails: the patch may turn the decision together with the object around it, which the map then shows rightly.
    no value: `not_changed` (the decision did not turn in `steps` steps).

    Source: Lin et al. 2019, arXiv:1910.07387, section 3 (5 %).  Differs: the patch is trained per image.
    """
    probe = trial.probe
    if not probe.model.differentiable or probe.frames.ndim != 4:
        raise InputError(
            f"impact_coverage trains a patch on images by the net's gradient, and {probe.model.name} takes none or "
            "gives none. Use impact_score."
        )
    scores = outputs_of(probe, probe.frames)
    if scores.shape[1] == 1:
        raise InputError(f"impact_coverage needs a second class, and {probe.model.name} has one output.")
    wrong = scores.topk(2, dim=1).indices[:, 1]
    H, W = probe.frames.shape[2:]
    place = _place(H, W, area, seed)
    patched, taken, changed = _trained(probe, wrong, place, steps, rate)
    patch = torch.zeros(1, H, W, dtype=torch.float64)
    patch[0][place] = 1
    maps = again(trial, "impact_coverage", images=patched, targets=wrong)
    top = ranks(units(maps, (H, W)), seed).view(-1, H, W) < int(patch.sum())
    covered = iou(top, patch.expand(len(probe), -1, -1))
    share = float(patch.mean())
    return Values(
        covered.masked_fill(~changed, torch.nan),
        checks={
            "steps": taken,
            "chance": torch.full_like(taken, share / (2 - share)),
            "not_changed": ~changed,
        },
    )


def _place(H: int, W: int, area: float, seed: int) -> Place:
    """A square of this share of the frame, somewhere in it."""
    side = max(1, min(H, W, round((area * H * W) ** 0.5)))
    rng = torch.Generator().manual_seed(seed)
    top, left = (int(torch.randint(length - side + 1, (), generator=rng)) for length in (H, W))
    return slice(top, top + side), slice(left, left + side)


def _trained(probe: Probe, wrong: Tensor, place: Place, steps: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Frames with their patch ``(N, C, H, W)``, steps taken ``(N,)``, whether the wrong class is predicted ``(N,)``."""
    frames = probe.frames.clone()
    low, high = _range(probe)
    slopes: dict[int, Tensor] = {}
    taken, lead = torch.zeros(len(frames)), torch.full((len(frames),), -torch.inf)

    def margin(output: Any, images: Tensor) -> Tensor:
        """How far the wrong class is before all others."""
        found = probe.model.scores(output).float()
        own = wrong.to(images.device)[images][:, None]
        return found.gather(1, own)[:, 0] - found.scatter(1, own, -torch.inf).amax(1)

    def look(n: int, _: slice) -> Tensor:
        return frames[n : n + 1]

    def step(n: int, _: slice, gradient: Tensor) -> None:
        slopes[n] = gradient[0][:, *place].sign()

    open_ = list(range(len(frames)))
    with probe.held():
        for k in range(steps + 1):
            slopes.clear()
            asked = torch.tensor(open_)
            lead[asked] = probe.looks(1, look, take=step if k < steps else None, images=asked, kind=margin)[:, 0]
            open_ = []
            for n in (n for n in slopes if lead[n] <= 0):
                before = frames[n][:, *place].clone()
                moved = before + rate * (high[n] - low[n]) * slopes[n].to(frames)
                frames[n][:, *place] = moved.clamp(low[n], high[n])
                if not torch.equal(before, frames[n][:, *place]):  # else it never will
                    open_.append(n)
                    taken[n] += 1
            if not open_:
                break
    return frames, taken, lead > 0


def _range(probe: Probe) -> tuple[Tensor, Tensor]:
    """Least and largest value a pixel may take ``(N,)``: 0 and 1; where tensors enter as they are, the image's own."""
    low, high = probe.frames.flatten(1).aminmax(dim=1)
    return (low, high) if probe.model.preprocess is None else (torch.zeros_like(low), torch.ones_like(high))
