"""How much of the target goes with the regions that the map ranks lowest."""

from __future__ import annotations

from typing import Annotated

from .._check import Range
from ..contract import MetricFacts, Trial, Values
from ..removal import Fill, Scored, region_values


@MetricFacts(direction="lower", forwards="samples * (steps + 1) + 9")
def lerf(
    trial: Trial,
    *,
    side: Annotated[int, Range(1)] = 9,
    steps: Annotated[int, Range(1)] = 100,
    baseline: Fill = "noise",
    samples: Annotated[int, Range(1)] = 1,
    score: Scored = "probability",
    seed: int = 0,
) -> Values:
    """Mean fall of the target's probability while the regions that the map ranks lowest are removed one by one.

    values: (N,), unit: probability, or that of the explained score, range: [-1, 1] for probabilities.
    cost: (`steps` + 1) * `samples` forwards, and up to 9 to search the baseline "auto".
    Regions are squares of about `side` pixels, ranked by the mean of the enlarged map; after k of them f(k) is left,
    and the value is the mean of f(0) - f(k), k = 0 to `steps` or to the last region (AOPC). "noise" fills them with
    uniform noise, `samples` times; rows of a table take the mean. Equal regions are ranked at random, by `seed`.
    curve: f(0), then after each region.   checks: `full` f(0), `left` f(last), share of regions `removed`, `tied`.
    fails: a target that no removal moves scores well; read it beside `morf`: their difference is the area between them.
    no value: never; a flat map is removed in a random order.

    Source: Samek et al. 2017, arXiv:1509.06321, AOPC (9 pixels, 100 steps, noise).  Differs: the probability instead
    of the class score (`score` "explained"); regions share the frame evenly, some a pixel larger.
    """
    return region_values(
        trial,
        least_first=True,
        side=side,
        steps=steps,
        baseline=baseline,
        samples=samples,
        score=score,
        seed=seed,
    )
