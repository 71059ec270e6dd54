"""Report: a run on one page: how good the model is, which reasons it has, what was done, its worst and best images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..colour import Look
from ..errors import InputError, WhylensError
from ..groups.group import open_groups
from ..picture import Photos, overlay
from ..words import failure_words, flag_words, html_text, share
from . import objects
from .effects import acts_html, acts_of
from .groups import groupings, groups_html
from .html import image_html, list_html, table_html, write_document

if TYPE_CHECKING:
    from ..explanation import Explanation
    from ..run.read import Run
    from ..run.summary import Summary

SHOWN = 12
"""Images in each row of pictures; failures and classes are listed to eight times as many."""

SIDE = 320

_PLACES = {"groups": "which reasons the model has", "acts": "what was done about them"}


def report(
    run: Run,
    path: str | os.PathLike[str] = "report.html",
    *,
    method: str | None = None,
    grouping: str | None = None,
) -> Path:
    """One HTML file of a run, of images or a detector's objects, complete before it has its name; it loads nothing
    and runs no script.

    `method` is the one whose maps lie over the images; the default is the run's first. A run that was grouped shows
    the latest version of `grouping`, by default the one written last, and every act on any of its groups. Images are
    read from their files again; where that is not possible their maps are shown alone, and it is said.
    """
    summary = run.summary()
    second = _second(run, grouping)
    label = run.method(method)[1].label if method else run.labels[0]
    title = f"Audit of {run.plan.model['name']}: {_counted(run, summary)}"
    judged = objects.judged_html(run, summary) if run.of_objects else _accuracy(summary)
    shown = objects.picked(run, SHOWN) if run.of_objects else _picked(run)
    pictures = (_pictures(run, label, *row) for row in shown)
    main = "".join([judged, *second.values(), *pictures, _failed(summary)])
    return write_document(path, title, _head(run, summary, second), main, _footer(run))


def _second(run: Run, grouping: str | None) -> dict[str, str]:
    """The sections of groups and of acts, by the places that links go to; none where there is nothing."""
    names = groupings(run)
    if grouping is not None:
        found = {"groups": groups_html(open_groups(run, grouping))}
    else:
        found = {"groups": _newest(run, names[0])} if names else {}
    acts = acts_html(*acts_of(run, names))
    return found | ({"acts": acts} if acts else {})


def _newest(run: Run, name: str) -> str:
    try:
        return groups_html(open_groups(run, name))
    except WhylensError as error:
        return f'<section id="groups"><h2>Groups</h2><p class="flag">⚠ {html_text(str(error))}</p></section>'


def _counted(run: Run, summary: Summary) -> str:
    images = f"{len(run)} images"
    return images if summary.objects is None else f"{summary.objects} objects in {images}"


def _head(run: Run, summary: Summary, second: Mapping[str, str]) -> str:
    state = "" if run.finished else f" It is still going: {summary.committed} images are committed."
    failed = f" {summary.failed} could not be explained; they are listed below." if summary.failed else ""
    said = f"{_counted(run, summary)}, {', '.join(run.labels)}.{failed}{state}"
    flags = [
        f'<p class="flag">⚠ {html_text(f"{label}: {count} maps. {flag_words(flag)}")}</p>'
        for label, held in summary.flags.items()
        for flag, count in held.items()
    ]
    links = ", ".join(f'<a href="#{place}">{_PLACES[place]}</a>' for place in second)
    nav = f'<nav aria-label="sections">Also on this page: {links}.</nav>' if links else ""
    return f"<p>{html_text(said)}</p>{''.join(flags)}{nav}"


def _accuracy(summary: Summary) -> str:
    """Accuracy, a table per class, the metrics."""
    parts = []
    if summary.judged:
        parts.append(f"<p><strong>Accuracy {summary.accuracy}</strong> on {summary.judged} images.</p>")
        worst = sorted(summary.classes, key=lambda c: (c.f1.n == 0, c.f1.value))
        head = ("class", "images", "recall", "precision", "F1", "most often taken for")
        rows = [
            [
                c.name,
                str(c.images),
                str(c.recall),
                str(c.precision),
                str(c.f1),
                ", ".join(f"{name} ({n})" for name, n in list(c.confused.items())[:3]),
            ]
            for c in worst[: 8 * SHOWN]
        ]
        parts.append(table_html(head, rows, "classes"))
        if len(worst) > 8 * SHOWN:
            parts.append(f"<p>and {len(worst) - 8 * SHOWN} more classes, all better.</p>")
    if summary.unknown_labels:
        said = ", ".join(f"'{name}' ({n})" for name, n in list(summary.unknown_labels.items())[: 8 * SHOWN])
        parts.append(f'<p class="flag">⚠ {html_text(f"labels that are no class of the model: {said}")}</p>')
    if summary.metrics:
        rows = [[name.removeprefix("metric."), str(i), str(i.n)] for name, i in summary.metrics.items()]
        parts.append(table_html(("metric", "mean", "images"), rows, "metrics"))
    note = '<p class="soft">In brackets: 95 % intervals (Wilson; bootstrap for F1 and means). Worst class first.</p>'
    return f"<section><h2>How good it is</h2>{''.join(parts)}{note}</section>" if parts else ""


# ---- images ------------------------------------------------------------------------------------------------


def _picked(run: Run) -> Iterator[tuple[str, list[int], str]]:
    """Images to show: a title, their numbers, and which they are: the surest wrong and the surest right predictions."""
    rows = run.table(["image_id", "probability", "correct", "status"]).to_pylist()
    sure = [row for row in rows if row["correct"] is not None and row["probability"] is not None]
    sure.sort(key=lambda row: (-row["probability"], row["image_id"]))
    wrong = [row["image_id"] for row in sure if not row["correct"]]
    right = [row["image_id"] for row in sure if row["correct"]]
    yield "Sure and wrong", wrong[:SHOWN], "Wrong predictions, the most probable first."
    yield "Sure and right", right[:SHOWN], "Right predictions, the most probable first."
    if not sure:
        first = [row["image_id"] for row in rows if row["status"] == "ok"]
        yield "Images", first[:SHOWN], "No labels to judge by: the first."


def _facts(run: Run, keys: Sequence[str]) -> list[dict[str, str]]:
    """What stands under the picture of each image."""
    told = []
    for row in run.table_at(keys, ["label", "prediction", "probability"]).to_pylist():
        sure = "" if row["probability"] is None else f", p {share(row['probability'])}"
        told.append({"predicted": f"{row['prediction'] or 'nothing'}{sure}", "label": row["label"] or "unknown"})
    return told


def _pictures(run: Run, label: str, title: str, ids: list[int], says: str) -> str:
    if not ids:
        return ""
    explanation = run.explanation(label, ids)
    told = objects.facts(run, ids) if run.of_objects else _facts(run, explanation.ids)
    photos, why = _photos(run, ids)
    cells = "".join(_cell(explanation, row, facts, photos) for row, facts in enumerate(told))
    lost = f'<p class="flag">⚠ {html_text(why)}</p>' if why else ""
    head = f'<h2>{html_text(title)}</h2><p class="soft">{html_text(f"{says} {label} over each.".strip())}</p>'
    return f'<section>{head}{lost}<div class="grid">{cells}</div></section>'


def _photos(run: Run, ids: list[int]) -> tuple[Photos | None, str]:
    try:
        return Photos(run.images_at(objects.images(run, ids) if run.of_objects else ids)), ""
    except InputError as error:
        return None, f"Maps without their photos: {error}"


def _cell(explanation: Explanation, row: int, facts: Mapping[str, str], photos: Photos | None) -> str:
    name = explanation.ids[row]
    photo, missing = (None, "") if photos is None else photos.find(explanation, row)
    shown = ""
    if explanation.maps.ndim == 4:
        look = Look.of(explanation, [row])
        drawn = overlay(look, row, None if photo is None else photo.pixels, side=SIDE)
        shown = image_html(drawn, f"{explanation.label} on {name}")
    flags = "".join(f'<p class="flag">⚠ {html_text(flag_words(flag))}</p>' for flag in explanation.flags(row))
    said = list_html({**facts, "photo": missing})
    return f"<figure>{shown}<figcaption><strong>{html_text(name)}</strong>{flags}{said}</figcaption></figure>"


def _failed(summary: Summary) -> str:
    if not summary.failed:
        return ""
    most = 8 * SHOWN
    items = "".join(
        f"<li>{html_text(failure_words(name, why))}</li>" for name, why in list(summary.failures.items())[:most]
    )
    more = f"<p>and {summary.failed - most} more.</p>" if summary.failed > most else ""
    return f'<section><h2 class="failed">Not explained: {summary.failed}</h2><ul>{items}</ul>{more}</section>'


# ---- where it comes from -----------------------------------------------------------------------------------


def _footer(run: Run) -> str:
    listed = "".join(f"<dt>{html_text(k)}</dt><dd>{html_text(v)}</dd>" for k, v in _provenance(run))
    return f"<footer><h2>Where this comes from</h2><dl>{listed}</dl></footer>"


def _provenance(run: Run) -> Iterator[tuple[str, str]]:
    plan = run.plan
    yield "run", str(run.folder.resolve())
    yield "made", plan.created
    source = plan.model["source"]
    yield "model", plan.model["name"] + (f", opened from {source['spec']}" if source else ", made in Python")
    if plan.model["closed"]:
        yield "opened again", f"cannot be: {plan.model['closed']}"
    yield "weights", f"sha256 {plan.model['sha256']}"
    origin = plan.images["origin"]
    yield "images", ", ".join(origin["data"]) if origin else "given in Python"
    yield "image list", f"sha256 {plan.images['hash']}"
    for part in run.parts:
        for m in part.methods:
            if m.label in part.keeps:
                params = ", ".join(f"{k}={v}" for k, v in m.params.items()) or "no parameters"
                yield m.label, f"{m.method}, {params}" + (f", layer {m.layer}" if m.layer else "")
    words = ("target", "score", "seed", "batch_size", "precision", "threads", "store")
    yield "settings", ", ".join(f"{w.replace('_', ' ')} {plan.settings[w]}" for w in words)
    yield "versions", ", ".join(f"{k} {v}" for k, v in plan.versions.items())
    yield "again", f"whylens audit --config '{run.folder.resolve() / 'audit.toml'}' --out NEW"
