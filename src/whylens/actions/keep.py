"""Fill everything but the group's evidence: does it decide alone?"""

from __future__ import annotations

import numpy as np
import torch

from ..effect import Effect, measured
from ..groups.intervene import elsewhere, nothing
from ..task import Task, hits


def keep(task: Task) -> Effect:
    """The share of the group's images that is taken for its class by the evidence alone.

    What is filled has the gentlest fill under which the class is gone. Control: a random region of the same shape,
    kept alone.
    """
    model, classes, found = task.model, task.groups.facts.classes, []
    for shown in task.evidence():
        frames, truth = shown.frames, classes[shown.ids]
        fill = nothing(model, frames, int(truth[0]))
        alone = (
            torch.where(mask, frames, fill)
            for mask in (shown.evidence, elsewhere(shown.evidence, shown.ids, task.seed))
        )
        found.append((shown.area, *(hits(model, kept, truth) for kept in (fill, *alone))))
    area, before, after, random = map(np.concatenate, zip(*found, strict=True))
    return measured(
        "keep",
        task.group.name,
        f"share taken for {task.group.class_name}",
        before,
        after,
        {"random regions of equal area": random},
        seed=task.seed,
        said={"area_kept": round(float(area.mean()), 4), "before": "nothing is kept"},
    )
