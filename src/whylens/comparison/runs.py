"""Runs: two audits over the same images held against each other, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from .. import interval
from ..agreement import cosine, on_photo
from ..errors import InputError
from ..placement import Placement
from ..run.read import Run
from .changes import Changes, ClassChange, Flip

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOCUS = "energy_inside"
"""The metric whose change says whether the focus of a class moved, where both runs hold it."""

FEWEST = 6
"""Images of a class below which nothing is said to have moved: of so few, all change alike by chance too often."""

TOGETHER = 256
"""Maps read at once."""

Pair = tuple[dict[str, Any], dict[str, Any]]


def changes(runs: Sequence[Run], *, method: str | None = None, seed: int = 0) -> Changes:
    """What changed from the first run to the second, over the images that both have committed and explained.

    `method` is the one whose maps are compared; the default is the first that both hold. Raises InputError unless
    these are two runs over the same images, with the same classes, target, score and method.
    """
    if len(runs) != 2 or not all(isinstance(run, Run) for run in runs):
        raise InputError(f"compare: two runs can be compared, and nothing beside them. Got {len(runs)}.")
    before, after = runs
    label = _label(before, after, method)
    _refuse_other(before, after, label)
    focused = all(_holds(run, label) for run in runs)
    pairs = _pairs(before, after, label, focused)
    right = [_numbers(pairs, side, "correct") for side in (0, 1)]
    judged = ~np.isnan(right[0]) & ~np.isnan(right[1])
    same = np.array([one["target"] == two["target"] for one, two in pairs], np.bool_)
    alike = _alike(before, after, label, pairs, same)
    focus = np.where(same, _numbers(pairs, 1, "focus") - _numbers(pairs, 0, "focus"), np.nan) if focused else None
    overall = interval.mean(alike, seed=seed)
    return Changes(
        before=str(before.folder),
        after=str(after.folder),
        method=label,
        images=len(pairs),
        accuracy_before=interval.wilson(int(right[0][judged].sum()), int(judged.sum())),
        accuracy_after=interval.wilson(int(right[1][judged].sum()), int(judged.sum())),
        accuracy_change=interval.mean(right[1] - right[0], seed=seed),
        flips=tuple(_flips(pairs)),
        other_wrong=sum(_wrong(one) and _wrong(two) and one["prediction"] != two["prediction"] for one, two in pairs),
        classes=_classes(pairs, focus, alike, overall.value, seed),
        alike=overall,
        rule=_rule(focused),
        notes=tuple(_notes(before, after, label, len(pairs), int(same.sum()))),
    )


# ---- the same plan ---------------------------------------------------------------------------------------


def _label(before: Run, after: Run, method: str | None) -> str:
    for run in (before, after):
        run.refuse_objects("compare")
    if method is not None:
        return before.method(method)[1].label
    both = [label for label in before.labels if label in after.labels]
    if not both:
        raise InputError(
            f"compare: the runs hold no method in common: {', '.join(before.labels)} and {', '.join(after.labels)}. "
            "Add one: whylens audit with the same --out."
        )
    return both[0]


def _refuse_other(before: Run, after: Run, label: str) -> None:
    """Runs of different plans are refused in one sentence that says what differs."""
    one, two = before.plan, after.plan
    stored = [run.method(label)[1] for run in (before, after)]
    facts = {
        "classes": (one.model["classes"], two.model["classes"]),
        "images": (one.images["hash"], two.images["hash"]),
        "targets": (one.settings["target"], two.settings["target"]),
        "scores": (one.settings["score"], two.settings["score"]),
        f"settings of {label}": tuple((s.method, dict(s.params), s.target) for s in stored),
    }
    for name, (first, second) in facts.items():
        if first != second:
            raise InputError(
                f"compare: the {name} of '{before.folder}' and '{after.folder}' differ. "
                "Audit both models over the same images with the same settings."
            )


def _holds(run: Run, label: str) -> bool:
    """Whether the focus of this method was measured."""
    return any(m.key == FOCUS for part in run.parts for s in part.methods if s.label == label for m in part.metrics)


# ---- rows ------------------------------------------------------------------------------------------------


def _pairs(before: Run, after: Run, label: str, focused: bool) -> list[Pair]:
    """The rows of both runs for every image that both explained."""
    named = {
        "image_id": "image_id", "key": "key", "label": "label", "prediction": "prediction",
        "probability": "probability", "correct": "correct", "placement": "placement", f"target.{label}": "target",
    }  # fmt: skip
    named |= {f"metric.{FOCUS}.{label}": "focus"} if focused else {}
    sides = []
    for run in (before, after):
        table = run.table([*named, "status"])
        table = (
            table.filter(pc.equal(table.column("status"), "ok"))
            .select(list(named))
            .rename_columns(list(named.values()))
        )
        sides.append({row["image_id"]: row for row in table.to_pylist()})
    pairs = [(row, sides[1][number]) for number, row in sides[0].items() if number in sides[1]]
    if not pairs:
        raise InputError(f"compare: '{before.folder}' and '{after.folder}' have no explained image in common yet.")
    return pairs


def _numbers(pairs: Sequence[Pair], side: int, name: str) -> NDArray[np.float64]:
    """One column of one run as numbers, NaN where there is none."""
    return np.array([np.nan if pair[side][name] is None else pair[side][name] for pair in pairs], np.float64)


def _alike(before: Run, after: Run, label: str, pairs: Sequence[Pair], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cosine of both maps on the photo for images with the same target, NaN for others."""
    found = np.full(len(pairs), np.nan)
    rows = np.flatnonzero(same)
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        (first, seen), (second, seen_too) = (
            on_photo(run.maps(label, [pairs[k][0]["image_id"] for k in part]), [_placed(pairs[k][side]) for k in part])
            for side, run in enumerate((before, after))
        )
        if first.shape == second.shape:
            found[part] = cosine(first, second, seen & seen_too).numpy()
    return found


