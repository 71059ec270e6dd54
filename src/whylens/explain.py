"""The verb explain: model + images → Explanation. Methods asked together share their passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import layers
from . import target as targets
from ._progress import track
from .collect import Job, Row, finished
from .contract import Maps, Method
from .errors import InputError
from .explanation import Explanation
from .images import Images, Photo, Unreadable
from .model import Model
from .placement import Placement
from .probe import Passes, Probe, Score, score_kind
from .sources import load_images

log = logging.getLogger("whylens")

BATCH = 16
"""Images per batch where the caller leaves it open: more is no faster on a CPU; halved when memory runs out."""

Request = Method | str | Callable[..., Any]


def explain(
    model: Model | nn.Module,
    images: Any,
    *,
    method: Request = "grad_cam",
    target: Any = None,
    params: Mapping[str, Any] | None = None,
    layer: str | nn.Module | None = None,
    score: Score = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "auto"] = "float32",
    seed: int = 0,
    progress: bool = False,
) -> Explanation:
    """Why the model scores the target as it does, image by image.

    `images` is whatever `load_images` takes. `method` is a name, a `Method`, or a function of your own; `params` are
    its parameters. `target` is an int, a class name, one of these per image ``(N,)``, "top5" (five rows per image),
    a callable ``output -> (N,)``, or None: the predicted class. `layer` is the feature layer by dotted name or
    module. `score` is what is explained: the target's logit, probability or log-odds; "auto" is the logit where the
    net gives logits. `precision` "auto" lets passes without gradients run in bfloat16 within a tolerance; passes with
    gradients are float32 always. `seed` fixes every draw.

    Images that cannot be read become `failures`. Raises InputError for what cannot be done as asked.
    """
    request = _with(Method.read(method), params, layer)
    many = explain_many(
        model,
        images,
        methods=[request],
        target=target,
        score=score,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        progress=progress,
    )
    return next(iter(many.values()))


def explain_many(
    model: Model | nn.Module,
    images: Any,
    *,
    methods: Sequence[Request],
    target: Any = None,
    score: Score = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "auto"] = "float32",
    seed: int = 0,
    progress: bool = False,
) -> Mapping[str, Explanation]:
    """Several methods on the same images, by label; what one pass can serve is computed once for all of them.

    A `Method` may carry its own layer, target and parameters; its label is the key. The rest is as in `explain`.
    """
    model = _model(model)
    images = images if isinstance(images, Images) else load_images(images)
    size = _batch_size(batch_size)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed must be an integer >= 0. Got {seed!r}.")
    if precision not in ("float32", "auto"):
        raise InputError(f"precision must be 'float32' or 'auto'. Got {precision!r}.")
    requests = [_by_name(Method.read(m), model) for m in _sequence(methods)]
    jobs = [_job(request, model, target, len(images), seed) for request in requests]
    _refuse_double([job.method.key for job in jobs])
    batch = _Batches(model, jobs, score_kind(model, score))
    failures: dict[str, str] = {}
    for frames in _frames(model, images, size, failures, progress):
        batch.run(frames)
    if not any(job.rows for job in jobs):
        first = next(iter(failures.items()))
        raise InputError(f"None of the {len(images)} images could be read. The first, {first[0]}: {first[1]}")
    for name, reason in failures.items():
        log.warning("%s: %s", name, reason)
    return MappingProxyType({job.method.key: job.finish(model, images, failures, batch.kind) for job in jobs})


# ---- running ---------------------------------------------------------------------------------------------


@dataclass
class _Frames:
    """Prepared images of one batch."""

    frames: Tensor
    positions: list[int]
    placements: list[Placement | None]

    def halves(self) -> tuple[_Frames, _Frames]:
        half = len(self.positions) // 2
        first = _Frames(self.frames[:half], self.positions[:half], self.placements[:half])
        return first, _Frames(self.frames[half:], self.positions[half:], self.placements[half:])


class _Batches:
    """Runs all jobs on one batch after another."""

    def __init__(self, model: Model, jobs: list[Job], kind: Score) -> None:
        self.model, self.jobs, self.kind = model, jobs, kind

    def run(self, batch: _Frames) -> None:
        """All jobs on one batch; halved when memory runs out."""
        before = [len(job.rows) for job in self.jobs]
        try:
            self._run(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or len(batch.positions) == 1:
                raise
            for job, count in zip(self.jobs, before, strict=True):
                del job.rows[count:]
            log.warning("Memory ran out with %d images at once; going on with half.", len(batch.positions))
            for half in batch.halves():
                self.run(half)

    def _run(self, batch: _Frames) -> None:
        shape = tuple(batch.frames.shape[1:])
        needs = [job.method.facts.needs for job in self.jobs]
        for job in self.jobs:
            if "layer" in job.method.facts.needs:
                job.layer = self.model.layer(job.method.layer, shape).name
        layers = {job.layer for job in self.jobs if job.layer is not None}
        passes = Passes(self.model, batch.frames, layers=layers, to_input=any("input gradient" in n for n in needs))
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

    def _targets(self, job: Job, passes: Passes, batch: _Frames) -> Iterator[Tensor | None]:
        if job.target.function is not None:
            yield None
            return
        scores = self.model.scores(passes.trace().output).detach()
        yield from job.target.indices(scores, batch.positions).unbind(1)

    def _one(self, job: Job, probe: Probe, rank: int, batch: _Frames) -> None:
        given = job.method.function(probe, **job.params)
        result = given if isinstance(given, Maps) else Maps(given)
        job.cost = max(job.cost, (probe.cost.forwards, probe.cost.backwards))
        scores = probe.score.float().cpu()
        maps, checks = finished(job.method.key, result, scores)
        index = torch.full((len(probe),), -1) if probe.index is None else probe.index.cpu()
        job.rows.append(
            Row(
                maps=maps,
                positions=batch.positions,
                rank=rank,
                index=index,
                scores=scores,
                probabilities=probe.probability.cpu(),
                predictions=self._predictions(probe),
                placements=batch.placements,
                result=Maps(maps, checks, result.history, result.parts, result.extra),
                frame=tuple(batch.frames.shape[1:]),
            )
        )

    def _predictions(self, probe: Probe) -> Tensor:
        if probe.function is not None:
            return torch.full((len(probe),), -1)
        return self.model.scores(probe.output).detach().argmax(1).cpu()


def _frames(model: Model, images: Images, size: int, failures: dict[str, str], progress: bool) -> Iterator[_Frames]:
    """Batches of prepared frames of one shape, in order; unreadable images become failures."""
    waiting: list[tuple[int, Tensor, Placement | None]] = []

    def full() -> _Frames:
        positions, frames, placements = zip(*waiting, strict=True)
        waiting.clear()
        return _Frames(torch.stack(frames), list(positions), list(placements))

    photos = track(images.stream(), total=len(images), label="explain", show=progress)
    for position, photo in enumerate(photos):
        if isinstance(photo, Unreadable):
            failures[photo.id] = photo.reason
            continue
        frame, placement = _prepare(model, photo)
        if waiting and (waiting[0][1].shape != frame.shape or len(waiting) == size):
            yield full()
        waiting.append((position, frame, placement))
    if waiting:
        yield full()


def _prepare(model: Model, photo: Photo) -> tuple[Tensor, Placement | None]:
    try:
        return model.prepare(photo.pixels, photo.orientation)
    except InputError as error:
        raise InputError(f"{photo.id}: {error}") from None


# ---- arguments -------------------------------------------------------------------------------------------


def _job(method: Method, model: Model, target: Any, count: int, seed: int) -> Job:
    facts = method.facts
    if not model.differentiable and not facts.black_box:
        raise InputError(
            f"{method.plain_name} needs gradients, and {model.name} gives none (it is a black box). "
            "Use a method that needs scores alone: whylens methods."
        )
    if model.task == "tabular" and not facts.tables:
        raise InputError(f"{method.plain_name} explains images, not tables. Methods for tables: whylens methods.")
    chosen = targets.read(method.target if method.target is not None else target, model, count)
    if model.task in ("detection", "segmentation") and chosen.function is None:
        raise InputError(
            f"A {model.task} model needs a target function: target=lambda output: one score per image (N,)."
        )
    return Job(method, chosen, method.checked_params(seed), seed)


def _model(model: Any) -> Model:
    if isinstance(model, str | Path):
        raise InputError(f"explain: model must be a Model or a torch module. Open it: whylens.load_model('{model}').")
    return model if isinstance(model, Model) else Model(model)


def _by_name(method: Method, model: Model) -> Method:
    """A layer given as a module by its name, which tells it from others in labels."""
    if not isinstance(method.layer, nn.Module):
        return method
    return replace(method, layer=layers.resolve(model.net, method.layer))


def _with(method: Method, params: Mapping[str, Any] | None, layer: str | nn.Module | None) -> Method:
    merged = {**(method.params or {}), **(params or {})} or None
    own = method.layer if layer is None else layer
    return Method(method.name, layer=own, target=method.target, params=merged, label=method.label)


def _sequence(methods: Sequence[Request]) -> Sequence[Request]:
    if isinstance(methods, str | Method) or callable(methods):
        return [methods]
    if not methods:
        raise InputError("explain_many: methods must name at least one method. All methods: whylens methods.")
    return methods


def _refuse_double(labels: list[str]) -> None:
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise InputError(
            f"explain_many: '{double}' is asked twice. Ask once, or give one its own label: Method(..., label=)."
        )


def _batch_size(batch_size: int | str) -> int:
    if batch_size == "auto":
        return BATCH
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"batch_size must be 'auto' or an integer >= 1. Got {batch_size!r}.")
    return batch_size


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
