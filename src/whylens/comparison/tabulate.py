"""Tabulate: what the sides gave becomes rows, columns and notes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import interval
from ..errors import InputError
from ..explanation import Explanation
from ..interval import Interval
from ..metrics.iou import LEVELS
from ..model import Model
from .asked import Asked
from .sides import Side, Work
from .table import Better, Column, Comparison, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

MB = 1_000_000
_COUNTED = {
    "all": "Maps of all images count.",
    "correct": "Of each model the maps of those images count that it gets right: other images for each.",
    "correct_by_all": "The maps of those images count that all models get right.",
}


def tabulate(work: Work) -> Comparison:
    """The table of what `work` found.

    Raises InputError where a metric that was asked for by name has a value in no row.
    """
    asked = work.asked
    columns, rows = (_models if asked.kind == "models" else _methods)(work)
    for metric in asked.metrics:
        if asked.required and all({"", metric.key} & set(side.refused) for side in work.sides):
            why = work.sides[0].refused
            raise InputError(why.get(metric.key, why.get("", "")))
    there = [c for c in columns if any(c.name in row.cells for row in rows)]
    agreement: dict[str, dict[tuple[str, str], Interval]] = {}
    for (shared, one, two), values in work.alike.items():
        agreement.setdefault(shared, {})[one, two] = interval.mean(
            values * _both(work, shared, one, two), seed=asked.seed
        )
    return Comparison(
        kind=asked.kind,
        rows=tuple(rows),
        columns=tuple(there),
        ids=asked.images.ids,
        agreement=agreement,
        explanations={_label(asked, side): joined(side.shown) for side in work.sides if side.shown},
        failures=dict(work.failures),
        notes=tuple(_notes(work)),
        seed=asked.seed,
    )


# ---- rows and columns ------------------------------------------------------------------------------------


def _models(work: Work) -> tuple[list[Column], list[Row]]:
    """A row per model: what it is, then for each method what its maps are worth."""
    asked, several = work.asked, len(work.asked.methods) > 1
    columns = [
        Column("accuracy", "higher", says="share of the labelled images whose class is predicted"),
        Column("parameters", "lower", ",.0f"),
        Column("MB", "lower", ".1f", "parameters and buffers, a million bytes each"),
        Column("seconds", "lower", ".3g", _forward_words(asked)),
    ]
    rows = []
    for name, model in asked.models.items():
        right = _right(work, name)
        judged = right[~np.isnan(right)]
        cells: dict[str, Interval | float] = {"seconds": work.forward[name], **_size(model)}
        cells |= {"accuracy": interval.wilson(int(judged.sum()), len(judged))} if len(judged) else {}
        rows.append(Row(name, cells, {"accuracy": right} if len(judged) else {}))
    by_method = []
    for k, method in enumerate(asked.methods):
        sides = work.sides[k :: len(asked.methods)]
        tail = f" {method.key}" if several else ""
        found = [_map_values(work, side) for side in sides]
        rows = [
            _with(row, {n + tail: v for n, v in own.items()}, asked.seed) for row, own in zip(rows, found, strict=True)
        ]
        by_method.append([replace(c, name=c.name + tail) for c in _map_columns(work, sides)])
    return columns + [column for alike in zip(*by_method, strict=True) for column in alike], rows


def _methods(work: Work) -> tuple[list[Column], list[Row]]:
    """A row per method: what its maps are worth, and what it costs."""
    columns = [*_map_columns(work, work.sides)]
    words = "per image, the method alone, without decoding and preparing; median over batches"
    columns += [Column("seconds", "lower", ".3g", words)]
    columns += [Column("forwards", "lower", ".4g"), Column("backwards", "lower", ".4g")]
    rows = []
    for side in work.sides:
        cells: dict[str, Interval | float] = {}
        if side.seconds:
            cells = {"seconds": float(np.median(side.seconds)), "forwards": side.passes[0], "backwards": side.passes[1]}
        rows.append(_with(Row(side.method.key, cells), _map_values(work, side), work.asked.seed))
    return columns, rows


def _with(row: Row, values: Mapping[str, NDArray[np.float64]], seed: int) -> Row:
    """The row with the means of more values."""
    means = {name: interval.mean(held, seed=seed) for name, held in values.items()}
    cells = {name: mean for name, mean in means.items() if mean.n}
    return replace(row, cells={**row.cells, **cells}, values={**row.values, **values})


def _map_columns(work: Work, sides: Sequence[Side]) -> Iterator[Column]:
    for metric in work.asked.metrics:
        facts = metric.facts
        better: Better = facts.direction
        says, form = "", ".3f" if (facts.low, facts.high) == (0, 1) else ".3g"
        if metric.plain_name == "co_score" and work.asked.kind == "models":
            better, says = "none", "logits of two nets do not compare, so none is the best"
        if metric.plain_name == "iou":
            cut = metric.checked_params(0)["threshold"]
            says = f"object and map, where it reaches {'its best share' if cut is None else cut} of its maximum"
        yield Column(metric.key, better, form, says)
        if metric.plain_name == "iou":
            found = ((_row_name(work.asked, side), _best(work, side)) for side in sides)
            cuts = ", ".join(f"{name} {float(LEVELS[k]):g}" for name, k in found if k is not None)
            yield Column(
                f"best {metric.key}", better, form, f"at the share of the maximum that is best for the row: {cuts}"
            )
    others = "models" if work.asked.kind == "models" else "methods"
    yield Column("agreement", "none", says=f"mean rank correlation with the maps of the other {others}, same target")


def _map_values(work: Work, side: Side) -> dict[str, NDArray[np.float64]]:
    """By column, the values ``(N,)`` of the images that count."""
    counts = _counts(work, side.name)
    found = {}
    for metric in work.asked.metrics:
        if metric.key in side.values:
            found[metric.key] = side.values[metric.key] * counts
        best = _best(work, side) if metric.plain_name == "iou" else None
        if best is not None and side.sweep is not None:
            found[f"best {metric.key}"] = side.sweep[:, best] * counts
    own = _row_name(work.asked, side)
    shared = side.method.key if work.asked.kind == "models" else side.name
    alike = [v * _both(work, *key) for key, v in work.alike.items() if key[0] == shared and own in key[1:]]
    if alike:
        there = ~np.isnan(alike)
        total, n = np.where(there, alike, 0).sum(0), there.sum(0)
        found["agreement"] = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return found


def _best(work: Work, side: Side) -> int | None:
    """The place of the threshold with the highest mean IoU over the images that count."""
    if side.sweep is None:
        return None
    held = side.sweep * _counts(work, side.name)[:, None]
    held = held[~np.isnan(held).all(1)]
    return int(np.nanmean(held, 0).argmax()) if len(held) else None


# ---- what counts -----------------------------------------------------------------------------------------


def _right(work: Work, name: str) -> NDArray[np.float64]:
    """1 where a model predicts the label, else 0; NaN where label or prediction is unknown."""
    truth, guess = work.asked.labels[name], work.predicted[name]
    return np.where((truth < 0) | (guess < 0), np.nan, truth == guess)


def _counts(work: Work, name: str) -> NDArray[np.float64]:
    """1 for the images whose maps count, NaN for others."""
    if work.asked.counted == "all":
        return np.ones(len(work.asked.images))
    of = [name] if work.asked.counted == "correct" else list(work.asked.models)
    right = np.all([_right(work, model) == 1 for model in of], axis=0)
    return np.where(right, 1.0, np.nan)


def _both(work: Work, shared: str, one: str, two: str) -> NDArray[np.float64]:
    """1 for the images that count on both sides of a pair."""
    if work.asked.kind == "methods":
        return _counts(work, shared)
    return _counts(work, one) * _counts(work, two)


# ---- words -----------------------------------------------------------------------------------------------


def _row_name(asked: Asked, side: Side) -> str:
    return side.name if asked.kind == "models" else side.method.key


def _label(asked: Asked, side: Side) -> str:
    """A column of the figure."""
    several = asked.kind == "models" and len(asked.methods) > 1
    return f"{side.name}, {side.method.key}" if several else _row_name(asked, side)


def _size(model: Model) -> dict[str, float]:
    held = [*model.net.parameters()]
    if not held:
        return {}
    size = sum(t.numel() * t.element_size() for t in (*held, *model.net.buffers()))
    return {"parameters": float(sum(t.numel() for t in held)), "MB": size / MB}


def _forward_words(asked: Asked) -> str:
    size = min(asked.batch_size, len(asked.images))
    return f"a forward per image, median of {asked.repeats} batches of {size} taken in turn after a warm-up"


def _notes(work: Work) -> Iterator[str]:
    asked = work.asked
    yield _COUNTED[asked.counted]
    model = next(iter(asked.models.values()))
    where = f"{platform.machine()}, {model.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    once = f" A forward of {model.name} alone: {work.forward[next(iter(asked.models))]:.3g} s per image."
    yield f"Seconds were taken on {where}." + (once if asked.kind == "methods" else "")
    for name, why in asked.missing.items():
        yield f"{name} is left out: {why}."
    for side in work.sides:
        for metric, why in side.refused.items():
            yield f"{_label(asked, side)}: no {metric or 'maps'}. {why}"
    for name, known in asked.labels.items():
        lost = sum(1 for label, k in zip(asked.images.labels, known, strict=True) if label is not None and k < 0)
        if lost:
            yield f"{lost} images have a label that is no class of {name}: they are not judged."


def joined(parts: Sequence[Explanation]) -> Explanation:
    """Rows of one method as one explanation; those whose maps have another size than the first are left out."""
    parts = [p for p in parts if p.maps.shape[1:] == parts[0].maps.shape[1:]]
    tensors = ("maps", "targets", "scores", "probabilities", "predictions")
    words = ("ids", "target_names", "prediction_names", "placements", "uris")
    merged: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in tensors}
    merged |= {name: tuple(value for p in parts for value in getattr(p, name)) for name in words}
    checks = {name: torch.cat([p.checks[name] for p in parts]) for name in parts[0].checks}
    return replace(parts[0], **merged, checks=checks, history=None, parts=None)
