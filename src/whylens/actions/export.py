"""Write a group's images and masks to a folder, for people and other tools."""

from __future__ import annotations

import csv
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
from PIL import Image

from .._files import file_name, prepare_folder, write_atomic
from ..effect import Effect, measured
from ..placement import Placement
from ..task import Task
from ..words import csv_text


def export(task: Task, *, out: str) -> Effect:
    """`group.csv` with key, uri, label and prediction, and one mask picture per image over its upright photo.

    Nothing is measured: before and after are the accuracy of the group's images as it is.
    """
    folder = prepare_folder(Path(out))
    masks = prepare_folder(folder / "masks")
    ids = sorted(task.group.ids)
    rows = task.run.table_at(ids, ["key", "uri", "label", "prediction", "probability", "placement"]).to_pylist()
    masks_of = (mask for shown in task.evidence() for mask in shown.evidence)
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "uri", "label", "prediction", "probability", "mask"])
    for row, mask in zip(rows, masks_of, strict=True):
        said = row["placement"]
        placement = Placement.identity(*mask.shape[1:]) if said is None else Placement.read(said)
        name = f"{file_name(row['key'])}.png"
        over = np.nan_to_num(placement.to_photo(mask.float()).numpy()).reshape(placement.photo) > 0.5
        held = BytesIO()
        Image.fromarray(over.astype(np.uint8) * 255).save(held, "PNG")
        write_atomic(masks / name, held.getvalue())
        words = [row["key"], row["uri"], row["label"], row["prediction"], row["probability"], f"masks/{name}"]
        table.writerow(csv_text(w) if isinstance(w, str) else w for w in words)
    write_atomic(folder / "group.csv", text.getvalue().encode())
    right = task.groups.facts.correct[ids]
    known = right[~np.isnan(right)]
    said_ = {"folder": str(folder), "images": len(ids)}
    return measured("export", task.group.name, "accuracy", known, known, {}, seed=task.seed, said=said_)
