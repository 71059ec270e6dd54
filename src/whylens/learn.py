"""Learn: where a group's evidence lies in a training set, and a model's last layer learnt anew from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
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


def relearnt(model: Model, frames: Tensor, truth: Array, *, strength: float) -> Model:
    """A copy of the model whose last linear layer is learnt anew: logistic regression on what enters it.

    `strength` is the weight of the data against a penalty on the weights (scikit-learn's C), features standardised.
    Source: deep feature reweighting, Kirichenko et al. 2023. Differs: the data are those that were acted on.
    """
    from sklearn.linear_model import LogisticRegression

    name, layer = _last_linear(model)
    features = _entering(model, layer, frames)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    fit = LogisticRegression(C=strength, max_iter=500).fit(((features - mean) / spread).numpy(), truth)
    net = copy.deepcopy(model.net)
    new = net.get_submodule(name)
    weight, bias = torch.zeros_like(layer.weight), torch.full((layer.out_features,), -1e3)
    found = torch.from_numpy(np.atleast_2d(fit.coef_)).float()
    offset = torch.from_numpy(np.atleast_1d(fit.intercept_)).float()
    if len(fit.classes_) == 2 and len(found) == 1:
        found, offset = torch.cat([-found, found]) / 2, torch.cat([-offset, offset]) / 2
    seen = torch.from_numpy(fit.classes_)
    weight[seen] = (found / spread).to(weight)
    bias[seen] = offset - (found / spread) @ mean
    with torch.no_grad():
        new.weight = nn.Parameter(weight)
        new.bias = nn.Parameter(bias.to(weight))
    return model.with_net(net)


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
