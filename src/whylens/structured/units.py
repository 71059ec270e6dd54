"""Units of one image: the cells, tokens or segments that sets are made of, and what a map gives each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .. import regions
from ..errors import InputError
from ..mask_search import enlarged
from ..passes import Baseline
from ..probe import Probe
from ..regions import Regions
from .sets import Scored

Kind = Literal["grid", "tokens", "slic"]
Edges = Literal["hard", "soft"]


@dataclass(frozen=True)
class Units:
    """Units of one image: `regions` lays them out; `grid` are rows and columns, None where they are segments."""

    regions: Regions
    grid: tuple[int, int] | None

    @property
    def count(self) -> int:
        """How many."""
        return int(self.regions.counts[0])

    def area(self, units: tuple[int, ...]) -> float:
        """Share of the frame that these units cover."""
        return float(self.regions.area()[0, list(units)].sum())

    def values(self, maps: Tensor) -> Tensor:
        """The mean of a map ``(1, C, h, w)``, summed over channels, over each unit ``(U,)``."""
        flat = maps.detach().double().sum(1, keepdim=True).cpu()
        if flat.shape[2:] == self.grid:
            return flat.flatten()
        labels = self.regions.labels[0].flatten()
        size = (self.regions.labels.shape[1], self.regions.labels.shape[2])
        pixels = F.interpolate(flat, size=size, mode="bilinear", align_corners=False).flatten()
        total = torch.zeros(self.count, dtype=torch.float64).index_add(0, labels, pixels)
        return total / labels.bincount(minlength=self.count)

    def scored(self, probe: Probe, baseline: Baseline) -> Scored:
        """Scores of sets on the probe of one image: its units shown, the baseline everywhere else."""

        def score(sets: Sequence[int]) -> list[float]:
            masks = torch.tensor([[members >> unit & 1 for unit in range(self.count)] for members in sets]).float()
            scores = probe.masked_scores(masks, baseline, expand=self.regions.expand)[0]
            if bool(scores.isnan().any()):
                raise InputError(
                    "The target's score of some masked images is not a number. Give another baseline, or look at what "
                    "the net gives for a blank image."
                )
            found: list[float] = scores.tolist()
            return found

        return Scored(score, probe.held)


def lay_out(probe: Probe, kind: Kind, *, grid: int, segments: int, edges: Edges, seed: int) -> Units:
    """The units of the probe's one image: `grid` x `grid` cells, the tokens of its net, or about so many superpixels.

    With soft `edges` cells blend into each other, bilinear with the corner cells on the corners, as in published work.
    """
    frames = probe.frames
    if kind == "slic":
        if edges == "soft":
            raise InputError("Soft edges are those of a grid. Superpixels have hard ones: edges='hard'.")
        return Units(regions.find(frames, "slic", count=segments, seed=seed), None)
    size = (grid, grid) if kind == "grid" else _tokens(probe)
    made = regions.grid(frames, size)
    if edges == "soft":
        made = replace(made, expand=lambda masks, _images: enlarged(masks.view(-1, 1, *size), frames.shape[2:]))
    return Units(made, size)


def _tokens(probe: Probe) -> tuple[int, int]:
    layer = probe.layer
    if layer.grid.layout == "NCHW":
        raise InputError(
            f"{probe.model.name} has no tokens: its feature layer {layer.name} gives maps. Ask for a grid of cells: "
            "regions='grid'."
        )
    return layer.grid.size
