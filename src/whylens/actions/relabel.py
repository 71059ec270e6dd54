"""Give the images that show the group's reason another label in the training set and learn the last layer anew."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect, measured
from ..errors import InputError
from ..learn import judged, lesson, relearnt
from ..task import Task, hits


def relabel(task: Task, *, label: str | int, strength: Annotated[float, Range(0, None)] = 1.0) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt with `label` for those images of `train`.

    Controls, learnt in the same way: labels as they are; random images of equal number with that label.
    """
    model = task.model
    index = model.class_index(label) if isinstance(label, str) else int(label)
    held = lesson(task, model)
    shows = held.shows
    if not shows.any():
        raise InputError(f"relabel: no training image shows '{task.group.name}'.")
    rng = np.random.default_rng([task.seed, len(shows)])
    frames, truth = judged(task, model)
    chance = shows[rng.permutation(len(shows))]
    made = relearnt(model, held.frames, np.where(shows, index, held.truth), strength=strength)
    as_is = relearnt(model, held.frames, held.truth, strength=strength)
    other = relearnt(model, held.frames, np.where(chance, index, held.truth), strength=strength)
    return measured(
        "relabel",
        task.group.name,
        "accuracy",
        hits(model, frames, truth),
        hits(made, frames, truth),
        {
            "learnt anew, labels as they are": hits(as_is, frames, truth),
            "random images of equal number": hits(other, frames, truth),
        },
        seed=task.seed,
        said={"training_images_relabelled": int(shows.sum()), "of": len(shows)},
        model=made,
    )
