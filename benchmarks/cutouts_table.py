"""The tables of `cutouts.py`: means with 95 % intervals by method, and differences in pairs, scene by scene."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from cutouts_scenes import Half, Scene

from whylens.interval import Interval, mean

Values = dict[str, dict[str, float]]  # metric, then scene


@dataclass(frozen=True)
class Table:
    """What one half gave."""

    half: Half
    scenes: int
    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    failed: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {"scenes": self.scenes, "rows": self.rows, "pairs": self.pairs, "failed": self.failed}


def table_of(
    half: Half,
    rows: Mapping[str, Sequence[dict[str, Any]]],
    scenes: Sequence[Scene],
    count: int,
    metrics: Sequence[str],
    paired: Sequence[str],
) -> Table:
    """Methods over the first `count` scenes, best insertion first; pairs over all scenes that both have."""
    there = {label: [row for row in found if "failed" not in row] for label, found in rows.items()}
    values = {label: values_of(found, scenes) for label, found in there.items() if found}
    made = [row_of(label, there[label], values[label], scenes[:count], metrics) for label in values]
    made.sort(key=lambda row: -(row[metrics[0]]["value"] or 0.0))
    failed = {label: found[-1]["failed"] for label, found in rows.items() if found and "failed" in found[-1]}
    methods = {label: there[label][0]["method"] for label in values}
    return Table(half, count, made, pairs_of(values, methods, scenes, metrics[:2], paired), failed)


def values_of(rows: Sequence[dict[str, Any]], scenes: Sequence[Scene]) -> Values:
    """What was measured on these scenes; NaN where a metric has no value."""
    wanted = {scene.id for scene in scenes}
    found: Values = {}
    for row in rows:
        for metric, measured in row["values"].items():
            pairs = zip(row["ids"], measured, strict=True)
            found.setdefault(metric, {}).update({k: np.nan if v is None else v for k, v in pairs if k in wanted})
    return found


def row_of(
    label: str, rows: Sequence[dict[str, Any]], values: Values, scenes: Sequence[Scene], metrics: Sequence[str]
) -> dict[str, Any]:
    """One method: every metric, and what energy and pointing have above chance."""
    last = rows[-1]
    said: dict[str, Any] = {key: last[key] for key in ("method", "params", "map", "layer", "forwards", "backwards")}
    for metric in metrics:
        said[metric] = plain(over(values.get(metric, {}), scenes))
    above = {s.id: values.get("energy_inside", {}).get(s.id, np.nan) - s.area for s in scenes}
    said["energy above area"] = plain(over(above, scenes))
    hits = {s.id: values.get("pointing_game", {}).get(s.id, np.nan) - s.chance for s in scenes}
    said["pointing above chance"] = plain(over(hits, scenes))
    whole = [row for row in rows if len(row["values"]) == len(metrics)]
    flags = Counter[str]()
    for row in whole:
        flags.update(row["flags"])
    return {
        "label": label,
        **said,
        "seconds per image": statistics.median(row["seconds"] for row in whole or rows),
        "threads": last["threads"],
        "largest load": max(row["load"] for row in whole or rows),
        "flags": dict(flags),
        "commits": sorted({row["commit"] for row in rows}),
    }


def over(values: Mapping[str, float], scenes: Sequence[Scene]) -> Interval:
    """Mean and interval; scenes of one stamp are averaged first, since they are not independent."""
    by_stamp: dict[str, list[float]] = {}
    for scene in scenes:
        value = values.get(scene.id, np.nan)
        if value == value:
            by_stamp.setdefault(scene.stamp, []).append(value)
    return mean(np.array([np.mean(found) for found in by_stamp.values()]))


def pairs_of(
    values: Mapping[str, Values],
    methods: Mapping[str, str],
    scenes: Sequence[Scene],
    metrics: Sequence[str],
    paired: Sequence[str],
) -> list[dict[str, Any]]:
    """Later methods of `paired` minus earlier ones, on the scenes that both have."""
    found = []
    for first, second in product(values, values):
        names = methods[first], methods[second]
        if not set(names) <= set(paired) or paired.index(names[0]) <= paired.index(names[1]):
            continue
        for metric in metrics:
            ours, theirs = (values[label].get(metric, {}) for label in (first, second))
            both = {k: ours[k] - theirs[k] for k in ours if k in theirs}
            interval = over(both, scenes)
            holds = interval.n < 2 or interval.low <= 0 <= interval.high
            pair = {"pair": f"{first} - {second}", "metric": metric, **plain(interval), "scenes": len(both)}
            found.append({**pair, "holds 0": bool(holds)})
    return found


def plain(interval: Interval) -> dict[str, Any]:
    """For JSON; None for NaN. `stamps` is the number of independent values."""
    figures = {name: getattr(interval, name) for name in ("value", "low", "high")}
    return {**{k: None if v != v else round(v, 4) for k, v in figures.items()}, "stamps": interval.n}


# ---- Markdown ------------------------------------------------------------------------------------------------------

HEAD = (
    "method", "insertion", "insertion, igospp", "deletion", "energy inside", "above the area",
    "pointing", "above chance", "s/image", "stamps",
)  # fmt: skip


def markdown(table: Table) -> str:
    """Both tables; a method whose energy or pointing is not above chance says so."""
    lines = [f"Half `{table.half}`, {table.scenes} scenes.", "", line(HEAD), line(["---"] * len(HEAD))]
    lines += [line(cells(row)) for row in table.rows]
    if table.pairs:
        lines += ["", line(("difference", "metric", "mean", "scenes", "stamps")), line(["---"] * 5)]
    for pair in table.pairs:
        said = shown(pair) + (" holds 0" if pair["holds 0"] else "")
        lines.append(line((pair["pair"], pair["metric"], said, str(pair["scenes"]), str(pair["stamps"]))))
    lines += [f"\nFailed: {label}: {reason}" for label, reason in table.failed.items()]
    return "\n".join(lines)


def cells(row: Mapping[str, Any]) -> list[str]:
    numbers = [short(row[m]) for m in ("insertion", "insertion:mode=igospp", "deletion")]
    judged = [short(row["energy_inside"]), against(row["energy above area"])]
    judged += [short(row["pointing_game"]), against(row["pointing above chance"])]
    return [f"`{row['label']}`", *numbers, *judged, f"{row['seconds per image']:.2f}", str(row["insertion"]["stamps"])]


def against(figure: Mapping[str, Any]) -> str:
    """A difference from chance with its interval and, if it is not above, the word."""
    if figure["low"] is None:
        return shown(figure)
    word = " **below chance**" if figure["high"] < 0 else " **at chance**" if figure["low"] <= 0 else ""
    return shown(figure) + word


def shown(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return short(figure)
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def short(figure: Mapping[str, Any]) -> str:
    return "none" if figure["value"] is None else f"{figure['value']:.3f}"


def line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"
