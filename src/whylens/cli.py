"""The command line: arguments made from signatures, errors in one sentence, exit codes that mean something.

0: all went well. 2: the request cannot be done as asked. 3: finished, but some images failed. 1: a defect of whylens.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import InputError, WhylensError

app = typer.Typer(
    name="whylens",
    help="Explain, audit and repair PyTorch vision models.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

SOME_FAILED = 3

Photos = Annotated[list[str], typer.Argument(metavar="PHOTO...", help="photos, folders, or a CSV or Parquet list")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="a name from 'whylens models', a file, or a folder")]
Methods = Annotated[list[str], typer.Option("--method", help="NAME or NAME:parameter=value,...; again for several")]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder to write to")]
Weights = Annotated[str, typer.Option("--weights", help="default, none (random), or a file")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for machines instead of text")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"whylens {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and log messages")] = False,
    _v: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    logging.getLogger("whylens").setLevel(logging.INFO if debug else logging.ERROR)
    if debug:
        logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: whylens explain photo.jpg --method grad-cam --method deep-lift --target tabby --out why")
def explain(
    photos: Photos,
    model: ModelName = "efficientnet-lite0",
    method: Methods = ["grad_cam"],  # noqa: B006 - typer reads the default from here
    target: Annotated[str, typer.Option(help="class name, number, or top5; default: the predicted class")] = "",
    out: Out = Path("whylens-explain"),
    weights: Weights = "default",
    classes: Annotated[str, typer.Option(help="text file with one class name per line")] = "",
    preprocess: Annotated[str, typer.Option(help="imagenet, or a JSON file of Preprocess fields")] = "",
    layer: Annotated[str, typer.Option(help="feature layer by dotted name; default: found by rule")] = "",
    score: Annotated[str, typer.Option(help="auto, logit, probability, or log_odds")] = "auto",
    device: Device = "auto",
    batch_size: Annotated[str, typer.Option(help="images at once, or auto")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or auto: bfloat16 where no gradient is needed")] = "float32",
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    colours: Annotated[str, typer.Option(help="auto, jet, viridis, turbo, bwr, or any matplotlib map")] = "auto",
    scale: Annotated[str, typer.Option(help="image (each map by its own maximum) or shared")] = "image",
    as_json: AsJson = False,
) -> None:
    """Explain photos: overlay pictures, raw maps, JSON and one HTML page."""
    from .colour import check_view
    from .explain import explain_many
    from .output import prepare_folder, summary, write_explanations
    from .sources import load_images

    draws = _seed(seed)
    images = load_images(photos[0] if len(photos) == 1 else photos)
    check_view(colours, scale)
    opened = _open(model, weights, device, classes, preprocess, layer)
    folder = prepare_folder(out)
    size: Any = int(batch_size) if batch_size.isdecimal() else batch_size
    many = explain_many(
        opened,
        images,
        methods=list(method),
        target=target or None,
        score=score,  # type: ignore[arg-type]
        batch_size=size,
        precision=precision,  # type: ignore[arg-type]
        seed=draws,
        progress=not as_json and sys.stderr.isatty(),
    )
    written = write_explanations(folder, many, images, colours=colours, scale=scale)  # type: ignore[arg-type]
    said = summary(folder, many, written)
    typer.echo(json.dumps(said, ensure_ascii=False, indent=1) if as_json else _told(said))
    if said["failures"]:
        raise typer.Exit(SOME_FAILED)


@app.command(epilog="Example: whylens methods --json")
def methods(as_json: AsJson = False) -> None:
    """What each method needs, gives and costs, as it declares it."""
    from .catalogue import describe_methods

    rows = describe_methods()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    _table(rows, ["method", "gradients", "layer", "black box", "tables", "scope", "map", "passes", "parameters"])
    for row in rows:
        typer.echo(f"{row['method']}: {row['says']}")


@app.command(epilog="Example: whylens models resnet")
def models(
    contains: Annotated[str, typer.Argument(metavar="[WORD]", help="only names that contain this")] = "",
    as_json: AsJson = False,
) -> None:
    """Models that can be opened by name, and the spellings for files."""
    from .catalogue import describe_models

    found = describe_models(contains)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    typer.echo("Spellings: " + ", ".join(found["spellings"]))
    shown = found["names"] if contains else found["short"]
    for name in shown:
        typer.echo(f"  {name}")
    if not contains:
        typer.echo(f"{len(found['names'])} names in all; whylens models WORD lists those that contain a word.")
    elif not shown:
        typer.echo(f"  no name contains '{contains}'")


@app.command(epilog="Example: whylens doctor")
def doctor(as_json: AsJson = False) -> None:
    """What is installed here and what works: packages, extras, devices, weights."""
    from .catalogue import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    else:
        width = max(len(f["what"]) for f in findings)
        for finding in findings:
            typer.echo(f"{finding['state']:>7}  {finding['what']:<{width}}  {finding['says']}")
    if any(f["state"] == "broken" for f in findings):
        raise typer.Exit(2)


@app.command(epilog="Example: whylens demo --out why")
def demo(out: Out = Path("whylens-demo"), device: Device = "auto", as_json: AsJson = False) -> None:
    """Explain two photos with a real network: pictures, raw maps and one HTML page."""
    from .demo import run

    said = run(out, device=device, progress=not as_json and sys.stderr.isatty())
    typer.echo(json.dumps(said, ensure_ascii=False, indent=1) if as_json else _told(said))


def main() -> None:
    """The console command. Every error is one sentence; --debug shows where it came from before saying it."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        code, sentence = _judged(error)
        if "--debug" in sys.argv:
            traceback.print_exc()
        typer.echo(f"whylens: {sentence}", err=True)
        sys.exit(code)


