"""whylens methods, metrics, models, doctor and demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, Device, Out, app, print_table, say, watched
from .explain import told


@app.command(epilog="Example: whylens metrics")
def metrics(as_json: AsJson = False) -> None:
    """What each metric needs, gives and costs, as it declares it."""
    from ..catalogue import describe_metrics

    rows = describe_metrics()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    print_table(rows, ["metric", "better", "range", "masks", "passes", "parameters"])
    for row in rows:
        typer.echo(f"{row['metric']}: {row['says']}")


@app.command(epilog="Example: whylens methods --json")
def methods(as_json: AsJson = False) -> None:
    """What each method needs, gives and costs, as it declares it."""
    from ..catalogue import describe_methods

    rows = describe_methods()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    print_table(rows, ["method", "gradients", "layer", "black box", "tables", "scope", "map", "passes", "parameters"])
    for row in rows:
        typer.echo(f"{row['method']}: {row['says']}")


@app.command(epilog="Example: whylens models resnet")
def models(
    contains: Annotated[str, typer.Argument(metavar="[WORD]", help="only names that contain this")] = "",
    as_json: AsJson = False,
) -> None:
    """Models that can be opened by name, and the spellings for files."""
    from ..catalogue import describe_models

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
    from ..catalogue import examine

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
def demo(
    out: Out = Path("whylens-demo"),
    images: Annotated[int, typer.Option(min=8, help="pictures to audit; twice as many to learn from")] = 2000,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Explain two photos; plant a shortcut, train a net that takes it, audit it, find the shortcut and mend the net."""
    from ..demo import run

    def hear(text: str) -> None:
        if not as_json:
            typer.echo(text, err=True)

    said = run(out, images=images, device=device, progress=watched(as_json), told=hear)
    say(said, as_json, f"{told(said)}\n{_shortcut(said['planted'])}")


def _shortcut(said: dict[str, Any]) -> str:
    """What the audit of the planted set found, in words."""

    def figure(name: str) -> str:
        value, low, high = said[name]
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return "\n".join(
        [
            f"Planted: a tag on some pictures of the class '{said['tagged']}'.",
            f"  accuracy {figure('accuracy')} on {said['images']} pictures, {said['failed']} failed",
            f"  accuracy {figure('accuracy_swapped')} where the other classes carry the tag",
            f"  the tag pasted on other classes turns {figure('turned')} of {said['turned_of']}",
            *_found(said),
            f"The audit: {said['run']}. Again: whylens verify '{said['run']}'",
            f"Open {said['report']}",
        ]
    )


def _found(said: dict[str, Any]) -> list[str]:
    """What the groups of the planted set showed, and what acts on the first of them changed."""
    told = [f"Groups: {said['groups']} of {said['points']} regions, {said['worth_a_look']} worth a look."]
    found = said["found"]
    if found is None:
        return told
    told += [
        f"  first '{found['name']}': {found['images']} pictures, {found['tagged_here']:.0%} of them with the tag, "
        f"{found['of_all_tagged']:.0%} of all that have it",
        *(f"    {line}" for line in found["in_words"]),
    ]
    for action, effect in said["acts"].items():
        if "not done" in effect:
            told.append(f"  {action}: not done. {effect['not done']}")
            continue
        before, after, change = (effect[name] for name in ("before", "after", "change"))
        told.append(
            f"  {action}: {effect['measured']} {before['value']:.3f} before, {after['value']:.3f} after; "
            f"change {change['value']:.3f} [{change['low']:.3f}, {change['high']:.3f}]: {effect['verdict']}"
        )
        if effect.get("turned"):
            value, low, high = effect["turned"]
            told.append(f"    the tag pasted on other classes now turns {value:.3f} [{low:.3f}, {high:.3f}]")
    return told
