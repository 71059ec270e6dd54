"""Leave the images that show the group's reason out of the training set and learn the last layer further."""

from __future__ import annotations

from typing import Annotated

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..learn import STAY, judged, lesson
from ..task import Task


def exclude(task: Task, *, stay: Annotated[float, Range(1e-6, None)] = STAY) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further from the other images of `train`.

    Control, learnt in the same way: without random images of equal number. With all of them it stays as it is.
    """
    held = lesson(task, task.model, last=True)
    shows = held.shows
    if shows.all() or not shows.any():
        raise InputError(f"exclude: some, not all, of the training images must show '{task.group.name}'.")
    without, fewer = (
        held.layer.learnt(held.layer.features[kept], held.truth[kept], stay=stay)
        for kept in (~shows, ~held.chance(task.seed))
    )
    said = {"training_images_left_out": int(shows.sum()), "of": len(shows)}
    return judged(task, "exclude", without, {"random images of equal number": fewer}, said)
