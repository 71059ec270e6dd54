"""Fill the group's evidence and predict again."""

from __future__ import annotations

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
    model = task.model
    frames, evidence, ids = task.evidence()
    control = elsewhere(evidence, ids, task.seed)
    images = task.own_images()
    labelled = all(images.labels[i] is not None for i in ids)
    truth = truth_of(model, images, ids, "mask") if labelled else task.groups.facts.classes[ids]
    return measured(
        "mask",
        task.group.name,
        "accuracy" if labelled else "share that keeps its prediction",
        hits(model, frames, truth),
        hits(model, removed(frames, evidence), truth),
        {"random regions of equal area": hits(model, removed(frames, control), truth)},
        seed=task.seed,
        said={"area_filled": round(float(evidence.float().mean()), 4)},
    )
