"""Summary of a locality study: shares with intervals, curves, and the files that hold them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import prepare_folder, write_atomic
from .errors import InputError
from .interval import Interval, mean, wilson
from .sheet import GREY, Text, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .study import Study

AREA = 0.2
"""Share of the frame for which it is told how many photos need no more."""

SEARCH = "search"
"""The curve of the smallest set found, among those of the rankings."""

LIMITS = {"t0": "no patch", "t1": "at most 1 patch", "t2": "at most 2 patches", "jaccard": "at most a fifth (Jaccard)"}
"""How much two explanations may share, in words."""

STEPS = 100
"""Points of a curve: shares of the frame from 0 to 1."""

PAPER = "about 80 % of photos with a set within 20 % of the area, about 30 % with more than one at one shared patch"
"""What was found for 5,000 photos of ImageNet on a 7 x 7 grid (Li et al. 2021, Applied AI Letters, section 4.1)."""


def summarise(study: Study) -> dict[str, Any]:
    """Counts, shares and means with 95 % intervals, and `curves` over `within`, as plain values."""
    rows = study.done
    shares = needed(rows)
    several = {name: [row["overlap"][name] for row in rows] for name in LIMITS}
    return {
        "photos": len(study),
        "done": len(rows),
        "failed": len(study.failures),
        "failures": study.failures,
        "without a set": sum(not row["sets"] for row in rows),
        "baseline keeps target": sum("baseline_keeps_target" in row["flags"] for row in rows),
        "search ended": {stop: sum(row["stop"] == stop for row in rows) for stop in sorted({r["stop"] for r in rows})},
        "within a fifth": {name: _plain(_within(values, AREA)) for name, values in shares.items()},
        "smallest area": {name: _plain(mean(np.array(values, float))) for name, values in shares.items()},
        "more than one": {
            name: _plain(wilson(sum(count > 1 for count in values), len(values))) for name, values in several.items()
        },
        "explanations": {name: _plain(mean(np.array(values, float))) for name, values in several.items()},
        "asked": sum(row["asked"] for row in rows),
        "scored": sum(row["scored"] for row in rows),
        "within": [step / STEPS for step in range(STEPS + 1)],
        "curves": {name: curve(values) for name, values in shares.items()},
    }


def needed(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Share of the frame that each photo's smallest set takes, and that of what each ranking must show; 2 for none."""
    found = {SEARCH: [min(row["areas"], default=2.0) for row in rows]}
    for name in rows[0]["needed"] if rows else ():
        found[name] = [row["needed"][name] / row["units"] for row in rows]
    return found


def curve(values: Sequence[float]) -> list[float]:
    """Share of photos that need at most 0, 1, ..., 100 hundredths of the frame."""
    points = [step / STEPS for step in range(STEPS + 1)] if values else []
    return [sum(_fits(value, area) for value in values) / len(values) for area in points]


def _within(values: Sequence[float], area: float) -> Interval:
    return wilson(sum(_fits(value, area) for value in values), len(values))


def _fits(value: float, area: float) -> bool:
    return value <= area + 1e-6  # an area is a sum of shares, each rounded


def _plain(interval: Interval) -> dict[str, Any]:
    numbers = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {**{k: None if v != v else round(v, 4) for k, v in numbers.items()}, "n": interval.n}


def lines(study: Study, most: int = 20) -> Iterator[str]:
    """The study in words."""
    said = summarise(study)
    waiting = len(study) - len(study.rows)
    tail = f", {waiting} still to do" if waiting else ""
    yield f"{said['photos']} photos, {said['failed']} failed{tail}"
    for name, reason in list(said["failures"].items())[:most]:
        yield f"  {name}: {reason}"
    if not study.done:
        return
    for name, found in said["within a fifth"].items():
        yield f"enough within {AREA:.0%} of the frame, {name}: {_words(found)} of photos"
    for name, found in said["more than one"].items():
        yield f"more than one explanation, sharing {LIMITS[name]}: {_words(found)} of photos"
    for key in ("without a set", "baseline keeps target"):
        if said[key]:
            yield f"{key}: {said[key]} photos"
    yield f"{said['asked']} scores asked, {said['scored']} computed"
    yield f"Published: {PAPER}."


def _words(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


# ---- files ---------------------------------------------------------------------------------------------------


def write(study: Study, out: Path) -> list[str]:
    """``photos.csv``, ``curves.csv``, ``study.png`` and ``summary.json``, the last one last."""
    folder, said = prepare_folder(out), summarise(study)
    picture = BytesIO()
    figure(study).savefig(picture, format="png")
    curves = [["within", *said["curves"]], *zip(said["within"], *said["curves"].values(), strict=False)]
    files = {
        "photos.csv": _csv(_photos(study)),
        "curves.csv": _csv(curves),
        "study.png": picture.getvalue(),
        "summary.json": json.dumps(said, indent=1, ensure_ascii=False).encode(),
    }
    try:
        for name, data in files.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise InputError(f"Cannot write to '{folder}': {error.strerror or error}. Give another --out.") from None
    return list(files)


def _photos(study: Study) -> Iterator[list[Any]]:
    """One line per photo under its heads."""
    rankings = study.plan["rankings"]
    plain = ("key", "status", "error", "target_name", "full", "kept", "units", "stop", "asked", "scored", "seconds")
    yield [*plain, "smallest_patches", "smallest_area", "sets", *LIMITS, *(f"needed.{name}" for name in rankings)]
    for row in study.rows:
        line = [row.get(name) for name in plain]
        if row["status"] == "ok":
            smallest = [min(map(len, row["sets"]), default=None), min(row["areas"], default=None)]
            sets = ";".join(" ".join(map(str, patches)) for patches in row["sets"])
            line += [*smallest, sets, *(row["overlap"][n] for n in LIMITS), *(row["needed"][n] for n in rankings)]
        yield line


def _csv(rows: Any) -> bytes:
    held = StringIO()
    csv.writer(held, lineterminator="\n").writerows(rows)
    return held.getvalue().encode()


def figure(study: Study) -> Figure:
    """Share of photos that a share of the frame is enough for: the search, and each ranking."""
    from matplotlib.figure import Figure

    said = summarise(study)
    made = Figure(figsize=(6.4, 4.4), dpi=110, facecolor="white")
    axes = made.add_axes((0.1, 0.24, 0.86, 0.66))
    for k, (name, values) in enumerate(said["curves"].items() if study.done else ()):
        axes.step(
            said["within"], values, where="post", linewidth=2.2 if name == SEARCH else 1.3, label=name, color=f"C{k}",
            linestyle=("-", "--", "-.", ":")[k % 4],
        )  # fmt: skip
    axes.axvline(AREA, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="shown share of the frame", ylabel="share of photos it is enough for")
    axes.set_title(f"{study.plan['model']['name']}, {said['done']} photos", fontsize=10)
    if study.done:
        axes.legend(loc="lower right", fontsize=8)
    within, more = said["within a fifth"][SEARCH], said["more than one"]["t1"]
    told = (
        f"Enough: {study.plan['settings']['threshold']:.0%} of the whole photo's score. Within {AREA:.0%} of the "
        f"frame: {_words(within)} of photos; more than one explanation sharing at most one patch: {_words(more)}."
        if study.done
        else "No photo is done."
    )
    for k, line in enumerate(fit(Text(told, 8), 6)):
        made.text(0.03, 0.09 - 0.045 * k, line, fontsize=8, color=GREY, parse_math=False)
    return made
