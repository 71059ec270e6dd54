"""Figures: maps over their photos, method beside method, with target, score, scale and warnings stated."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .colour import Look, Scale
from .errors import InputError, no_such
from .explanation import Explanation
from .outlines import INKS, READING, TOP, gives_segments, leading, outlines, spoken
from .picture import Photos, photo_picture, picture
from .picture import overlay as overlay_picture
from .sheet import GREY, RED, Cell, Text, lay_out
from .words import cost_words, failure_words, flag_words, html_text, number, score_words, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .images import Photo

__all__ = ["as_html", "figure", "picture"]

SHOWN = 8
"""Rows of a figure where the caller leaves them open."""

FEATURES = 10
"""Bars of a table's row: the features of largest magnitude."""

_SIDE = 600  # pixels of a picture: enough for print at the width of a column

Style = Literal["maps", "outlines"]

Line = tuple[str, int]
"""One line of a figure: an image's id and which of its targets."""


def figure(
    explanations: Mapping[str, Explanation],
    images: Any = None,
    *,
    rows: Sequence[int | str] | int | str | None = None,
    colours: str = "auto",
    scale: Scale = "image",
    alpha: float = 0.5,
    overlay: bool = True,
    style: Style = "maps",
    top: int = TOP,
    against: int = TOP,
) -> tuple[Figure, Axes]:
    """A grid: one line per image and target, the photo first, then one column per method; with the first map's axes.

    `rows` are positions or ids; the default is the first 8. Photos come from `images` (anything `load_images` takes),
    else from the explanations themselves, else from the files they were read from; a map whose photo is not at hand
    is drawn alone. `overlay=False` draws every map alone on its frame. `colours`, `scale` and `alpha` are as in
    `picture`; "shared" is one scale per method over the rows shown. Nothing of this changes the explanations.

    `style` "outlines" draws methods of segments (LIME, Shapley values) as the outlines of the `top` segments for and
    the `against` against the target, others as maps; the targets of one method then stand side by side.
    """
    lines = lines_of(explanations)
    _check_style(style, explanations)
    shown = _chosen(lines, rows)
    columns = []
    for label, explanation in explanations.items():
        mine = {line: held[label] for line, held in shown.items() if label in held}
        is_map = explanation.maps.ndim == 4
        look = Look.of(explanation, list(mine.values()), colours=colours, scale=scale) if is_map else None
        sides = (top, against) if style == "outlines" and gives_segments(explanation) else None
        columns.append(_Column(label, explanation, mine, look, alpha, overlay, sides))
    heads, cells = [[], *(c.head() for c in columns)], _cells(shown, columns, Photos(images))
    if style == "outlines" and len(columns) == 1:
        heads, cells = _side_by_side(shown, heads, cells)
    made, axes = lay_out(heads, cells, _foot(columns, len(shown), len(lines)))
    return made, next(a for line in axes for a in line[1:] if a is not None)


def as_html(explanation: Explanation) -> str:
    """What a notebook shows: the figure of the first rows, and a table of their targets, scores and flags."""
    label = html_text(explanation.label)
    if not len(explanation):
        return f"<p>{label}: no rows, {len(explanation.failures)} failed.</p>"
    made, _ = figure({explanation.label: explanation})
    held = BytesIO()
    made.savefig(held, format="png")
    data = base64.b64encode(held.getvalue()).decode()
    heads = ("image", "target", "probability", explanation.score_kind, "flags")
    body = "".join(f"<tr>{''.join(f'<td>{html_text(v)}</td>' for v in _facts(explanation, i))}</tr>"
                   for i in range(min(SHOWN, len(explanation))))  # fmt: skip
    return (
        f'<figure style="margin:0"><img alt="Maps of {label}" style="max-width:100%" '
        f'src="data:image/png;base64,{data}"></figure><table><thead><tr>'
        f"{''.join(f'<th>{html_text(h)}</th>' for h in heads)}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{label}, {html_text(cost_words(explanation))}; {len(explanation)} rows in all.</p>"
    )


