"""Attention graphs of made-up score functions on a real photo, as the JSON that a saved graph is."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

CELLS = 7


def uri(pixels: np.ndarray[Any, Any]) -> str:
    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def photo(height: int = 160, width: int = 160) -> np.ndarray[Any, Any]:
    """A cat, not square where asked."""
    from skimage.data import chelsea

    return np.asarray(Image.fromarray(chelsea()[:, 60:390]).resize((width, height)))


def attention_graph(
    *, roots: int = 3, size: int = 3, depth: int = 2, seed: int = 0, frame: tuple[int, int] = (160, 160), **changes: Any
) -> dict[str, Any]:
    """The graph of a score that any one of `roots` random sets of `size` patches brings to nearly its full height.

    Each of the sets keeps 0.9 to 1 of it; without one patch it is weakened by a random part, the more patches go the
    more is lost. Below a root all sets down to `depth` patches less are in the graph.
    """
    rng = np.random.default_rng(seed)
    sets = [tuple(sorted(rng.choice(CELLS**2, size, replace=False).tolist())) for _ in range(roots)]
    scores: dict[tuple[int, ...], float] = {s: float(rng.uniform(0.9, 1)) for s in sets}
    level = list(sets)
    edges: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    for _ in range(min(depth, size)):
        below = []
        for patches in level:
            for removed in patches:
                child = tuple(p for p in patches if p != removed)
                if child not in scores:
                    scores[child] = scores[patches] * float(rng.uniform(0.1, 0.95)) if child else 0.01
                    below.append(child)
                edges[patches, child] = removed
        level = [child for child in below if scores[child] >= 0.4]
    number = {patches: i for i, patches in enumerate(scores)}
    parents = {parent for parent, _ in edges}
    graph = {
        "format": 1,
        "whylens": "0.1.0",
        "photo": uri(photo(*frame)),
        "size": list(frame),
        "grid": [CELLS, CELLS],
        "cells": None,
        "target": {"index": 281, "name": "tabby"},
        "model": "synthetic",
        "score_full": 0.8,
        "baseline": {"name": "blur 20", "kept": 0.004},
        "threshold": 0.9,
        "expand": 0.4,
        "units": CELLS**2,
        "nodes": [
            {"id": i, "patches": list(p), "score": 0.8 * s, "relative": s, "root": p in sets, "expanded": p in parents}
            for i, (p, s) in enumerate(scores.items())
        ],
        "edges": [{"parent": number[a], "child": number[b], "removed": gone} for (a, b), gone in edges.items()],
        "truncated": False,
        "overlap": {"t0": 2, "t1": 3, "t2": 3, "jaccard": 3, "jaccard_limit": 0.1},
        "stops": {"search": "no set left", "max_sets": roots},
        "seed": seed,
    }
    return graph | changes


def segmented_graph(units: int = 300) -> dict[str, Any]:
    """A graph whose units are stripes of the photo, more than a picture of 8 bits could name."""
    made = attention_graph(frame=(units, 40))
    labels = np.repeat(np.arange(units, dtype=np.uint16), 40).reshape(units, 40)
    return made | {"grid": None, "cells": uri(labels), "units": units}
