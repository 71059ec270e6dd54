"""whylens group: second order, from the maps of a run to groups of evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._files import prepare_folder
from .app import AsJson, app, read_seed, say, watched
from .runs import RunFolder


@app.command(epilog="Example: whylens group run --out groups")
def group(
    run: RunFolder,
    method: Annotated[str, typer.Option(help="whose maps; default: the first with embeddings")] = "",
    per: Annotated[str, typer.Option(help="a point per region of a map, or per image")] = "region",
    within: Annotated[str, typer.Option(help="group within each predicted class, or over the whole set")] = "class",
    name: Annotated[str, typer.Option(help="name of the grouping; a run may have several")] = "main",
    tests: Annotated[int, typer.Option(min=0, help="groups tested by intervening, of classes that have several")] = 12,
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    normalise: Annotated[bool, typer.Option("--normalise/--no-normalise", help="vectors to length 1")] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder for pictures, CSV and JSON")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the reasons that a model has for each class; classes with more than one come first."""
    from ..groups.group import group as find
    from ..run.read import open_run

    found = find(
        open_run(run),
        method or None,
        per=per,  # type: ignore[arg-type]
        within=within,  # type: ignore[arg-type]
        name=name,
        tests=tests,
        seed=read_seed(seed),
        normalise=normalise,
        progress=watched(as_json),
    )
    written = [] if out is None else _written(found, out)
    words = [str(found), *(f"Written: {path}" for path in written)]
    words.append(f"Open it in Python: whylens.open_groups({str(found.run.folder)!r}, {found.name!r})")
    say({**found.as_dict(), "files": [str(p) for p in written]}, as_json, "\n".join(words))


def _written(found: Any, out: Path) -> list[Path]:
    import json

    from .._files import write_atomic
    from ..groups.draw import scatter, sheet

    folder = prepare_folder(out)
    made = [found.to_csv(folder / "groups.csv"), folder / "groups.json", folder / "map.png", folder / "groups.png"]
    write_atomic(made[1], json.dumps(found.as_dict(), indent=1).encode())
    scatter(found)[0].savefig(made[2])
    sheet(found).savefig(made[3])
    return made
