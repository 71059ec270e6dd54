"""The verb act: something is done about a group, and what it changes is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from . import _plugins
from ._check import checked
from .act_record import Done, write_record
from .effect import Effect
from .errors import InputError
from .groups.describe import Group
from .groups.evidence import folder_of
from .groups.group import open_groups
from .groups.grouping import Groups
from .model import Model
from .run.read import Run, open_run
from .sources import load_images
from .task import Task


def act(
    run: Run | str | Path,
    group: Group,
    action: str = "mask",
    *,
    model: Model | None = None,
    images: Any = None,
    train: Any = None,
    groups: Groups | None = None,
    seed: int = 0,
    progress: bool = False,
    **params: Any,
) -> Effect:
    """Act on a group of a run, and measure what that changes.

    Actions: "mask" fills the group's evidence and predicts again; "keep" fills everything else; "exclude" leaves its
    images out; "relabel" gives them another label (`label`); "retrain" masks the evidence in `train` and learns the
    last layer further, judged on `images`; "export" writes the images and masks to a folder (`out`). `params` are the
    action's own. The model and the photos are opened again where they are not given; nothing of yours is changed.

    Every effect stands beside controls: random regions of equal area, random images of equal number. The record, a
    file in the run, repeats it. Raises InputError where the act cannot be done as asked.
    """
    run = run if isinstance(run, Run) else open_run(run)
    if not isinstance(group, Group):
        raise InputError(f"act: group must be one Group of a grouping, such as groups['tag']. Got {group!r}.")
    function = _plugins.find("actions", action)
    if action != "mask":
        run.refuse_objects(f"act {action}")
    grouping = groups or _grouping(run, group)
    if group.name not in [g.name for g in grouping] or grouping[group.name].ids != group.ids:
        raise InputError(
            f"act: '{group.name}' is no group of '{grouping.name}' as it is now. Take it from there again."
        )
    task = Task(
        run=run,
        groups=grouping,
        group=group,
        model=model or run.model(),
        given_images=None if images is None else load_images(images),
        train=None if train is None else load_images(train),
        seed=seed,
        progress=progress,
    )
    effect: Effect = function(task, **checked(function, params, action))
    held = task.groups
    done = Done(action, params, held.name, held.version, group.name, group.ids, seed, effect)
    return replace(effect, record=write_record(held.folder, done))


def _grouping(run: Run, group: Group) -> Groups:
    for folder in sorted(folder_of(run).glob("*/grouping.json")):
        held = open_groups(run, folder.parent.name)
        if any(g.name == group.name and g.ids == group.ids for g in held):
            return held
    raise InputError(f"act: no grouping of '{run.folder}' holds '{group.name}' as given. Take it from open_groups.")
