"""Work: what of a run is still to be done, by how many workers, and the doing of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from .._files import file_name
from .._progress import progress as shown
from ..contract import Metric
from ..errors import InputError
from . import config, local
from .asked import Asked
from .plan import Measured, Part, Plan, Stored, add, read_images
from .read import Run
from .rehearsal import rehearse
from .shard import Worker

log = logging.getLogger("whylens")

QUICK = 15.0
"""Seconds of work, by the rehearsal, below which more processes are not worth starting."""


def measured(metrics: Sequence[Metric], seed: int) -> tuple[Measured, ...]:
    """How metrics stand in a run."""
    return tuple(
        Measured(m.key, m.plain_name, as_json(m.checked_params(seed)), isinstance(m.name, str)) for m in metrics
    )


def new_parts(folder: Path, plan: Plan, asked: Asked) -> list[Part]:
    """An addition for each method and metric that the run does not hold yet; nothing is written."""
    run = Run(folder)
    _refuse_clash(folder, run, asked)
    held = {label for part in run.parts for label in part.keeps}
    seed, made = plan.settings["seed"], []
    new = [m for m in asked.methods if m.key not in held]
    if new and plan.base.objects:
        raise InputError(
            f"audit: '{folder}' holds objects of a detector, and keeps the methods it was made with. "
            f"Give {new[0].key} another --out."
        )
    if new:
        stored, _ = rehearse(asked.model, asked.images, new, asked.given["target"], plan.settings, ())
        metrics = tuple({m.key: m for part in run.parts for m in part.metrics}.values())
        made += [Part(file_name(one.label), (one,), metrics, (one.label,)) for one in stored]
    for metric in asked.metrics:
        if metric.key in run.metrics:
            continue
        for part in (*run.parts, *made):
            methods = tuple(m for m in part.methods if m.label in part.keeps)
            refuse_lost(methods, {m.key for m in asked.methods})
            if methods:
                name = file_name(f"{metric.key}.{part.name}" if part.name else metric.key)
                made.append(Part(f"metric.{name}", methods, measured([metric], seed)))
    return made


def _refuse_clash(folder: Path, run: Run, asked: Asked) -> None:
    """A label that the run holds for another method or metric."""
    seed = run.plan.settings["seed"]
    methods = {m.label: m for part in run.parts for m in part.methods if m.label in part.keeps}
    for method in asked.methods:
        known = methods.get(method.key)
        target = None if callable(method.target) else method.target
        now = (method.plain_name, as_json(method.checked_params(seed)), method.layer, target)
        if known is not None and (known.method, dict(known.params), known.asked_layer, known.target) != now:
            raise InputError(
                f"audit: '{folder}' holds '{method.key}' with other parameters: {dict(known.params)}. "
                "Give the other one its own label."
            )
    metrics = {m.key: m for part in run.parts for m in part.metrics}
    for metric in asked.metrics:
        held = metrics.get(metric.key)
        own = (metric.plain_name, as_json(metric.checked_params(seed)))
        if held is not None and (held.metric, dict(held.params)) != own:
            raise InputError(
                f"audit: '{folder}' holds '{metric.key}' as {held.metric} with {dict(held.params)}. "
                "Give the other one its own label."
            )


def refuse_lost(methods: Sequence[Stored], given: Collection[str]) -> None:
    """Refuse to go on without a function that words cannot name."""
    lost = next((m.label for m in methods if not m.repeats and m.label not in given), None)
    if lost is not None:
        raise InputError(f"audit: '{lost}' is a function of your own. Give it again: audit(..., methods=[...]).")


def as_json(params: Any) -> dict[str, Any]:
    """Parameters as a stored run gives them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}


# ---- workers ---------------------------------------------------------------------------------------------


def refuse_workers(asked: Asked) -> None:
    """Refuse several workers where each cannot open the model and the images."""
    why = "" if asked.given["workers"] in (1, "auto") else _why_alone(asked)
    if why:
        raise InputError(f"audit: several workers must each open the model and the images, and {why}. Use workers=1.")


