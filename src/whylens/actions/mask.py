"""Fill the group's evidence and predict again."""

from __future__ import annotations

import numpy as np

from ..effect import Effect, measured
from ..groups.intervene import elsewhere, removed
from ..redetection import mask_objects
from ..task import Task, hits, truth_of


def mask(task: Task) -> Effect:
    """Accuracy on the group's images without its evidence, filled with the colour around it.

    Control: a random region of the same shape in the same images. Where labels are missing, the share that keeps its
    prediction is measured.

    Objects of a detector: the evidence near each box is filled, and the frame is searched again. What is measured is
    the share of annotated masks that are whole, with the mean average precision beside it (`pycocotools`).
    """
    if task.run.of_objects:
        return mask_objects(task)
    model, images, found = task.model, task.own_images(), []
    ids = sorted(task.group.ids)
    labelled = all(images.labels[i] is not None for i in ids)
    known = truth_of(model, images, ids, "mask") if labelled else task.groups.facts.classes[ids]
    for shown in task.evidence():
        frames, truth = shown.frames, known[np.searchsorted(ids, shown.ids)]
        filled = (removed(frames, one) for one in (shown.evidence, elsewhere(shown.evidence, shown.ids, task.seed)))
        found.append((shown.area, *(hits(model, one, truth) for one in (frames, *filled))))
    area, before, after, random = map(np.concatenate, zip(*found, strict=True))
    return measured(
        "mask",
        task.group.name,
        "accuracy" if labelled else "share that keeps its prediction",
        before,
        after,
        {"random regions of equal area": random},
        seed=task.seed,
        said={"area_filled": round(float(area.mean()), 4)},
    )
