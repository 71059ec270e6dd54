"""Leave the images that show the group's reason out of the training set and learn the last layer further."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..learn import STAY, judged, lesson, relearnt
from ..task import Task


def exclude(task: Task, *, stay: Annotated[float, Range(0, None)] = STAY) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further from the other images of `train`.

    Controls, learnt in the same way: from all images; without random images of equal number.
    """
    held = lesson(task, task.model)
    shows, everything = held.shows, np.ones(len(held.shows), np.bool_)
    if shows.all() or not shows.any():
        raise InputError(f"exclude: some, not all, of the training images must show '{task.group.name}'.")
    chance = shows[np.random.default_rng([task.seed, len(shows)]).permutation(len(shows))]
    without, whole, fewer = (
        relearnt(task.model, held.frames[kept], held.truth[kept], stay=stay) for kept in (~shows, everything, ~chance)
    )
    controls = {"learnt further, nothing left out": whole, "random images of equal number": fewer}
    return judged(task, "exclude", without, controls, {"training_images_left_out": int(shows.sum()), "of": len(shows)})
