"""Mask the group's evidence in the training set and learn the last layer anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from .._check import Range
from ..effect import Effect, measured
from ..errors import InputError
from ..groups.intervene import elsewhere, removed
from ..learn import judged, lesson, relearnt
from ..model import Model
from ..task import Task, hits

Fit = Callable[[Tensor, Any], Model]
"""Your own training: frames ``(N, C, H, W)`` and true outputs ``(N,)`` → a Model."""


def retrain(task: Task, *, strength: Annotated[float, Range(0, None)] = 1.0, fit: Fit | None = None) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt from `train` without the group's evidence.

    The evidence is found in the training set as it was in the run, and filled with the colour around it. `fit`
    replaces the learning of the last layer by your own. Controls, learnt in the same way: nothing masked; random
    regions of equal area masked in the same images. `Effect.model` is the model that was learnt.
    """
    model = task.model
    held = lesson(task, model)
    if not held.shows.any():
        raise InputError(f"retrain: no training image shows '{task.group.name}'. Is it the set the model learnt from?")

    def learn(frames: Tensor) -> Model:
        made = relearnt(model, frames, held.truth, strength=strength) if fit is None else fit(frames, held.truth)
        if not isinstance(made, Model):
            raise InputError(f"retrain: fit must give a whylens.Model. Got {type(made).__name__}.")
        return made

    frames, truth = judged(task, model)
    made = learn(removed(held.frames, held.evidence))
    elsewhere_ = held.frames.clone()
    rows = held.shows.nonzero()[0]
    moved = elsewhere(held.evidence[rows], [held.numbers[r] for r in rows], task.seed)
    elsewhere_[rows] = removed(held.frames[rows], moved)
    return measured(
        "retrain",
        task.group.name,
        "accuracy",
        hits(model, frames, truth),
        hits(made, frames, truth),
        {
            "learnt anew, nothing masked": hits(learn(held.frames), frames, truth),
            "random regions of equal area": hits(learn(elsewhere_), frames, truth),
        },
        seed=task.seed,
        said={"training_images_masked": int(np.sum(held.shows)), "of": len(held.truth)},
        model=made,
    )
