"""Summary: what a run says of the model, with intervals; and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ..interval import DRAWS, Interval, mean, plain, wilson
from .commit import BASE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .read import Run


@dataclass(frozen=True)
class ClassSummary:
    """How the model does on one class: precision and recall (Wilson), F1 (bootstrap), and what it is confused with."""

    name: str
    images: int
    predicted: int
    precision: Interval
    recall: Interval
    f1: Interval
    confused: Mapping[str, int]


@dataclass(frozen=True)
class Summary:
    """What a run says; `confusion` ``(K, K)`` counts true class by predicted class, in the order of `names`."""

    images: int
    committed: int
    failed: int
    failures: Mapping[str, str]
    judged: int
    unknown_labels: Mapping[str, int]
    accuracy: Interval
    classes: tuple[ClassSummary, ...]
    names: tuple[str, ...]
    confusion: NDArray[np.int64]
    flags: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Interval]
    objects: int | None = None  # of a detector's run: how many were found
    missed: Interval | None = None  # share of annotated objects that no detection is of
    incomplete: Interval | None = None  # share of masks that leave part of their reference out

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not a number is null."""
        said = {**asdict(self), "confusion": self.confusion.tolist()}
        made: dict[str, Any] = plain(said)
        return made

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, most: int = 20) -> Iterator[str]:
        """In words, at most so many classes and failures."""
        done = "" if self.committed == self.images else f", {self.committed} committed by now"
        yield f"{self.images} images{done}, {self.failed} failed"
        for name, reason in list(self.failures.items())[:most]:
            yield f"  {name}: {reason}"
        if self.failed > most:
            yield f"  and {self.failed - most} more"
        for label, count in list(self.unknown_labels.items())[:most]:
            yield f"  label '{label}' is no class of the model: {count} images are not judged"
        if self.judged:
            yield f"accuracy {self.accuracy} on {self.judged} images"
            for c in sorted(self.classes, key=lambda c: (c.f1.n == 0, c.f1.value))[:most]:
                worst = max(c.confused, key=lambda k: c.confused[k], default="")
                tail = f", most often taken for {worst} ({c.confused[worst]})" if worst else ""
                yield f"  {c.name}: recall {c.recall}, precision {c.precision}, F1 {c.f1}, {c.images} images{tail}"
            if len(self.classes) > most:
                yield f"  and {len(self.classes) - most} more classes"
        if self.objects is not None:
            yield f"{self.objects} objects found"
        if self.missed is not None and self.missed.n:
            yield f"missed {self.missed} of {self.missed.n} annotated objects"
        if self.incomplete is not None and self.incomplete.n:
            yield f"incomplete masks {self.incomplete} of {self.incomplete.n} with a reference"
        for label, flags in self.flags.items():
            for flag, count in flags.items():
                yield f"{label}: {count} maps flagged {flag.replace('_', ' ')}"
        for column, interval in self.metrics.items():
            yield f"{column}: mean {interval} on {interval.n} images"


def summarise(run: Run) -> Summary:
    """Read the rows once and count."""
    metric_columns = [f"metric.{m.key}.{s.label}" for part in run.parts for s in part.methods for m in part.metrics]
    flag_columns = [f"flags.{label}" for label in run.labels]
    columns = ["key", "label", "label_index", "prediction_index", "correct", "status", "error"]
    table = run.table([*columns, *(() if run.of_objects else (*flag_columns, *metric_columns))])
    ok = table.filter(pc.equal(table.column("status"), "ok"))
    failed = table.filter(pc.not_equal(table.column("status"), "ok"))
    judged = ok.filter(pc.is_valid(ok.column("correct")))
    names, confusion = _confusion(run, judged)
    odd = ok.filter(pc.and_(pc.is_valid(ok.column("label")), pc.is_null(ok.column("label_index"))))
    right = int(np.trace(confusion))
    rows = run.instances() if run.of_objects else ok
    return Summary(
        images=len(run),
        committed=sum(stop - start for start, stop in map(run.plan.bounds, run.records[BASE])),
        failed=failed.num_rows,
        failures=dict(zip(failed.column("key").to_pylist(), failed.column("error").to_pylist(), strict=True)),
        judged=judged.num_rows,
        unknown_labels=_counts(odd.column("label").to_pylist()),
        accuracy=wilson(right, judged.num_rows),
        classes=tuple(_class(k, names, confusion) for k in range(len(names))),
        names=names,
        confusion=confusion,
        flags={
            label: _counts([f for row in rows.column(f"flags.{label}").to_pylist() for f in row or ()])
            for label in run.labels
        },
        metrics={name: mean(ok.column(name).to_numpy(zero_copy_only=False)) for name in metric_columns},
        **(_objects(run, rows) if run.of_objects else {}),
    )


def _objects(run: Run, rows: Any) -> dict[str, Any]:
    """What is known of a detector's objects; intervals are Wilson's."""
    held = run.table(["references", "missed"]).to_pylist()
    known = [row for row in held if row["references"] is not None]
    incomplete = [i for i in rows.column("incomplete").to_pylist() if i is not None]
    return {
        "objects": rows.num_rows,
        "missed": wilson(sum(row["missed"] for row in known), sum(row["references"] for row in known)),
        "incomplete": wilson(sum(incomplete), len(incomplete)),
    }


def _confusion(run: Run, judged: Any) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, those that occur, and counts by true and predicted class."""
    true = judged.column("label_index").to_numpy(zero_copy_only=False).astype(np.int64)
    guess = judged.column("prediction_index").to_numpy(zero_copy_only=False).astype(np.int64)
    occurring, where = np.unique(np.concatenate([true, guess]), return_inverse=True)
    classes = run.plan.model["classes"]
    labels = dict(zip(true.tolist(), judged.column("label").to_pylist(), strict=True))
    names = tuple(classes[k] if classes and 0 <= k < len(classes) else labels.get(k, str(k)) for k in occurring)
    counts = np.zeros((len(occurring), len(occurring)), np.int64)
    np.add.at(counts, (where[: len(true)], where[len(true) :]), 1)
    return names, counts


def _class(k: int, names: tuple[str, ...], confusion: NDArray[np.int64]) -> ClassSummary:
    hit, own, said = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
    wrong = {names[j]: int(confusion[k, j]) for j in np.argsort(-confusion[k]) if j != k and confusion[k, j]}
    return ClassSummary(names[k], own, said, wilson(hit, said), wilson(hit, own), f1(hit, said, own), wrong)


def f1(hits: int, predicted: int, actual: int) -> Interval:
    """F1 with a bootstrap interval over the images that are of the class or taken for it."""
    n = predicted + actual - hits
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    shares = np.array([hits, predicted - hits, actual - hits]) / n
    draws = np.random.default_rng(0).multinomial(n, shares, size=DRAWS)
    values = 2 * draws[:, 0] / (2 * draws[:, 0] + draws[:, 1] + draws[:, 2])
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(2 * hits / (predicted + actual), float(low), float(high), n)


def _counts(values: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
