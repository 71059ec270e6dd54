"""Scores: what one metric gives for every row of an explanation, and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import interval


@dataclass(frozen=True)
class Summary:
    """The `n` rows with a value in a few numbers; `low` and `high` bound the mean in 95 % of bootstrap draws.

    NaN where there are too few rows: none for `mean` and `median`, one for the interval.
    """

    mean: float
    low: float
    high: float
    median: float
    n: int
    missing: int

    def __str__(self) -> str:
        missing = f", {self.missing} without a value" if self.missing else ""
        return f"mean {self.mean:.4g} [{self.low:.4g}, {self.high:.4g}], median {self.median:.4g}, n {self.n}{missing}"


@dataclass(frozen=True, eq=False)
class Scores:
    """Values ``(N,)`` of one metric, row by row as in the explanation; NaN where it does not apply to the row.

    `curve` ``(N, T)`` is what the value was read from, if anything; `checks` holds ``(N,)`` tensors as in
    `Explanation`. `reasons` says by image why a row has no value. `direction` says which values are better: "higher",
    "lower" or "none".
    """

    values: Tensor
    ids: tuple[str, ...]
    metric: str
    label: str
    params: Mapping[str, Any] = field(default_factory=dict)
    direction: str = "none"
    curve: Tensor | None = None
    checks: Mapping[str, Tensor] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        there = self.values[~self.values.isnan()]
        mean = f", mean {float(there.mean()):.4g}" if len(there) else ""
        missing = f", {len(self) - len(there)} without a value" if len(there) < len(self) else ""
        return f"Scores({self.label!r}, {len(self)} rows{mean}{missing})"

    def summary(self, *, seed: int = 0) -> Summary:
        """Mean with its bootstrap interval over rows, median, how many rows have a value; `seed` fixes the draws."""
        ordered = self.values[~self.values.isnan()].double().sort().values
        n, mean = len(ordered), interval.mean(self.values.numpy(), seed=seed)
        median = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else float("nan")
        return Summary(mean.value, mean.low, mean.high, median, n, len(self) - n)
