"""The verb audit: model + images + methods → a run on disk, made once, resumed where it stopped."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from .._files import prepare_folder
from ..contract import Metric
from ..errors import InputError
from ..explain import BATCH, Request
from ..images import Images
from ..model import Model
from ..probe import Score
from . import config, local, schema
from .asked import Asked
from .plan import Part, Plan, create, is_torn, read_images, write_images
from .read import Run, open_run
from .rehearsal import rehearse
from .reopen import words
from .work import measured, refuse_lost, refuse_workers, work

Auto = Literal["auto"]


def audit(
    model: Model | nn.Module | Callable[[Tensor], Any],
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
    asked = Asked.read(model, images, methods, metrics, locals())
    refuse_workers(asked)
    folder = prepare_folder(Path(out))
    try:
        plan = Plan.read(folder) if _is_run(folder) else _planned(folder, asked)
        _refuse_other(folder, plan, asked)
        work(folder, plan, asked, progress)
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
        refuse_lost(run.plan.base.methods, ())
    target = settings["target"]
    if target == local.PER_IMAGE:
        target = read_images(run.folder, run.plan, columns=["target"]).column("target").to_pylist()
    return audit(
        model or run.model(),
        images or run.images,
        out=run.folder,
        methods=methods or known,
        metrics=metrics,
        target=target,
        workers=workers,
        progress=progress,
        **{name: settings[name] for name in ("score", "seed", "precision", "store")},
    )


# ---- planning --------------------------------------------------------------------------------------------


def _planned(folder: Path, asked: Asked) -> Plan:
    """The plan of a new run, after a trial on the first image that can be read; it stands in the folder then."""
    own = ("plan", "run.json")
    strangers = sorted(p.name for p in folder.iterdir() if p.name not in own and not p.name.startswith("."))
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
    labels = tuple(m.label for m in stored)
    base = Part("", stored, measured(asked.metrics, given["seed"]), labels, asked.of_objects)
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
            **({"instances": schema.described(schema.instances_schema(base))} if base.objects else {}),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    made = create(folder, plan)
    config.write(folder, made, (made.base,))
    return made


def _is_run(folder: Path) -> bool:
    """Whether the folder holds a plan; one that was never filled, before any work, does not count."""
    path = folder / "run.json"
    return path.exists() and not (is_torn(path) and not (folder / "commit").exists())


def _shard_rows(count: int) -> int:
    """A thirty-second of the images, whole batches, 64 to 4,096: what a crash may cost each worker."""
    return min(4096, max(64, -(-count // 32 // 64) * 64))


def _refuse_other(folder: Path, plan: Plan, asked: Asked) -> None:
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


def _image_difference(folder: Path, plan: Plan, asked: Asked) -> str:
    held = read_images(folder, plan, columns=["key", "content", "label"])
    if held.num_rows != asked.table.num_rows:
        return f"it holds {held.num_rows}, and there are {asked.table.num_rows}"
    for column, what in (("key", "names differ"), ("content", "content differs"), ("label", "labels differ")):
        before, now = held.column(column).to_pylist(), asked.table.column(column).to_pylist()
        odd = next((k for k, (a, b) in enumerate(zip(before, now, strict=True)) if a != b), None)
        if odd is not None:
            return f"their {what}, first at '{asked.table.column('key')[odd].as_py()}'"
    return "their columns or targets differ"
