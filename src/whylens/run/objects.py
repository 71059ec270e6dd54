"""Objects: the rows of one shard where a detector is explained: images with counts, and their objects one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ..batches import Frames
from ..collect import Job
from ..detections import Detections
from ..errors import ImageError, InputError
from ..explanation import Explanation
from ..images import Images
from ..located import Located
from ..places import Place
from ..references import Match, Reference, matched, references
from . import schema
from .commit import Table

if TYPE_CHECKING:
    from .shard import Worker


class ObjectSheet:
    """The rows of one shard while they are filled; an image that failed has a reason and no objects."""

    def __init__(self, worker: Worker, start: int, images: Images, listed: pa.Table) -> None:
        self.worker, self.start, self.images, self.listed, self.single = worker, start, images, listed, 0
        part, n = worker.part, len(images)
        self.rows = schema.rows_schema(part)
        self.image_values: dict[str, list[Any]] = {field.name: [None] * n for field in self.rows}
        self.image_values["image_id"] = list(range(start, start + n))
        self.done = np.zeros(n, np.bool_)
        self.columns = (schema.instances_schema(part), schema.maps_schema(part))
        self.values: dict[str, list[Any]] = {field.name: [] for known in self.columns for field in known}

    def take(self, frames: Frames, batches: Located) -> None:
        """What the jobs found in one batch."""
        found = [(job, self._finished(job, batches)) for job in self.worker.jobs]
        for position, placement in zip(frames.positions, frames.placements, strict=True):
            k = position - self.start
            own = [place for number, place in batches.found if number == position]
            known = self._references(k, placement)
            matches = matched(_detections(own), known or [])
            self._objects(position, own, matches)
            missed = None if known is None else len(known) - sum(match is not None for match in matches)
            counts = (len(own), None if known is None else len(known), missed)
            for name, value in zip(schema.COUNTS, counts, strict=True):
                self.image_values[name][k] = value
            self.image_values["placement"][k] = schema.placement_row(placement)
            self.done[k] = True
        for job, explanation in found:
            if explanation is not None:
                self._method(job, explanation)
            job.rows.clear()

    def tables(self, failures: Mapping[str, str]) -> dict[str, Table]:
        """All rows by family."""
        part, held = self.worker.part, self.image_values
        held["key"] = list(self.images.ids)
        held["label"] = self.listed.column("label").to_pylist()
        held["label_index"] = self.listed.column("label_index").to_pylist()
        held["status"] = ["ok" if done else "error" for done in self.done]
        held["error"] = [
            None if done else failures.get(name, "It was not explained, and no reason was given.")
            for name, done in zip(self.images.ids, self.done, strict=True)
        ]
        instances, maps = (schema.table(known, self.values) for known in self.columns)
        return {
            part.rows_family: Table(schema.table(self.rows, held), max(1, len(self.images))),
            part.values_family: Table(instances, max(1, instances.num_rows)),
            part.maps_family: Table(maps, schema.MAPS_PER_GROUP),
        }

    # ---- inside ------------------------------------------------------------------------------------------

    def _finished(self, job: Job, batches: Located) -> Explanation | None:
        return job.finish(self.worker.model, self.images, {}, batches.kind, first=self.start) if job.rows else None

    def _references(self, k: int, placement: Any) -> list[Reference] | None:
        """The image's annotated objects in its frame; None where none are known, or they cannot be read."""
        try:
            objects = self.images.objects(k)
        except (ImageError, InputError):
            return None
        return None if objects is None or placement is None else references(objects, self.worker.model, placement)

    def _objects(self, position: int, places: Sequence[Place], matches: Sequence[Match | None]) -> None:
        for place, match in zip(places, matches, strict=True):
            one = place.instance
            if one is None:
                continue
            covered = None if match is None or match.covered != match.covered else match.covered
            row = {
                "image_id": position,
                "instance": one.number,
                "class": one.name,
                "class_index": one.label,
                "score": one.score,
                "box": list(one.box),
                "mask_area": None if place.mask is None else float(place.mask.sum()),
                "level": one.layer,
                "reference": None if match is None else match.reference,
                "overlap": None if match is None else match.overlap,
                "covered": covered,
                "incomplete": None if match is None else match.incomplete,
            }
            for name, value in row.items():
                self.values[name].append(value)

    def _method(self, job: Job, e: Explanation) -> None:
        stored = next(m for m in self.worker.part.methods if m.label == job.method.key)
        label = stored.label
        maps, scale = schema.pack(e.maps, stored)
        columns: dict[str, Sequence[Any]] = {
            f"map.{label}": maps,
            f"scale.{label}": scale,
            f"target.{label}": e.targets.tolist(),
            f"score.{label}": e.scores.tolist(),
            f"target_probability.{label}": e.probabilities.tolist(),
            f"flags.{label}": [list(e.flags(k)) for k in range(len(e))],
        }
        columns |= {f"check.{name}.{label}": e.checks[name].float().tolist() for name in stored.checks}
        if stored.dim:
            embedded = [row.embedded for row in job.rows]
            vectors = torch.cat([one.vectors.cpu() for one in embedded if one is not None])
            empty = torch.cat([one.empty.cpu() for one in embedded if one is not None]).tolist()
            columns[f"embedding.{label}"] = [None if no else v for no, v in zip(empty, vectors.tolist(), strict=True)]
            columns[f"negative.{label}"] = torch.cat([o.negative for o in embedded if o is not None]).tolist()
        for name, values in columns.items():
            self.values[name].extend(values)


def _detections(places: Sequence[Place]) -> Detections:
    """The objects of one image as they were detected."""
    known = [place.instance for place in places if place.instance is not None]
    masks = [place.mask for place in places if place.mask is not None]
    return Detections(
        torch.tensor([one.box for one in known]).reshape(-1, 4),
        torch.tensor([one.label for one in known], dtype=torch.long),
        torch.tensor([one.score for one in known]),
        torch.stack(masks) if masks and len(masks) == len(known) else None,
    )


def check_rows(table: pa.Table, start: int, stop: int) -> bool:
    """Whether rows ``(image_id, instance)`` are objects of these images in order, numbered from 0 within each."""
    last, next_number = start, 0
    for image, number in zip(table.column("image_id").to_pylist(), table.column("instance").to_pylist(), strict=True):
        next_number = next_number if image == last else 0
        if not last <= image < stop or number != next_number:
            return False
        last, next_number = image, number + 1
    return True
