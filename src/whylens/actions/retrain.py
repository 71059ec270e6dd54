"""Make the group's evidence say nothing in the training set, and learn the last layer further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._check import Range
from ..effect import Effect
from ..errors import InputError, kind_and_line
from ..groups.intervene import elsewhere, removed
from ..learn import STAY, Lesson, judged, lesson
from ..model import Model
from ..task import Task
from ..zoo.script import user_function

Fit = Callable[[Tensor, Any], Model]
"""Your own training: frames ``(N, C, H, W)`` and true outputs ``(N,)`` → a Model."""


def retrain(
    task: Task,
    *,
    how: Literal["balance", "mask"] = "balance",
    share: Annotated[float, Range(0, 1)] = 0.5,
    stay: Annotated[float, Range(1e-6, None)] = STAY,
    anew: bool = False,
    fit: object = None,
) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further on `train`, where the evidence says nothing.

    The evidence is found in the training set as it was in the run. "mask" fills it with the colour around it;
    "balance" also pastes it on that `share` of the images of other classes, which keep their labels. Control, learnt
    in the same way: random regions of equal shape in place of the evidence. `stay` holds the layer where it is.

    On images that are not changed the layer does not move, so that the effect is of the act alone. `anew` also takes
    what it gains from those; `fit`, a function or FILE.py:FUNCTION, replaces its learning by your own. What either does
    with unchanged images is then another control. `Effect.model` is the model that was learnt.
    """
    fit = user_function(fit) if isinstance(fit, str) else fit
    if fit is not None and not callable(fit):
        raise InputError(f"retrain: fit must be a function (frames, truth) -> Model. Got {fit!r}.")
    if fit is not None and anew:
        raise InputError(
            "retrain: anew is about the last layer, which your own fit takes the place of. Give one of them."
        )
    own: Fit | None = fit
    held = lesson(task, task.model, last=own is None)
    if not held.shows.any():
        raise InputError(f"retrain: no training image shows '{task.group.name}'. Is it the set the model learnt from?")

    def learn(frames: Tensor) -> Model:
        if own is None:
            return held.layer.learnt(held.layer.entering(frames), held.truth, stay=stay, anew=anew)
        try:
            made = own(frames, held.truth)
        except Exception as error:
            raise InputError(f"retrain: your own fit cannot be run: {kind_and_line(error)}.") from error
        if not isinstance(made, Model):
            raise InputError(f"retrain: fit must give a whylens.Model. Got {type(made).__name__}.")
        return made

    pasted = share if how == "balance" else 0.0
    rows = held.shows.nonzero()[0]
    random = elsewhere(held.evidence[rows], rows.tolist(), task.seed)
    made = learn(_changed(held, rows, held.evidence[rows], pasted, task.seed))
    controls = {"random regions of equal shape": learn(_changed(held, rows, random, pasted, task.seed))}
    if anew or own is not None:
        controls["nothing changed"] = learn(held.frames)
    said = {
        "training_images_that_show_it": len(rows),
        "of": len(held.truth),
        "area": round(float(held.evidence[rows].float().mean()), 4),
    }
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
