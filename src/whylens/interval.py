"""Interval: a figure, how far it may be trusted, and the number of rows behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 2000
"""Bootstrap draws behind an interval."""

_MANY = 20_000
_TOGETHER = 4_000_000  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval and the number of images behind it; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.n else "none"


def wilson(hits: int, n: int) -> Interval:
    """A share with Wilson's interval."""
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return Interval(hits / n, float(interval.low), float(interval.high), n)


def mean(values: NDArray[Any], *, seed: int = 0) -> Interval:
    """A mean with its 95 % interval, by bootstrap up to 20,000 rows and normal beyond; NaN rows are left out."""
    there = np.asarray(values, np.float64)
    there = there[~np.isnan(there)]
    n, nan = len(there), float("nan")
    if n < 2:
        return Interval(float(there[0]) if n else nan, nan, nan, n)
    if n > _MANY:  # the bootstrap's own limit, at a cost that does not grow
        half = 1.959964 * float(there.std(ddof=1)) / n**0.5
        middle = float(there.mean())
        return Interval(middle, middle - half, middle + half, n)
    rng, together = np.random.default_rng(seed), max(1, _TOGETHER // n)
    means = [
        there[rng.integers(n, size=(min(together, DRAWS - start), n))].mean(1) for start in range(0, DRAWS, together)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(there.mean()), float(low), float(high), n)


def interval(said: Mapping[str, Any]) -> Interval:
    """An interval from what `plain` made of it."""
    value, low, high = (float("nan") if said[name] is None else said[name] for name in ("value", "low", "high"))
    return Interval(value, low, high, said["n"])


def clustered(values: NDArray[Any], clusters: NDArray[Any], *, seed: int = 0) -> Interval:
    """A mean of values ``(N,)`` with its 95 % interval by bootstrap over clusters ``(N,)``, such as images.

    NaN rows are left out; `n` counts values.
    """
    there = ~np.isnan(np.asarray(values, np.float64))
    values, (names, of) = np.asarray(values)[there], np.unique(clusters[there], return_inverse=True)
    n, nan = len(values), float("nan")
    if len(names) < 2:
        return Interval(float(values.mean()) if n else nan, nan, nan, n)
    total = np.bincount(of, values.astype(np.float64), len(names))
    count = np.bincount(of, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), n)


def plain(value: Any) -> Any:
    """Plain values for JSON, intervals by name, whatever they are nested in; what is not a number is null."""
    value = vars(value) if isinstance(value, Interval) else value
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
