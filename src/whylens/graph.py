"""The verb attention_graph: model + image → the sets of regions that are enough, and what is left as parts go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import __version__, places
from . import target as targets
from ._check import Range, checked, parameters
from ._state import own_precision
from .attention import AttentionGraph, Edge, Node, Subject, png
from .baseline import Choice
from .collect import finished
from .contract import Maps, Method
from .errors import InputError
from .explain import Request
from .images import Photo
from .model import Model
from .passes import Passes
from .picture import as_image, draw
from .placement import Placement
from .places import Instances, Region
from .probe import Probe
from .sources import load_images
from .structured.dag import Grown, grow
from .structured.diverse import by_overlap, counts, diverse
from .structured.sets import patches
from .structured.sufficient import Sufficient, sufficient
from .target import Target

GUIDE = "igos:iterations=2,steps=20"
"""The guide of published work; its mask has the size of the grid."""

NONE = "none"
"""The word for no guide: every unit is tried."""


def attention_graph(
    model: Model | nn.Module | Callable[[Tensor], Any],
    image: Any,
    target: Any = None,
    *,
    grid: int = 7,
    guide: Request = GUIDE,
    baseline: Choice = "auto",
    params: Mapping[str, Any] | None = None,
    overlap: Annotated[int, Range(0)] = 1,
    expand: Annotated[float, Range(0.0, 1.0)] = 0.4,
    max_nodes: Annotated[int, Range(1)] = 200,
    seed: int = 0,
) -> AttentionGraph:
    """In how many ways an image is enough for its target, and what each way loses with every part.

    `image` is one image, as `load_images` takes it; `target` an int, a class name, a function ``output -> (N,)`` with
    positive values, or None: the predicted class. Its regions are `grid` x `grid` cells; what is hidden is filled with
    the `baseline`. `guide` is a method whose map says where the search looks first, or "none": it then tries every
    region. `params` are further ones of `whylens.structured.sufficient.sufficient`: `regions` "tokens" or "slic",
    `search`, `beam`, `threshold` and the limits.

    The roots are the largest choice of the sets found of which no two share more than `overlap` regions. Below them,
    every set that keeps at least `expand` of the image's score has all sets with one region less, up to `max_nodes`.

    Raises InputError for what cannot be done as asked.

    Source: Shitole, Li, Kahng, Tadepalli, Fern 2021, arXiv:2011.06733.   Differs: a graph where theirs is a tree, with
    all children where theirs has three.
    """
    own = {"overlap": overlap, "expand": expand, "max_nodes": max_nodes}
    checked(attention_graph, own, "attention_graph")
    settings = search_settings(params, {"grid": grid, "baseline": baseline, "seed": seed}, "attention_graph")
    model = model if isinstance(model, Model) else _model(model)
    images = load_images([image] if getattr(image, "ndim", 0) == 3 else image)
    if len(images) != 1:
        raise InputError(f"attention_graph: give one image. Got {len(images)}. Take them one by one.")
    photo = images[0]
    probe = probe_of(model, photo, targets.read(target, model, 1), 0)
    method = read_guide(guide, model, settings)
    found = sufficient(probe, guide=None if method is None else maps_of(probe, method, seed), **settings)[0]
    apart = diverse(found.sets, found.scores, by_overlap(overlap))
    with found.score.held():
        grown = grow(found.score, [found.sets[k] for k in apart], least=expand * found.full, most=max_nodes)
    return _graph(probe, photo, found, grown, settings, own)


# ---- what the study asks too ---------------------------------------------------------------------------------


def search_settings(params: Mapping[str, Any] | None, own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a search, those not given at their defaults, checked; `own` are given by name beside them."""
    twice = sorted({*(params or {})} & {*own, "guide"})
    if twice:
        raise InputError(f"{where}: {twice[0]} is not among params. Give it by its own name: {where}({twice[0]}=...).")
    return {k: v for k, v in checked(sufficient, {**(params or {}), **own}, where).items() if k != "guide"}


def probe_of(model: Model, photo: Photo, target: Target, position: int) -> Probe:
    """The probe of one photo; `position` is its number among those that the target was read for."""
    if model.task == "tabular":
        raise InputError("Only images have regions to show. The model takes rows of a table.")
    if target.top > 1:
        raise InputError(f"A graph is of one target. Got 'top{target.top}'. Ask for them one by one.")
    frame, placement = model.prepare(photo.pixels, photo.orientation)
    if target.place is not None:
        return _probe_at(model, frame[None], target.place, placement, position)
    passes = Passes(model, frame[None])
    if target.function is not None:
        return Probe(passes, None, function=target.function)
    scores = model.scores(passes.trace().output).detach()
    return Probe(passes, target.indices(scores, [position])[:, 0])