def _judged(error: Any) -> tuple[int, str]:
    """The exit code and the sentence for an error."""
    if isinstance(error, WhylensError):
        return 2, str(error)
    if hasattr(error, "format_message"):  # typer's own errors, in whichever of its modules they live
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "whylens"
        return 2, f"{error.format_message().rstrip('.')}. Help: {command} --help."
    said = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return 1, (
        f"this is a defect, not your doing: {said}\nRun again with 'whylens --debug ...' and report what it prints."
    )


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise InputError(f"--seed must be an integer >= 0. Got '{text}'.")
    return int(text)


def _open(model: str, weights: str, device: str, classes: str, preprocess: str, layer: str) -> Any:
    from .zoo import load_model

    given: Any = preprocess or None
    if preprocess and preprocess != "imagenet":
        try:
            given = json.loads(Path(preprocess).read_text("utf-8"))
        except (OSError, ValueError):
            raise InputError(
                f"--preprocess: '{preprocess}' is neither 'imagenet' nor a readable JSON file. "
                'Such a file looks like this: {"size": [224, 224], "resize": 256}.'
            ) from None
    return load_model(
        model, weights=weights, device=device, classes=classes or None, preprocess=given, layer=layer or None
    )


def _told(said: dict[str, Any]) -> str:
    lines = []
    for image in said["images"]:
        lines.append(f"{image['id']}: predicted {image['prediction']}")
        for row in image["maps"]:
            flags = "".join(f"  ! {flag}" for flag in row["flags"])
            lines.append(f"  {row['label']:<28} for {row['target']} {_share(row['probability'])}{flags}")
    lines += [f"{name}: not explained. {reason}" for name, reason in said["failures"].items()]
    cost = ", ".join(f"{label} {c['seconds']:.2f} s" for label, c in said["cost"].items())
    lines.append(f"Time: {cost}")
    lines.append(f"Written to {said['folder']}: " + ", ".join(said["written"]))
    lines.append(f"Open {said['page']}")
    return "\n".join(lines)


def _share(probability: float | None) -> str:
    return "(p unknown)" if probability is None else f"(p {probability:.3f})"


def _table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[c]) for c in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
