"""Scores: what one metric gives for every row of an explanation, their summary, and two of them side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from . import interval
from .errors import InputError

NOTHING: Mapping[str, int] = MappingProxyType({})

_TOLD = 3  # reasons that a summary spells out


@dataclass(frozen=True)
class Summary:
    """The `n` rows with a value in a few numbers; `low` and `high` bound the mean in 95 % of bootstrap draws.

    NaN where there are too few rows: none for `mean` and `median`, one for the interval. `missing` rows have no value;
    `failures` counts them by reason, the most frequent first.
    """

    mean: float
    low: float
    high: float
    median: float
    n: int
    missing: int
    failures: Mapping[str, int] = field(default_factory=lambda: NOTHING)

    def __str__(self) -> str:
        missing = f", {self.missing} without a value" if self.missing else ""
        told = "; ".join(f"{why} {count}" for why, count in list(self.failures.items())[:_TOLD])
        more = "; ..." if len(self.failures) > _TOLD else ""
        missing += f" ({told}{more})" if told else ""
        return f"mean {self.mean:.4g} [{self.low:.4g}, {self.high:.4g}], median {self.median:.4g}, n {self.n}{missing}"


@dataclass(frozen=True)
class Comparison:
    """How far one set of values lies above another on the same `n` rows; `low` and `high` bound the mean `difference`
    in 95 % of bootstrap draws over rows.

    `effect` is the mean difference over the standard deviation of the differences (Cohen's d of paired values): NaN
    where they do not vary. `above`, `equal` and `below` count rows. `missing` rows have no value on one side or the
    other, or no partner.
    """

    difference: float
    low: float
    high: float
    effect: float
    n: int
    above: int
    equal: int
    below: int
    missing: int

    def __str__(self) -> str:
        missing = f", {self.missing} without a partner" if self.missing else ""
        return (
            f"difference {self.difference:+.4g} [{self.low:+.4g}, {self.high:+.4g}], effect {self.effect:+.3g}, "
            f"above on {self.above}, below on {self.below} of {self.n}{missing}"
        )


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
        """Mean with its bootstrap interval over rows, median, how many rows have a value, why the others have none.

        `seed` fixes the draws.
        """
        ordered = self.values[~self.values.isnan()].double().sort().values
        n, mean = len(ordered), interval.mean(self.values.numpy(), seed=seed)
        median = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else float("nan")
        lost = [self.ids[k] for k in self.values.isnan().nonzero().flatten().tolist()]
        counted = Counter(self.reasons.get(name, "no reason given") for name in lost)
        return Summary(
            mean.value, mean.low, mean.high, median, n, len(self) - n, MappingProxyType(dict(counted.most_common()))
        )

    def compare(self, other: Scores, *, seed: int = 0) -> Comparison:
        """These values less the other's, row by row: of another method, model, layer or parameter, for one metric.

        Rows are matched by id, several rows of one id in their order; `seed` fixes the bootstrap. Raises InputError
        where the two are of different metrics or share no image.
        """
        if not isinstance(other, Scores):
            raise InputError(f"compare: other must be Scores, as measure gives them. Got {type(other).__name__}.")
        if other.metric != self.metric:
            raise InputError(
                f"compare: both must be values of one metric. Got {self.metric} and {other.metric}. Measure both alike."
            )
        mine, theirs = (_by_row(scores) for scores in (self, other))
        shared = [row for row in mine if row in theirs]
        if not shared:
            raise InputError("compare: the two have no image in common. Measure both on the same images.")
        differences = torch.tensor([mine[row] - theirs[row] for row in shared], dtype=torch.float64)
        there = differences[~differences.isnan()]
        mean = interval.mean(there.numpy(), seed=seed)
        spread = float(there.std()) if len(there) > 1 else 0.0
        return Comparison(
            mean.value,
            mean.low,
            mean.high,
            mean.value / spread if spread else float("nan"),
            len(there),
            above=int((there > 0).sum()),
            equal=int((there == 0).sum()),
            below=int((there < 0).sum()),
            missing=len(mine.keys() | theirs.keys()) - len(there),
        )


def _by_row(scores: Scores) -> dict[tuple[str, int], float]:
    """Values by id and by how many rows of that id came before."""
    seen: Counter[str] = Counter()
    rows = {}
    for name, value in zip(scores.ids, scores.values.double().tolist(), strict=True):
        rows[name, seen[name]] = value
        seen[name] += 1
    return rows
