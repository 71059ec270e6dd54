"""Changes: two runs over the same images: what flipped, how accuracy changed, and which classes' focus moved."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from .._files import prepare_folder, write_atomic
from ..errors import InputError
from ..interval import Interval, plain
from ..words import csv_text, html_text
from .cells import aligned, figure_words, markdown_table

FORMAT = 1
"""Of changes.json."""

LISTED = 20
"""Flipped images and classes in a text; files hold all of them."""

SIGNED = "+.3f"

_FLIP_HEADS = ("image", "label", "before", "after", "p before", "p after", "change")
_CLASS_HEADS = (
    "class",
    "images",
    "accuracy before",
    "accuracy after",
    "energy inside, change",
    "maps alike",
    "of",
    "moved",
)


@dataclass(frozen=True)
class Flip:
    """One image that one run gets right and the other wrong; `change` is "right to wrong" or "wrong to right"."""

    key: str
    label: str
    before: str
    after: str
    probability_before: float
    probability_after: float
    change: str


@dataclass(frozen=True)
class ClassChange:
    """What changed for the images of one class.

    `focus` is the change of the map's energy inside the object, None where a run does not hold it; `alike` the cosine
    of both runs' maps on the photo. Both are over the images for which both runs explain the same target.
    """

    name: str
    images: int
    accuracy_before: Interval
    accuracy_after: Interval
    focus: Interval | None
    alike: Interval
    moved: bool


@dataclass(frozen=True)
class Changes:
    """What changed from one run to another over the same images; made by `whylens.compare([before, after])`.

    `accuracy_change` is paired: its interval is of the differences image by image. `flips` are the images right in one
    run and wrong in the other, `other_wrong` counts those that went from one wrong class to another. `classes` come
    with those that moved first; `rule` says what moved means.
    """

    before: str
    after: str
    method: str
    images: int
    accuracy_before: Interval
    accuracy_after: Interval
    accuracy_change: Interval
    flips: tuple[Flip, ...]
    other_wrong: int
    classes: tuple[ClassChange, ...]
    alike: Interval
    rule: str
    notes: tuple[str, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        return self.text()

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of the classes whose focus moved."""
        return tuple(c.name for c in self.classes if c.moved)

    def text(self) -> str:
        """For the terminal: the first of each list."""
        return "\n".join(self._parts(aligned, LISTED))

    def markdown(self) -> str:
        """As Markdown, with everything."""
        return "\n".join(self._parts(markdown_table, None)) + "\n"

    def csv(self) -> str:
        """The flipped images."""
        return _as_csv(_FLIP_HEADS, map(_flip_cells, self.flips))

    def classes_csv(self) -> str:
        """The classes."""
        return _as_csv(_CLASS_HEADS, map(_class_cells, self.classes))

    def html(self) -> str:
        """One self-contained page with sortable tables."""
        from ..view.html import document
        from ..view.table import SORT, Cell, sortable

        flips = [[Cell(text, text) for text in _flip_cells(f)] for f in self.flips]
        classes = [
            [
                Cell(text, by)
                for text, by in zip(
                    _class_cells(c),
                    (c.name, c.images, c.accuracy_before.value, c.accuracy_after.value,
                     None if c.focus is None else c.focus.value, c.alike.value, c.alike.n, "yes" if c.moved else "no"),
                    strict=True,
                )
            ]
            for c in self.classes
        ]  # fmt: skip
        said = "".join(f"<p>{html_text(line)}</p>" for line in self._said())
        parts = [
            f"<section><h2>{html_text(name)}</h2>{sortable([(head, '') for head in heads], rows)}</section>"
            for name, heads, rows in (
                (f"Classes: {len(self.moved)} moved", _CLASS_HEADS, classes),
                (f"Flipped: {len(self.flips)}", _FLIP_HEADS, flips),
            )
            if rows
        ]
        return document(f"From {self.before} to {self.after}", said, "".join(parts), "", script=SORT)

    def save(self, folder: str | Path) -> Path:
        """Write flips.csv, classes.csv, changes.md, changes.html and, last, changes.json.

        Raises InputError where the folder cannot be written.
        """
        path = prepare_folder(Path(folder))
        files = {"flips.csv": self.csv(), "classes.csv": self.classes_csv(), "changes.md": self.markdown()}
        files |= {"changes.html": self.html()}
        files["changes.json"] = json.dumps(self.as_dict(), indent=1, ensure_ascii=False)
        try:
            for name, text in files.items():
                write_atomic(path / name, text.encode())
        except OSError as error:
            raise InputError(f"Cannot write to '{path}': {error.strerror or error}. Give another folder.") from None
        return path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not a number is null."""
        said = {k: plain(v) for k, v in vars(self).items() if k not in ("flips", "classes", "notes")}
        flips = [vars(flip) for flip in self.flips]
        classes = [{k: None if v is None else plain(v) for k, v in vars(c).items()} for c in self.classes]
        return {"format": FORMAT, **said, "flips": flips, "classes": classes, "notes": list(self.notes)}

    # ---- words -------------------------------------------------------------------------------------------

    def _said(self) -> Iterator[str]:
        yield f"From {self.before} to {self.after}: {self.images} images in both."
        if self.accuracy_change.n:
            change = figure_words(self.accuracy_change, SIGNED)
            yield f"Accuracy {self.accuracy_before} before, {self.accuracy_after} after, change {change}."
            lost = sum(flip.change == "right to wrong" for flip in self.flips)
            yield (
                f"Flipped: {lost} from right to wrong, {len(self.flips) - lost} from wrong to right; "
                f"{self.other_wrong} from one wrong class to another."
            )
        alike = f"alike by {figure_words(self.alike)} (cosine) on {self.alike.n} images with the same target"
        yield f"Maps of {self.method}: {alike}."
        yield f"Focus moved in {len(self.moved)} of {len(self.classes)} classes. {self.rule}"
        yield from self.notes

    def _parts(self, table: Any, most: int | None) -> Iterator[str]:
        yield from self._said()
        for name, heads, rows in (
            ("classes", _CLASS_HEADS, [_class_cells(c) for c in self.classes]),
            ("flipped images", _FLIP_HEADS, [_flip_cells(f) for f in self.flips]),
        ):
            if rows:
                yield from ("", *table([heads, *rows[:most]]))
            if most is not None and len(rows) > most:
                yield f"and {len(rows) - most} more {name}"


def _flip_cells(flip: Flip) -> list[str]:
    sure = (f"{p:.3f}" if p == p else "-" for p in (flip.probability_before, flip.probability_after))
    return [flip.key, flip.label, flip.before, flip.after, *sure, flip.change]


def _class_cells(changed: ClassChange) -> list[str]:
    accuracy = (f"{i.value:.3f}" if i.n else "-" for i in (changed.accuracy_before, changed.accuracy_after))
    focus = "-" if changed.focus is None else figure_words(changed.focus, SIGNED)
    alike = (figure_words(changed.alike), str(changed.alike.n))
    return [changed.name, str(changed.images), *accuracy, focus, *alike, "yes" if changed.moved else "no"]


def _as_csv(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(heads)
    for row in rows:
        write([cell if _is_number(cell) else csv_text(cell) for cell in row])
    return out.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
