"""The application: its options shared by several commands, and how words on the line become objects."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import InputError

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


def read_seed(text: str) -> int:
    """The number of --seed."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise InputError(f"--seed must be an integer >= 0. Got '{text}'.")
    return int(text)


def open_model(model: str, weights: str, device: str, classes: str, preprocess: str, layer: str) -> Any:
    """The model of --model and the options beside it."""
    from ..zoo import load_model

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


def print_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows under headings, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[c]) for c in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(said: Any, as_json: bool, words: str) -> None:
    """JSON for machines, or words."""
    typer.echo(json.dumps(said, ensure_ascii=False, indent=1) if as_json else words)


def watched(as_json: bool) -> bool:
    """Whether somebody looks at the terminal."""
    return not as_json and sys.stderr.isatty()


def read_pair(word: str) -> tuple[str, str]:
    """Name and value of one --param."""
    name, sign, value = word.partition("=")
    if not sign:
        raise InputError(f"--param: write NAME=VALUE. Got '{word}'.")
    return name.strip().replace("-", "_"), value.strip()
