"""Objects on a page: how good a detector is, and which of its objects are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..interval import Interval, mean, wilson
from ..words import counted, html_text
from .html import table_html

if TYPE_CHECKING:
    from ..run.read import Run
    from ..run.summary import Summary

LISTED = 12
"""Images with missed objects that are named."""

_HEAD = ("class", "objects found", "score", "annotated there", "incomplete masks")


def judged_html(run: Run, summary: Summary) -> str:
    """Objects that were missed, masks that are incomplete, a line per class, the images that miss most."""
    told = []
    if summary.missed is not None and summary.missed.n:
        told.append(f"Missed {summary.missed} of {summary.missed.n} annotated objects.")
    if summary.incomplete is not None and summary.incomplete.n:
        told.append(f"Incomplete {summary.incomplete} of {summary.incomplete.n} masks with a reference.")
    rows = run.instances().to_pylist()
    known = _annotated(run)
    judged = [row for row in rows if row["image_id"] in known]
    names = sorted({row["class"] for row in rows})
    lines = [_line(name, rows, judged) for name in names]
    words = "".join(f"<p><strong>{html_text(word)}</strong></p>" for word in told) or (
        "<p>No annotated objects to judge by: give them with the images, masks=.</p>"
    )
    note = (
        '<p class="soft">In brackets: 95 % intervals (Wilson; bootstrap for scores). A detection is annotated where a '
        "box of its class overlaps by 0.3; a mask is incomplete that covers less than 0.9 of its reference.</p>"
    )
    table = table_html(_HEAD, lines, "classes") if lines else "<p>No object was found.</p>"
    return f"<section><h2>How good it is</h2>{words}{table}{note}{_missing(run)}</section>"


def _annotated(run: Run) -> set[int]:
    """The images whose objects are annotated."""
    rows = run.table(["image_id", "references"]).to_pylist()
    return {row["image_id"] for row in rows if row["references"] is not None}


def _line(name: str, rows: Sequence[dict[str, Any]], judged: Sequence[dict[str, Any]]) -> list[str]:
    own = [row for row in rows if row["class"] == name]
    there = [row["reference"] is not None for row in judged if row["class"] == name]
    incomplete = [row["incomplete"] for row in own if row["incomplete"] is not None]
    shares = (mean(np.array([row["score"] for row in own])), _share(there), _share(incomplete))
    return [name, str(len(own)), *map(str, shares)]


def _share(hits: Sequence[bool]) -> Interval:
    return wilson(sum(hits), len(hits))


def _missing(run: Run) -> str:
    """The images in which most annotated objects are missed."""
    held = run.table(["key", "references", "missed"]).to_pylist()
    missed = sorted((row for row in held if row["missed"]), key=lambda row: -row["missed"])
    if not missed:
        return ""
    rows = [[row["key"], str(row["references"]), str(row["missed"])] for row in missed[:LISTED]]
    left = counted(len(missed) - LISTED, "more image")
    more = f"<p>and {left} with missed objects.</p>" if len(missed) > LISTED else ""
    return table_html(("image", "annotated", "missed"), rows, "images with missed objects") + more


def picked(run: Run, most: int) -> Iterator[tuple[str, list[int], str]]:
    """Objects to show: a title, their numbers in `Run.instances`, and which they are. The surest come first."""
    rows = run.instances().to_pylist()
    known = _annotated(run)
    surest = sorted(range(len(rows)), key=lambda n: -rows[n]["score"])
    incomplete = [n for n in surest if rows[n]["incomplete"]]
    false = [n for n in surest if rows[n]["reference"] is None and rows[n]["image_id"] in known]
    right = [n for n in surest if rows[n]["reference"] is not None and not rows[n]["incomplete"]]
    unknown = [n for n in surest if rows[n]["image_id"] not in known]
    yield "Incomplete masks", incomplete[:most], "The mask leaves part of the annotated object out."
    yield "Nothing is annotated there", false[:most], "No annotated object of the class is where it was found."
    yield "As annotated", right[:most], ""
    yield "Objects", unknown[:most], "Nothing is annotated in their images."


def facts(run: Run, numbers: Sequence[int]) -> list[dict[str, str]]:
    """What stands under the picture of each object."""
    rows: list[dict[str, Any]] = run.instances_at(numbers).to_pylist()
    return [
        {
            "object": f"{row['class']} #{row['instance']}, score {row['score']:.3g}",
            "mask covers": "" if row["covered"] is None else f"{row['covered']:.0%} of the annotated one",
        }
        for row in rows
    ]


def images(run: Run, numbers: Sequence[int]) -> list[int]:
    """The images of objects, each once."""
    held: list[int] = run.instances_at(numbers).column("image_id").to_pylist()
    return list(dict.fromkeys(held))
