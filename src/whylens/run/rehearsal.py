"""Rehearsal: methods run on one image before a run begins, for the shapes of what they give and to fail early."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..batches import Frames
from ..collect import Job
from ..contract import Method, Metric
from ..errors import InputError, WhylensError
from ..explain import jobs_for, runner
from ..explanation import Explanation
from ..images import Images, Unreadable
from ..located import OWN, Located, is_located, trial_at
from ..model import Model
from ..places import Instances
from ..trial import score_batch, trial_of
from . import schema
from .plan import Stored
from .shard import threads

ENOUGH = 3
"""Readable images that may fail before the first failure is raised."""


def rehearse(
    model: Model,
    images: Images,
    methods: Sequence[Method],
    target: Any,
    settings: Mapping[str, Any],
    metrics: Sequence[Metric],
) -> tuple[tuple[Stored, ...], float]:
    """How each method stands in a run, and seconds per image; from the first image that all of them can explain."""
    jobs = jobs_for(model, methods, target=target, count=len(images), seed=settings["seed"])
    first: WhylensError | None = None
    tried = 0
    for position, photo in enumerate(images.stream(ahead=1)):
        if isinstance(photo, Unreadable):
            said = f"None of the {len(images)} images could be read. The first, {photo.id}: {photo.reason}"
            first = first or InputError(said)
            continue
        try:
            frame, placement = model.prepare(photo.pixels, photo.orientation)
            frames = Frames(frame[None], [position], [placement])
            with threads(settings["threads"]):
                made = _tried(model, images, jobs, methods, frames, settings, metrics)
            if isinstance(made, str):
                first = first or InputError(f"audit: no image has an object to explain. The first, {photo.id}: {made}.")
                continue
            return made
        except WhylensError as error:
            first, tried = (error if not tried else first), tried + 1
            for job in jobs:
                job.rows.clear()
            if tried == ENOUGH:
                break
    raise first or InputError("audit: there must be at least one image.")


def _tried(
    model: Model,
    images: Images,
    jobs: list[Job],
    methods: Sequence[Method],
    frames: Frames,
    settings: Mapping[str, Any],
    metrics: Sequence[Metric],
) -> tuple[tuple[Stored, ...], float] | str:
    """The same from one image; the reason where it has no object to explain."""
    reasons = [_features(model, job, tuple(frames.frames.shape[1:])) for job in jobs]
    batches = runner(model, jobs, settings["score"], settings["precision"])
    batches.run(frames)  # once for what is made at the first pass, once for the clock
    if isinstance(batches, Located) and batches.missing:
        return next(iter(batches.missing.values()))
    for job in jobs:
        job.rows.clear()
    began = time.perf_counter()
    batches.run(frames)
    found = [job.finish(model, images, {}, batches.kind) for job in jobs]
    dims = [0 if job.rows[0].embedded is None else job.rows[0].embedded.vectors.shape[1] for job in jobs]
    for method, explanation in zip(methods, found, strict=True):
        for metric in metrics:
            trial = (
                trial_at(model, images, explanation, frames.frames, None, "float32")
                if is_located(model, explanation)
                else trial_of(model, images, explanation, frames.frames, method=method)
            )
            score_batch(metric, trial, seed=settings["seed"])
    pace = time.perf_counter() - began
    full = settings["store"] == "full"
    listed = zip(jobs, methods, found, dims, reasons, strict=True)
    return tuple(_stored(job, m, e, dim, why, full) for job, m, e, dim, why in listed), round(pace, 5)


def _features(model: Model, job: Job, shape: tuple[int, ...]) -> str:
    """Name the layer whose features the maps weigh; the reason where there is none."""
    if len(shape) != 3:
        return "embeddings are made of images, not of tables."
    if isinstance(job.target.place, Instances) and job.method.layer is None and model.layer_name is None:
        job.features = OWN
        return ""
    try:
        job.features = model.layer(job.method.layer, shape).name
    except InputError as error:
        return str(error)
    return ""


def _stored(job: Job, method: Method, e: Explanation, dim: int, why: str, full: bool) -> Stored:
    raw = tuple(e.maps.shape[1:])
    return Stored(
        label=job.method.key,
        method=job.method.plain_name,
        params=_plain(job.params),
        target=None if callable(method.target) else method.target,
        asked_layer=None if method.layer is None else str(method.layer),
        layer=job.layer,
        features=job.features,
        dim=dim,
        raw=raw,
        shape=schema.stored_shape(raw, full),
        dtype="<f4" if full else "<f2",
        checks=tuple(name for name, value in e.checks.items() if value.dtype.is_floating_point),
        signed=e.signed,
        unit=e.unit,
        baseline=e.baseline,
        repeats=isinstance(method.name, str) and not callable(method.target),
        features_reason=why,
    )


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}