def _why_alone(asked: Asked) -> str:
    if asked.described["closed"]:
        return f"the model cannot be opened again: {asked.described['closed']}"
    if not asked.images.reopen:
        return "the images are in memory or in a dataset, not in files"
    if asked.model.device.type != "cpu":
        return f"the model is on {asked.model.device.type}"
    own = [m.key for m in asked.methods if not isinstance(m.name, str) or callable(m.target)]
    own += [m.key for m in asked.metrics if not isinstance(m.name, str)]
    own += ["the target"] if callable(asked.given["target"]) else []
    return f"{own[0]} is a function of your own" if own else ""


def _moved(folder: Path, plan: Plan, asked: Asked) -> bool:
    """Whether the images or masks lie elsewhere than the plan says, so that only this process knows where."""
    held = read_images(folder, plan, columns=["uri", "mask"])
    return any(not held.column(c).equals(asked.table.column(c)) for c in ("uri", "mask"))


def _workers(asked: Asked, run: Run, todo: dict[str, list[int]]) -> int:
    """How many processes; one where the model or the images cannot be opened again, and that is said."""
    plan, wanted, shards = run.plan, asked.given["workers"], max(map(len, todo.values()), default=0)
    if wanted == 1 or shards < 2:
        return 1
    why = _why_alone(asked)
    if not why and _moved(run.folder, plan, asked):
        why = "the images or masks lie elsewhere than when the run was made"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if why:
        if cores > 1:
            log.warning("audit: one worker does all the work, because %s.", why)
        return 1
    if wanted != "auto":
        return min(int(wanted), shards)
    slow = plan.settings["pace"] * shards * plan.shard_rows > QUICK
    return min(cores // max(1, plan.settings["threads"]) or 1, shards) if slow else 1


# ---- doing it --------------------------------------------------------------------------------------------


def work(folder: Path, plan: Plan, asked: Asked, progress: bool) -> None:
    """Add what the run does not hold yet, then every shard of every part that is not committed."""
    made = new_parts(folder, plan, asked)
    for part in made:
        add(folder, part)
    run = Run(folder)
    if made:
        config.write(folder, plan, run.parts)
    mine = {m.key for m in asked.methods}
    parts = [p for p in run.parts if all(m.repeats or m.label in mine for m in p.methods)]
    if not all(m.repeats or m.label in mine for m in plan.base.methods) and len(run.records[""]) < plan.shards:
        refuse_lost(plan.base.methods, mine)
    todo = {p.name: [k for k in range(plan.shards) if k not in run.records[p.name]] for p in parts}
    count = sum(stop - start for shards in todo.values() for start, stop in map(plan.bounds, shards))
    workers = _workers(asked, run, todo)
    began = time.monotonic()
    with shown(total=count, label="audit", show=progress) as done:
        for part in parts:
            if workers > 1 and len(todo[part.name]) > 1:
                local.pool(folder, part, plan, todo[part.name], workers, done)
            elif todo[part.name]:
                local.inline(_own_worker(folder, plan, asked, part), todo[part.name], done)
    log.info("audit: %d rows in %.1f s by %d workers", count, time.monotonic() - began, workers)


def _own_worker(folder: Path, plan: Plan, asked: Asked, part: Part) -> Worker:
    """The worker of this process, with the model, images and functions at hand."""
    methods = {m.key: m for m in asked.methods}
    metrics = {m.key: m for m in asked.metrics}
    refuse_lost(part.methods, methods)
    return local.ready(
        folder,
        plan,
        part.name,
        model=asked.model,
        images=asked.images,
        methods=[methods.get(m.label) or local.method_of(m) for m in part.methods],
        metrics=[metrics.get(m.key) or local.metric_of(m) for m in part.metrics],
        target=asked.given["target"] if callable(asked.given["target"]) else None,
    )
