"""Learn: where a group's evidence lies in a training set, and a model's last layer learnt further from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray
from torch import Tensor, nn

from ._state import as_found
from .effect import Effect, measured
from .errors import InputError
from .groups import cluster, project
from .groups.evidence import points, region
from .groups.reason import evidence
from .model import Model
from .run.audit import audit
from .run.local import method_of
from .task import Task, framed, hits, truth_of

Array = NDArray[Any]

_BATCH = 64

STAY = 0.0025
"""Chosen on three planted nets: at a hundredth of it a net gains from its own training set as it is, at ten times
less is unlearnt."""

_STEPS = 500
"""Of L-BFGS, at most, until the last layer's loss has no slope."""


@dataclass(frozen=True)
class Lesson:
    """Training frames ``(N, C, H, W)``, their true outputs ``(N,)``, and the group's evidence ``(N, 1, H, W)``.

    Images whose evidence is empty do not show the group's reason.
    """

    frames: Tensor
    truth: Array
    evidence: Tensor

    @property
    def shows(self) -> Array:
        """Whether an image shows the group's reason ``(N,)``."""
        found: Array = self.evidence.flatten(1).any(1).numpy()
        return found


def lesson(task: Task, model: Model) -> Lesson:
    """The training set with the group's evidence found in it, as it was in the run: explained, embedded, and given
    the group of its nearest points of the same predicted class."""
    train = task.train
    if train is None:
        raise InputError("act: this action learns, and needs the training images: train=.")
    known = int(task.groups.facts.classes[task.group.ids[0]])
    truth = truth_of(model, train, range(len(train)), "train")
    _, stored = task.run.method(str(task.groups.settings["method"]))
    mark = sha256("\n".join(train.ids).encode(errors="surrogatepass")).hexdigest()[:12]
    folder = task.groups.folder / "acts" / f"train-{mark}"
    run = audit(model, train, out=folder, methods=[method_of(stored)], workers=1, progress=task.progress)
    per = task.groups.settings["per"]
    found = points(run, stored.label, per=per, model=model, images=train, progress=task.progress)
    classes = np.array([-1 if c is None else c for c in run.table(["prediction_index"]).column(0).to_pylist()])
    of_class = (classes[found.image] == known).nonzero()[0]
    own = of_class[_assigned(task, found.take(of_class).vectors, known) == task.group.number]
    frames = framed(model, train, range(len(train)))
    shown = torch.zeros(len(train), 1, *frames.shape[2:], dtype=torch.bool)
    if len(own):
        ids = found.image[own].tolist()
        parts = [region(m, r) for m, r in zip(run.maps(stored.label, ids), found.region[own].tolist(), strict=True)]
        for image, mask in zip(ids, evidence(task.groups, model, frames[ids], parts, task.group.number), strict=True):
            shown[image] |= mask
    return Lesson(frames, truth, shown)


def _assigned(task: Task, vectors: Array, known: int) -> Array:
    """The group ``(P,)`` of new vectors, among those of the class."""
    groups, said = task.groups, task.groups.settings
    held = project.normalised(groups.points.vectors) if said["normalise"] else groups.points.vectors
    axes = project.pca(held, int(said["components"]))
    new = axes.reduced(project.normalised(vectors) if said["normalise"] else vectors)
    rows = (groups.facts.classes[groups.points.image] == known).nonzero()[0]
    return cluster.assigned(groups.reduced[rows], groups.state.labels[rows], new)


def relearnt(model: Model, frames: Tensor, truth: Array, *, stay: float) -> Model:
    """A copy of the model whose last linear layer is learnt further, by logistic regression on what enters it.

    `stay` is the weight of half the squared distance that the weights move, features standardised and the length of a
    class's weights being 1, against the mean loss. So a layer that fits its data stays, what moves it is what was
    changed in them, and classes without an image keep their weights but for what the others push away.
    Source: deep feature reweighting, Kirichenko et al. 2023, with the penalty of Li et al. 2018 (L2-SP) in place of
    one that draws to zero, which moves a layer on unchanged data too.
    """
    name, layer = _last_linear(model)
    features = _entering(model, layer, frames)
    weight, bias = _learnt_further(layer, features, torch.from_numpy(np.asarray(truth)), stay)
    net = copy.deepcopy(model.net)
    new = net.get_submodule(name)
    with torch.no_grad():
        new.weight = nn.Parameter(weight.to(layer.weight))
        new.bias = nn.Parameter(bias.to(layer.weight))
    return model.with_net(net)


def _learnt_further(layer: nn.Linear, features: Tensor, truth: Tensor, stay: float) -> tuple[Tensor, Tensor]:
    """The weight ``(C, K)`` and bias ``(C,)`` of least loss near the layer's own: a convex problem, to its end."""
    features = features.double()
    spread = features.std(0, correction=0) + 1e-6
    held = (features - features.mean(0)) / spread
    weight, bias = (p.detach().cpu().double() for p in (layer.weight, _bias(layer)))
    start, length = F.linear(features, weight, bias), float(((weight * spread) ** 2).sum(1).mean()) or 1.0
    moved = torch.zeros(layer.out_features, held.shape[1], dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(layer.out_features, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [moved, offset], max_iter=_STEPS, history_size=20, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = F.cross_entropy(start + F.linear(held, moved, offset), truth)
        found = found + stay / 2 * (moved**2).sum() / length
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    step = moved.detach() / spread
    return weight + step, bias + offset.detach() - step @ features.mean(0)


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias


def _last_linear(model: Model) -> tuple[str, nn.Linear]:
    """The last linear layer, by name; InputError where the net does not end in one."""
    linear = [(n, m) for n, m in model.net.named_modules() if isinstance(m, nn.Linear)]
    if not linear or (model.classes and linear[-1][1].out_features != len(model.classes)):
        raise InputError(
            f"retrain: {model.name} does not end in a linear layer with one output per class. Give your own fit=."
        )
    return linear[-1]


def _entering(model: Model, layer: nn.Linear, frames: Tensor) -> Tensor:
    """What enters a layer ``(N, K)`` for frames, on the CPU."""
    held: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _m, given: held.append(given[0].detach().float().cpu()))
    try:
        with as_found(model.net), torch.no_grad():
            for part in torch.split(frames, _BATCH):
                model.forward(part.to(model.device))
    finally:
        handle.remove()
    return torch.cat(held).flatten(1)


def judged(task: Task, action: str, made: Model, controls: Mapping[str, Model], said: Mapping[str, Any]) -> Effect:
    """The effect of a model that was learnt: accuracy on the images given, else the run's own, beside its controls."""
    images = task.run.images if task.given_images is None else task.given_images
    ids = range(len(images))
    frames, truth = framed(task.model, images, ids), truth_of(task.model, images, ids, "images")
    return measured(
        action,
        task.group.name,
        "accuracy",
        hits(task.model, frames, truth),
        hits(made, frames, truth),
        {name: hits(control, frames, truth) for name, control in controls.items()},
        seed=task.seed,
        said=said,
        model=made,
    )
