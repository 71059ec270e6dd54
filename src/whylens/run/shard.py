"""Shard: the one function that every engine runs: images of a shard → its tables; and its commit."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..batches import Batches, Frames, batched, is_out_of_memory
from ..collect import Job
from ..contract import Metric
from ..errors import WhylensError, kind_and_line
from ..explain import runner
from ..explanation import Explanation
from ..images import Images
from ..located import Located, is_located, joined, trial_at
from ..model import Model
from ..probe import Score
from ..trial import mask_of, score_batch, trial_of
from . import schema
from .commit import Table, commit
from .objects import ObjectSheet
from .plan import Part, Plan, images_of, read_images

log = logging.getLogger("whylens")

Told = Callable[[int], None]
"""Called with the number of images that were just finished."""


@dataclass
class Worker:
    """Works off shards of one part of a run with one model; jobs and metrics are those of the part, in its order."""

    folder: Path
    plan: Plan
    part: Part
    model: Model
    jobs: list[Job]
    metrics: Sequence[Metric]
    images: Images | None = None  # all of them, where they cannot be read from their files
    decoders: int = 1

    def run(self, shard: int, told: Told) -> bool:
        """Make a shard's tables and commit them; False if another worker had."""
        with threads(self.plan.settings["threads"]):
            tables, notes = self.tables(shard, told)
        return commit(self.folder, self.part.name, shard, tables, notes)

    def tables(self, shard: int, told: Told) -> tuple[dict[str, Table], dict[str, Any]]:
        """The tables of a shard by family, and notes for its record; nothing is written."""
        start, stop = self.plan.bounds(shard)
        listed = read_images(self.folder, self.plan, start, stop)
        if self.images is None:
            images = images_of(listed, self.plan.images)
        else:
            images = self.images.subset(slice(start, stop))
        sheet = (ObjectSheet if self.part.objects else _Sheet)(self, start, images, listed)
        batches = runner(self.model, self.jobs, self.score, self.plan.settings["precision"])
        failures: dict[str, str] = {}
        photos = images.stream(workers=self.decoders)
        done = 0
        for frames in batched(
            self.model, photos, self.plan.settings["batch_size"], failures, first=start, strict=False
        ):
            self._batch(batches, frames, sheet, failures)
            told(frames.positions[-1] + 1 - start - done)
            done = frames.positions[-1] + 1 - start
        told(stop - start - done)
        notes: dict[str, Any] = {} if not batches.halved else {"halved": batches.halved}
        notes |= {"one by one": sheet.single} if sheet.single else {}
        return sheet.tables(failures), notes

    @property
    def score(self) -> Score:
        """What is explained."""
        kind: Score = self.plan.settings["score"]
        return kind

    def _batch(self, batches: Any, frames: Frames, sheet: Any, failures: dict[str, str]) -> None:
        """One batch; where the net or a method raises, one image after another, so that one cannot fail the rest."""
        try:
            batches.run(frames)
            sheet.take(frames, batches)
        except Exception as error:  # nets and methods are the caller's code; what they raise becomes a row's reason
            if is_out_of_memory(error) and len(frames.positions) > 1:
                raise
            for job in self.jobs:
                job.rows.clear()
            if len(frames.positions) == 1:
                failures[sheet.images.ids[frames.positions[0] - sheet.start]] = (
                    str(error) if isinstance(error, WhylensError) else kind_and_line(error)
                )
                return
            sheet.single += 1
            for k in range(len(frames.positions)):
                self._batch(batches, frames.part(slice(k, k + 1)), sheet, failures)


