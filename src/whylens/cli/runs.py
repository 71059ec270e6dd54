"""whylens audit, verify, measure, export, gc and report: what works on a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import SOME_FAILED, AsJson, Device, ModelName, Weights, app, open_model, read_seed, say, watched

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="folder of an audit")]
Workers = Annotated[str, typer.Option(help="processes, or auto: one per core where that pays")]

DAMAGED = 2


@app.command(epilog="Example: whylens audit photos --model efficientnet-lite0 --method grad-cam --out run")
def audit(
    context: typer.Context,
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA...", help="folder, photos, or a CSV or Parquet list")
    ] = None,
    config: Annotated[str, typer.Option(help="audit.toml with these options; what is said here wins")] = "",
    model: ModelName = "efficientnet-lite0",
    method: Annotated[
        list[str], typer.Option("--method", help="NAME or NAME:parameter=value,...; again for several")
    ] = ["grad_cam"],  # noqa: B006 - typer reads the default from here
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="NAME or NAME:parameter=value,...; again for several")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the run; one that is there is resumed")] = Path(
        "whylens-run"
    ),
    masks: Annotated[str, typer.Option(help="folder of mask pictures, VOC root, or COCO .json file")] = "",
    target: Annotated[
        str,
        typer.Option(
            help="class name or number; of a detector instances:threshold=0.3,of=mask; default: what is predicted"
        ),
    ] = "",
    weights: Weights = "default",
    classes: Annotated[str, typer.Option(help="text file with one class name per line")] = "",
    preprocess: Annotated[str, typer.Option(help="imagenet, or a JSON file of Preprocess fields")] = "",
    layer: Annotated[str, typer.Option(help="feature layer by dotted name; default: found by rule")] = "",
    score: Annotated[str, typer.Option(help="auto, logit, probability, or log_odds")] = "auto",
    device: Device = "auto",
    batch_size: Annotated[str, typer.Option(help="images at once, or auto")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or auto: bfloat16 where no gradient is needed")] = "float32",
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    store: Annotated[str, typer.Option(help="pooled (56 x 56, half precision) or full maps")] = "pooled",
    shard_rows: Annotated[str, typer.Option(help="images committed together, or auto")] = "auto",
    engine: Annotated[str, typer.Option(help="local")] = "local",
    workers: Workers = "auto",
    threads: Annotated[
        str, typer.Option(help="threads of torch per worker, or auto; fixed when a run begins")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Explain a whole dataset into a folder; killed at any point, the same command goes on from there."""
    from ..run.audit import audit as run_audit
    from ..sources import load_images

    said = _with_config(context, config)
    source = _several(said["data"])
    if not source:
        raise InputError("audit: name the images: whylens audit DATA, or a --config that names them.")
    images = load_images(
        source[0] if len(source) == 1 else source, masks=said["masks"] or None, recursive=said.get("recursive", True)
    )
    opened = _opened(said)
    run = run_audit(
        opened,
        images,
        out=said["out"],
        methods=[_request(m) for m in _several(said["method"])],
        metrics=[_measure(m) for m in _several(said["metric"])],
        target=said["target"] if said["target"] != "" else None,
        score=said["score"],
        batch_size=count(said["batch_size"]),
        precision=said["precision"],
        seed=read_seed(str(said["seed"])),
        store=said["store"],
        shard_rows=count(said["shard_rows"]),
        engine=said["engine"],
        workers=count(said["workers"]),
        threads=count(said["threads"]),
        progress=watched(as_json),
    )
    _end(run, as_json)


