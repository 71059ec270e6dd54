"""Table: models or methods side by side over one list of images, and how it is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import interval
from .._files import prepare_folder, write_atomic
from ..errors import InputError, no_such
from ..explanation import Explanation
from ..interval import Interval, plain
from ..words import csv_text, failure_words, html_text
from .cells import across, aligned, figure_words, markdown_table, number, sort_key, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FORMAT = 1
"""Of comparison.json."""

Better = Literal["higher", "lower", "none"]
Mark = Literal["best", "close", ""]

_ARROW = {"higher": " ↑", "lower": " ↓", "none": ""}
_READING = (
    "* the best; ~ not told apart from it: the 95 % interval of the paired difference holds 0. ↑ higher is better, "
    "↓ lower. [ ] 95 % intervals over images: bootstrap, Wilson for accuracy. - no value."
)


@dataclass(frozen=True)
class Column:
    """One thing measured: its name, which values are better, how its numbers are written, what it is."""

    name: str
    better: Better
    form: str = ".3f"
    says: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """One model or method: an interval or a plain number by column, and the values ``(N,)`` of all images behind it."""

    name: str
    cells: Mapping[str, Interval | float]
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models, or methods of one model, over the images `ids`: `rows` by `columns`.

    `agreement` holds, by method (or by model where methods are compared), how alike the maps of two rows are.
    `explanations` are those of the images that `figure` shows, `failures` the images that could not be read, `notes`
    what must be known to read the table. A cell that is not there has no value, and a note says why.
    """

    kind: Literal["models", "methods"]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    ids: tuple[str, ...]
    agreement: Mapping[str, Mapping[tuple[str, str], Interval]] = field(default_factory=dict)
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self)} {self.kind} over {len(self.ids)} images: {', '.join(r.name for r in self.rows)})"
        )

    def __str__(self) -> str:
        return self.text()

    def __getitem__(self, name: str) -> Row:
        """The row of a model or method."""
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise no_such("row", name, [r.name for r in self.rows], f"It compares the {self.kind} of its rows.")
        return found

    def difference(self, first: str, second: str, column: str) -> Interval:
        """How much more the first row has than the second, image by image, with its interval.

        Only images with a value in both count. Raises InputError where a column has no values by image.
        """
        pair = [self[name].values.get(column) for name in (first, second)]
        if pair[0] is None or pair[1] is None:
            raise InputError(f"difference: '{column}' has no value by image in both of {first} and {second}.")
        return interval.mean(pair[0] - pair[1], seed=self.seed)

    # ---- which is best -----------------------------------------------------------------------------------

    @cached_property
    def marks(self) -> Mapping[tuple[str, str], Mark]:
        """By row and column: "best", or "close" where the paired difference from the best does not exclude 0."""
        found: dict[tuple[str, str], Mark] = {}
        for column in self.columns:
            there = [(row, number(row.cells[column.name])) for row in self.rows if column.name in row.cells]
            there = [(row, value) for row, value in there if value == value]
            if column.better == "none" or len({value for _, value in there}) < 2:
                continue
            best = (max if column.better == "higher" else min)(there, key=lambda pair: pair[1])
            for row, value in there:
                if value == best[1]:
                    found[row.name, column.name] = "best"
                elif self._close(row, best[0], column.name):
                    found[row.name, column.name] = "close"
        return found

    def _close(self, row: Row, best: Row, column: str) -> bool:
        if column not in row.values or column not in best.values:
            return False
        apart = self.difference(best.name, row.name, column)
        return apart.n > 1 and apart.low <= 0 <= apart.high

    # ---- as text -----------------------------------------------------------------------------------------

    def text(self) -> str:
        """For the terminal: the shorter side of the table across, notes below."""
        signs = {"best": " *", "close": " ~", "": ""}
        table = across([self._head(), *self._lines(lambda text, mark: text + signs[mark])])
        return "\n".join([*aligned(table), "", *self._below()])

    def markdown(self) -> str:
        """As Markdown; the best in bold."""
        signs = {"best": "**{}**", "close": "{} ~", "": "{}"}
        table = across([self._head(), *self._lines(lambda text, mark: signs[mark].format(text))])
        return "\n".join([*markdown_table(table), "", *(f"- {line}" for line in self._below("in bold"))]) + "\n"

    def csv(self) -> str:
        """One line per row: value, both ends of its interval and number of images for each column."""
        out = StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        tails = ("", " low", " high", " n")
        spread = {c.name for c in self.columns if any(isinstance(r.cells.get(c.name), Interval) for r in self.rows)}
        write([self.kind[:-1], *(c.name + t for c in self.columns for t in (tails if c.name in spread else ("",)))])
        for row in self.rows:
            cells = [written(row.cells.get(c.name), len(tails) if c.name in spread else 1) for c in self.columns]
            write([csv_text(row.name), *(text for cell in cells for text in cell)])
        return out.getvalue()

    def images_csv(self) -> str:
        """One line per image: its value in every row and column that has one by image."""
        out = StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        series = {f"{row.name}: {column}": v for row in self.rows for column, v in row.values.items()}
        write(["image", *map(csv_text, series)])
        for k, name in enumerate(self.ids):
            write([csv_text(name), *("" if v[k] != v[k] else float(v[k]) for v in series.values())])
        return out.getvalue()

    def html(self) -> str:
        """One self-contained page: the table, sortable by every column, agreement, overlays, notes."""
        from ..view.html import document, image_html
        from ..view.table import SORT, Cell, sortable

        heads = [(self.kind[:-1], ""), *((self._title(c), c.says) for c in self.columns)]
        rows = []
        for row, (name, *texts) in zip(self.rows, self._lines(lambda text, _: text), strict=True):
            cells = [Cell(text, sort_key(row.cells.get(c.name)), self.marks.get((row.name, c.name), ""))
                     for c, text in zip(self.columns, texts, strict=True)]  # fmt: skip
            rows.append([Cell(name, name), *cells])
        parts = [f"<section><h2>Table</h2>{sortable(heads, rows)}</section>"]
        pairs = [
            [Cell(f"{a}, {b}", f"{a}, {b}"), Cell(name, name), Cell(figure_words(i), sort_key(i)), Cell(str(i.n), i.n)]
            for name, held in self.agreement.items()
            for (a, b), i in held.items()
        ]
        if pairs:
            of = "method" if self.kind == "models" else "model"
            top = [("maps of", ""), (of, ""), ("rank correlation", "of the maps on the photo"), ("images", "")]
            parts.append(f"<section><h2>Agreement</h2>{sortable(top, pairs)}</section>")
        if self.explanations:
            from PIL import Image

            with Image.open(BytesIO(self._picture)) as drawn:
                shown = image_html(drawn.convert("RGB"), f"Maps over photos: {', '.join(self.explanations)}")
            parts.append(f'<section><h2>Maps</h2><div class="whole">{shown}</div></section>')
        said = "".join(f"<li>{html_text(line)}</li>" for line in self._below("in bold"))
        title = f"{len(self)} {self.kind} over {len(self.ids)} images"
        return document(title, "", "".join(parts), f"<footer><ul>{said}</ul></footer>", script=SORT)

    # ---- as pictures and files ---------------------------------------------------------------------------

    def figure(self, images: Any = None, **view: Any) -> tuple[Figure, Axes]:
        """The chosen images, one line each, every model and method beside the photo; options as in `whylens.figure`."""
        from ..figure import figure

        if not self.explanations:
            raise InputError("figure: no image was kept. Compare with pictures=4, or with the ids of some images.")
        return figure(self.explanations, images, **view)

    def save(self, folder: str | Path) -> Path:
        """Write the table as CSV, Markdown and HTML, the values by image, the figure; comparison.json last.

        Raises InputError where the folder cannot be written.
        """
        path = prepare_folder(Path(folder))
        files = {"comparison.csv": self.csv(), "comparison.md": self.markdown(), "images.csv": self.images_csv()}
        files["comparison.html"] = self.html()
        try:
            for name, text in files.items():
                write_atomic(path / name, text.encode())
            if self.explanations:
                write_atomic(path / "figure.png", self._picture)
            said = json.dumps(self.as_dict(), indent=1, ensure_ascii=False)
            write_atomic(path / "comparison.json", said.encode())
        except OSError as error:
            raise InputError(f"Cannot write to '{path}': {error.strerror or error}. Give another folder.") from None
        return path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not a number is null."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "images": len(self.ids),
            "columns": [vars(c) for c in self.columns],
            "rows": [
                {"name": r.name, "cells": {c: plain(v) for c, v in r.cells.items()}, "marks": self._marked(r.name)}
                for r in self.rows
            ],
            "agreement": {
                name: [{"of": pair, **plain(i)} for pair, i in held.items()] for name, held in self.agreement.items()
            },
            "failures": dict(self.failures),
            "notes": list(self.notes),
        }

    @cached_property
    def _picture(self) -> bytes:
        held = BytesIO()
        self.figure()[0].savefig(held, format="png")
        return held.getvalue()

    def _marked(self, name: str) -> dict[str, str]:
        return {column: mark for (row, column), mark in self.marks.items() if row == name}

    # ---- words -------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        return [self.kind[:-1], *(self._title(c) for c in self.columns)]

    def _lines(self, mark: Any) -> Iterator[list[str]]:
        for row in self.rows:
            cells = [mark(self._cell(row, c), self.marks.get((row.name, c.name), "")) for c in self.columns]
            yield [row.name, *cells]

    def _cell(self, row: Row, column: Column) -> str:
        cell = row.cells.get(column.name)
        if cell is None or number(cell) != number(cell):
            return "-"
        if not isinstance(cell, Interval):
            return f"{cell:{column.form}}"
        return figure_words(cell, column.form) + (f", n {cell.n}" if len(self._counts(column)) > 1 else "")

    def _title(self, column: Column) -> str:
        counts = self._counts(column)
        return column.name + _ARROW[column.better] + (f" (n {min(counts)})" if len(counts) == 1 else "")

    def _counts(self, column: Column) -> set[int]:
        """How many images stand behind each cell of a column."""
        cells = [row.cells.get(column.name) for row in self.rows]
        return {cell.n for cell in cells if isinstance(cell, Interval) and cell.n}

    def _below(self, best: str = "*") -> Iterator[str]:
        yield _READING.replace("*", best, 1)
        for name, held in self.agreement.items():
            said = "; ".join(f"{a} and {b} {i.value:.3f}" for (a, b), i in held.items() if i.n)
            if said and len(self.rows) > 2:
                yield f"Agreement of {name}: {said}."
        for says in dict.fromkeys(c.says for c in self.columns if c.says):
            yield f"{', '.join(c.name for c in self.columns if c.says == says)}: {says}."
        yield from self.notes
        yield from (f"Not read: {failure_words(name, why)}" for name, why in list(self.failures.items())[:20])
        if len(self.failures) > 20:
            yield f"and {len(self.failures) - 20} more images could not be read."
