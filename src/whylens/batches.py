"""Batches: images become frames of one shape, and all jobs run on one batch after another."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._state import own_precision
from .collect import Job, Row, finished
from .contract import Maps
from .embedding import embed
from .engine import Precision
from .errors import InputError
from .images import Photo, Unreadable
from .model import Model
from .passes import Passes
from .placement import Placement
from .probe import Probe, Score

log = logging.getLogger("whylens")


@dataclass
class Frames:
    """Prepared images of one batch; a position is the image's number among all."""

    frames: Tensor
    positions: list[int]
    placements: list[Placement | None]

    def part(self, rows: slice) -> Frames:
        """Some of its images."""
        return Frames(self.frames[rows], self.positions[rows], self.placements[rows])


def batched(
    model: Model,
    photos: Iterable[Photo | Unreadable],
    size: int,
    failures: dict[str, str],
    *,
    first: int = 0,
    strict: bool = True,
) -> Iterator[Frames]:
    """Batches of prepared frames of one shape, in order; unreadable images become failures.

    `first` is the position of the first photo. A photo that the model cannot take raises InputError, or becomes a
    failure where not `strict`.
    """
    waiting: list[tuple[int, Tensor, Placement | None]] = []

    def full() -> Frames:
        positions, frames, placements = zip(*waiting, strict=True)
        waiting.clear()
        return Frames(torch.stack(frames), list(positions), list(placements))

    for position, photo in enumerate(photos, first):
        if isinstance(photo, Unreadable):
            failures[photo.id] = photo.reason
            continue
        try:
            frame, placement = model.prepare(photo.pixels, photo.orientation)
        except InputError as error:
            if strict:
                raise InputError(f"{photo.id}: {error}") from None
            failures[photo.id] = str(error)
            continue
        if waiting and (waiting[0][1].shape != frame.shape or len(waiting) == size):
            yield full()
        waiting.append((position, frame, placement))
    if waiting:
        yield full()


class Batches:
    """Runs all jobs on one batch after another; `halved` counts the batches that memory was too small for."""

    def __init__(self, model: Model, jobs: list[Job], kind: Score, precision: Precision = "float32") -> None:
        self.model, self.jobs, self.kind, self.precision, self.halved = model, jobs, kind, precision, 0

    def run(self, batch: Frames) -> None:
        """All jobs on one batch; halved when memory runs out."""
        before = [len(job.rows) for job in self.jobs]
        try:
            self._run(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or len(batch.positions) == 1:
                raise
            for job, count in zip(self.jobs, before, strict=True):
                del job.rows[count:]
            log.warning("Memory ran out with %d images at once; going on with half.", len(batch.positions))
            self.halved += 1
            half = len(batch.positions) // 2
            self.run(batch.part(slice(0, half)))
            self.run(batch.part(slice(half, None)))

    def _run(self, batch: Frames) -> None:
        with own_precision(self.model.net):
            self._explain(batch)

    def _explain(self, batch: Frames) -> None:
        shape = tuple(batch.frames.shape[1:])
        needs = [job.method.facts.needs for job in self.jobs]
        for job in self.jobs:
            if "layer" in job.method.facts.needs:
                job.layer = self.model.layer(job.method.layer, shape).name
        layers = {name for job in self.jobs for name in (job.layer, job.features) if name is not None}
        to_input = any("input gradient" in n for n in needs)
        passes = Passes(self.model, batch.frames, layers=layers, to_input=to_input, precision=self.precision)
        shared: dict[Any, Probe] = {}
        for job in self.jobs:
            before = passes.forwards, passes.backwards, time.perf_counter()
            for rank, index in enumerate(self._targets(job, passes, batch)):
                key = (None if index is None else tuple(index.tolist()), job.target.function)
                if key not in shared:
                    shared[key] = Probe(passes, index, function=job.target.function, score=self.kind)
                self._one(job, shared[key].at(job.method.layer), rank, batch)
            job.run = (job.run[0] + passes.forwards - before[0], job.run[1] + passes.backwards - before[1])
            job.seconds += time.perf_counter() - before[2]

    def _targets(self, job: Job, passes: Passes, batch: Frames) -> Iterator[Tensor | None]:
        if job.target.function is not None:
            yield None
            return
        scores = self.model.scores(passes.trace().output).detach()
        yield from job.target.indices(scores, batch.positions).unbind(1)

    def _one(self, job: Job, probe: Probe, rank: int, batch: Frames) -> None:
        given = job.method.function(probe, **job.params)
        result = given if isinstance(given, Maps) else Maps(given)
        job.cost = max(job.cost, (probe.cost.forwards, probe.cost.backwards))
        scores = probe.score.float().cpu()
        maps, checks = finished(job.method.key, result, scores)
        predictions, sure = self._predicted(probe)
        index = torch.full((len(probe),), -1) if probe.index is None else probe.index.cpu()
        job.rows.append(
            Row(
                maps=maps,
                positions=batch.positions,
                rank=rank,
                index=index,
                scores=scores,
                probabilities=probe.probability.cpu(),
                predictions=predictions,
                placements=batch.placements,
                result=Maps(maps, checks, result.history, result.parts, result.extra),
                frame=tuple(batch.frames.shape[1:]),
                sure=sure,
                embedded=None if job.features is None else embed(probe.at(job.features).activation(), job.within(maps)),
            )
        )

    def _predicted(self, probe: Probe) -> tuple[Tensor, Tensor]:
        """The predicted class and its probability; -1 and not a number where the target is a function."""
        if probe.function is not None:
            return torch.full((len(probe),), -1), torch.full((len(probe),), torch.nan)
        scores = self.model.scores(probe.output).detach().float()
        predictions = scores.argmax(1, keepdim=True)
        return predictions[:, 0].cpu(), self.model.probabilities(scores).gather(1, predictions)[:, 0].cpu()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of whatever device, ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
