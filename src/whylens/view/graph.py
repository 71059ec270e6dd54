"""Graph page: an attention graph to be read with the mouse or the keyboard, in one file that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from ..errors import InputError
from ..words import flag_words, html_text, share
from .html import script_document

FORMAT = 1
"""Of the JSON that a page is made from."""

_USED = ("photo", "size", "grid", "target", "model", "score_full", "threshold", "expand", "units", "nodes", "edges")


def graph_page(graph: Mapping[str, Any]) -> str:
    """One self-contained HTML document of an attention graph, given as the JSON that the graph saves.

    Levels of patch sets from the largest down, each with the share of the whole photo's score that it keeps; parents,
    children and similar sets of the one in hand; a large photo whose patches can be switched to find the nearest sets.
    The document fetches nothing; the one script it runs is named by its hash in its policy.

    Raises InputError for a graph of a newer format, or one that lacks something.
    """
    name = str(graph.get("target", {}).get("name", ""))
    data = shown(graph)
    flags = "".join(f'<p class="flag">⚠ {html_text(text)}</p>' for text in _flags(graph))
    listed = "".join(f"<dt>{html_text(k)}</dt><dd>{html_text(v)}</dd>" for k, v in _facts(graph))
    made = f"<details><summary>How it was made</summary><dl>{listed}</dl></details>"
    cut = '<p class="soft">The graph ended at its limit: not every set that should be in it is.</p>'
    header = f"{flags}<p>{html_text(_says(graph))}</p>{cut if graph.get('truncated') else ''}{made}"
    return script_document(f"Attention graph: {name}", header, "graph", data)


def shown(graph: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs of a graph; segments of any shape as `runs`, ``(unit, pixels)`` row by row.

    Raises InputError as `graph_page`.
    """
    if graph.get("format", 0) > FORMAT:
        raise InputError(
            f"graph: format {graph['format']} is newer than this whylens reads ({FORMAT}). Update whylens."
        )
    lacking = [key for key in _USED if key not in graph]
    if lacking:
        raise InputError(f"graph: it lacks {', '.join(lacking)}. Give the JSON of AttentionGraph.save, photo included.")
    if not str(graph["photo"]).startswith("data:image/"):
        raise InputError(
            "graph: the photo must be a data URI, data:image/png;base64,... Save the graph with its photo."
        )
    return {key: graph[key] for key in _USED} | {"runs": None if graph["grid"] else _runs(graph["cells"])}


def _runs(cells: str) -> list[tuple[int, int]]:
    """A label map given as a picture: each unit and for how many pixels it goes on, row by row.

    A browser would read it back with 8 bits, or changed on purpose against fingerprinting.
    """
    import numpy as np
    from PIL import Image

    with Image.open(BytesIO(base64.b64decode(cells.partition(",")[2]))) as picture:
        units = np.asarray(picture).astype(np.int64).ravel()
    starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    return list(zip(units[starts].tolist(), np.diff(np.r_[starts, len(units)]).tolist(), strict=True))


# ---- what stands above the graph -----------------------------------------------------------------------------


def _says(graph: Mapping[str, Any]) -> str:
    """What the graph is about, in a line."""
    image = f" {graph['image']}" if graph.get("image") else ""
    hidden = f" Hidden patches are {baseline_words(graph)}." if graph.get("baseline") else ""
    found = f"{graph['target']['name']} with a {_kind(graph)} of {share(graph['score_full'])}"
    return f"{graph['model']} finds {found} in the whole photo{image}.{hidden}"


def _facts(graph: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    roots = sum(node["root"] for node in graph["nodes"])
    least = f"{100 * graph['threshold']:g} %"
    yield "roots", f"{roots}, which alone keep more than {least} of the score and lose it with any one patch less"
    yield "nodes", f"{len(graph['nodes'])}; those that keep at least {100 * graph['expand']:g} % are taken further"
    if graph.get("overlap"):
        yield "diverse sets", ", ".join(_overlaps(graph["overlap"]))
    if graph.get("stops"):
        yield "search", ", ".join(_stops(graph["stops"]))
    made = [f"{what} {graph[key]}" for key, what in (("whylens", "whylens"), ("seed", "seed")) if key in graph]
    yield "made by", ", ".join(made) or "not recorded"


def _stops(stops: Mapping[str, Any]) -> Iterator[str]:
    """How the search went, and why it ended."""
    for key, value in stops.items():
        yield f"ended at {value}".replace("_", " ") if key == "search" else f"{key.replace('_', ' ')} {value}"


def _overlaps(overlap: Mapping[str, Any]) -> Iterator[str]:
    """How many roots there are of which no two share more than so much."""
    for most in (0, 1, 2):
        if f"t{most}" in overlap:
            shared = f"at most {most}" if most else "no patch"
            yield f"{overlap[f't{most}']} that share {shared}"
    if "jaccard" in overlap:
        limit = f" of at most {overlap['jaccard_limit']:g}" if "jaccard_limit" in overlap else ""
        yield f"{overlap['jaccard']} by a Jaccard index{limit}"


def baseline_words(graph: Mapping[str, Any]) -> str:
    """What fills the patches that are not kept, and the probability that is left where none is."""
    kept = graph["baseline"].get("kept")
    left = "" if kept is None else f", which alone leaves a {_kind(graph)} of {share(kept)}"
    return f"filled with {graph['baseline']['name']}{left}"


def _kind(graph: Mapping[str, Any]) -> str:
    """What a score is: the probability of a class, or what a function of the output gives."""
    return "probability" if graph["target"]["index"] >= 0 else "score"


def _flags(graph: Mapping[str, Any]) -> Iterator[str]:
    kept = (graph.get("baseline") or {}).get("kept")
    keeps = ["baseline_keeps_target"] if kept is not None and kept > 0.5 * graph["score_full"] else []
    for flag in dict.fromkeys([*graph.get("flags", ()), *keeps]):
        yield f"{flag_words(flag)}. What this graph says is not to be relied on."
    if not graph["nodes"]:
        yield f"No set of patches was found that keeps {100 * graph['threshold']:g} % of the whole photo's score."
