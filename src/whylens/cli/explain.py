"""whylens explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import (
    SOME_FAILED,
    AsJson,
    Device,
    Methods,
    ModelName,
    Out,
    Photos,
    Weights,
    app,
    open_model,
    read_seed,
    say,
    watched,
)  # fmt: skip


@app.command(epilog="Example: whylens explain photo.jpg --method grad-cam --method deep-lift --target tabby --out why")
def explain(
    photos: Photos,
    model: ModelName = "efficientnet-lite0",
    method: Methods = ["grad_cam"],  # noqa: B006 - typer reads the default from here
    target: Annotated[
        str,
        typer.Option(help="class name, number, top5, or instances:threshold=0.3; default: what is predicted"),
    ] = "",
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
    from .._files import prepare_folder
    from ..colour import check_view
    from ..explain import explain_many
    from ..output import summary, write_explanations
    from ..sources import load_images

    draws = read_seed(seed)
    images = load_images(photos[0] if len(photos) == 1 else photos)
    check_view(colours, scale)
    opened = open_model(model, weights, device, classes, preprocess, layer)
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
        progress=watched(as_json),
    )
    written = write_explanations(folder, many, images, colours=colours, scale=scale)  # type: ignore[arg-type]
    said = summary(folder, many, written)
    say(said, as_json, told(said))
    if said["failures"]:
        raise typer.Exit(SOME_FAILED)


def told(said: dict[str, Any]) -> str:
    """What was found, image by image."""
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