def _probe_at(
    model: Model, frame: Tensor, asked: Instances | Region, placement: Placement | None, position: int
) -> Probe:
    """At the one object or region of the frame ``(1, C, H, W)``."""
    found = places.find(model, asked, frame, position, placement)
    if isinstance(found, str) or len(found) != 1:
        came = found if isinstance(found, str) else f"{len(found)} objects"
        raise InputError(
            f"A graph is of one object. Got {came}. "
            "Give its box: target=Instances(boxes=[[(left, top, right, bottom, class)]])."
        )
    return Probe(Passes(found[0].view, frame), torch.tensor([found[0].index]))


def read_guide(guide: Request, model: Model, settings: Mapping[str, Any]) -> Method | None:
    """The guide as a request, at the search's own baseline and the grid's size where it has such parameters."""
    if guide == NONE:
        return None
    method = Method.read(guide)
    if not model.differentiable and not method.facts.black_box:
        raise InputError(
            f"The guide {method.plain_name} needs gradients, and {model.name} gives none (it is a black box). "
            "Give one that needs scores alone, guide='rise:samples=500', or guide='none'."
        )
    known, given = parameters(method.function), dict(method.params or {})
    if "baseline" in known:
        given.setdefault("baseline", settings["baseline"])
    if "size" in known and settings["regions"] == "grid":
        given.setdefault("size", settings["grid"])
    return replace(method, params=given or None, label=method.key)


def maps_of(probe: Probe, method: Method, seed: int) -> Tensor:
    """The maps ``(N, C, h, w)`` of a method for the probe's images and targets."""
    with own_precision(probe.model.net):
        given = method.function(probe.at(method.layer), **method.checked_params(seed))
        result = given if isinstance(given, Maps) else Maps(given)
        return finished(method.key, result, probe.score.float().cpu())[0]


# ---- inside --------------------------------------------------------------------------------------------------


def _model(model: Any) -> Model:
    if isinstance(model, str):
        raise InputError(
            "attention_graph: model must be a Model, a torch module or a function. "
            f"Open it: whylens.load_model('{model}')."
        )
    return Model(model)


def _graph(
    probe: Probe, photo: Photo, found: Sufficient, grown: Grown, settings: Mapping[str, Any], own: Mapping[str, Any]
) -> AttentionGraph:
    roots = {members for members in grown.sets if members in found.sets}
    return AttentionGraph(
        nodes=tuple(
            Node(k, patches(m), score := found.score.known[m], score / found.full, m in roots, grown.expanded[k])
            for k, m in enumerate(grown.sets)
        ),
        edges=tuple(Edge(*edge) for edge in grown.edges),
        subject=_subject(probe, photo, found),
        score_full=found.full,
        baseline=found.baseline.names[0] if found.baseline.names else found.baseline.name,
        baseline_score=found.kept,
        threshold=found.threshold,
        expand=own["expand"],
        overlap=counts(found.sets, found.scores),
        stops={
            "search": found.stop,
            "sets": len(found.sets),
            "asked": found.score.asked,
            "scored": found.score.scored,
            **{name: settings[name] for name in ("beam", "candidates", "max_sets", "max_scores")},
            "max_nodes": own["max_nodes"],
            "overlap": own["overlap"],
        },
        truncated=grown.truncated,
        flags=found.flags,
        seed=settings["seed"],
        version=__version__,
        ask=found.score,
    )


def _subject(probe: Probe, photo: Photo, found: Sufficient) -> Subject:
    model, frame, units = probe.model, probe.frames[0].cpu(), found.units
    size = (frame.shape[1], frame.shape[2])
    index = -1 if probe.index is None else int(probe.index[0])
    name = getattr(probe.function, "__name__", "function") if index < 0 else model.class_name(index)
    labels = units.regions.labels[0].numpy().astype(np.uint8 if units.count <= 256 else np.uint16)
    return Subject(
        image=photo.id,
        model=model.name,
        target_index=index,
        target_name=name,
        size=size,
        grid=units.grid,
        units=units.count,
        photo=png(np.asarray(as_image(draw(frame, size)))),
        cells=None if units.grid else png(labels),
    )
