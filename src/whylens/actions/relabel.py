"""Give the images that show the group's reason another label in the training set and learn the last layer anew."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..learn import judged, lesson, relearnt
from ..task import Task


def relabel(task: Task, *, label: str | int, strength: Annotated[float, Range(0, None)] = 1.0) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt with `label` for those images of `train`.

    Controls, learnt in the same way: labels as they are; random images of equal number with that label.
    """
    index = task.model.class_index(label) if isinstance(label, str) else label
    held = lesson(task, task.model)
    shows, nobody = held.shows, np.zeros(len(held.shows), np.bool_)
    if not shows.any():
        raise InputError(f"relabel: no training image shows '{task.group.name}'.")
    chance = shows[np.random.default_rng([task.seed, len(shows)]).permutation(len(shows))]
    made, as_is, other = (
        relearnt(task.model, held.frames, np.where(given, index, held.truth), strength=strength)
        for given in (shows, nobody, chance)
    )
    controls = {"learnt anew, labels as they are": as_is, "random images of equal number": other}
    return judged(task, "relabel", made, controls, {"training_images_relabelled": int(shows.sum()), "of": len(shows)})
