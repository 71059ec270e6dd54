"""What the command line leaves in a folder: overlays, raw maps, one JSON, one page."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ._files import file_name, write_atomic
from .colour import Scale
from .errors import InputError
from .explanation import FLAGS, Explanation
from .images import Images

FORMAT = 1
"""Of explain.json."""


def write_explanations(
    folder: Path,
    many: Mapping[str, Explanation],
    images: Images,
    *,
    colours: str = "auto",
    scale: Scale = "image",
    title: str = "whylens",
    intro: str = "",
) -> list[str]:
    """Write ``pictures/``, ``maps/``, ``explain.json`` and ``index.html``; gives what was written, the JSON last."""
    try:
        _write(folder, many, images, colours, scale, title, intro)
    except OSError as error:
        raise InputError(f"Cannot write to '{folder}': {error.strerror or error}. Give another --out.") from None
    return ["pictures/", "maps/", "index.html", "explain.json"]


def _write(
    folder: Path, many: Mapping[str, Explanation], images: Images, colours: str, scale: Scale, title: str, intro: str
) -> None:
    from .figure import figure
    from .view.page import write_page

    files = image_files([name for e in many.values() for name in e.ids])
    for label, explanation in many.items():
        explanation.save(folder / "maps" / file_name(label))
        _write_pictures(folder / "pictures" / file_name(label), explanation, images, files, colours, scale)
    for name in dict.fromkeys(i for e in many.values() for i in e.ids):
        held = BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a photo's name may be in any script
            made, _ = figure(many, images, rows=name, colours=colours, scale=scale)
            made.savefig(held, format="png")
        _write_image(folder / "pictures" / f"{files[name]}.png", held)
    write_page(folder / "index.html", many, images, title=title, intro=intro)
    said = {"format": FORMAT, "explanations": {label: e.as_json() for label, e in many.items()}}
    write_atomic(folder / "explain.json", json.dumps(said, indent=1, ensure_ascii=False).encode())


def image_files(ids: Iterable[str]) -> dict[str, str]:
    """A file name for each image: its id without the ending, where that tells it from all others."""
    names = list(dict.fromkeys(ids))
    bare = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    held = list(bare.values())
    return {name: file_name(bare[name] if held.count(bare[name]) == 1 else name) for name in names}


def _write_pictures(
    folder: Path, explanation: Explanation, images: Images, files: Mapping[str, str], colours: str, scale: Scale
) -> None:
    """One overlay per row on the original photo; several targets of one image are told apart by name.

    Methods of segments have the outlines of their largest ones beside it, in ``outlines/``.
    """
    from .outlines import gives_segments, outlines
    from .picture import picture

    if explanation.maps.ndim != 4:
        return
    for row, name in enumerate(explanation.ids):
        photo = images[images.ids.index(name)]
        several = explanation.ids.count(name) > 1
        own = file_name(f"{files[name]}-{explanation.target_names[row]}") if several else files[name]
        drawn = {folder: picture(explanation, row, photo, colours=colours, scale=scale)}
        if gives_segments(explanation):
            drawn[folder / "outlines"] = outlines(explanation, row, photo)
        for place, image in drawn.items():
            held = BytesIO()
            image.save(held, "PNG")
            _write_image(place / f"{own}.png", held)


def _write_image(path: Path, data: BytesIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data.getvalue())


def summary(folder: Path, many: Mapping[str, Explanation], written: list[str]) -> dict[str, Any]:
    """What was found and where it lies, for the terminal and for machines."""
    first = next(iter(many.values()))
    images = []
    for name in dict.fromkeys(i for e in many.values() for i in e.ids):
        rows = [(label, e, k) for label, e in many.items() for k, known in enumerate(e.ids) if known == name]
        images.append(
            {
                "id": name,
                "prediction": rows[0][1].prediction_names[rows[0][2]],
                "maps": [
                    {
                        "label": label,
                        "target": e.target_names[k],
                        "probability": _number(e.probabilities[k]),
                        "score": _number(e.scores[k]),
                        "flags": [FLAGS.get(f, f) for f in e.flags(k)],
                    }
                    for label, e, k in rows
                ],
            }
        )
    return {
        "model": first.model,
        "images": images,
        "failures": dict(first.failures),
        "cost": {label: dict(e.cost) for label, e in many.items()},
        "folder": str(folder),
        "written": written,
        "page": str(folder / "index.html"),
    }


def _number(value: Tensor) -> float | None:
    """A number that JSON can hold."""
    return float(value) if bool(value.isfinite()) else None
