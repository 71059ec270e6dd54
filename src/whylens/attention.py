"""AttentionGraph: the sets of regions that are enough for a decision, and what is left of it as their parts go."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import write_atomic
from .errors import InputError
from .structured.sets import bitmask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FORMAT = 1
"""Of the saved file; a newer one is refused, every past one keeps a fixture that must open."""


@dataclass(frozen=True)
class Node:
    """One set of regions: with only these `patches` shown the target has `score`, `relative` to the whole image's.

    A node is `expanded` where all sets with one patch less are nodes too.
    """

    id: int
    patches: tuple[int, ...]
    score: float
    relative: float
    root: bool = False
    expanded: bool = False


@dataclass(frozen=True)
class Edge:
    """From a node's id to that of the node without the patch `removed`."""

    parent: int
    child: int
    removed: int


@dataclass(frozen=True)
class Subject:
    """What a graph speaks of: image, frame, model and target; pictures as PNG bytes.

    `photo` is the frame as a picture; `cells` names each pixel's patch where the patches are no grid.
    """

    image: str
    model: str
    target_index: int
    target_name: str
    size: tuple[int, int]
    grid: tuple[int, int] | None
    units: int
    photo: bytes | None = field(default=None, repr=False)
    cells: bytes | None = field(default=None, repr=False)

    def labels(self) -> NDArray[np.int64]:
        """The patch of each pixel of the frame ``(H, W)``."""
        if self.cells is not None:
            from PIL import Image

            return np.asarray(Image.open(BytesIO(self.cells))).astype(np.int64)
        rows, columns = self.grid or (1, self.units)
        down, across = (np.arange(n) * cells // n for n, cells in zip(self.size, (rows, columns), strict=True))
        return down[:, None] * columns + across[None]


@dataclass(frozen=True, eq=False)
class AttentionGraph:
    """A directed graph without circles whose nodes are sets of patches; no set is there twice.

    Its roots are sufficient sets that share little: each alone keeps more than `threshold` of the target's score, and
    not with any one patch less. A node that keeps at least `expand` of it has all sets with one patch less below it.
    `overlap` counts the explanations that share at most 0, 1 and 2 patches, and by the Jaccard index; `stops` says how
    the search went and why it ended; `truncated`, that the limit on nodes cut the graph short.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    subject: Subject
    score_full: float
    baseline: str
    baseline_score: float
    threshold: float
    expand: float
    overlap: Mapping[str, float]
    stops: Mapping[str, Any]
    truncated: bool = False
    flags: tuple[str, ...] = ()
    seed: int = 0
    version: str = ""
    ask: Callable[[Sequence[int]], Sequence[float]] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        tail = ", truncated" if self.truncated else ""
        return f"AttentionGraph({self.subject.target_name!r}, {len(self.roots)} roots, {len(self.nodes)} nodes{tail})"

    @property
    def roots(self) -> tuple[Node, ...]:
        """The sufficient sets at the top, in the order of their ids."""
        return tuple(node for node in self.nodes if node.root)

    def nearest(self, patches: Iterable[int], count: int = 5) -> tuple[tuple[Node, int], ...]:
        """The nodes that differ from these patches in the fewest, with that number; of equal ones the highest score."""
        asked = bitmask(patches, self.subject.units)
        away = [(node, (asked ^ held).bit_count()) for node, held in zip(self.nodes, self._sets, strict=True)]
        return tuple(sorted(away, key=lambda pair: (pair[1], -pair[0].score, pair[0].id))[:count])

    def what_if(self, patches: Iterable[int]) -> float:
        """The target's true score where only these patches are shown, asked of the model.

        Raises InputError for a graph that was read from a file: it has no model.
        """
        asked = bitmask(patches, self.subject.units)
        if self.ask is None:
            raise InputError("This graph was read from a file and has no model to ask. Make it: attention_graph(...).")
        return float(self.ask([asked])[0])

    def figure(self, *, most: int = 6) -> tuple[Figure, Axes]:
        """A picture of the graph, at most so many nodes a level; what is left out is counted."""
        from .attention_figure import graph_figure

        return graph_figure(self, most=most)

    def networkx(self) -> Any:
        """The graph as a ``networkx.DiGraph``: nodes by id with their facts, edges with the patch removed."""
        made = import_module("networkx").DiGraph()
        made.add_nodes_from((node.id, asdict(node)) for node in self.nodes)
        made.add_edges_from((edge.parent, edge.child, {"removed": edge.removed}) for edge in self.edges)
        return made

    # ---- on disk -----------------------------------------------------------------------------------------

    def as_json(self, *, photo: bool = True) -> dict[str, Any]:
        """Plain values; `photo` puts the frame in, as a PNG in a data address, which a page needs."""
        about = self.subject
        return {
            "format": FORMAT,
            "kind": "whylens.AttentionGraph",
            "whylens": self.version,
            "image": about.image,
            "photo": _address(about.photo) if photo else None,
            "size": list(about.size),
            "grid": None if about.grid is None else list(about.grid),
            "cells": _address(about.cells),
            "target": {"index": about.target_index, "name": about.target_name},
            "model": about.model,
            "score_full": self.score_full,
            "baseline": {"name": self.baseline, "kept": self.baseline_score},
            "threshold": self.threshold,
            "expand": self.expand,
            "units": about.units,
            "nodes": [{**asdict(node), "patches": list(node.patches)} for node in self.nodes],
            "edges": [asdict(edge) for edge in self.edges],
            "truncated": self.truncated,
            "overlap": dict(self.overlap),
            "stops": dict(self.stops),
            "flags": list(self.flags),
            "seed": self.seed,
        }

    def save(self, file: str | os.PathLike[str], *, photo: bool = True) -> Path:
        """Write one JSON file, complete before it has its name; without the photo nobody sees what it was of."""
        path = Path(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(self.as_json(photo=photo), indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise InputError(f"Cannot write '{path}': {error.strerror or error}.") from None
        return path

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> AttentionGraph:
        """Open a saved graph. Raises InputError where there is none, it is damaged, or of a newer format."""
        path = Path(file)
        try:
            said = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise InputError(f"There is no file '{path}'.") from None
        except OSError as error:
            raise InputError(f"Cannot read '{path}': {error.strerror or error}.") from None
        except ValueError as error:
            raise InputError(f"'{path}' is damaged: {error}.") from None
        if not isinstance(said, dict) or said.get("kind") != "whylens.AttentionGraph":
            raise InputError(f"'{path}' holds no attention graph.")
        if said["format"] > FORMAT:
            raise InputError(
                f"'{path}' has format {said['format']}, newer than the {FORMAT} known here. Update whylens."
            )
        return cls._read(said)

    @classmethod
    def _read(cls, said: Mapping[str, Any]) -> AttentionGraph:
        about = Subject(
            said["image"],
            said["model"],
            said["target"]["index"],
            said["target"]["name"],
            (said["size"][0], said["size"][1]),
            None if said["grid"] is None else (said["grid"][0], said["grid"][1]),
            said["units"],
            _picture(said["photo"]),
            _picture(said["cells"]),
        )
        return cls(
            nodes=tuple(Node(**{**node, "patches": tuple(node["patches"])}) for node in said["nodes"]),
            edges=tuple(Edge(**edge) for edge in said["edges"]),
            subject=about,
            score_full=said["score_full"],
            baseline=said["baseline"]["name"],
            baseline_score=said["baseline"]["kept"],
            threshold=said["threshold"],
            expand=said["expand"],
            overlap=said["overlap"],
            stops=said["stops"],
            truncated=said["truncated"],
            flags=tuple(said["flags"]),
            seed=said["seed"],
            version=said["whylens"],
        )

    # ---- inside ------------------------------------------------------------------------------------------

    @cached_property
    def _sets(self) -> tuple[int, ...]:
        return tuple(bitmask(node.patches, self.subject.units) for node in self.nodes)


def png(pixels: NDArray[Any]) -> bytes:
    """Pixels, uint8 or uint16, as a PNG file."""
    from PIL import Image

    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def _address(picture: bytes | None) -> str | None:
    return None if picture is None else f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _picture(address: str | None) -> bytes | None:
    return None if address is None else base64.b64decode(address.partition(",")[2])
