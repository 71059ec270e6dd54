"""Learn: where a group's evidence lies in a training set, and a model's last layer learnt further from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray
from torch import Tensor, nn

from ._state import as_found, own_precision
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
"""Of the way a layer moves; at a tenth of it the planted nets unlearn about as much."""

DEAD = 1e-3
"""A feature that varies less than this share of the others' median does not move: how far to go, nothing tells."""

_STEPS = 500
"""Of L-BFGS, at most, until the last layer's loss has no slope."""


@dataclass(frozen=True)
class Lesson:
    """Training frames ``(N, C, H, W)``, their true outputs ``(N,)``, and the group's evidence ``(N, 1, H, W)``.

    Images whose evidence is empty do not show the group's reason. `layer` is what learns from them.
    """

    model: Model

    frames: Tensor
    truth: Array
    evidence: Tensor

    @property
    def shows(self) -> Array:
        """Whether an image shows the group's reason ``(N,)``."""
        found: Array = self.evidence.flatten(1).any(1).numpy()
        return found

    def chance(self, seed: int) -> Array:
        """As many images ``(N,)`` as show it, at random."""
        mixed: Array = self.shows[np.random.default_rng([seed, len(self.truth)]).permutation(len(self.truth))]
        return mixed

    @cached_property
    def layer(self) -> LastLayer:
        """The model's last layer, taken to fit these data. InputError where there is none."""
        return LastLayer(self.model, self.frames, self.truth)


def lesson(task: Task, model: Model, *, last: bool) -> Lesson:
    """The training set with the group's evidence found in it, as it was in the run: explained, embedded, and given
    the group of its nearest points of the same predicted class. With `last` its last layer is to learn from it."""
    train = task.train
    if train is None:
        raise InputError("act: this action learns, and needs the training images: train=.")
    if last:
        LastLayer(model, framed(model, train, range(min(2, len(train)))), np.zeros(min(2, len(train)), np.int64))
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
    return Lesson(model, frames, truth, shown)


def _assigned(task: Task, vectors: Array, known: int) -> Array:
    """The group ``(P,)`` of new vectors, among those of the class."""
    groups, said = task.groups, task.groups.settings
    held = project.normalised(groups.points.vectors) if said["normalise"] else groups.points.vectors
    axes = project.pca(held, int(said["components"]))
    new = axes.reduced(project.normalised(vectors) if said["normalise"] else vectors)
    rows = (groups.facts.classes[groups.points.image] == known).nonzero()[0]
    return cluster.assigned(groups.reduced[rows], groups.state.labels[rows], new)