def lines_of(explanations: Mapping[str, Explanation]) -> dict[Line, dict[str, int]]:
    """Which row of which explanation belongs to which image and target, in the order of the images.

    Raises InputError where there is nothing to show.
    """
    if not isinstance(explanations, Mapping):
        raise InputError(
            "figure: explanations must be a mapping from label to Explanation, as explain_many gives it. "
            f"Got {type(explanations).__name__}. For one of them: explanation.figure()."
        )
    found: dict[str, dict[Line, dict[str, int]]] = {}
    for label, explanation in explanations.items():
        counts: dict[str, int] = {}
        for row, name in enumerate(explanation.ids):
            line = (name, counts.get(name, 0))
            counts[name] = line[1] + 1
            found.setdefault(name, {}).setdefault(line, {})[label] = row
    if not found:
        raise InputError("figure: there must be at least one explained image. Got none.")
    return {line: held for by_line in found.values() for line, held in by_line.items()}


def table_bars(explanation: Explanation, row: int) -> list[tuple[str, float]]:
    """The features of largest magnitude in a row ``(F,)``, by name where the names are known."""
    values = explanation.maps[row].flatten()
    order = values.abs().argsort(descending=True, stable=True)[:FEATURES].tolist()
    names = explanation.names if explanation.names and len(explanation.names) == len(values) else None
    return [(names[i] if names else f"feature {i}", float(values[i])) for i in order]


@dataclass(frozen=True, eq=False)
class _Column:
    """One explanation in a figure: its row by line, and how it is drawn."""

    label: str
    explanation: Explanation
    rows: Mapping[Line, int]
    look: Look | None
    alpha: float
    over: bool
    sides: tuple[int, int] | None = None  # segments outlined for and against

    def head(self) -> list[Text]:
        layer = [Text(self.explanation.layer, size=7, colour=GREY)] if self.explanation.layer else []
        return [Text(self.label, size=9, bold=True, most=3), *layer]

    def cell(self, line: Line, photo: Photo | None, missing: str) -> Cell:
        row, said = self.rows[line], self.explanation
        texts = [Text(said.target_names[row], bold=True), Text(score_words(said, row), size=7)]
        texts += [Text(f"\N{WARNING SIGN} {name}", colour=RED, bold=True) for name in said.flags(row)]
        if self.look is None:
            shown = table_bars(said, row)
            unit = f" ({said.unit})" if said.unit else ""
            scale = f"±{number(abs(shown[0][1]))}{unit}, {len(shown)} of {said.maps[row].numel()} features"
            return Cell(bars=shown, texts=[*texts, Text(scale, size=6.5, colour=GREY)])
        pixels = photo.pixels if photo is not None and self.over else None
        noted = [Text(missing, size=6.5, colour=GREY, most=4)] if missing else []
        if self.sides is not None:
            top, against = self.sides
            drawn = outlines(said, row, pixels, top=top, against=against, side=_SIDE)
            return Cell(np.asarray(drawn), texts=[*texts, *_segment_texts(said, row, top, against), *noted])
        drawn = overlay_picture(self.look, row, pixels, alpha=self.alpha, side=_SIDE)
        texts.insert(0, Text(self.look.words(row), size=6.5, colour=GREY))
        return Cell(np.asarray(drawn), bar=self.look.bar(row), texts=[*texts, *noted])


def _segment_texts(explanation: Explanation, row: int, top: int, against: int) -> list[Text]:
    """The values of the segments outlined, in the colours of their lines."""
    sides = leading(explanation, row, top=top, against=against)
    said = [(word, ink, spoken(own)) for word, ink, own in zip(("for", "against"), INKS, sides, strict=True) if own]
    unit = f" ({explanation.unit})" if explanation.unit else ""
    return [Text(f"{word}: {own}{'' if k else unit}", size=6.5, colour=ink) for k, (word, ink, own) in enumerate(said)]


def _cells(shown: Iterable[Line], columns: Sequence[_Column], photos: Photos) -> list[list[Cell | None]]:
    """Line by line the photo, then a cell per column."""
    cells: list[list[Cell | None]] = []
    for line in shown:
        found = {c.label: photos.find(c.explanation, c.rows[line]) for c in columns if line in c.rows}
        first = _photo_cell(line, list(found.values()))
        cells.append([first, *(c.cell(line, *found[c.label]) if c.label in found else None for c in columns)])
    return cells


