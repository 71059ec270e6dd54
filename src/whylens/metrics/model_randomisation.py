"""Whether the map changes when the net forgets what it learnt."""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..errors import InputError
from ..model import Model
from ..randomisation import cascade, redraw
from ..scoring import again
from ..similarity import spearman, ssim

Compare = Literal["spearman", "spearman_abs", "ssim"]


@MetricFacts(direction="lower", low=-1.0, high=1.0, forwards="0", explanations="steps")
def model_randomisation(
    trial: Trial,
    *,
    mode: Literal["cascading", "independent"] = "cascading",
    compare: Compare = "spearman",
    steps: Annotated[int, Range(1)] = 10,
    seed: int = 0,
) -> Values:
    """Mean similarity of the map to the maps of the same net with weights drawn anew, layer after layer.

    values: (N,), unit: correlation or similarity, range: [-1, 1].   cost: an explanation by the same method per step.
    "cascading" draws the layers from the output down, what is drawn stays; "independent" one step at a time.
    Layers are taken in at most `steps` steps, each drawn as its kind is initialised, by `seed`, the same for all
    images; targets stay. Maps are summed over channels. `compare`: rank correlation of their values, of their
    magnitudes, or structural similarity of the magnitudes over their largest.
    curve: similarity after each step.   checks: `last` of it; `flat`, the share of steps whose map is the same
    everywhere: such a map counts as 0 with a rank correlation.
    fails: a low value is asked of a map, it does not make it a right one; for a random map it is 0.
    no value: `flat_map` (the map itself is the same everywhere).

    Source: Adebayo et al. 2018, arXiv:1810.03292, section 3.  Differs: the mean over layers; norms forget their
    statistics with the layer before them.
    """
    model = trial.probe.model
    layers = cascade(model, trial.probe.frames[:1], steps) if model.differentiable else []
    if not layers:
        raise InputError(
            f"model_randomisation draws a net's weights anew, and {model.name} shows none. Give a torch net."
        )
    maps = _cells(trial.explanation.maps)
    net, found, flats = _copy(model), [], []
    for k, names in enumerate(layers):
        net = _copy(model) if mode == "independent" and k else net
        redraw(net, names, seed)
        other = _cells(again(trial, "model_randomisation", model=net))
        found.append(_similarity(maps, other, compare))
        flats.append(_flat(other))
    curve, flat_map = torch.stack(found, 1), _flat(maps)
    curve = curve.masked_fill(flat_map[:, None], torch.nan)
    return Values(
        curve.mean(1),
        curve,
        checks={"last": curve[:, -1], "flat": torch.stack(flats, 1).double().mean(1), "flat_map": flat_map},
    )


def _copy(model: Model) -> nn.Module:
    try:
        return copy.deepcopy(model.net)
    except (RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"model_randomisation must copy the net, and {model.name} cannot be: {first}.") from None


def _cells(maps: Tensor) -> Tensor:
    """Maps summed over channels ``(N, h, w)``; rows ``(N, F)`` as they are."""
    return maps.double().sum(1) if maps.ndim == 4 else maps.double()


def _flat(cells: Tensor) -> Tensor:
    return cells.flatten(1).amax(1) == cells.flatten(1).amin(1)


def _similarity(maps: Tensor, other: Tensor, compare: Compare) -> Tensor:
    if compare == "ssim":
        if maps.ndim != 3:
            raise InputError("model_randomisation: rows of a table have no structure. Use compare='spearman'.")
        sizes = [
            v.abs() / v.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(v.dtype).tiny) for v in (maps, other)
        ]
        return ssim(*sizes)
    first, second = (v.flatten(1) if compare == "spearman" else v.flatten(1).abs() for v in (maps, other))
    return spearman(first, second).nan_to_num(nan=0.0)
