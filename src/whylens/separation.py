"""Separation: how far the values of right predictions lie above those of wrong ones, and a cut between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .interval import DRAWS, Interval, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 10
"""Right rows, and wrong ones, below which nothing is said of a gap."""

MANY = 20_000
"""Rows up to which the interval of an area is a bootstrap; beyond it is DeLong's, at a cost that does not grow."""

Verdict = Literal["gap", "no gap", "reversed", "too few"]

_NAN = float("nan")
_TOGETHER = 4_000_000  # resampled values held at once
_NORMAL = 1.959964  # half the width of a 95 % interval, in standard deviations


@dataclass(frozen=True)
class Threshold:
    """A cut chosen on one half of the rows and judged on the other: rows whose value reaches it are kept.

    `before` is the accuracy of the other half, `accuracy` that of the rows kept there; `kept` is the share of rows
    kept, `right_kept` and `wrong_rejected` the same of the right and the wrong ones. All with Wilson's interval.
    """

    value: float
    chosen_on: int
    before: Interval
    accuracy: Interval
    kept: Interval
    right_kept: Interval
    wrong_rejected: Interval


@dataclass(frozen=True)
class Separation:
    """How well one list of values tells right rows from wrong ones.

    `auroc` is the probability that a right row has the higher value, ties half; `ks` the largest distance between the
    two distribution functions and `ks_p` its p-value; `difference` the right rows' median less the wrong ones'.
    `threshold` is None where there are too few rows.
    """

    label: str
    right: int
    wrong: int
    median_right: float
    median_wrong: float
    difference: Interval
    auroc: Interval
    ks: float
    ks_p: float
    threshold: Threshold | None

    @property
    def verdict(self) -> Verdict:
        """What may be said: a gap only where the interval of the area lies above one half."""
        if min(self.right, self.wrong) < FEWEST:
            return "too few"
        if self.auroc.low <= 0.5 <= self.auroc.high:
            return "no gap"
        return "gap" if self.auroc.low > 0.5 else "reversed"


def separation(
    label: str, values: NDArray[Any], correct: NDArray[Any], halves: NDArray[Any], *, seed: int = 0
) -> Separation:
    """All figures of values ``(N,)`` whose rows are `correct` or not; the cut is chosen where `halves` is True.

    Rows whose value is NaN are left out.
    """
    there = ~np.isnan(values)
    values, correct, halves = values[there].astype(np.float64), correct[there], halves[there]
    right, wrong = values[correct], values[~correct]
    ks, p = kolmogorov_smirnov(right, wrong)
    return Separation(
        label=label,
        right=len(right),
        wrong=len(wrong),
        median_right=float(np.median(right)) if len(right) else _NAN,
        median_wrong=float(np.median(wrong)) if len(wrong) else _NAN,
        difference=median_difference(right, wrong, seed=seed),
        auroc=auroc(right, wrong, seed=seed),
        ks=ks,
        ks_p=p,
        threshold=threshold(values, correct, halves) if min(len(right), len(wrong)) >= FEWEST else None,
    )


# ---- area under the ROC curve ----------------------------------------------------------------------------


def auroc(right: NDArray[Any], wrong: NDArray[Any], *, seed: int = 0) -> Interval:
    """Probability that a right row's value is above a wrong one's, ties half, with its 95 % interval.

    Right and wrong rows are resampled each among themselves. Where no two of them overlap every draw gives the same,
    and Wilson's bound for as many hits as the smaller group has rows takes the place of the bootstrap.
    """
    m, n = len(right), len(wrong)
    if not m or not n:
        return Interval(_NAN, _NAN, _NAN, m + n)
    above, _ = placements(right, wrong)
    value = float(above.mean())
    if min(m, n) < 2:
        return Interval(value, _NAN, _NAN, m + n)
    if value in (0.0, 1.0):
        return replace(wilson(round(value) * min(m, n), min(m, n)), n=m + n)
    if m + n > MANY:
        return _normal(value, *placements(right, wrong))
    low, high = np.quantile(_areas(right, wrong, seed), [0.025, 0.975])
    return Interval(value, float(low), float(high), m + n)


def auroc_difference(first: NDArray[Any], second: NDArray[Any], correct: NDArray[Any], *, seed: int = 0) -> Interval:
    """The first values' area less the second's on the rows ``(N,)`` that have both, resampled together."""
    both = ~(np.isnan(first) | np.isnan(second))
    first, second, correct = first[both], second[both], correct[both]
    pairs = [(values[correct], values[~correct]) for values in (first, second)]
    m, n = len(pairs[0][0]), len(pairs[0][1])
    if min(m, n) < 2:
        return Interval(_NAN, _NAN, _NAN, m + n)
    placed = [placements(right, wrong) for right, wrong in pairs]
    value = float(placed[0][0].mean() - placed[1][0].mean())
    if m + n > MANY:
        return _normal(value, placed[0][0] - placed[1][0], placed[0][1] - placed[1][1])
    one, two = (_areas(right, wrong, seed) for right, wrong in pairs)
    low, high = np.quantile(one - two, [0.025, 0.975])
    return Interval(value, float(low), float(high), m + n)


