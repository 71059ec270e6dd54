"""Give the images that show the group's reason another label in the training set and learn the last layer further."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect
from ..errors import InputError
from ..learn import STAY, judged, lesson
from ..task import Task, output_of


def relabel(task: Task, *, label: str | int, stay: Annotated[float, Range(1e-6, None)] = STAY) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt further with `label` for those images of `train`.

    Control, learnt in the same way: random images of equal number with that label. With the labels as they are the
    layer stays as it is.
    """
    index = output_of(task.model, label, "relabel")
    held = lesson(task, task.model, last=True)
    shows = held.shows
    if not shows.any():
        raise InputError(f"relabel: no training image shows '{task.group.name}'.")
    made, other = (
        held.layer.learnt(held.layer.features, np.where(given, index, held.truth), stay=stay)
        for given in (shows, held.chance(task.seed))
    )
    said = {"training_images_relabelled": int(shows.sum()), "of": len(shows)}
    return judged(task, "relabel", made, {"random images of equal number": other}, said)