def _side_by_side(
    shown: Iterable[Line], heads: list[list[Text]], cells: list[list[Cell | None]]
) -> tuple[list[list[Text]], list[list[Cell | None]]]:
    """Heads and cells with the targets of an image in one line behind its photo."""
    merged: dict[str, list[Cell | None]] = {}
    for line, (photo, *own) in zip(shown, cells, strict=True):
        merged.setdefault(line[0], [photo]).extend(own)
    longest = max(map(len, merged.values()))
    padded = [line + [None] * (longest - len(line)) for line in merged.values()]
    return heads + [[]] * (longest - len(heads)), padded


def _check_style(style: str, explanations: Mapping[str, Explanation]) -> None:
    if style not in get_args(Style):
        raise InputError(f"figure: style must be 'maps' or 'outlines'. Got {style!r}.")
    if style == "outlines" and not any(map(gives_segments, explanations.values())):
        raise InputError(
            f"figure: outlines need a method of segments, such as lime. Got {', '.join(explanations)}. "
            "Draw them as maps: style='maps'."
        )


def _photo_cell(line: Line, found: Sequence[tuple[Photo | None, str]]) -> Cell:
    photo = next((p for p, _ in found if p is not None), None)
    texts = [Text(line[0])]
    if photo is None:
        return Cell(texts=texts)
    if photo.label is not None:
        texts.append(Text(f"label {photo.label}", size=7, colour=GREY))
    return Cell(np.asarray(photo_picture(photo.pixels, _SIDE)), texts=texts)


def _chosen(
    lines: Mapping[Line, Mapping[str, int]], rows: Sequence[int | str] | int | str | None
) -> dict[Line, Mapping[str, int]]:
    every = list(lines)
    if rows is None:
        return {line: lines[line] for line in every[:SHOWN]}
    picked: list[Line] = []
    for row in [rows] if isinstance(rows, int | str) else rows:
        if isinstance(row, str):
            same = [line for line in every if line[0] == row]
            if not same:
                raise no_such("image", row, [name for name, _ in every], f"{len(every)} rows were explained.")
            picked += same
        elif -len(every) <= row < len(every):
            picked.append(every[row])
        else:
            raise InputError(f"figure: rows must be ids, or positions below {len(every)}. Got {row}.")
    if not picked:
        raise InputError("figure: rows must name at least one row. Got none.")
    return {line: lines[line] for line in picked}


def _foot(columns: Sequence[_Column], shown: int, count: int) -> list[Text]:
    """What holds for the whole figure: warnings in words, failures, how to read the colours, what is not shown."""
    flags = dict.fromkeys(f for c in columns for row in c.rows.values() for f in c.explanation.flags(row))
    said = [Text(f"\N{WARNING SIGN} {flag_words(name)}", size=7.5, colour=RED, most=3) for name in flags]
    failures = {name: why for c in columns for name, why in c.explanation.failures.items()}
    for name, why in list(failures.items())[:3]:
        said.append(Text(f"Not explained: {failure_words(name, why)}", size=7.5, colour=RED, most=3))
    notes = [f"{len(failures) - 3} more images could not be explained."] if len(failures) > 3 else []
    looks = [c.look for c in columns if c.look is not None and c.sides is None]
    notes += [READING] if any(c.sides for c in columns) else []
    if any(look.signed and look.colours == "bwr" for look in looks):
        notes.append("Red speaks for the target, blue against it.")
    if any(c.over and c.look is not None and _cropped(c.explanation, row) for c in columns for row in c.rows.values()):
        notes.append("Dark grey: outside the frame, not seen by the net.")
    notes += [f"{shown} of {count} rows."] if shown < count else []
    return [*said, *([Text(" ".join(notes), size=7.5, colour=GREY, most=3)] if notes else [])]


def _cropped(explanation: Explanation, row: int) -> bool:
    placement = explanation.placements[row] if explanation.placements else None
    return placement is not None and not bool(placement.covered((256, 256)).all())


def _facts(explanation: Explanation, row: int) -> tuple[str, ...]:
    probability = float(explanation.probabilities[row])
    return (
        explanation.ids[row],
        explanation.target_names[row],
        "" if probability != probability else share(probability),
        f"{float(explanation.scores[row]):.3g}",
        "; ".join(flag_words(name) for name in explanation.flags(row)) or "none",
    )
