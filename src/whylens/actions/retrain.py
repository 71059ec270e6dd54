"""Make the group's evidence say nothing in the training set, and learn the last layer further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..groups.intervene import elsewhere, removed
from ..learn import STAY, Lesson, judged, lesson, relearnt
from ..model import Model
from ..task import Task

Fit = Callable[[Tensor, Any], Model]
"""Your own training: frames ``(N, C, H, W)`` and true outputs ``(N,)`` → a Model."""


def retrain(
    task: Task,
    *,
    how: Literal["balance", "mask"] = "balance",
    share: Annotated[float, Range(0, 1)] = 0.5,
    stay: Annotated[float, Range(0, None)] = STAY,
    fit: object = None,
) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further on `train`, where the evidence says nothing.

    The evidence is found in the training set as it was in the run. "mask" fills it with the colour around it;
    "balance" also pastes it on that `share` of the images of other classes, which keep their labels. `fit` replaces
    the learning of the last layer by your own. Controls, learnt in the same way: nothing changed; random regions of
    equal shape in place of the evidence. `Effect.model` is the model that was learnt.
    """
    if fit is not None and not callable(fit):
        raise InputError(f"retrain: fit must be a function (frames, truth) -> Model. Got {fit!r}.")
    own: Fit | None = fit
    held = lesson(task, task.model)
    if not held.shows.any():
        raise InputError(f"retrain: no training image shows '{task.group.name}'. Is it the set the model learnt from?")

    def learn(frames: Tensor) -> Model:
        made = relearnt(task.model, frames, held.truth, stay=stay) if own is None else own(frames, held.truth)
        if not isinstance(made, Model):
            raise InputError(f"retrain: fit must give a whylens.Model. Got {type(made).__name__}.")
        return made

    pasted = share if how == "balance" else 0.0
    rows = held.shows.nonzero()[0]
    random = elsewhere(held.evidence[rows], rows.tolist(), task.seed)
    made = learn(_changed(held, rows, held.evidence[rows], pasted, task.seed))
    as_it_is = learn(held.frames)
    at_random = learn(_changed(held, rows, random, pasted, task.seed))
    said = {
        "training_images_that_show_it": len(rows),
        "of": len(held.truth),
        "area": round(float(held.evidence[rows].float().mean()), 4),
    }
    controls = {"learnt further, nothing changed": as_it_is, "random regions of equal shape": at_random}
    return judged(task, "retrain", made, controls, said)


def _changed(held: Lesson, rows: Any, masks: Tensor, share: float, seed: int) -> Tensor:
    """Training frames whose `rows` lack what lies under the masks, which lies on a share of the other classes too."""
    frames = held.frames.clone()
    own = np.unique(held.truth[rows])
    others = (~np.isin(held.truth, own)).nonzero()[0]
    chosen = np.random.default_rng([seed, len(others)]).permutation(others)[: round(share * len(others))]
    for k, host in enumerate(chosen.tolist()):
        donor = k % len(rows)
        frames[host] = torch.where(masks[donor], held.frames[rows[donor]], frames[host])
    frames[rows] = removed(held.frames[rows], masks)
    return frames
