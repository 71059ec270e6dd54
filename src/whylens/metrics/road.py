"""Whether the pixels that the map ranks highest carry the decision, with nothing but blanks where they were."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..errors import InputError
from ..imputation import imputed
from ..scoring import ranks, tied, units


@MetricFacts(direction="higher", forwards="2 * steps")
def road(
    trial: Trial,
    *,
    steps: Annotated[int, Range(1, 99)] = 9,
    noise: Annotated[float, Range(0)] = 0.01,
    score: Literal["probability", "decision"] = "probability",
    seed: int = 0,
) -> Values:
    """How much more of the target is left when the lowest pixels of the map are filled in than when the highest are.

    values: (N,), unit: probability, or that of a target function, range: [-1, 1] for probabilities.
    cost: 2 * `steps` forwards, and as many systems of equations with an unknown per removed pixel.
    Shares k / (`steps` + 1) of the pixels are removed in the order of the enlarged map and back to front; each removed
    pixel becomes the mean of its neighbours plus Gaussian `noise`, so that it tells little of where it was. The value
    is the mean of the differences. `score` "decision" counts 1 where the target is still predicted, so that means over
    images are accuracies. Equal values are ranked at random, by `seed`, which also fixes the noise.
    curve: the difference after each step.   checks: `morf` and `lerf`, the means with the highest, and with the lowest,
    removed first; share of `tied` values.
    fails: filled regions may show the object by their outline; coarse maps have few ranks and many ties.
    no value: never; a flat map gets what random orders do.

    Source: Rong et al. 2022, arXiv:2202.00449.  Differs: both orders in one value (half of it is what
    pytorch-grad-cam's ROADCombined gives).
    """
    probe = trial.probe
    if probe.frames.ndim != 4:
        raise InputError("road fills in pixels from their neighbours, and rows of a table have none. Use insertion.")
    H, W = probe.frames.shape[2:]
    values = units(trial.explanation.maps, (H, W))
    highest, lowest = ranks(values, seed).view(-1, H, W), ranks(-values, seed).view(-1, H, W)
    counts = [min(H * W - 1, round(k * H * W / (steps + 1))) for k in range(1, steps + 1)]

    def make(n: int, looks: slice) -> Tensor:
        rows = []
        for look in range(2 * steps)[looks]:
            missing = (highest if look < steps else lowest)[n] < counts[look % steps]
            rng = torch.Generator().manual_seed(seed * 1_000_003 + look)
            added = noise * torch.randn(probe.frames.shape[1:], generator=rng) * missing
            rows.append(imputed(probe.frames[n], missing) + added.to(probe.frames))
        return torch.stack(rows)

    found = probe.looks(2 * steps, make, kind=score).double()
    found = (found > 0).double() if score == "decision" else found
    morf, lerf = found[:, :steps], found[:, steps:]
    return Values(
        (lerf - morf).mean(1), lerf - morf, checks={"morf": morf.mean(1), "lerf": lerf.mean(1), "tied": tied(values)}
    )