def _placed(row: dict[str, Any]) -> Placement | None:
    return None if row["placement"] is None else Placement.read(row["placement"])


def _wrong(row: dict[str, Any]) -> bool:
    return row["correct"] is False


def _flips(pairs: Sequence[Pair]) -> Iterator[Flip]:
    """Images right on one side alone, those that were lost first, the surest first."""
    found = [(one, two) for one, two in pairs if None not in (one["correct"], two["correct"])]
    found = [(one, two) for one, two in found if one["correct"] != two["correct"]]
    for one, two in sorted(found, key=lambda p: (not p[0]["correct"], -(p[1]["probability"] or 0.0), p[0]["image_id"])):
        before, after = (float("nan") if row["probability"] is None else row["probability"] for row in (one, two))
        yield Flip(
            key=one["key"],
            label=one["label"] or "",
            before=one["prediction"] or "",
            after=two["prediction"] or "",
            probability_before=before,
            probability_after=after,
            change="right to wrong" if one["correct"] else "wrong to right",
        )


# ---- classes ---------------------------------------------------------------------------------------------


def _classes(
    pairs: Sequence[Pair], focus: NDArray[np.float64] | None, alike: NDArray[np.float64], usual: float, seed: int
) -> tuple[ClassChange, ...]:
    """By label, or by what the first run predicts where there are no labels; those that moved first."""
    labelled = any(one["label"] is not None for one, _ in pairs)
    names = np.array([(one["label"] if labelled else one["prediction"]) or "" for one, _ in pairs], object)
    found = []
    for name in dict.fromkeys(names[names != ""]):
        rows = np.flatnonzero(names == name)
        judged = [pairs[k] for k in rows.tolist() if None not in (pairs[k][0]["correct"], pairs[k][1]["correct"])]
        before, after = (interval.wilson(sum(pair[k]["correct"] for pair in judged), len(judged)) for k in (0, 1))
        shift = None if focus is None else interval.mean(focus[rows], seed=seed)
        close = interval.mean(alike[rows], seed=seed)
        moved = close.high < usual if shift is None else shift.low > 0 or shift.high < 0
        moved = moved and (close if shift is None else shift).n >= FEWEST
        found.append(ClassChange(str(name), len(rows), before, after, shift, close, bool(moved)))
    return tuple(sorted(found, key=_least_moved))


def _least_moved(change: ClassChange) -> tuple[bool, float]:
    """Those that moved first, the farthest first; those of which nothing is known last."""
    by = change.alike.value if change.focus is None else -abs(change.focus.value)
    return not change.moved, float("inf") if by != by else by


def _rule(focused: bool) -> str:
    least = f"on at least {FEWEST} images with the same target"
    if focused:
        return (
            f"Moved: the 95 % interval of the change of energy inside the object does not hold 0, {least}. "
            "One class in twenty does so by chance."
        )
    return (
        f"Moved: the maps of the class are less alike than those of all images, by its 95 % interval, {least}. It says "
        "that they changed, not whether for the better: measure energy_inside in both runs for that."
    )


def _notes(before: Run, after: Run, label: str, images: int, same: int) -> Iterator[str]:
    yield f"{images - same} images have another target now: only their predictions are compared, not their maps."
    for run in (before, after):
        if not run.finished:
            yield f"'{run.folder}' is not finished: {run.committed} of {len(run)} images are committed."
    layers = [run.method(label)[1].layer for run in (before, after)]
    if layers[0] != layers[1]:
        yield f"The maps are of different layers: {layers[0]} and {layers[1]}."
