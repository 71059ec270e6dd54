"""The verb audit: model + images + methods → a run on disk, made once, resumed where it stopped."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from .._files import file_name, prepare_folder
from .._progress import progress as shown
from ..contract import Method, Metric
from ..errors import InputError
from ..explain import BATCH, Request
from ..images import Images
from ..measure import refuse_maskless
from ..model import Model
from ..probe import Score, score_kind
from ..sources import load_images
from . import config, local, schema
from .plan import Measured, Part, Plan, Stored, add, create, image_table, images_hash, read_images, write_images
from .read import Run, open_run
from .rehearsal import rehearse
from .reopen import describe, words
from .shard import Worker

log = logging.getLogger("whylens")

QUICK = 15.0
"""Seconds of work, by the trial, below which more processes are not worth starting."""

Auto = Literal["auto"]


def audit(
    model: Model | nn.Module,
    images: Any,
    *,
    out: str | Path,
    methods: Sequence[Request] = ("grad_cam",),
    metrics: Sequence[Metric | str | Callable[..., Any]] = (),
    target: Any = None,
    score: Score = "auto",
    batch_size: int | Auto = "auto",
    precision: Literal["float32", "auto"] = "float32",
    seed: int = 0,
    store: Literal["pooled", "full"] = "pooled",
    shard_rows: int | Auto = "auto",
    engine: Literal["local"] = "local",
    workers: int | Auto = "auto",
    threads: int | Auto = "auto",
    progress: bool = False,
) -> Run:
    """Explain a list of images into the folder `out`, safely: what is committed stays, and a run goes on by itself.

    A folder that holds this run already is resumed: methods and metrics it does not hold yet are added and nothing is
    written anew; a run of another model, other images or other settings is refused. `target` is as in `explain`, one
    per image. `store` "pooled" keeps maps of at most 56 x 56 in half precision, "full" all of them in float32.
    `shard_rows` images are committed together. `workers` processes share the work, which needs a model and images
    that can be opened again; "auto" takes one per core where that pays. `threads` of torch per worker, batch size and
    shards are fixed when a run begins, so that any number of workers gives the same rows to the bit.

    Raises InputError for what cannot be done as asked. Images that fail are rows with a reason.
    """
    asked = _Asked.read(model, images, methods, metrics, locals())
    folder = prepare_folder(Path(out))
    try:
        plan = Plan.read(folder) if (folder / "run.json").exists() else _planned(folder, asked)
        _refuse_other(folder, plan, asked)
        parts = _parts(folder, plan, asked)
        _work(folder, plan, asked, parts, _workers(asked, plan, folder, parts), progress)
    except OSError as error:
        kept = Run(folder).committed if (folder / "run.json").exists() else 0
        raise InputError(
            f"audit: '{folder}' cannot be written: {error.strerror or error}. The {kept} images committed are kept; "
            "the same command goes on from there."
        ) from error
    return open_run(folder)


def extend(
    run: Run,
    *,
    methods: Sequence[Request] = (),
    metrics: Sequence[Metric | str | Callable[..., Any]] = (),
    model: Model | None = None,
    images: Images | None = None,
    device: str | None = None,
    workers: int | Auto = "auto",
    progress: bool = False,
) -> Run:
    """Add methods and metrics to a run, which keeps what it holds; the settings are the run's own.

    `model` and `images` are opened again as the run says, where they are not given.
    """
    settings = run.plan.settings
    if isinstance(settings["target"], Mapping) and settings["target"] != local.PER_IMAGE:
        raise InputError("The targets of this run are a function of your own. Ask audit(...) with it again.")
    known = [local.method_of(m) for m in run.plan.base.methods if m.repeats]
    if not methods and not known:
        _refuse_lost(run.plan.base.methods, ())
    target = settings["target"]
    if target == local.PER_IMAGE:
        target = read_images(run.folder, run.plan, columns=["target"]).column("target").to_pylist()
    return audit(
        model or run.model(device),
        images or run.images,
        out=run.folder,
        methods=methods or known,
        metrics=metrics,
        target=target,
        workers=workers,
        progress=progress,
        **{name: settings[name] for name in ("score", "seed", "precision", "store")},
    )


@dataclass(frozen=True)
class _Asked:
    """The arguments, read and checked."""

    model: Model
    images: Images
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    given: Mapping[str, Any]
    described: Mapping[str, Any]
    table: Any
    mark: str

    @classmethod
    def read(cls, model: Any, images: Any, methods: Any, metrics: Any, given: Mapping[str, Any]) -> _Asked:
        if isinstance(model, str | Path):
            raise InputError(f"audit: model must be a Model or a torch module. Open it: whylens.load_model('{model}').")
        model = model if isinstance(model, Model) else Model(model)
        images = images if isinstance(images, Images) else load_images(images)
        _check(given)
        listed = [methods] if isinstance(methods, str | Method) or callable(methods) else list(methods)
        if not listed:
            raise InputError("audit: methods must name at least one method. All methods: whylens methods.")
        requests = tuple(_named(Method.read(m), model) for m in listed)
        measures = tuple(Metric.read(m) for m in ([metrics] if isinstance(metrics, str | Metric) else metrics))
        for metric in measures:
            metric.checked_params(given["seed"])
            refuse_maskless(images, metric)
        target = given["target"]
        table = image_table(images, model, _per_image(target, model, len(images)))
        return cls(model, images, requests, measures, given, describe(model), table, images_hash(table))

    def setting(self, name: str) -> Any:
        """A setting as it stands in a plan; "auto" where the plan may choose."""
        value = self.given[name]
        if name == "score":
            return score_kind(self.model, value)
        if name == "target":
            if isinstance(value, Tensor | list | tuple):
                return local.PER_IMAGE
            if callable(value):
                return {"function": getattr(value, "__name__", "function")}
        return value


def _named(method: Method, model: Model) -> Method:
    """A layer by its name, and a target that words can say."""
    from ..layers import resolve

    if isinstance(method.target, Tensor | list | tuple):
        raise InputError(
            f"audit: {method.key}: targets per image belong to the audit, not to one method: target=[...]."
        )
    if isinstance(method.layer, nn.Module):
        return replace(method, layer=resolve(model.net, method.layer))
    return method


def _per_image(target: Any, model: Model, count: int) -> list[int] | None:
    """Targets given one per image, as outputs of the model."""
    if not isinstance(target, Tensor | list | tuple):
        if isinstance(target, str) and target.startswith("top"):
            raise InputError(
                f"audit: a run holds one map per image and method. Got target '{target}'. "
                "Ask a method several times with a target each: --method grad_cam:target=tabby."
            )
        return None
    values = target.tolist() if isinstance(target, Tensor) else list(target)
    if len(values) != count:
        raise InputError(f"audit: target must be one per image, {count}. Got {len(values)}.")
    return [model.class_index(v) if isinstance(v, str) else int(v) for v in values]


def _check(given: Mapping[str, Any]) -> None:
    """Bounds of the plain settings."""
    for name, low in (("batch_size", 1), ("shard_rows", 1), ("workers", 1), ("threads", 1), ("seed", 0)):
        value = given[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not whole and not (value == "auto" and name != "seed"):
            auto = "" if name == "seed" else "'auto' or "
            raise InputError(f"audit: {name} must be {auto}an integer >= {low}. Got {value!r}.")
    for name, known in (("precision", ("float32", "auto")), ("store", ("pooled", "full")), ("engine", ("local",))):
        if given[name] not in known:
            raise InputError(f"audit: {name} must be {' or '.join(map(repr, known))}. Got {given[name]!r}.")


# ---- planning --------------------------------------------------------------------------------------------


def _planned(folder: Path, asked: _Asked) -> Plan:
    """The plan of a new run, after a trial on the first image that can be read; it stands in the folder then."""
    strangers = sorted(p.name for p in folder.iterdir() if p.name != "plan" and not p.name.startswith("."))
    if strangers:
        raise InputError(f"audit: '{folder}' holds other files ({strangers[0]}). Give an empty folder, or a new name.")
    given, model = asked.given, asked.model
    alone = bool(asked.described["closed"]) or not asked.images.reopen or model.device.type != "cpu"
    threads = given["threads"] if given["threads"] != "auto" else (torch.get_num_threads() if alone else 1)
    settings = {name: asked.setting(name) for name in ("target", "score", "seed", "precision", "store")}
    settings |= {"threads": threads, "batch_size": BATCH if given["batch_size"] == "auto" else given["batch_size"]}
    keys = [m.key for m in asked.metrics]
    if len(set(keys)) < len(keys):
        raise InputError("audit: a metric is asked twice. Ask once, or give one its own label: Metric(..., label=).")
    stored, pace = rehearse(model, asked.images, asked.methods, given["target"], settings, asked.metrics)
    base = Part("", stored, _measured(asked.metrics, given["seed"]), tuple(m.label for m in stored))
    count = len(asked.images)
    plan = Plan(
        rows=count,
        shard_rows=_shard_rows(count) if given["shard_rows"] == "auto" else given["shard_rows"],
        model=asked.described,
        images={
            "count": count,
            "hash": asked.mark,
            "classes": asked.images.classes,
            "numbers": any(isinstance(label, int) for label in asked.images.labels),
            "reopen": asked.images.reopen,
            "origin": asked.images.origin,
        },
        settings={**settings, "pace": pace},
        base=base,
        parts=write_images(folder, asked.table, asked.mark),
        versions={"whylens": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        schemas={
            "rows": schema.described(schema.rows_schema(base)),
            "maps": schema.described(schema.maps_schema(base)),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    made = create(folder, plan)
    config.write(folder, made)
    return made


def _shard_rows(count: int) -> int:
    """A thirty-second of the images, whole batches, 64 to 4,096: what a crash may cost each worker."""
    return min(4096, max(64, -(-count // 32 // 64) * 64))


def _measured(metrics: Sequence[Metric], seed: int) -> tuple[Measured, ...]:
    return tuple(Measured(m.key, m.plain_name, dict(m.checked_params(seed)), isinstance(m.name, str)) for m in metrics)


def _refuse_other(folder: Path, plan: Plan, asked: _Asked) -> None:
    """A run of another model, other images or other settings is refused in one sentence that says which."""
    other = ". Give another --out, or what the run was made with."
    for fact in ("sha256", "task", "output", "classes", "preprocess", "layer", "dtype", "device"):
        if plan.model[fact] != asked.described[fact]:
            raise InputError(f"audit: '{folder}' was made with another model: {words(fact)} differ{other}")
    if plan.images["hash"] != asked.mark:
        raise InputError(
            f"audit: '{folder}' was made with other images: {_image_difference(folder, plan, asked)}{other}"
        )
    for name in ("target", "score", "seed", "precision", "store", "batch_size", "threads", "shard_rows"):
        held = plan.shard_rows if name == "shard_rows" else plan.settings[name]
        value = asked.setting(name)
        free = name in ("batch_size", "threads", "shard_rows") and value == "auto"
        if not free and value != held:
            raise InputError(f"audit: '{folder}' was made with {name} {held!r}. Got {value!r}{other}")


def _image_difference(folder: Path, plan: Plan, asked: _Asked) -> str:
    held = read_images(folder, plan, columns=["key", "content", "label"])
    if held.num_rows != asked.table.num_rows:
        return f"it holds {held.num_rows}, and there are {asked.table.num_rows}"
    for column, what in (("key", "names"), ("content", "content"), ("label", "labels")):
        before, now = held.column(column).to_pylist(), asked.table.column(column).to_pylist()
        odd = next((k for k, (a, b) in enumerate(zip(before, now, strict=True)) if a != b), None)
        if odd is not None:
            return f"their {what} differ, first at '{asked.table.column('key')[odd].as_py()}'"
    return "their columns or targets differ"


# ---- what is to do ---------------------------------------------------------------------------------------


def _parts(folder: Path, plan: Plan, asked: _Asked) -> list[Part]:
    """The parts this command is about: the base, and an addition for each method and metric it did not hold."""
    run = Run(folder)
    held = {m.label: m for part in run.parts for m in part.methods if m.label in part.keeps}
    seed = plan.settings["seed"]
    for method in asked.methods:
        known = held.get(method.key)
        now = (method.plain_name, _as_json(method.checked_params(seed)), method.layer, _word(method.target))
        if known is not None and (known.method, dict(known.params), known.asked_layer, known.target) != now:
            raise InputError(
                f"audit: '{folder}' holds '{method.key}' with other parameters: {dict(known.params)}. "
                "Give the other one its own label."
            )
    new = [m for m in asked.methods if m.key not in held]
    if new:
        stored, _ = rehearse(asked.model, asked.images, new, asked.given["target"], plan.settings, ())
        metrics = tuple({m.key: m for part in run.parts for m in part.metrics}.values())
        for one in stored:
            add(folder, Part(file_name(one.label), (one,), metrics, (one.label,)))
    for metric in asked.metrics:
        if metric.key not in run.metrics:
            measured = _measured([metric], seed)
            for part in run.parts:
                methods = tuple(m for m in part.methods if m.label in part.keeps)
                _refuse_lost(methods, {m.key for m in asked.methods})
                if methods:
                    name = file_name(f"{metric.key}.{part.name}" if part.name else metric.key)
                    add(folder, Part(f"metric.{name}", methods, measured))
    wanted, words = {m.key for m in asked.methods}, {m.key for m in asked.metrics}
    run.refresh()
    return [
        part
        for part in run.parts
        if not part.name or wanted & set(part.keeps) or (not part.keeps and words & {m.key for m in part.metrics})
    ]


def _refuse_lost(methods: Sequence[Stored], given: Collection[str]) -> None:
    lost = next((m.label for m in methods if not m.repeats and m.label not in given), None)
    if lost is not None:
        raise InputError(f"audit: '{lost}' is a function of your own. Give it again: audit(..., methods=[...]).")


def _word(target: Any) -> Any:
    return None if callable(target) else target


def _as_json(params: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}


def _todo(run: Run, part: Part) -> list[int]:
    return [shard for shard in range(run.plan.shards) if shard not in run.records[part.name]]


def _workers(asked: _Asked, plan: Plan, folder: Path, parts: Sequence[Part]) -> int:
    """How many processes; one where the model or the images cannot be opened again, and that is said."""
    wanted, run = asked.given["workers"], Run(folder)
    shards = max((len(_todo(run, part)) for part in parts), default=0)
    if wanted == 1 or shards < 2:
        return 1
    why = _why_alone(asked, parts)
    if why and wanted != "auto":
        raise InputError(f"audit: several workers must each open the model and the images, and {why}. Use workers=1.")
    if wanted != "auto":
        return min(int(wanted), shards)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores > 1 and why:
        log.warning("audit: one worker does all the work, because %s.", why)
    slow = plan.settings["pace"] * shards * plan.shard_rows > QUICK
    return min(cores // max(1, plan.settings["threads"]) or 1, shards) if slow and not why else 1


def _why_alone(asked: _Asked, parts: Sequence[Part]) -> str:
    if asked.described["closed"]:
        return f"the model cannot be opened again: {asked.described['closed']}"
    if not asked.images.reopen:
        return "the images are in memory or in a dataset, not in files"
    if asked.model.device.type != "cpu":
        return f"the model is on {asked.model.device.type}"
    own = [m.label for part in parts for m in part.methods if not m.repeats]
    own += [m.key for part in parts for m in part.metrics if not m.repeats]
    own += ["the target"] if callable(asked.given["target"]) else []
    return f"{own[0]} is a function of your own" if own else ""


def _work(folder: Path, plan: Plan, asked: _Asked, parts: Sequence[Part], workers: int, progress: bool) -> None:
    """Every shard of every part that is not committed yet."""
    run = Run(folder)
    todo = {part.name: _todo(run, part) for part in parts}
    count = sum(stop - start for shards in todo.values() for start, stop in map(plan.bounds, shards))
    began = time.monotonic()
    with shown(total=count, label="audit", show=progress) as done:
        for part in parts:
            if workers > 1 and len(todo[part.name]) > 1:
                local.pool(folder, part, plan, todo[part.name], workers, done)
            elif todo[part.name]:
                local.inline(_own_worker(folder, plan, asked, part), todo[part.name], done)
    log.info("audit: %d rows in %.1f s by %d workers", count, time.monotonic() - began, workers)


def _own_worker(folder: Path, plan: Plan, asked: _Asked, part: Part) -> Worker:
    """The worker of this process, with the model, images and functions at hand."""
    methods = {m.key: m for m in asked.methods}
    metrics = {m.key: m for m in asked.metrics}
    _refuse_lost(part.methods, methods)
    return local.ready(
        folder,
        plan,
        part.name,
        model=asked.model,
        images=None if asked.images.reopen else asked.images,
        methods=[methods.get(m.label) or local.method_of(m) for m in part.methods],
        metrics=[metrics.get(m.key) or local.metric_of(m) for m in part.metrics],
        target=asked.given["target"] if callable(asked.given["target"]) else None,
    )