@app.command(epilog="Example: whylens verify run")
def verify(
    run: RunFolder,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="give up damaged shards, so that the next audit makes them anew")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold every file of a run against what was written; exit code 2 unless every row is there and nothing else."""
    from ..run.read import open_run
    from ..run.verify import withdraw as give_up

    stored = open_run(run)
    found = stored.verify(progress=watched(as_json))
    gone = give_up(stored, found) if withdraw else []
    words = [str(found), *(f"withdrawn: {name}" for name in gone)]
    say({**found.as_dict(), "withdrawn": gone}, as_json, "\n".join(words))
    if not found.ok:
        raise typer.Exit(DAMAGED)


@app.command(epilog="Example: whylens measure run --metric energy_inside")
def measure(
    run: RunFolder,
    metric: Annotated[list[str], typer.Option("--metric", help="NAME or NAME:parameter=value,...; again for several")],
    workers: Workers = "auto",
    as_json: AsJson = False,
) -> None:
    """Add metrics to a run: its methods explain again exactly as they did, and what is stored is not touched."""
    from ..run.audit import extend
    from ..run.read import open_run

    stored = open_run(run)
    made = extend(stored, metrics=metric, workers=count(workers), progress=watched(as_json))
    _end(made, as_json)


@app.command(epilog="Example: whylens export run --out rows.csv")
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="file; .csv .tsv .jsonl .parquet .npz .safetensors")],
    what: Annotated[str, typer.Option(help="rows, embeddings, or maps")] = "rows",
    method: Annotated[str, typer.Option(help="whose embeddings or maps, where the run holds several")] = "",
    as_json: AsJson = False,
) -> None:
    """Write rows, embeddings or maps of a run as one file that other tools read."""
    from ..run.export import export as write
    from ..run.read import open_run

    made = write(open_run(run), out, what=what, method=method or None)  # type: ignore[arg-type]
    say({"file": str(made), "bytes": made.stat().st_size}, as_json, f"Written to {made}")


@app.command(epilog="Example: whylens gc run")
def gc(
    run: RunFolder,
    older: Annotated[float, typer.Option("--older-than", min=0, help="seconds since they were last written")] = 3600,
    as_json: AsJson = False,
) -> None:
    """Remove what processes that died left behind; nothing that a run reads."""
    from ..run.read import open_run
    from ..run.verify import gc as collect

    removed = collect(open_run(run), older=older, now=time.time())
    say({"removed": removed}, as_json, "\n".join([f"removed {len(removed)} files", *removed]))


@app.command(epilog="Example: whylens report run --out report.html")
def report(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file")] = Path("report.html"),
    method: Annotated[str, typer.Option(help="whose maps lie over the images; default: the first")] = "",
    grouping: Annotated[str, typer.Option(help="name of the grouping; default: the one written last")] = "",
    as_json: AsJson = False,
) -> None:
    """One HTML file of a run: accuracy, groups worth a look, acts and their effects, worst and best images."""
    from ..run.read import open_run
    from ..view.report import report as write

    made = write(open_run(run), out, method=method or None, grouping=grouping or None)
    say({"file": str(made), "bytes": made.stat().st_size}, as_json, f"Open {made}")


# ---- words to objects --------------------------------------------------------------------------------------


def _with_config(context: typer.Context, config: str) -> dict[str, Any]:
    """The options as given; those not given from the file, else at their defaults."""
    said = dict(context.params)
    if not config:
        return said
    from ..run.config import read

    for key, value in read(Path(config)).items():
        if key not in said or getattr(context.get_parameter_source(key), "name", "") != "COMMANDLINE":
            said[key] = value
    return said


def _opened(said: dict[str, Any]) -> Any:
    from ..zoo import load_model

    options = {k: said[k] for k in ("task", "output") if said.get(k)}
    if options or not all(isinstance(said[k], str) for k in ("classes", "preprocess")):
        return load_model(
            said["model"],
            weights=said["weights"],
            device=said["device"],
            classes=said["classes"] or None,
            preprocess=said["preprocess"] or None,
            layer=said["layer"] or None,
            **options,
        )
    return open_model(*(said[k] for k in ("model", "weights", "device", "classes", "preprocess", "layer")))


def _several(said: Any) -> list[Any]:
    """One of something or a list of it: a file may give either."""
    return said if isinstance(said, list) else [said] if said else []


def _request(said: Any) -> Any:
    """A method in words, or as audit.toml spells it out."""
    from ..contract import Method

    if isinstance(said, str):
        return said
    name = _name(said, "method")
    return Method(name, **{k: said.get(k) for k in ("layer", "target", "params", "label")})


def _measure(said: Any) -> Any:
    from ..contract import Metric

    if isinstance(said, str):
        return said
    return Metric(_name(said, "metric"), params=said.get("params"), label=said.get("label"))


def _name(said: Any, what: str) -> str:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise InputError(f"--config: a {what} is a word or a table with a name. Got {said!r}.")
    if not isinstance(said.get("params", {}), dict):
        raise InputError(f"--config: the params of {said['name']} must be a table. Got {said['params']!r}.")
    return str(said["name"])


def count(value: Any) -> Any:
    """A number that was given as a word; other words as they are."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _end(run: Any, as_json: bool) -> None:
    """What a run says, and exit code 3 where images failed."""
    from ..run.config import NAME

    summary = run.summary()
    words = [str(run), str(summary), f"The same again: whylens audit --config '{run.folder / NAME}' --out NEW"]
    words.append(f"Open it in Python: whylens.open_run({str(run.folder)!r}). Report: whylens report '{run.folder}'")
    say({"run": str(run.folder), "methods": run.labels, **summary.as_dict()}, as_json, "\n".join(words))
    if summary.failed:
        raise typer.Exit(SOME_FAILED)
