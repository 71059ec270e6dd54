"""How soon the target comes back when the map's best pixels are shown first."""

from __future__ import annotations

from typing import Annotated

from .._check import Range
from ..baseline import Choice
from ..contract import MetricFacts, Trial, Values
from ..scoring import Mode, removal_values


@MetricFacts(direction="higher", forwards="2 * steps + 10")
def insertion(
    trial: Trial,
    *,
    mode: Mode = "rise",
    steps: Annotated[int, Range(1)] = 50,
    baseline: Choice | None = None,
    seed: int = 0,
) -> Values:
    """Area under the target's probability while the pixels that the map ranks highest are put into a baseline.

    values: (N,), unit: probability, or that of a target function, range: [0, 1] for probabilities.
    cost: `steps` + 1 forwards; "igospp" up to twice as many, and up to 9 to search its baseline.
    "rise" ranks the pixels of the enlarged map, starts from a light blur and adds trapezoids. "igospp" ranks the map's
    own cells, shows them with soft borders, starts from the gentlest baseline without the target and counts each chunk
    with the value after it; "igospp_published" repeats the published formula, whose last chunk counts as 1. `baseline`
    replaces the start. Equal values are ranked at random, by `seed`. curve: the start, then after each step.
    checks: `full` image, `baseline`, the area `normalised` between the two, share of a `step`, of `tied` values.
    fails: a light blur may keep the target (`baseline`); other modes, steps or baselines do not compare.
    no value: never; a flat map is shown in a random order.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, section 3.2; iGOS++: Khorram et al. 2021, arXiv:2012.15783.
    Differs: steps are shares of the frame (224: those of the RISE code); ties are drawn; the baseline is searched.
    """
    return removal_values(trial, insert=True, mode=mode, steps=steps, baseline=baseline, seed=seed)
