"""Loop: from the audit of the planted set to its groups, from the first of them to acts whose effect is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..act import act
from ..act_record import read_record, records_of
from ..effect import Effect
from ..errors import InputError
from ..groups.describe import Group
from ..groups.group import group as find
from ..groups.grouping import Groups
from ..model import Model
from ..run.read import Run
from ..zoo import load_model
from ..zoo.folder import save_model
from .planted import Planted, turned

ACTS = ("keep", "mask", "retrain")


def grouped(run: Run, model: Model, *, progress: bool = False) -> Groups:
    """The groups of the run's evidence; opened where they are there."""
    return find(run, model=model, progress=progress)


def first(groups: Groups) -> Group | None:
    """The first worth a look by the ranking, which knows nothing of the tag; None where nothing is."""
    return next((g for g in groups if g.reasons > 1), None)


def judged(groups: Groups, group: Group, model: Model, planted: Planted) -> dict[str, Any]:
    """How much of a group is the planted tag: the column that nothing before has looked at."""
    tag = np.array(planted.test.columns["tag"], np.float64)
    of_class = groups.facts.classes == model.class_index(planted.tagged)
    here = tag[list(group.ids)].sum()
    return {
        "name": group.name,
        "place": 1 + [g.name for g in groups].index(group.name),
        "images": group.size,
        "tagged_here": float(here / group.size),
        "of_all_tagged": float(here / max(1.0, tag[of_class].sum())),
        "in_words": [line.strip() for line in group.lines()[1:]],
    }


def acted(
    groups: Groups,
    group: Group,
    model: Model,
    planted: Planted,
    mended: Path,
    *,
    progress: bool = False,
    told: Callable[[str], object] = str,
) -> dict[str, Any]:
    """Keep, mask and retrain on a group; an act whose record is there is not done again.

    The model that `retrain` makes is saved in the folder `mended`; how often the tag turns it is added to what is told.
    """
    known = {e.action: e for e in _done(groups, group)}
    found: dict[str, Any] = {}
    for action in ACTS:
        learns = action == "retrain"
        more: dict[str, Any] = (
            {"train": planted.train, "images": planted.swapped} if learns else {"images": planted.test}
        )
        try:
            effect = known.get(action) if not learns or (mended / "model.json").exists() else None
            effect = effect or act(groups.run, group, action, model=model, groups=groups, progress=progress, **more)
        except InputError as error:  # a set too small to learn from
            told(f"{action} could not be done: {error}")
            found[action] = {"not done": str(error)}
            continue
        found[action] = effect.as_dict()
        if learns:
            if effect.model is not None:
                save_model(effect.model, mended)
            found[action]["turned"] = _turned(load_model(mended), planted)
    return found


def _done(groups: Groups, group: Group) -> list[Effect]:
    """The effects of acts on this group as it is."""
    records = map(read_record, records_of(groups.folder))
    return [held.effect for held in records if held.image_ids == group.ids]


def _turned(model: Model, planted: Planted) -> list[float] | None:
    """How often the tag turns the mended model; None where it takes every picture for the tagged class anyway."""
    try:
        found = turned(model, planted)
    except InputError:
        return None
    return [found.value, found.low, found.high]
