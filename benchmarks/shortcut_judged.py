"""What the rows of `shortcut_reach.json` say: which shortcuts were found, what was an alarm; as tables and a picture.

    python benchmarks/shortcut_judged.py [--rows FILE] [--picture docs/pictures/shortcut_curve.png]

Found: among the first three groups worth a look is one of purity >= 0.9 that holds at least half of the pictures that
carry the shortcut. Shown: a class has more than one reason, so its groups are printed under "worth a look". Alarm: one
of these, pasted on pictures of other classes, turns more of them than a random region does, the difference's whole 95 %
interval (Newcombe, from both Wilson intervals) above 0. Strong: an alarm that turns at least a fifth more than that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import HERE

from whylens.interval import wilson

FIRST, PURE, MOST, TURNS, STRONG = 3, 0.9, 0.5, 0.5, 0.2
PICTURE = HERE.parent / "docs" / "pictures" / "shortcut_curve.png"
CUES = {"tag": "tag (9 x 9 pixels)", "weave": "woven ground"}

Row = dict[str, Any]


# ---- one row ---------------------------------------------------------------------------------------------


def shortcut(row: Row, cue: str) -> bool:
    """Whether it is one at all: put on pictures of other classes, it turns at least half of them."""
    return bool(row["turns"][cue][0] >= TURNS)


def place(row: Row, cue: str) -> int | None:
    """The place, from 0, of the cue's group worth a look: the one that holds most of it among those pure enough."""
    pure = [k for k, g in enumerate(row["worth a look"]) if g[cue][0] >= PURE * g[cue][1]]
    return max(pure, key=lambda k: row["worth a look"][k][cue][0], default=None)


def held(row: Row, cue: str) -> float:
    """The share of the pictures with the cue that its group among the first three holds; 0 where there is none."""
    pure = [g for g in row["worth a look"][:FIRST] if g[cue][0] >= PURE * g[cue][1]]
    return max((g[cue][0] for g in pure), default=0) / row["carry it"][cue]


def lead(group: Row) -> tuple[float, float]:
    """How much more often the evidence carries its class than a random region, and the lower end of the interval."""
    if not group.get("carries"):
        return 0.0, 0.0
    (value, low, _), (other, _, high) = group["carries"], group["carries_control"]
    return value - other, value - other - float(np.hypot(value - low, high - other))


def alarm(group: Row) -> bool:
    return lead(group)[1] > 0


def strong(group: Row) -> bool:
    return alarm(group) and lead(group)[0] >= STRONG


def others(row: Row) -> list[Row]:
    """Groups worth a look of classes that no shortcut gives away."""
    owners = {"square", "circle"} if row["kind"] == "both" else set()
    return [g for g in row["worth a look"] if g["class"] not in owners]


# ---- tables ----------------------------------------------------------------------------------------------


def tables(rows: list[Row]) -> Iterator[str]:
    """Markdown: the shortcuts by share, then the false alarms."""
    yield "| share | shortcut | turns half or more | found of these | found of all | places | purity | share held |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for share in shares(rows):
        for cue in CUES:
            yield _found(share, cue, [r for r in rows if r["kind"] == "both" and r["share"] == share])
    yield ""
    yield "| what | seeds | accuracy | tag turns | seeds: shown | alarm | strong alarm | classes: shown | alarm |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for kind in ("none", "decoy", "both"):
        of_kind = [r for r in rows if r["kind"] == kind]
        if of_kind:
            yield _alarms(kind, of_kind)


def _found(share: float, cue: str, rows: list[Row]) -> str:
    taken = [r for r in rows if shortcut(r, cue)]
    found = [r for r in rows if held(r, cue) >= MOST]
    groups = [(k, r["worth a look"][k][cue]) for r in rows if (k := place(r, cue)) is not None]
    places = ", ".join(str(k + 1) for k, _ in groups) or "-"
    purity = _range([hits / size for _, (hits, size) in groups])
    shares_held = _range([held(r, cue) for r in rows])
    of_taken = sum(shortcut(r, cue) for r in found)
    return (
        f"| {share:.0%} | {cue} | {len(taken)} of {len(rows)} | {of_taken} of {len(taken)} "
        f"| {len(found)} of {len(rows)} | {places} | {purity} | {shares_held} |"
    )


def _alarms(kind: str, rows: list[Row]) -> str:
    def seeds(has: Callable[[Row], bool]) -> str:
        return _share(sum(has(r) for r in rows), len(rows))

    def classes(has: Callable[[Row], bool]) -> str:
        hit = sum(len({g["class"] for g in others(r) if has(g)}) for r in rows)
        return _share(hit, len(rows) * (6 if kind == "both" else 8))

    name = {"none": "no tag", "decoy": "a tag that says nothing", "both": "the six classes without a shortcut"}
    turns = _range([r["turns"]["tag"][0] for r in rows]) if kind == "decoy" else "-"
    return (
        f"| {name[kind]} | {len(rows)} | {_range([r['accuracy'] for r in rows])} | {turns} "
        f"| {seeds(lambda r: bool(others(r)))} | {seeds(lambda r: any(map(alarm, others(r))))} "
        f"| {seeds(lambda r: any(map(strong, others(r))))} | {classes(bool)} | {classes(alarm)} |"
    )


def _share(hits: int, n: int) -> str:
    found = wilson(hits, n)
    return f"{hits} of {n} [{found.low:.2f}, {found.high:.2f}]"


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"


def shares(rows: list[Row]) -> list[float]:
    return sorted({r["share"] for r in rows if r["kind"] == "both"})


# ---- picture ---------------------------------------------------------------------------------------------


def draw(rows: list[Row], path: Path) -> None:
    """How far the net relies on each shortcut, and how much of it its group holds, by how many pictures carry it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    sides: tuple[tuple[Any, str, Callable[[Row, str], float]], ...] = (
        (left, "pictures of other classes that it turns", lambda r, cue: float(r["turns"][cue][0])),
        (right, "its pictures that its group, if found, holds", held),
    )
    known = shares(rows)
    for axes, title, value in sides:
        for cue, colour, shift in (("tag", "#c2185b", -0.25), ("weave", "#00695c", 0.25)):
            of = {s: [value(r, cue) for r in rows if r["kind"] == "both" and r["share"] == s] for s in known}
            axes.plot([100 * s for s in known], [np.mean(of[s]) for s in known], color=colour, label=CUES[cue])
            for s in known:
                axes.plot([100 * s + shift] * len(of[s]), of[s], "o", color=colour, alpha=0.45, markersize=5)
        axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("% of the class that carries it")
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks([100 * s for s in known])
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("share")
    right.legend(frameon=False, loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=HERE / "shortcut_reach.json")
    parser.add_argument("--picture", type=Path, nargs="?", const=PICTURE)
    options = parser.parse_args()
    rows = json.loads(options.rows.read_text("utf-8"))["rows"]
    print("\n".join(tables(rows)))
    if options.picture is not None:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
