"""whylens graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._progress import track
from ..errors import InputError, WhylensError
from .app import (
    SOME_FAILED,
    AsJson,
    Device,
    ModelName,
    Out,
    Photos,
    Weights,
    app,
    open_model,
    read_pair,
    read_seed,
    say,
    watched,
)  # fmt: skip

if TYPE_CHECKING:
    from ..attention import AttentionGraph
    from ..images import Images


@app.command(epilog="Example: whylens graph photo.jpg --grid 7 --out graph")
def graph(
    photos: Photos,
    quiz: Annotated[bool, typer.Option("--quiz", help="also a page that asks what the model says of parts")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="sum up saved answers: the PHOTOs are CSV files")] = False,
    model: ModelName = "efficientnet-lite0",
    target: Annotated[str, typer.Option(help="class name or number; default: the predicted class")] = "",
    out: Out = Path("whylens-graph"),
    study: Annotated[bool, typer.Option("--study", help="over all photos: how little is enough; resumes")] = False,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="with --study: rankings to compare with; again for several")
    ] = None,
    grid: Annotated[str, typer.Option(help="cells along each side, 2 to 14")] = "7",
    param: Annotated[
        list[str] | None, typer.Option("--param", help="NAME=VALUE of the search: regions, beam, search, ...")
    ] = None,
    guide: Annotated[str, typer.Option(help="method that says where to look first, or none")] = "",
    baseline: Annotated[str, typer.Option(help="auto, mean, black, white, or blur: fills what is hidden")] = "auto",
    overlap: Annotated[str, typer.Option(help="patches that two roots may share")] = "1",
    expand: Annotated[str, typer.Option(help="share of the score down to which a set loses more")] = "0.4",
    max_nodes: Annotated[str, typer.Option(help="sets in the graph at most")] = "200",
    weights: Weights = "default",
    classes: Annotated[str, typer.Option(help="text file with one class name per line")] = "",
    preprocess: Annotated[str, typer.Option(help="imagenet, or a JSON file of Preprocess fields")] = "",
    layer: Annotated[str, typer.Option(help="feature layer by dotted name; default: found by rule")] = "",
    device: Device = "auto",
    seed: Annotated[str, typer.Option(help="an integer >= 0; fixes every draw")] = "0",
    as_json: AsJson = False,
) -> None:
    """In how many ways a photo is enough for its class, and what each loses with every part: JSON, picture, page."""
    from .._check import checked
    from ..graph import GUIDE, attention_graph
    from ..sources import load_images

    if answers:
        _answers(photos, as_json)
        return
    draws, params = read_seed(seed), dict(read_pair(word) for word in param or ())
    images = load_images(photos[0] if len(photos) == 1 else photos)
    opened = open_model(model, weights, device, classes, preprocess, layer)
    search = {"target": target or None, "guide": guide or GUIDE, "seed": draws}
    if study:
        params = {"grid": grid, "baseline": baseline, **params}
        _study(opened, images, out, method or ["grad_cam"], params, search, as_json)
        return
    given = {"grid": grid, "baseline": baseline, "overlap": overlap, "expand": expand, "max_nodes": max_nodes}
    read = checked(attention_graph, given, "graph")
    own = {name: read[name] for name in given}
    shown = (method or []) if quiz else None
    _graphs(opened, images, out, {**search, **own, "params": params}, shown, as_json)


def _graphs(
    model: Any, images: Images, out: Path, asked: dict[str, Any], shown: list[str] | None, as_json: bool
) -> None:
    """A graph of every photo: one into `out`, several into folders of it; one that fails does not stop the others.

    Where `shown` is a list, a quiz about all of them too, with the maps of these methods as more kinds of help.
    """
    from .._files import prepare_folder
    from ..graph import attention_graph
    from ..output import image_files

    prepare_folder(out)
    files = image_files(images.ids)
    said: dict[str, Any] = {"folder": str(out), "graphs": [], "failures": {}}
    lines: list[str] = []
    graphs: list[AttentionGraph] = []
    for k, name in track(list(enumerate(images.ids)), total=len(images), label="graph", show=watched(as_json)):
        folder = out if len(images) == 1 else out / files[name]
        try:
            made = attention_graph(model, images.subset([k]), **asked)
        except WhylensError as error:
            if len(images) == 1:
                raise
            said["failures"][name] = str(error)
            lines.append(f"{name}: no graph. {error}")
            continue
        graphs.append(made)
        written = write_graph(prepare_folder(folder), made)
        said["graphs"].append(_facts(made, folder, written))
        lines += _told(made, folder, written)
    if shown is not None:
        try:
            said["quiz"] = str(_quiz(model, images, graphs, shown, out, asked["seed"]))
            lines.append(f"Quiz: open {said['quiz']}; sum up what readers saved: whylens graph --answers FILE.csv")
        except InputError as error:
            said["failures"]["quiz"] = str(error)
            lines.append(f"no quiz: {error}")
    say(said, as_json, "\n".join(lines))
    if said["failures"]:
        raise typer.Exit(SOME_FAILED)


def _quiz(model: Any, images: Images, graphs: list[AttentionGraph], methods: list[str], out: Path, seed: int) -> Path:
    from .._files import write_atomic
    from ..explain import explain_many
    from ..picture import picture
    from ..view.html import image_uri
    from ..view.quiz import quiz_page

    asked = images.subset([graph.subject.image for graph in graphs])
    many = explain_many(model, asked, methods=methods, seed=seed) if methods else {}
    side = (320, 320)
    maps = {
        label: [image_uri(picture(e, row, asked[row], size=side)) for row in range(len(e))] for label, e in many.items()
    }
    page = quiz_page([graph.as_json() for graph in graphs], maps=maps, seed=seed)
    write_atomic(out / "quiz.html", page.encode())
    return out / "quiz.html"


def _answers(files: list[str], as_json: bool) -> None:
    from dataclasses import asdict

    from ..interval import plain
    from ..view.quiz import summarise

    found = summarise(*(Path(file) for file in files))
    say(plain([asdict(one) for one in found]), as_json, "\n".join(map(str, found)))


def write_graph(folder: Path, graph: AttentionGraph) -> list[str]:
    """Write ``graph.png``, ``graph.html`` and ``graph.json``; gives their names."""
    from io import BytesIO

    from .._files import write_atomic
    from ..view.graph import graph_page

    picture = BytesIO()
    graph.figure()[0].savefig(picture, format="png")
    files = {"graph.png": picture.getvalue()}
    files["graph.html"] = graph_page(graph.as_json()).encode()
    try:
        for name, data in files.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise InputError(f"Cannot write to '{folder}': {error.strerror or error}. Give another --out.") from None
    graph.save(folder / "graph.json")
    return [*files, "graph.json"]


def _study(
    model: Any, images: Images, out: Path, methods: list[str], params: dict[str, Any], search: Any, as_json: bool
) -> None:
    from ..study import study as run_study

    made = run_study(model, images, out=out, methods=methods, params=params, progress=watched(as_json), **search)
    written = made.write(out / "tables")
    words = [str(made), f"Written to {out / 'tables'}: " + ", ".join(written)]
    words.append(f"Open it in Python: from whylens.study import open_study; open_study({str(out)!r})")
    say({"folder": str(out), "written": written, **made.summary()}, as_json, "\n".join(words))
    if made.failures:
        raise typer.Exit(SOME_FAILED)


def _facts(graph: AttentionGraph, folder: Path, written: list[str]) -> dict[str, Any]:
    return {
        "image": graph.subject.image,
        "target": graph.subject.target_name,
        "score_full": graph.score_full,
        "roots": [list(node.patches) for node in graph.roots],
        "nodes": len(graph.nodes),
        "truncated": graph.truncated,
        "overlap": dict(graph.overlap),
        "flags": list(graph.flags),
        "folder": str(folder),
        "written": written,
    }


def _told(graph: AttentionGraph, folder: Path, written: list[str]) -> list[str]:
    from ..words import flag_words

    about, overlap = graph.subject, graph.overlap
    cut = ", cut short by the limit on nodes" if graph.truncated else ""
    lines = [f"{about.image}: {about.target_name} {graph.score_full:.3f}, baseline {graph.baseline}"]
    lines += [f"  ! {flag_words(flag)}" for flag in graph.flags]
    lines += [
        f"  {node.relative:.0%} with {len(node.patches)} of {about.units}: {node.patches}" for node in graph.roots
    ]
    if not graph.roots:
        lines.append(f"  no sufficient set found; the search ended at {graph.stops['search']}")
    counted = f"{overlap['t0']:g}, {overlap['t1']:g}, {overlap['t2']:g}"
    lines.append(f"  explanations that share at most 0, 1, 2 patches: {counted}; {len(graph.nodes)} nodes{cut}")
    lines.append(f"Written to {folder}: " + ", ".join(written))
    return lines
