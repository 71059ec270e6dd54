"""Sides: every model and method works off the same images, batch by batch, and what each gave."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._progress import progress as progress_line
from .._state import as_found
from ..agreement import on_photo, spearman
from ..batches import batched
from ..contract import Method
from ..errors import InputError
from ..explain import explain, explain_many
from ..explanation import Explanation
from ..images import Images
from ..measure import measure
from ..model import Model
from .asked import Asked, masked

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Side:
    """One method of one model: what it gave so far, image by image."""

    name: str
    model: Model
    method: Method
    count: int
    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sweep: NDArray[np.float64] | None = None  # IoU at every threshold
    targets: dict[int, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # by metric; "" for the method itself
    seconds: list[float] = field(default_factory=list)  # per image, by batch
    passes: tuple[float, float] = (0.0, 0.0)  # forwards and backwards per image, alone
    shown: list[Explanation] = field(default_factory=list)

    def keep(self, key: str, at: Sequence[int], values: Tensor) -> None:
        """Values of the images at these positions."""
        held = self.values.setdefault(key, np.full(self.count, np.nan))
        held[at] = values.double().numpy()

    def keep_sweep(self, at: Sequence[int], curve: Tensor) -> None:
        """IoU at every threshold of the images at these positions."""
        if self.sweep is None:
            self.sweep = np.full((self.count, curve.shape[1]), np.nan)
        self.sweep[at] = curve.double().numpy()


class Work:
    """Works off the images batch by batch, every model on the same decoded photos.

    `predicted` holds the output that each model predicts, -1 where none; `alike` the rank correlation of two maps
    ``(N,)``, by what they share (method or model) and the pair; `forward` seconds of a model's forward per image.
    """

    def __init__(self, asked: Asked) -> None:
        count = len(asked.images)
        self.asked = asked
        self.sides = [Side(name, m, method, count) for name, m in asked.models.items() for method in asked.methods]
        self.predicted = {name: np.full(count, -1) for name in asked.models}
        self.alike: dict[tuple[str, str, str], NDArray[np.float64]] = {}
        self.forward: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def run(self, show: bool) -> None:
        """All images."""
        count, size = len(self.asked.images), self.asked.batch_size
        with progress_line(total=count * len(self.asked.models), label="compare", show=show) as done:
            for start in range(0, count, size):
                chunk, at = self._decoded(slice(start, start + size))
                if at and not self.forward:
                    self._warm(chunk, at)
                laid: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
                for name in self.asked.models:
                    laid |= self._explained(name, chunk, at) if at else {}
                    done(min(size, count - start))
                self._compare(laid, at)
        if not self.forward:
            name, why = next(iter(self.failures.items()))
            raise InputError(f"None of the {count} images could be read. The first, {name}: {why}")

    def _decoded(self, part: slice) -> tuple[Images, list[int]]:
        """Some of the photos, decoded once for all models, and their positions."""
        images = self.asked.images.subset(part).decoded(self.failures)
        position = dict(zip(self.asked.images.ids[part], range(part.start, part.stop), strict=False))
        return images, [position[name] for name in images.ids]

    def _warm(self, chunk: Images, at: Sequence[int]) -> None:
        """Seconds of the models' forwards, taken in turn; then one image through every method of every model."""
        asked, taken = self.asked, {name: list[float]() for name in self.asked.models}
        frames = {n: next(batched(m, chunk.stream(), asked.batch_size, {})).frames for n, m in asked.models.items()}
        frames = {name: frames[name].to(model.device, model.dtype) for name, model in asked.models.items()}
        for turn in range(asked.repeats + 1):
            for name, model in asked.models.items():
                began = time.perf_counter()
                _forward(model, frames[name])
                taken[name] += [(time.perf_counter() - began) / len(frames[name])] if turn else []
        self.forward = {name: float(np.median(seconds)) for name, seconds in taken.items()}
        for side in self.sides:
            try:
                self._explain(side.name, [side.method], chunk.subset([0]), at[:1])
            except InputError as error:
                side.refused[""] = str(error)
        if all("" in side.refused for side in self.sides):
            raise InputError(self.sides[0].refused[""])

    def _explain(
        self, name: str, methods: Sequence[Method], chunk: Images, at: Sequence[int]
    ) -> Mapping[str, Explanation]:
        """Maps by method: sharing passes where models are compared, one method after another where methods are."""
        asked, model = self.asked, self.asked.models[name]
        options: dict[str, Any] = {
            "target": asked.target_of(name, at),
            "batch_size": asked.batch_size,
            "precision": asked.precision,
            "seed": asked.seed,
        }
        if asked.kind == "models":
            return explain_many(model, chunk, methods=methods, **options)
        return {m.key: explain(model, chunk, method=m, **options) for m in methods}

    def _explained(self, name: str, chunk: Images, at: Sequence[int]) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
        """Explain and measure one batch by one model: maps on their photos, by model and method."""
        sides = {s.method.key: s for s in self.sides if s.name == name and "" not in s.refused}
        if not sides:
            return {}
        many = self._explain(name, [s.method for s in sides.values()], chunk, at)
        for key, explanation in many.items():
            self._keep(sides[key], explanation, at)
            self._measure(sides[key], explanation, chunk, at)
        self.predicted[name][at] = next(iter(many.values())).predictions.numpy()
        return {(name, key): on_photo(explanation.maps, explanation.placements) for key, explanation in many.items()}

    def _keep(self, side: Side, explanation: Explanation, at: Sequence[int]) -> None:
        """What an explanation says beside its maps, and the images that will be drawn."""
        side.seconds.append(explanation.cost["seconds"] / len(at))
        side.passes = (explanation.cost["forwards"], explanation.cost["backwards"])
        side.targets.update(zip(at, explanation.target_names, strict=True))
        drawn = [k for k, position in enumerate(at) if position in self.asked.shown]
        side.shown += [replace(explanation[k], images=self.asked.images) for k in drawn]

    def _measure(self, side: Side, explanation: Explanation, chunk: Images, at: Sequence[int]) -> None:
        """Every metric on one batch; one that the model does not allow is not tried again."""
        size, seed = self.asked.batch_size, self.asked.seed
        for metric in self.asked.metrics:
            if metric.key in side.refused or (metric.facts.needs_masks and not masked(chunk)):
                continue
            try:
                scores = measure(side.model, chunk, explanation, metric=metric, batch_size=size, seed=seed)
            except InputError as error:
                side.refused[metric.key] = str(error)
                continue
            side.keep(metric.key, at, scores.values)
            if metric.plain_name == "iou" and scores.curve is not None:
                side.keep_sweep(at, scores.curve)

    def _compare(self, laid: Mapping[tuple[str, str], tuple[Tensor, Tensor]], at: Sequence[int]) -> None:
        """Rank correlation of the maps of two models by one method, or of two methods on one model."""
        targets = {(s.name, s.method.key): s.targets for s in self.sides}
        for one, two in combinations(laid, 2):
            shared = 1 if self.asked.kind == "models" else 0
            (first, seen), (second, seen_too) = laid[one], laid[two]
            if one[shared] != two[shared] or first.shape != second.shape:
                continue
            values = spearman(first, second, seen & seen_too).numpy()
            same = [targets[one][p] == targets[two][p] for p in at]
            key = (one[shared], one[1 - shared], two[1 - shared])
            held = self.alike.setdefault(key, np.full(len(self.asked.images), np.nan))
            held[at] = np.where(same, values, np.nan)


def _forward(model: Model, frames: Tensor) -> None:
    """One plain forward, to its end."""
    with as_found(model.net), torch.no_grad():
        model.forward(frames)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
