"""Fill everything but the group's evidence: does it decide alone?"""

from __future__ import annotations

import torch

from ..effect import Effect, measured
from ..groups.intervene import elsewhere, nothing
from ..task import Task, hits


def keep(task: Task) -> Effect:
    """The share of the group's images that is taken for its class by the evidence alone.

    What is filled has the gentlest fill under which the class is gone. Control: a random region of the same shape,
    kept alone.
    """
    model = task.model
    frames, evidence, ids = task.evidence()
    control = elsewhere(evidence, ids, task.seed)
    truth = task.groups.facts.classes[ids]
    fill = nothing(model, frames, int(truth[0]))
    return measured(
        "keep",
        task.group.name,
        f"share taken for {task.group.class_name}",
        hits(model, fill, truth),
        hits(model, torch.where(evidence, frames, fill), truth),
        {"random regions of equal area": hits(model, torch.where(control, frames, fill), truth)},
        seed=task.seed,
        said={"area_kept": round(float(evidence.float().mean()), 4), "before": "nothing is kept"},
    )
