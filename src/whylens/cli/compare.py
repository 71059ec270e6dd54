"""whylens compare."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import SOME_FAILED, AsJson, Device, Methods, app, open_model, read_seed, say, watched


@app.command(epilog="Example: whylens compare photos --model torchvision:resnet18 --model torchvision:resnet50")
def compare(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...|RUN RUN", help="images as for audit; or the folders of two runs")
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="again for several; NAME=MODEL names its row")
    ] = None,
    weights: Annotated[
        list[str], typer.Option("--weights", help="default, none (random), or a file; once for all, or one per model")
    ] = ["default"],  # noqa: B006 - typer reads the default from here
    method: Methods = [],  # noqa: B006
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="NAME or NAME:parameter=value,...; again for several")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="folder for the table, its figures and pictures")] = "",
    masks: Annotated[str, typer.Option(help="folder of mask pictures, VOC root, or COCO .json file")] = "",
    target: Annotated[str, typer.Option(help="class name or number, or label; default: what each predicts")] = "",
    counted: Annotated[str, typer.Option(help="all, correct, or correct_by_all: whose maps count")] = "all",
    pictures: Annotated[int, typer.Option(min=0, help="images whose maps are drawn")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="batches behind the seconds of a forward")] = 5,
    classes: Annotated[str, typer.Option(help="text file with one class name per line")] = "",
    preprocess: Annotated[str, typer.Option(help="imagenet, or a JSON file of Preprocess fields")] = "",
    layer: Annotated[str, typer.Option(help="feature layer by dotted name; default: found by rule")] = "",
    device: Device = "auto",
    batch_size: Annotated[str, typer.Option(help="images at once, or auto")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or auto: bfloat16 where no gradient is needed")] = "float32",
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    as_json: AsJson = False,
) -> None:
    """Models, methods on one model, or two runs side by side, with intervals; and where the table is written."""
    from ..compare import compare as side_by_side
    from ..run.read import open_run
    from ..sources import load_images

    if not model and all((Path(name) / "run.json").is_file() for name in data):
        found: Any = side_by_side([open_run(name) for name in data], methods=method or None)
    elif not model:
        raise InputError("compare: name the models: whylens compare DATA --model A --model B. Two runs need none.")
    else:
        images = load_images(data[0] if len(data) == 1 else data, masks=masks or None)
        found = side_by_side(  # type: ignore[call-overload]
            _opened(model, weights, (device, classes, preprocess, layer)),
            images,
            methods=method or None,
            metrics=metric or None,
            target=target or None,
            counted=counted,
            pictures=pictures,
            repeats=repeats,
            batch_size=int(batch_size) if batch_size.isdecimal() else batch_size,
            precision=precision,
            seed=read_seed(seed),
            progress=watched(as_json),
        )
    written = {"folder": str(found.save(out))} if out else {}
    said = found.text() + (f"\nWritten to {out}" if out else "")
    say({**found.as_dict(), **written}, as_json, said)
    if getattr(found, "failures", None):
        raise typer.Exit(SOME_FAILED)


def _opened(models: list[str], weights: list[str], rest: tuple[str, str, str, str]) -> dict[str, Any]:
    """The models by the names of their rows."""
    if len(weights) not in (1, len(models)):
        raise InputError(f"--weights: once for all, or one for each of the {len(models)} models. Got {len(weights)}.")
    opened: dict[str, Any] = {}
    for said, file in zip(models, weights * len(models) if len(weights) == 1 else weights, strict=False):
        named = None if Path(said).exists() else re.fullmatch(r"([\w. -]+)=(.+)", said)
        name, spec = (named[1], named[2]) if named else (said, said)
        if name in opened:
            raise InputError(
                f"--model: '{name}' stands twice. Name the rows: --model before={spec} --model after={spec}."
            )
        opened[name] = open_model(spec, file, *rest)
    return opened
