"""whylens act: something is done about a group, and its effect is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import AsJson, Device, app, read_pair, read_seed, say, watched
from .runs import RunFolder


@app.command(epilog="Example: whylens act run sticker --action retrain --train train --images test --save mended")
def act(
    run: RunFolder,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="name of a group, as whylens group prints it")],
    action: Annotated[str, typer.Option(help="mask, keep, exclude, relabel, retrain, or export")] = "mask",
    grouping: Annotated[str, typer.Option(help="name of the grouping")] = "main",
    train: Annotated[str, typer.Option(help="images to learn from: folder, or CSV or Parquet list")] = "",
    images: Annotated[str, typer.Option(help="images to judge on; default: those of the run")] = "",
    label: Annotated[str, typer.Option(help="the other label, for relabel")] = "",
    out: Annotated[str, typer.Option("--out", "-o", help="folder, for export")] = "",
    param: Annotated[list[str] | None, typer.Option("--param", help="NAME=VALUE of the action")] = None,
    save: Annotated[Path | None, typer.Option(help="folder for the model that was learnt")] = None,
    device: Device = "auto",
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    as_json: AsJson = False,
) -> None:
    """Mask, keep, exclude, relabel, retrain or export a group, with controls and a verdict."""
    from ..act import act as do
    from ..groups.group import open_groups
    from ..run.read import open_run
    from ..zoo.folder import save_model

    stored = open_run(run)
    groups = open_groups(stored, grouping)
    params: dict[str, Any] = {k: v for k, v in {"label": label, "out": out}.items() if v}
    params |= dict(read_pair(word) for word in param or ())
    effect = do(
        stored,
        groups[group],
        action,
        model=stored.model(device),
        images=images or None,
        train=train or None,
        groups=groups,
        seed=read_seed(seed),
        progress=watched(as_json),
        **params,
    )
    words = [str(effect), f"Record: {effect.record}"]
    if save is not None:
        if effect.model is None:
            raise InputError(f"--save: {action} makes no model. Actions that learn do: retrain, exclude, relabel.")
        words.append(f"Model: {save_model(effect.model, save)}")
    say({**effect.as_dict(), "record": str(effect.record)}, as_json, "\n".join(words))
