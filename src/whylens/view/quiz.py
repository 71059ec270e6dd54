"""Quiz: can a reader tell what the model says of a photo with parts hidden, with a graph, with a map, with neither?

The user study of structured attention graphs as a tool. Source: Shitole et al. 2021, arXiv:2011.06733: the
readers predicted the net's answer on occluded photos, right in 57 % without help, 86 % with the graph.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .. import __version__
from .._check import Range, checked
from ..errors import InputError
from ..interval import Interval, wilson
from .graph import baseline_words, shown
from .html import script_document

PLAIN = ("none", "graph")
"""Conditions that every quiz has: no help, and the graph."""

COLUMNS = ("reader", "question", "condition", "truth", "answer", "seconds", "seed")
"""Columns of the answers that `summarise` reads; the quiz writes more."""


def quiz_page(
    graphs: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str] | None = None,
    maps: Mapping[str, Sequence[str]] | None = None,
    questions: Annotated[int, Range(1)] = 6,
    keeps: Annotated[float, Range(0, 1)] = 0.5,
    seed: Annotated[int, Range(0)] = 0,
) -> str:
    """One self-contained HTML document that asks about pictures with parts hidden and saves the answers as CSV.

    graphs: as for `graph_page`, one per photo. Up to `questions` of each graph's sets are asked about, at most half of
    those that are no roots, as many that keep the target as lose it where there are; these are taken out of the graph
    that is shown. The model keeps its answer where a set has at least `keeps` of the whole photo's score.

    maps: by name one picture per photo, as data URIs; each is one more kind of help. Which photo comes with which help,
    and the order, follow from `seed` and the reader's number.

    Raises InputError where there is nothing to ask about, or maps and names are not one per photo.
    """
    checked(quiz_page, {"questions": questions, "keeps": keeps, "seed": seed}, "quiz")
    maps = maps or {}
    names = [graph.get("image") or f"photo {i + 1}" for i, graph in enumerate(graphs)] if names is None else names
    for what, given in {"names": names, **maps}.items():
        if len(given) != len(graphs):
            raise InputError(f"quiz: {what} must be one per photo. Got {len(given)} for {len(graphs)} photos.")
    if set(maps) & set(PLAIN):
        raise InputError(f"quiz: a map cannot be called {' or '.join(PLAIN)}, which are help already. Rename it.")
    photos = []
    for i, (name, graph) in enumerate(zip(names, graphs, strict=True)):
        whole = shown(graph)
        asked = _asked(whole["nodes"], questions, keeps, np.random.default_rng([seed, i]))
        if asked:
            baseline = baseline_words(graph) if graph.get("baseline") else "filled"
            own = {label: given[i] for label, given in maps.items()}
            photos.append({"name": name, "baseline": baseline, "maps": own, **_divided(whole, asked)})
    if not photos:
        raise InputError("quiz: no graph has a set to ask about. Each needs two nodes or more that are no roots.")
    left = len(graphs) - len(photos)
    said = (
        f"<p>{left} of {len(graphs)} photos have too small a graph to ask about and are left out.</p>" if left else ""
    )
    data = {"seed": seed, "version": __version__, "keeps": keeps, "conditions": [*PLAIN, *maps], "photos": photos}
    return script_document("Quiz: what does the model say?", said, "quiz", data)


def _asked(nodes: Sequence[Mapping[str, Any]], count: int, keeps: float, rng: np.random.Generator) -> list[int]:
    """Numbers of the nodes to ask about, as many that keep the target as lose it where there are."""
    open_ = [node for node in nodes if not node["root"] and node["patches"]]
    order = rng.permutation(len(open_)).tolist()
    sides = [[open_[i]["id"] for i in order if (open_[i]["relative"] >= keeps) == side] for side in (True, False)]
    most = min(count, len(open_) // 2)
    fewer, more = sorted(sides, key=len)
    few = fewer[: most // 2]
    return sorted(few + more[: most - len(few)])


def _divided(graph: Mapping[str, Any], asked: Sequence[int]) -> dict[str, Any]:
    """The graph without the nodes that are asked about and their edges, numbered anew; and the questions."""
    nodes = [node for node in graph["nodes"] if node["id"] not in asked]
    number = {node["id"]: i for i, node in enumerate(nodes)}
    edges = [
        {**edge, "parent": number[edge["parent"]], "child": number[edge["child"]]}
        for edge in graph["edges"]
        if edge["parent"] in number and edge["child"] in number
    ]
    left = {**graph, "nodes": [{**node, "id": number[node["id"]]} for node in nodes], "edges": edges}
    questions = [{key: graph["nodes"][i][key] for key in ("patches", "relative")} for i in asked]
    return {"graph": left, "questions": questions}


# ---- the answers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What readers answered with one kind of help: how often they were right, and their median seconds."""

    condition: str
    accuracy: Interval
    seconds: float
    readers: int

    def __str__(self) -> str:
        from_ = f"{self.accuracy.n} answers of {self.readers} {'reader' if self.readers == 1 else 'readers'}"
        return f"{self.condition}: accuracy {self.accuracy}, median {self.seconds:.1f} s, {from_}"


def summarise(*files: str | Path) -> list[Answers]:
    """By kind of help what the quiz's CSV files hold, no help first.

    The interval of the accuracy is Wilson's and takes answers as independent; those of one reader are not quite.

    Raises InputError for a file that is not of the quiz, or a reader who is in two files.
    """
    if not files:
        raise InputError("quiz: name the CSV files that the quiz saved.")
    held: dict[str, list[dict[str, str]]] = {}
    seen: dict[tuple[str, str], str] = {}
    for file in files:
        for row in _rows(Path(file)):
            other = seen.setdefault((row["reader"], row["seed"]), str(file))
            if other != str(file):
                raise InputError(f"quiz: reader {row['reader']} is in both '{other}' and '{file}'. Give each one once.")
            held.setdefault(row["condition"], []).append(row)
    order = sorted(held, key=lambda name: (PLAIN.index(name) if name in PLAIN else len(PLAIN), name))
    return [_answers(name, held[name]) for name in order]


def _answers(condition: str, rows: Sequence[Mapping[str, str]]) -> Answers:
    right = sum(row["truth"] == row["answer"] for row in rows)
    seconds = statistics.median(float(row["seconds"]) for row in rows)
    return Answers(condition, wilson(right, len(rows)), seconds, len({(row["reader"], row["seed"]) for row in rows}))


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"quiz: cannot read '{file}': {getattr(error, 'strerror', None) or error}.") from None
    for number, row in enumerate(rows, 2):
        lacking = [name for name in COLUMNS if not row.get(name)]
        if lacking:
            raise InputError(f"quiz: line {number} of '{file}' has no {', '.join(lacking)}. Give a file of the quiz.")
        if {row["truth"], row["answer"]} - {"keeps", "loses"} or not _is_time(row["seconds"]):
            raise InputError(f"quiz: line {number} of '{file}' is not as the quiz wrote it.")
        yield {name: _plain(row[name]) for name in COLUMNS}


def _is_time(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _plain(text: str) -> str:
    """A cell without the mark that keeps spreadsheets from reading it as a formula."""
    return text[1:] if text[:1] == "'" and text[1:2] in "=+-@\t\r" else text
