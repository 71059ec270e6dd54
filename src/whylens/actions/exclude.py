"""Leave the images that show the group's reason out of the training set and learn the last layer anew."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..effect import Effect, measured
from ..errors import InputError
from ..learn import judged, lesson, relearnt
from ..task import Task, hits


def exclude(task: Task, *, strength: Annotated[float, Range(0, None)] = 1.0) -> Effect:
    """Accuracy on `images` of the model whose last layer is learnt from the other images of `train`.

    Controls, learnt in the same way: from all images; without random images of equal number.
    """
    model = task.model
    held = lesson(task, model)
    shows = held.shows
    if shows.all() or not shows.any():
        raise InputError(f"exclude: some, not all, of the training images must show '{task.group.name}'.")
    rng = np.random.default_rng([task.seed, len(shows)])
    frames, truth = judged(task, model)

    def learnt(
        kept: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        made[0] = relearnt(model, held.frames[kept], held.truth[kept], strength=strength)
        return hits(made[0], frames, truth)

    made = [model]
    all_of_them = learnt(np.ones(len(shows), np.bool_))
    fewer = learnt(~shows[rng.permutation(len(shows))])
    after = learnt(~shows)
    return measured(
        "exclude",
        task.group.name,
        "accuracy",
        hits(model, frames, truth),
        after,
        {"learnt anew, nothing left out": all_of_them, "random images of equal number": fewer},
        seed=task.seed,
        said={"training_images_left_out": int(shows.sum()), "of": len(shows)},
        model=made[0],
    )