class _Sheet:
    """The rows of one shard while they are filled."""

    def __init__(self, worker: Worker, start: int, images: Images, listed: pa.Table) -> None:
        self.worker, self.start, self.images, self.listed, self.single = worker, start, images, listed, 0
        n, part = len(images), worker.part
        self.rows = schema.rows_schema(part)
        self.maps = schema.maps_schema(part)
        self.values: dict[str, list[Any]] = {f.name: [None] * n for f in (*self.rows, *self.maps)}
        self.values["image_id"] = list(range(start, start + n))
        self.vectors = {
            m.label: (np.zeros((n, m.dim), np.float32), np.zeros(n, np.bool_)) for m in part.methods if m.dim
        }
        self.done = np.zeros(n, np.bool_)

    def take(self, frames: Frames, batches: Batches | Located) -> None:
        """What the jobs found in one batch."""
        worker = self.worker
        model, first = worker.model, self.start
        found = [(job, job.finish(model, self.images, {}, batches.kind, first=first)) for job in worker.jobs]
        at = [p - self.start for p in frames.positions]
        for (job, explanation), stored in zip(found, worker.part.methods, strict=True):
            if tuple(explanation.maps.shape[1:]) != tuple(stored.raw):
                raise WhylensError(
                    f"Its {job.method.key} map is {tuple(explanation.maps.shape[1:])}, and those of this run are "
                    f"{tuple(stored.raw)}, because the photos differ in size and the model takes them as they are. "
                    "Give the Model a preprocess."
                )
        measured = self._measured(frames, found)
        if not worker.part.name:
            self._image(at, found[0][1], torch.cat([row.sure for row in worker.jobs[0].rows]))
        for (job, explanation), stored in zip(found, worker.part.methods, strict=True):
            if stored.label in worker.part.keeps:
                self._method(at, explanation, stored.label)
                self._embedding(at, job, stored.label)
            job.rows.clear()
        for column, values in measured.items():
            self._put(at, column, values)
        self.done[at] = True

    def _image(self, at: list[int], e: Explanation, sure: torch.Tensor) -> None:
        """What is known of an image whatever the method."""
        index = [None if p < 0 else int(p) for p in e.predictions]
        self._put(at, "prediction_index", index)
        self._put(at, "prediction", [None if p is None else e.prediction_names[k] for k, p in enumerate(index)])
        self._put(at, "probability", [None if p != p else p for p in sure.tolist()])
        self._put(at, "placement", [schema.placement_row(p) for p in e.placements])

    def _method(self, at: list[int], e: Explanation, label: str) -> None:
        stored = next(m for m in self.worker.part.methods if m.label == label)
        maps, scale = schema.pack(e.maps, stored)
        self._put(at, f"map.{label}", maps)
        self._put(at, f"scale.{label}", scale)
        self._put(at, f"target.{label}", [None if t < 0 else int(t) for t in e.targets])
        self._put(at, f"score.{label}", e.scores.tolist())
        self._put(at, f"target_probability.{label}", [None if p != p else p for p in e.probabilities.tolist()])
        self._put(at, f"flags.{label}", [list(e.flags(k)) for k in range(len(e))])
        for name in stored.checks:
            self._put(at, f"check.{name}.{label}", e.checks[name].float().tolist())

    def _embedding(self, at: list[int], job: Job, label: str) -> None:
        if label not in self.vectors:
            return
        values, known = self.vectors[label]
        position = 0
        for row in job.rows:
            if row.embedded is None:
                continue
            here = at[position : position + len(row.positions)]
            position += len(row.positions)
            values[here] = row.embedded.vectors.cpu().numpy()
            known[here] = ~row.embedded.empty.cpu().numpy()
            self._put(here, f"negative.{label}", row.embedded.negative.tolist())

    def _measured(self, frames: Frames, found: list[tuple[Job, Explanation]]) -> dict[str, list[float | None]]:
        """The metrics of every method, by column."""
        worker, columns = self.worker, {}
        if not worker.metrics:
            return {}
        at = [p - self.start for p in frames.positions]
        wanted = any(metric.facts.needs_masks for metric in worker.metrics)
        masks = [mask_of(self.images, k) if wanted else None for k in at]
        labels = [self.images.labels[k] for k in at]
        seed = worker.plan.settings["seed"]
        for (job, explanation), stored in zip(found, worker.part.methods, strict=True):
            if is_located(worker.model, explanation):
                trials = [
                    trial_at(worker.model, self.images, explanation[k], frames.frames[[k]], masks[k], "float32")
                    for k in range(len(at))
                ]
            else:
                trials = [
                    trial_of(
                        worker.model,
                        self.images,
                        explanation,
                        frames.frames,
                        masks=masks,
                        labels=labels,
                        method=job.method,
                    )
                ]
            for metric in worker.metrics:
                values = joined([score_batch(metric, trial, seed=seed) for trial in trials]).values.tolist()
                columns[schema.metric_column(metric.key, stored.label)] = [None if v != v else v for v in values]
        return columns

    def tables(self, failures: Mapping[str, str]) -> dict[str, Table]:
        """All rows by family; an image that failed is a row with its reason."""
        part = self.worker.part
        if not part.name:
            self._outcome(failures)
        for label, (values, known) in self.vectors.items():
            if f"embedding.{label}" in self.values:
                self.values[f"embedding.{label}"] = schema.vectors(values, known)
        made = {part.rows_family: Table(schema.table(self.rows, self.values), max(1, len(self.images)))}
        if part.keeps:
            made[part.maps_family] = Table(schema.table(self.maps, self.values), schema.MAPS_PER_GROUP)
        return made

    def _outcome(self, failures: Mapping[str, str]) -> None:
        labels = self.listed.column("label_index").to_pylist()
        self.values["key"] = list(self.images.ids)
        self.values["label"] = self.listed.column("label").to_pylist()
        self.values["label_index"] = labels
        judged = self.worker.model.task == "classification"
        guesses = self.values["prediction_index"]
        self.values["correct"] = [
            None if not judged or g is None or y is None else g == y for g, y in zip(guesses, labels, strict=True)
        ]
        self.values["status"] = ["ok" if done else "error" for done in self.done]
        self.values["error"] = [
            None if done else failures.get(name, "It was not explained, and no reason was given.")
            for name, done in zip(self.images.ids, self.done, strict=True)
        ]

    def _put(self, at: list[int], column: str, values: Sequence[Any]) -> None:
        held = self.values[column]
        for position, value in zip(at, values, strict=True):
            held[position] = value


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch with this many threads, as found afterwards: the count is part of what fixes a value to the bit."""
    before = torch.get_num_threads()
    try:
        if before != count:
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def decoders(workers: int) -> int:
    """Threads that decode photos in each of so many processes."""
    return max(1, min(8, (os.cpu_count() or 1) // workers))
