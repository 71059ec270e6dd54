"""Critical regions: asked of the layers first, then of the net's own decisions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .. import regions
from .._check import Range
from ..baseline import Choice, choose
from ..conductance import Conducted, conductance
from ..contract import Maps, MethodFacts
from ..inquiry import Inquiry
from ..passes import Baseline
from ..probe import Probe
from ..residual import keeps_target

STEP = 0.5
"""How far a region's score moves towards what was measured."""


@MethodFacts(
    needs=("layer", "scores"),
    unit="share of the largest",
    signed=False,
    forwards="steps + 8 * rounds * top + count + 20",
    backwards="steps + 1",
)
def gsinquire(
    probe: Probe,
    *,
    units: Literal["slic", "grid"] = "slic",
    count: Annotated[int, Range(1)] = 150,
    layers: Annotated[int, Range(1)] = 4,
    steps: Annotated[int, Range(1)] = 16,
    rounds: Annotated[int, Range(0)] = 5,
    top: Annotated[int, Range(1)] = 8,
    tau: Annotated[float, Range(0, 1)] = 0.5,
    area: Annotated[float, Range(0, 1)] = 0.5,
    baseline: Choice = "auto",
) -> Maps:
    """Importance of the fewest regions whose removal undoes the decision; zero everywhere else.

    maps: (N, 1, H, W), of a grid (N, 1, h, w), unit: share of the largest, sign: >= 0; `parts`: the critical set.
    cost: `steps` + 1 forwards and backwards, at most 8 * `rounds` * `top` + `count` + 20 forwards.
    Conductance at `layers` stages scores the regions first; each round tests the `top` ones by removing and by showing
    them. The critical set is the shortest prefix of the ranking whose removal takes the target out of the first place
    or its probability to `tau` of what it was, within `area` of the frame. Checks: `critical_area`, `left` (share of
    the probability after removal), `not_critical`, `residual` (of the last layer's conductance).
    fails: a set that is just enough may cover half of the evidence; a decision by a hair has a tiny set.

    Source: our reading of the public description of GSInquire (Lin et al. 2019, arXiv:1910.07387), a proprietary
    method; conductance: Dhamdhere et al. 2018, arXiv:1805.12233.   Differs: unknowably; its published figures
    are not claimed. Superpixels, and credits per area, because they find the planted tag better than grids.
    """
    filled = choose(probe, baseline)
    found = regions.find(probe.frames, units, count=count)
    stages = probe.model.stages(probe.layer, tuple(probe.frames.shape[1:]), layers)
    conducted = conductance(probe, filled, stages, steps=steps)
    asked = Inquiry(probe, found, filled)
    theta, flat = _inquired(asked, _insights(asked, conducted), rounds, top)
    critical = asked.critical(theta, tau=tau, area=area, most=count)
    chosen = critical.chosen & ~flat[:, None]
    values = theta * chosen
    values = values / values.amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    checks = {
        "critical_area": (chosen * asked.area).sum(1),
        "left": critical.left,
        "not_critical": ~critical.undone,
        "residual": _residual(probe, conducted[-1], filled),
        **keeps_target(probe, filled),
    }
    said = {"baseline": filled.name, "layers": [stage.name for stage in stages]}
    maps, parts = (_laid_out(asked, own, units) for own in (values, chosen.float()))
    return Maps(maps.to(probe.frames), checks=checks, parts=parts, extra=said)


def _insights(asked: Inquiry, conducted: tuple[Conducted, ...]) -> Tensor:
    """What each layer says of each region ``(L, N, U)``: its share of the layer's evidence per share of the frame.

    1 is the value of a region that has as much as an average one.
    """
    labels, size = asked.found.labels, asked.probe.frames.shape[2:]
    said = []
    for one in conducted:
        laid = F.interpolate(one.cells.clamp(min=0), size=size, mode="bilinear", align_corners=False)
        flat = laid.flatten(1).cpu().double()
        held = torch.zeros(asked.area.shape, dtype=flat.dtype).scatter_add_(1, labels.flatten(1), flat)
        said.append(held / held.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny))
    return torch.stack([_dense(asked, own) for own in said])


def _dense(asked: Inquiry, values: Tensor) -> Tensor:
    """Shares ``(N, U)`` per area, so that a large region does not count for its size alone."""
    return torch.where(asked.has, values / asked.area.clamp(min=1e-12), 0)


def _inquired(asked: Inquiry, insights: Tensor, rounds: int, top: int) -> tuple[Tensor, Tensor]:
    """Scores of the regions ``(N, U)`` after so many rounds, and the images ``(N,)`` on which nothing moved."""
    theta, flat = insights.mean(0), torch.zeros(insights.shape[1], dtype=torch.bool)
    tested, seen = torch.zeros_like(theta, dtype=torch.bool), []
    for _ in range(rounds):
        chosen = asked.ranked(theta)[:, :top]
        credits, shares = asked.credits(chosen, top)
        seen.append(shares)
        worth = _dense(asked, torch.zeros_like(theta).scatter(1, chosen, credits.clamp(min=0).to(theta)))
        now = torch.zeros_like(tested).scatter(1, chosen, True)
        tested |= now
        theta = torch.where(now, theta + STEP * (worth - theta), theta)
        weights = _weights(insights, theta, asked.has)
        theta = torch.where(tested, theta, (weights[..., None] * insights).sum(0))
    return theta, asked.steady(torch.cat(seen, 1)) if seen else flat


def _weights(insights: Tensor, theta: Tensor, has: Tensor) -> Tensor:
    """Weights of the layers ``(L, N)``: the rank correlation of each with the scores, where it is positive."""
    ranks = [_ranks(own, has) for own in (*insights, theta)]
    found = torch.stack([F.cosine_similarity(own, ranks[-1], dim=1) for own in ranks[:-1]]).clamp(min=0)
    total = found.sum(0)
    return torch.where(total > 0, found / total.clamp(min=1e-12), 1 / len(found))


def _ranks(values: Tensor, has: Tensor) -> Tensor:
    """Ranks ``(N, U)`` around their mean, equal values sharing theirs; 0 where there is no region."""
    rounded = (values / values.amax(1, keepdim=True).clamp(min=1e-30) * 1e4).round()
    other = has[:, None].double()
    below = ((rounded[:, None] < rounded[..., None]) * other).sum(2)
    ranks = below + ((rounded[:, None] == rounded[..., None]) * other).sum(2) / 2
    mean = (ranks * has).sum(1, keepdim=True) / has.sum(1, keepdim=True)
    return (ranks - mean) * has


def _residual(probe: Probe, conducted: Conducted, filled: Baseline) -> Tensor:
    """What the feature layer's conductance lacks of the score's difference from the baseline, as a share of it."""
    difference = probe.score - probe.at_baseline(filled)[0]
    return (conducted.total - difference).abs() / difference.abs().clamp(min=1e-6)


def _laid_out(asked: Inquiry, values: Tensor, units: str) -> Tensor:
    """Values of regions as maps: the grid's own cells, or painted on the frame."""
    if units == "grid":
        side = round(values.shape[1] ** 0.5)
        return values.float().view(-1, 1, side, side)
    return asked.found.paint(values.float())