class LastLayer:
    """The last linear layer of a model, to be learnt further where its training data were changed.

    It is taken to fit the data it was learnt from, given as frames ``(N, C, H, W)`` and true outputs ``(N,)``: what
    slope their loss still has is taken off, so that only what was changed in them moves it.

    Source: deep feature reweighting, Kirichenko et al. 2023, with the penalty of Li et al. 2018 (L2-SP). Differs: there
    the layer is learnt anew and drawn to zero, which changes a net on unchanged data too, by as much as some acts do.
    """

    def __init__(self, model: Model, frames: Tensor, truth: Array) -> None:
        self.model = model
        self._name, self._layer = _last_linear(model)
        self._weight = self._layer.weight.detach().cpu().double()
        bias = self._layer.bias
        self._bias = torch.zeros_like(self._weight[:, 0]) if bias is None else bias.detach().cpu().double()
        self.features = self.entering(frames)
        self._check(frames[:1])
        self._middle, spread = self.features.mean(0), self.features.std(0, correction=0)
        self._length = float(((self._weight * spread) ** 2).sum(1).mean()) or 1.0
        alive = spread[spread > 0]
        self._spread = torch.where(spread > (DEAD * alive.median() if len(alive) else 0), spread, torch.inf)
        self._slope = self._loss_and_slope(self._zeros(), self.features, truth)[1]

    def entering(self, frames: Tensor) -> Tensor:
        """What enters the layer ``(N, K)`` for frames, float64 on the CPU; `features` holds that of the data."""
        held: list[Tensor] = []
        handle = self._layer.register_forward_pre_hook(lambda _m, given: held.append(given[0].detach().cpu().double()))
        try:
            with as_found(self.model.net), torch.no_grad():
                for part in torch.split(frames, _BATCH):
                    self.model.forward(part.to(self.model.device, self.model.dtype))
        finally:
            handle.remove()
        return torch.cat(held) if held else torch.zeros(0)

    def _check(self, frames: Tensor) -> None:
        """InputError where the net's scores are not what this layer makes of what enters it."""
        with as_found(self.model.net), torch.no_grad():
            said = self.model.scores(self.model.forward(frames.to(self.model.device, self.model.dtype))).cpu().double()
        known, expected = self.features, (said.shape[0], self._weight.shape[1])
        if known.ndim != 2 or (min(len(known), 1), *known.shape[1:]) != expected:
            raise _no_last_layer(self.model)
        made = F.linear(known[: len(said)], self._weight, self._bias)
        if made.shape != said.shape or not torch.allclose(made, said, rtol=0.05, atol=0.05 * float(said.abs().max())):
            raise _no_last_layer(self.model)

    def learnt(self, features: Tensor, truth: Array, *, stay: float, anew: bool = False) -> Model:
        """A copy of the model whose layer is learnt further on changed features ``(N, K)`` and truth ``(N,)``.

        `stay` is the weight of half the squared distance that weights and biases move, features standardised and the
        length of a class's weights being 1, against the mean loss. The problem is convex, and solved to its end.
        `anew` leaves the slope in: the layer then moves on data that were not changed too.
        """
        with own_precision(self.model.net):
            return self._learnt(features, truth, stay, anew)

    def _learnt(self, features: Tensor, truth: Array, stay: float, anew: bool) -> Model:
        moved = self._zeros().requires_grad_()
        slope_before = torch.zeros_like(self._slope) if anew else self._slope
        search = torch.optim.LBFGS(
            [moved], max_iter=_STEPS, history_size=20, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            here = moved.detach()
            found, slope = self._loss_and_slope(here, features, truth)
            moved.grad = slope - slope_before + stay / self._length * here
            return found - (slope_before * here).sum() + stay / (2 * self._length) * (here**2).sum()

        search.step(loss)  # type: ignore[no-untyped-call]
        step = moved.detach()[:, :-1] / self._spread
        net = copy.deepcopy(self.model.net)
        layer, weight = net.get_submodule(self._name), self._layer.weight
        layer.weight = nn.Parameter((self._weight + step).to(weight))
        layer.bias = nn.Parameter((self._bias + moved.detach()[:, -1] - step @ self._middle).to(weight))
        return self.model.with_net(net)

    def _zeros(self) -> Tensor:
        """No move: of weights on standardised features, and of the bias ``(C, K + 1)``."""
        return torch.zeros(len(self._weight), self._weight.shape[1] + 1, dtype=torch.float64)

    def _loss_and_slope(self, moved: Tensor, features: Tensor, truth: Array) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy where the layer has moved, and its gradient ``(C, K + 1)``."""
        seen = F.pad((features - self._middle) / self._spread, (0, 1), value=1.0)
        logits = F.linear(features, self._weight, self._bias) + F.linear(seen, moved)
        known = torch.from_numpy(np.asarray(truth, np.int64))
        if int(known.max()) >= logits.shape[1]:
            raise InputError(f"act: {self.model.name} has {logits.shape[1]} outputs. Got the label {int(known.max())}.")
        over = logits.softmax(1) - F.one_hot(known, logits.shape[1])
        return F.cross_entropy(logits, known), over.T @ seen / len(seen)


def _last_linear(model: Model) -> tuple[str, nn.Linear]:
    """The last linear layer, by name; InputError where the net does not end in one."""
    linear = [(n, m) for n, m in model.net.named_modules() if isinstance(m, nn.Linear)]
    if not linear or (model.classes and linear[-1][1].out_features != len(model.classes)):
        raise _no_last_layer(model)
    return linear[-1]


def _no_last_layer(model: Model) -> InputError:
    return InputError(
        f"act: {model.name} does not end in a linear layer with one output per class, so that it cannot be learnt "
        "further here. Use retrain with your own fit=."
    )


def judged(task: Task, action: str, made: Model, controls: Mapping[str, Model], said: Mapping[str, Any]) -> Effect:
    """The effect of a model that was learnt: accuracy on the images given, else the run's own, beside its controls."""
    images = task.run.images if task.given_images is None else task.given_images
    ids = range(len(images))
    truth, models = truth_of(task.model, images, ids, "images"), (task.model, made, *controls.values())
    found = []
    for start in range(0, len(images), _BATCH):
        batch = ids[start : start + _BATCH]
        frames = framed(task.model, images, batch)
        found.append([hits(one, frames, truth[batch]) for one in models])
    before, after, *others = (np.concatenate(one) for one in zip(*found, strict=True))
    return measured(
        action,
        task.group.name,
        "accuracy",
        before,
        after,
        dict(zip(controls, others, strict=True)),
        seed=task.seed,
        said=said,
        model=made,
    )