def placements(right: NDArray[Any], wrong: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For every right value the share of wrong ones below it, for every wrong one the share of right ones above it.

    Ties count half. The mean of either is the area.
    """
    up, down = np.sort(right), np.sort(wrong)
    below = (np.searchsorted(down, right, "left") + np.searchsorted(down, right, "right")) / (2 * len(wrong))
    under = (np.searchsorted(up, wrong, "left") + np.searchsorted(up, wrong, "right")) / (2 * len(right))
    return below, 1 - under


def _normal(value: float, above: NDArray[Any], below: NDArray[Any]) -> Interval:
    """DeLong's interval from placements, or from differences of placements."""
    half = _NORMAL * float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)) ** 0.5
    return Interval(value, value - half, value + half, len(above) + len(below))


def _areas(right: NDArray[Any], wrong: NDArray[Any], seed: int) -> NDArray[Any]:
    """Areas ``(DRAWS,)`` of resampled rows; the same rows for other values of as many rows, so that draws pair up."""
    levels, at = np.unique(np.concatenate([right, wrong]), return_inverse=True)
    groups = [at[: len(right)], at[len(right) :]]
    rngs = [np.random.default_rng([seed, k]) for k in range(2)]
    found = []
    for draws in _chunks(len(at)):
        counts = [_counted(group, len(levels), draws, rng) for group, rng in zip(groups, rngs, strict=True)]
        below = counts[1].cumsum(1) - counts[1] / 2
        found.append((counts[0] * below).sum(1) / (len(right) * len(wrong)))
    return np.concatenate(found)


def _chunks(rows: int) -> Iterator[int]:
    together = max(1, _TOGETHER // rows)
    yield from (min(together, DRAWS - start) for start in range(0, DRAWS, together))


def _counted(at: NDArray[Any], levels: int, draws: int, rng: np.random.Generator) -> NDArray[Any]:
    """How often each level comes in each resample ``(draws, levels)``."""
    picked = at[rng.integers(len(at), size=(draws, len(at)))] + np.arange(draws)[:, None] * levels
    return np.bincount(picked.ravel(), minlength=draws * levels).reshape(draws, levels)


# ---- medians, distributions ------------------------------------------------------------------------------


def median_difference(right: NDArray[Any], wrong: NDArray[Any], *, seed: int = 0) -> Interval:
    """The right rows' median less the wrong ones', with the 95 % interval of the bootstrap."""
    m, n = len(right), len(wrong)
    value = float(np.median(right) - np.median(wrong)) if m and n else _NAN
    if min(m, n) < 2:
        return Interval(value, _NAN, _NAN, m + n)
    draws = [_medians(v, np.random.default_rng([seed, k])) for k, v in enumerate((right, wrong))]
    low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
    return Interval(value, float(low), float(high), m + n)


def _medians(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Medians ``(DRAWS,)`` of resampled values, without resampling: the middle one of n uniform draws is beta
    distributed, and it says which of the sorted values is in the middle."""
    ordered, n = np.sort(values), len(values)
    middle = (n + 1) // 2
    low = rng.beta(middle, n + 1 - middle, DRAWS)
    high = low if n % 2 else low + (1 - low) * rng.beta(1, n - middle, DRAWS)
    picked = [ordered[np.minimum((u * n).astype(np.int64), n - 1)] for u in (low, high)]
    medians: NDArray[Any] = (picked[0] + picked[1]) / 2
    return medians


def kolmogorov_smirnov(right: NDArray[Any], wrong: NDArray[Any]) -> tuple[float, float]:
    """The largest distance between the two distribution functions, and its p-value; NaN where one group is empty."""
    if not len(right) or not len(wrong):
        return _NAN, _NAN
    from scipy.stats import ks_2samp

    found = ks_2samp(right, wrong, method="exact" if max(len(right), len(wrong)) <= 1000 else "asymp")
    return float(found.statistic), float(found.pvalue)


# ---- a cut -----------------------------------------------------------------------------------------------


def halved(correct: NDArray[Any], *, seed: int = 0) -> NDArray[Any]:
    """Half of the right rows and half of the wrong ones ``(N,)``, drawn by the seed; of an odd number one more."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(correct), np.bool_)
    for group in (np.flatnonzero(correct), np.flatnonzero(~correct)):
        chosen[rng.permutation(group)[: (len(group) + 1) // 2]] = True
    return chosen


def cut(right: NDArray[Any], wrong: NDArray[Any]) -> float:
    """The value that keeps most right rows and rejects most wrong ones (Youden's J); the middle one of equally good.

    Cuts lie half way between neighbouring values; the lowest value of all keeps everything.
    """
    levels = np.unique(np.concatenate([right, wrong]))
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    kept = len(right) - np.searchsorted(np.sort(right), cuts, "left")
    rejected = np.searchsorted(np.sort(wrong), cuts, "left")
    gain = kept * len(wrong) + rejected * len(right)  # J as a whole number, so that equal is equal
    best = np.flatnonzero(gain == gain.max())
    return float(cuts[best[len(best) // 2]])


def threshold(values: NDArray[Any], correct: NDArray[Any], halves: NDArray[Any]) -> Threshold:
    """A cut chosen on the rows where `halves` is True and judged on the others."""
    chosen = cut(values[halves & correct], values[halves & ~correct])
    kept, right = values[~halves] >= chosen, correct[~halves]
    return Threshold(
        value=chosen,
        chosen_on=int(halves.sum()),
        before=wilson(int(right.sum()), len(right)),
        accuracy=wilson(int((kept & right).sum()), int(kept.sum())),
        kept=wilson(int(kept.sum()), len(kept)),
        right_kept=wilson(int((kept & right).sum()), int(right.sum())),
        wrong_rejected=wilson(int((~kept & ~right).sum()), int((~right).sum())),
    )
