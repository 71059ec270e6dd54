"""Located: all jobs at every place of one image after another, where a model is explained at places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .batches import Batches, Frames
from .collect import Job, Row
from .contract import Trial, Values
from .engine import Precision
from .errors import InputError
from .explanation import Explanation
from .images import Images
from .masks import Mask
from .model import Model
from .placement import Box
from .places import Instances, Place, Region, at_box, find
from .probe import Score
from .target import Target
from .trial import trial_of

OWN = "own level"
"""As the layer of embeddings: for each object the map that its box is pooled from."""

WIDER = 0.15
"""How far around a box a map is embedded and grouped, on each side, as a share of the box's own."""


@dataclass
class Located:
    """Runs all jobs on one batch after another, each image by itself, at its objects or its region.

    `missing` holds, by the image's number among all, why it has no place to be explained at; `found` the places of
    the last batch with that number.
    """

    model: Model
    jobs: list[Job]
    kind: Score
    precision: Precision = "float32"
    halved: int = 0
    missing: dict[int, str] = field(default_factory=dict)
    found: list[tuple[int, Place]] = field(default_factory=list)

    def run(self, batch: Frames) -> None:
        """All jobs on one batch."""
        self.found = []
        for k, position in enumerate(batch.positions):
            self._image(batch.part(slice(k, k + 1)), position)

    def _image(self, one: Frames, position: int) -> None:
        for asked in _each_once(job.target.place for job in self.jobs):
            found = find(self.model, asked, one.frames, position, one.placements[0])
            if isinstance(found, str):
                self.missing[position] = found
                continue
            mine = [job for job in self.jobs if job.target.place is asked]
            self.found += [(position, place) for place in found]
            for place in found:
                self._at(place, mine, one)

    def _at(self, place: Place, jobs: list[Job], one: Frames) -> None:
        """The jobs at one place: its class is the target, whatever image this is."""
        here = Target(fixed=torch.tensor(place.index).expand(one.positions[0] + 1))
        inside = around(place.instance.box, one.frames) if place.instance is not None else None
        copies = [
            replace(
                job,
                target=here,
                features=place.instance.layer if place.instance is not None and job.features == OWN else job.features,
                inside=inside,
                rows=[],
                seconds=0.0,
                cost=(0, 0),
                run=(0, 0),
            )
            for job in jobs
        ]
        Batches(place.view, copies, self.kind, self.precision).run(one)
        for job, copy in zip(jobs, copies, strict=True):
            job.layer, job.seconds = copy.layer, job.seconds + copy.seconds
            job.cost = (max(job.cost[0], copy.cost[0]), max(job.cost[1], copy.cost[1]))
            job.run = (job.run[0] + copy.run[0], job.run[1] + copy.run[1])
            job.rows += [_placed(row, place) for row in copy.rows]


def around(box: Box, frames: Tensor) -> Tensor:
    """A box and what is next to it, in frames ``(..., H, W)``: ``(H, W)``, 1 inside and 0 outside."""
    left, top, right, bottom = box
    wide, high = WIDER * (right - left), WIDER * (bottom - top)
    rows, columns = torch.arange(frames.shape[-2]) + 0.5, torch.arange(frames.shape[-1]) + 0.5
    across = (columns >= left - wide) & (columns <= right + wide)
    return ((rows >= top - high) & (rows <= bottom + high))[:, None].float() * across.float()


def _placed(row: Row, place: Place) -> Row:
    """A row that says which object it is of, its map at the size that all levels share."""
    flags = {name: torch.tensor([wrong] * len(row.positions)) for name, wrong in place.flags.items()}
    extra = {**row.result.extra, "region": "given"} if place.given else row.result.extra
    row = replace(row, result=replace(row.result, checks={**row.result.checks, **flags}, extra=extra))
    if place.instance is None:
        return row
    return replace(row, instance=place.instance, maps=_at_finest(row.maps, place))


def _at_finest(maps: Tensor, place: Place) -> Tensor:
    """Maps of the box's level at the size of the finest level, bilinear: boxes of all sizes have maps of one size."""
    if place.grids is None or tuple(maps.shape[-2:]) != place.grids[0]:
        return maps
    return F.interpolate(maps, size=place.grids[1], mode="bilinear", align_corners=False)


def _each_once(asked: Iterable[Instances | Region | None]) -> list[Instances | Region]:
    """The distinct ones, as objects: methods that were asked together share theirs."""
    found: list[Instances | Region] = []
    for one in asked:
        if one is not None and not any(one is known for known in found):
            found.append(one)
    return found


# ---- rows that are measured ------------------------------------------------------------------------------


def is_located(model: Model, explanation: Explanation) -> bool:
    """Whether each row is explained at a place of its own, so that it is measured there too."""
    return bool(explanation.instances) or (model.task == "segmentation" and explanation.score_kind != "function")


def trial_at(
    model: Model, images: Images, row: Explanation, frame: Tensor, mask: Mask | None, precision: Precision
) -> Trial:
    """The trial of one row and its frame ``(1, C, H, W)``, at its place."""
    place = _place_of(model, row, frame)
    own = {one.layer for one in row.instances} & set((row.layer or "").split(", "))
    layer = next(iter(own), row.layer)
    trial = trial_of(
        place.view, images, replace(row, layer=layer), frame, masks=[mask], labels=[None], precision=precision
    )
    explain_again = trial.again

    def again(*args: Any, **options: Any) -> Tensor:
        return _at_finest(explain_again(*args, **options), place) if explain_again else torch.empty(0)

    return replace(trial, again=again)


def joined(parts: list[Values]) -> Values:
    """What a metric gave row by row, as for one batch."""
    curves = [part.curve for part in parts if part.curve is not None]
    checks = {name: torch.cat([part.checks[name] for part in parts]) for name in parts[0].checks}
    return Values(
        torch.cat([part.values for part in parts]), torch.cat(curves) if len(curves) == len(parts) else None, checks
    )


def _place_of(model: Model, row: Explanation, frame: Tensor) -> Place:
    if row.instances:
        one = row.instances[0]
        return at_box(model, frame, one.box, one.label, number=one.number, score=one.score, of=one.of)
    if row.extra.get("region") == "given":
        raise InputError(
            f"measure: '{row.ids[0]}' was explained at a mask of your own, and an explanation does not keep it. "
            "Explain the class where it is predicted."
        )
    found = find(model, Region((int(row.targets[0]),)), frame, 0, row.placements[0] if row.placements else None)
    if isinstance(found, str):
        raise InputError(f"measure: '{row.ids[0]}': {found}.")
    return found[0]
