"""Page: pictures and their facts as one HTML file that needs nothing else and loads nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _plugins
from ..colour import Look
from ..errors import InputError
from ..explanation import FORMAT, Explanation
from ..figure import Line, lines_of, table_bars
from ..outlines import READING, gives_segments, leading, outlines, spoken
from ..picture import Photos, overlay, photo_picture
from ..words import cost_words, failure_words, flag_words, html_text, number, score_words, share
from .html import SIDE, image_html, write_document

if TYPE_CHECKING:
    from torch import Tensor

    from ..images import Photo


def write_page(
    path: str | os.PathLike[str],
    explanations: Mapping[str, Explanation],
    images: Any = None,
    *,
    title: str = "whylens",
    intro: str = "",
) -> Path:
    """One HTML file with every image, its maps by method, what they say, their warnings and where they come from.

    `images` gives the photos as in `figure`. The file is complete before it has its name, loads nothing, runs no
    script, and holds every picture itself: some 70 kB each.

    Raises InputError where there is nothing to show or the file cannot be written.
    """
    lines = lines_of(explanations)
    looks = {k: _look(e) for k, e in explanations.items()}
    photos = Photos(images)
    by_image: dict[str, dict[Line, Mapping[str, int]]] = {}
    for line, rows in lines.items():
        by_image.setdefault(line[0], {})[line] = rows
    body = "".join(_article(name, held, explanations, looks, photos) for name, held in by_image.items())
    said = "".join(f"<p>{html_text(part)}</p>" for part in intro.split("\n\n") if part.strip())
    header = f"{said}{_reading(looks, any(map(gives_segments, explanations.values())))}"
    return write_document(path, title, header, body + _failures(explanations), _footer(explanations))


# ---- one image -------------------------------------------------------------------------------------------


def _article(
    name: str,
    lines: Mapping[Line, Mapping[str, int]],
    explanations: Mapping[str, Explanation],
    looks: Mapping[str, Look | None],
    photos: Photos,
) -> str:
    """An image: its photo, and a grid of maps for each of its targets."""
    parts = []
    for line, rows in lines.items():
        found = {label: photos.find(explanations[label], row) for label, row in rows.items()}
        photo = next((p for p, _ in found.values() if p is not None), None)
        cells = [_photo(name, photo.pixels)] if photo is not None and line[1] == 0 else []
        for label, row in rows.items():
            cells.append(_cell(label, explanations[label], row, looks[label], *found[label]))
        head = f"<h3>Target {line[1] + 1} of {len(lines)}</h3>" if len(lines) > 1 else ""
        parts.append(f'{head}<div class="grid">{"".join(cells)}</div>')
    return f"<article><h2>{html_text(name)}</h2>{_predicted(lines, explanations)}{''.join(parts)}</article>"


def _photo(name: str, pixels: Tensor) -> str:
    picture = image_html(photo_picture(pixels, SIDE), f"Photo {name}")
    return f"<figure>{picture}<figcaption>Photo</figcaption></figure>"


def _cell(label: str, explanation: Explanation, row: int, look: Look | None, photo: Photo | None, missing: str) -> str:
    """One map over its photo, or alone where that is missing, and what there is to say."""
    target = explanation.target_names[row]
    if look is None:
        shown, scale = _bars(explanation, row), explanation.unit
    else:
        drawn = overlay(look, row, None if photo is None else photo.pixels, side=SIDE)
        shown = image_html(drawn, f"{label} for {target} on {explanation.ids[row]}") + _gradient(look, row)
        scale = look.words(row)
    facts = {"target": f"{target}, {score_words(explanation, row)}", "layer": explanation.layer or "",
             "baseline": explanation.baseline or "", "scale": scale, "cost": cost_words(explanation)}  # fmt: skip
    facts |= {k.replace("_", " "): f"{float(v[row]):.3g}" for k, v in explanation.checks.items() if _measured(v)}
    if gives_segments(explanation):
        drawn = outlines(explanation, row, None if photo is None else photo.pixels, side=SIDE)
        shown += image_html(drawn, f"Largest segments of {label} for {target} on {explanation.ids[row]}")
        facts |= dict(zip(("for", "against"), map(spoken, leading(explanation, row)), strict=True))
    facts["photo"] = missing
    listed = "".join(f"<dt>{html_text(k)}</dt><dd>{html_text(v)}</dd>" for k, v in facts.items() if v)
    flags = "".join(f'<p class="flag">⚠ {html_text(flag_words(name))}</p>' for name in explanation.flags(row))
    says = "".join(f'<p class="soft">{html_text(line)}</p>' for line in _says(explanation.method))
    caption = f"<strong>{html_text(label)}</strong>{says}{flags}<dl>{listed}</dl>"
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _predicted(lines: Mapping[Line, Mapping[str, int]], explanations: Mapping[str, Explanation]) -> str:
    """The predicted class, with its probability where one of the targets is it."""
    held = [(explanations[label], row) for rows in lines.values() for label, row in rows.items()]
    held = [(e, row) for e, row in held if int(e.predictions[row]) >= 0]
    if not held:
        return ""
    own = [(e, row) for e, row in held if int(e.targets[row]) == int(e.predictions[row])]
    explanation, row = (own or held)[0]
    sure = f", probability {html_text(share(float(explanation.probabilities[row])))}" if own else ""
    return f"<p>Predicted: <strong>{html_text(explanation.prediction_names[row])}</strong>{sure}</p>"


def _bars(explanation: Explanation, row: int) -> str:
    rows = "".join(f"<tr><td>{html_text(k)}</td><td>{number(v)}</td></tr>" for k, v in table_bars(explanation, row))
    return f"<table><tbody>{rows}</tbody></table>"


def _gradient(look: Look, row: int) -> str:
    stops = ",".join("#" + "".join(f"{round(255 * c):02x}" for c in colour) for colour in look.bar(row, 17))
    return f'<div class="bar" aria-hidden="true" style="background:linear-gradient(90deg,{stops})"></div>'


# ---- around the images -----------------------------------------------------------------------------------


def _reading(looks: Mapping[str, Look | None], outlined: bool) -> str:
    signed = any(look is not None and look.signed for look in looks.values())
    said = "Every map is coloured in its own scale, stated below it. What the net did not see is grey and dark."
    said += " Red speaks for the target, blue against it." if signed else ""
    return f'<p class="soft">{said}{f" {READING}" if outlined else ""}</p>'


def _failures(explanations: Mapping[str, Explanation]) -> str:
    failed = {name: why for e in explanations.values() for name, why in e.failures.items()}
    if not failed:
        return ""
    items = "".join(f"<li>{html_text(failure_words(name, why))}</li>" for name, why in failed.items())
    return f'<section><h2 class="failed">Not explained: {len(failed)}</h2><ul>{items}</ul></section>'


def _footer(explanations: Mapping[str, Explanation]) -> str:
    return f"<footer><h2>Where this comes from</h2><dl>{''.join(_provenance(explanations))}</dl></footer>"


def _provenance(explanations: Mapping[str, Explanation]) -> Iterator[str]:
    every = list(explanations.values())
    versions = {f"{k} {v}" for e in every for k, v in e.versions.items()}
    for term, values in (
        ("model", {e.model for e in every}),
        ("versions", versions),
        ("seed", {str(e.seed) for e in every}),
        ("format", {str(FORMAT)}),
    ):
        yield f"<dt>{term}</dt><dd>{html_text(', '.join(sorted(v for v in values if v)) or 'not recorded')}</dd>"
    for label, e in explanations.items():
        params = ", ".join(f"{k}={v}" for k, v in e.params.items()) or "no parameters"
        yield f"<dt>{html_text(label)}</dt><dd>{html_text(f'{e.method}, {params}; {cost_words(e)}')}</dd>"


def _look(explanation: Explanation) -> Look | None:
    return Look.of(explanation, range(len(explanation))) if explanation.maps.ndim == 4 else None


def _says(method: str) -> list[str]:
    """The first line of a method's docstring; nothing for a function of the caller's."""
    try:
        return (_plugins.find("methods", method).__doc__ or "").strip().splitlines()[:1]
    except InputError:
        return []


def _measured(values: Tensor) -> bool:
    return values.dtype.is_floating_point
