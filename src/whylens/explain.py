"""The verb explain: model + images → Explanation. Methods asked together share their passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from . import layers
from . import target as targets
from ._progress import track
from .batches import Batches, batched
from .collect import Job
from .contract import Method
from .engine import Precision
from .errors import InputError
from .explanation import Explanation
from .images import Images
from .located import Located
from .model import Model
from .probe import Score, score_kind
from .sources import load_images

log = logging.getLogger("whylens")

BATCH = 16
"""Images per batch where the caller leaves it open: more is no faster on a CPU; halved when memory runs out."""

Request = Method | str | Callable[..., Any]


def explain(
    model: Model | nn.Module | Callable[[Tensor], Any],
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
    a callable ``output -> (N,)``, or None: the predicted class. A detector takes `Instances` (None: what it finds, one
    row per object), a segmentation net a class or a `Region`. `layer` is the feature layer by dotted name or
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
    model: Model | nn.Module | Callable[[Tensor], Any],
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
    jobs = jobs_for(model, methods, target=target, count=len(images), seed=seed)
    batches = runner(model, jobs, score_kind(model, score), precision)
    failures: dict[str, str] = {}
    photos = track(images.stream(), total=len(images), label="explain", show=progress)
    for frames in batched(model, photos, size, failures):
        batches.run(frames)
    missing = batches.missing if isinstance(batches, Located) else {}
    failures |= {images.ids[position]: reason for position, reason in missing.items()}
    if missing and not any(job.rows for job in jobs):
        position, reason = next(iter(missing.items()))
        raise InputError(
            f"None of the {len(images)} images has an object to explain. The first, {images.ids[position]}: {reason}. "
            "Ask for less: target=Instances(threshold=0.2), or give boxes: target=Instances(boxes=[...])."
        )
    if not any(job.rows for job in jobs):
        first = next(iter(failures.items()))
        raise InputError(f"None of the {len(images)} images could be read. The first, {first[0]}: {first[1]}")
    for name, reason in failures.items():
        log.warning("%s: %s", name, reason)
    return MappingProxyType({job.method.key: job.finish(model, images, failures, batches.kind) for job in jobs})


# ---- arguments -------------------------------------------------------------------------------------------


def jobs_for(model: Model, methods: Sequence[Request], *, target: Any, count: int, seed: int) -> list[Job]:
    """One job per request, checked against the model; a label stands for one of them."""
    asked = [_by_name(Method.read(m), model) for m in _sequence(methods)]
    shared = None if all(m.target is not None for m in asked) else targets.read(target, model, count)
    jobs = [_job(m, model, shared, count, seed) for m in asked]
    _refuse_double([job.method.key for job in jobs])
    return jobs


def runner(model: Model, jobs: list[Job], kind: Score, precision: Precision) -> Batches | Located:
    """What runs the jobs on batches: a whole image at once, or place by place."""
    if any(job.target.place is not None for job in jobs):
        return Located(model, jobs, kind, precision)
    return Batches(model, jobs, kind, precision)


def _job(method: Method, model: Model, shared: targets.Target | None, count: int, seed: int) -> Job:
    facts = method.facts
    if not model.differentiable and not facts.black_box:
        raise InputError(
            f"{method.plain_name} needs gradients, and {model.name} gives none (it is a black box). "
            "Use a method that needs scores alone: whylens methods."
        )
    if model.task == "tabular" and not facts.tables:
        raise InputError(f"{method.plain_name} explains images, not tables. Methods for tables: whylens methods.")
    chosen = shared if method.target is None and shared is not None else targets.read(method.target, model, count)
    return Job(method, chosen, method.checked_params(seed), seed)


def _model(model: Any) -> Model:
    if isinstance(model, str | Path):
        raise InputError(
            f"explain: model must be a Model, a torch module or a function. Open it: whylens.load_model('{model}')."
        )
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
