"""What covering one place at a time does to the score."""

from __future__ import annotations

from typing import Annotated

import torch

from .. import regions
from .._check import Range
from ..baseline import Choice, choose
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import keeps_target


@MethodFacts(
    needs=("scores",),
    unit="score",
    signed=True,
    forwards="(cells + 1 - window) * (cells + 1 - window) + 10",
    backwards="0",
)
def occlusion(
    probe: Probe,
    *,
    cells: Annotated[int, Range(2)] = 14,
    window: Annotated[int, Range(1)] = 2,
    baseline: Choice = "mean",
) -> Maps:
    """Fall of the score when a window of cells is covered, averaged over all windows that cover a cell.

    maps: (N, 1, cells, cells), unit: score, sign: positive where covering lowers the score.
    cost: one forward per place of the window, no gradient.
    `window` is the window's side in cells; it moves one cell at a time.
    fails: on evidence that stands twice (covering one copy changes nothing) or is wider than the window.

    Source: Zeiler & Fergus 2013, arXiv:1311.2901, section 4.2.   Differs: windows overlap, their falls are averaged;
    the fill is the mean colour instead of grey.
    """
    cells = min(cells, *probe.frames.shape[2:])
    window = min(window, cells)
    places = cells + 1 - window
    covers = torch.zeros(places * places, cells, cells)
    for k in range(places * places):
        row, column = divmod(k, places)
        covers[k, row : row + window, column : column + window] = 1
    flat = covers.flatten(1)
    filled = choose(probe, baseline)
    scores = probe.masked_scores(1 - flat, filled, expand=regions.grid(probe.frames, cells).expand, kind="score")
    falls = probe.score.cpu()[:, None] - scores
    maps = (falls @ flat) / flat.sum(0)
    maps = maps.view(-1, 1, cells, cells).to(probe.frames)
    return Maps(maps, checks=keeps_target(probe, filled), extra={"baseline": filled.name})
