"""whylens gap: whether values of a run tell right predictions from wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, print_table, read_seed, watched
from .runs import RunFolder, Workers, count


@app.command(epilog="Example: whylens gap run --method paper --out gap")
def gap(
    run: RunFolder,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="label of the run, a new method, or paper: the six of the paper; again for more"),
    ] = None,
    metric: Annotated[str, typer.Option(help="NAME or NAME:parameter=value,...")] = "co_score",
    out: Annotated[str, typer.Option("--out", "-o", help="folder for gap.png, gap.csv and gap.json")] = "",
    seed: Annotated[str, typer.Option(help="an integer >= 0; draws the halves and the bootstrap")] = "0",
    workers: Workers = "auto",
    as_json: AsJson = False,
) -> None:
    """Whether CO scores tell right predictions from wrong ones, and a threshold judged on images it never saw.

    What the run does not hold yet is computed and added to it. CO scores need labels.
    """
    from ..gap import gap as find

    found = find(
        run,
        methods=method or None,
        metric=metric,
        seed=read_seed(seed),
        workers=count(workers),
        progress=watched(as_json),
    )
    written = found.save(Path(out)) if out else None
    if as_json:
        said = {**found.as_dict(), "written": None if written is None else str(written)}
        typer.echo(json.dumps(said, ensure_ascii=False, indent=1))
        return
    for rows in (found.table(), found.thresholds()):
        if rows:
            print_table(rows, list(rows[0]))
            typer.echo()
    typer.echo(str(found))
    if written is not None:
        typer.echo(f"Written to {written}: gap.png, gap.csv, gap.json")
