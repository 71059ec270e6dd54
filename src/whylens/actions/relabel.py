"""Give the images that show the group's reason another label in the training set and learn the last layer further."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..learn import STAY, judged, lesson, relearnt
from ..task import Task


def relabel(task: Task, *, label: str | int, stay: Annotated[float, Range(0, None)] = STAY) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further with `label` for those images of `train`.

    Controls, learnt in the same way: labels as they are; random images of equal number with that label.
    """
    index = task.model.class_index(label) if isinstance(label, str) else label
    held = lesson(task, task.model)
    shows, nobody = held.shows, np.zeros(len(held.shows), np.bool_)
    if not shows.any():
        raise InputError(f"relabel: no training image shows '{task.group.name}'.")
    chance = shows[np.random.default_rng([task.seed, len(shows)]).permutation(len(shows))]
    made, as_is, other = (
        relearnt(task.model, held.frames, np.where(given, index, held.truth), stay=stay)
        for given in (shows, nobody, chance)
    )
    controls = {"learnt further, labels as they are": as_is, "random images of equal number": other}
    return judged(task, "relabel", made, controls, {"training_images_relabelled": int(shows.sum()), "of": len(shows)})
