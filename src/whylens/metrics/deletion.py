"""How soon the target goes when the map's best pixels are removed first."""

from __future__ import annotations

from typing import Annotated

from .._check import Range
from ..baseline import Choice
from ..contract import MetricFacts, Trial, Values
from ..scoring import Mode, removal_values


@MetricFacts(direction="lower", forwards="2 * steps + 10")
def deletion(
    trial: Trial,
    *,
    mode: Mode = "rise",
    steps: Annotated[int, Range(1)] = 50,
    baseline: Choice | None = None,
    seed: int = 0,
) -> Values:
    """Area under the target's probability while the pixels that the map ranks highest are replaced by a baseline.

    values: (N,), unit: probability, or that of a target function, range: [0, 1] for probabilities.
    cost: `steps` + 1 forwards; "igospp" up to twice as many, and up to 9 to search its baseline.
    "rise" ranks the pixels of the enlarged map, fills with the mean colour and adds trapezoids. "igospp" ranks the
    map's own cells, removes them with soft borders, fills with the gentlest baseline without the target and counts each
    chunk with the value after it; "igospp_published" repeats the published formula, whose last chunk counts as 1.
    `baseline` replaces the fill. Equal values are ranked at random, by `seed`. curve: the image, then after each step.
    checks: `full` image, `baseline`, the area `normalised` between the two, share of a `step`, of `tied` values.
    fails: scattered pixels disturb a net without being its evidence, and score well; read it beside `insertion`.
    no value: never; a flat map is removed in a random order.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, section 3.2; iGOS++: Khorram et al. 2021, arXiv:2012.15783.
    Differs: steps are shares of the frame (224: those of the RISE code); ties are drawn; the baseline is searched.
    """
    return removal_values(trial, insert=False, mode=mode, steps=steps, baseline=baseline, seed=seed)
