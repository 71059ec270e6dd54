"""Redetection: what a detector finds where the evidence of a group of objects is filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray
from torch import Tensor

from ._progress import track
from .detections import Detections
from .effect import Effect, measured
from .errors import InputError
from .groups import project
from .groups.evidence import region
from .groups.intervene import RING, elsewhere, removed
from .groups.reason import pixels, reason_of, wider
from .images import Images
from .located import around
from .places import Instances, at_box
from .precision import Judged, average_precision
from .references import WHOLE, Reference, matched, references

if TYPE_CHECKING:
    from .model import Model
    from .task import Task

Array = NDArray[Any]


@dataclass(frozen=True)
class _Scene:
    """One image in which objects of a group lie, its annotated objects, and where the evidence is.

    `own` are the numbers of those of the group among `known`; `shown` ``(1, 1, H, W)`` is the evidence in the frame
    ``(1, C, H, W)``, `filled` the frame without it, `found` what is detected in the frame as it is.
    """

    image: int
    frame: Tensor
    filled: Tensor
    found: Detections
    known: list[Reference]
    own: list[int]
    shown: Tensor

    def whole(self, found: Detections, threshold: float) -> list[float]:
        """Whether the mask of each object of the group is whole among these detections: 1 or 0."""
        matches = matched(found.take(found.scores >= threshold), self.known)
        covered = {m.reference: m.covered for m in matches if m is not None}
        return [float(covered.get(number, 0.0) >= WHOLE) for number in self.own]


def mask_objects(task: Task) -> Effect:
    """The share of annotated masks of a group's objects that are whole, before and after its evidence is filled.

    Before, after and under the control the frame is searched anew. An object that is no longer found is not whole.
    Control: random regions of equal area in the same images. Beside it stands the mean average precision of these
    images, and what the same fill does to as many other objects of the class. One image is held at a time.
    """
    threshold, area = _asked(task).threshold, []
    whole: list[list[float]] = [[], [], []]
    judged = [Judged(), Judged(), Judged()]
    images: list[int] = []
    for scene in _scenes(task, list(task.group.ids), "fill"):
        control = elsewhere(scene.shown, [scene.image], task.seed)
        random = removed(scene.frame, control)
        found = [scene.found, *(_detected(task.model, frame) for frame in (scene.filled, random))]
        for hits, tally, one in zip(whole, judged, found, strict=True):
            hits.extend(scene.whole(one, threshold))
            tally.add(one, scene.known)
        images += [scene.image] * len(scene.own)
        area.append(float(scene.shown.float().mean()))
    before, after, random_hits = (np.array(hits) for hits in whole)
    precision, change = average_precision(judged, seed=task.seed)
    said: dict[str, Any] = {
        "incomplete_before": round(1 - float(before.mean()), 4),
        "incomplete_after": round(1 - float(after.mean()), 4),
        f"mean_average_precision_of_{judged[0].kind}_before": precision[0],
        "after": precision[1],
        "its_change": change[0],
        "its_change_with_random_regions": change[1],
        "area_filled": round(float(np.mean(area)), 4),
        "whole_means_covered_by": WHOLE,
    }
    said |= _others(task, len(before), threshold)
    return measured(
        "mask",
        task.group.name,
        "share of annotated masks that are whole",
        before,
        after,
        {"random regions of equal area": random_hits},
        seed=task.seed,
        said=said,
        images=np.array(images),
    )


def _others(task: Task, count: int, threshold: float) -> dict[str, Any]:
    """The same fill on random other objects of the class, as many: what filling does where it is not the reason."""
    facts, own = task.groups.facts, np.array(task.group.ids)
    same = (facts.classes == facts.classes[own[0]]).nonzero()[0]
    rest = np.setdiff1d(same, own)
    if not len(rest):
        return {"random_objects_of_equal_number": "there are no others of the class"}
    rest = rest[[c is not None for c in task.run.instances_at(rest.tolist()).column("covered").to_pylist()]]
    if not len(rest):
        return {"random_objects_of_equal_number": "there are none with an annotated mask"}
    drawn = np.sort(np.random.default_rng([task.seed, len(own)]).permutation(rest)[:count])
    before, after, images = [], [], []
    for scene in _scenes(task, drawn.tolist(), "fill others"):
        before += scene.whole(scene.found, threshold)
        after += scene.whole(_detected(task.model, scene.filled), threshold)
        images += [scene.image] * len(scene.own)
    effect = measured(
        "mask", "others", "", np.array(before), np.array(after), {}, seed=task.seed, images=np.array(images)
    )
    return {"random_objects_of_equal_number": f"change {effect.change} on {effect.n}"}


def _scenes(task: Task, numbers: Sequence[int], label: str) -> Iterator[_Scene]:
    """Of objects by their numbers, image by image; InputError where none of them has an annotated mask."""
    run, method = task.run, str(task.groups.settings["method"])
    of_image: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in zip(numbers, run.instances_at(list(numbers)).to_pylist(), strict=True):
        if row["covered"] is not None:
            of_image.setdefault(row["image_id"], []).append((number, row))
    if not of_image:
        raise InputError(
            f"act mask: no object of '{task.group.name}' is matched to an annotated mask, so nothing can be measured. "
            "Audit images that have them: load_images(..., masks='instances.json')."
        )
    images, along = task.own_images(), _reason(task)
    for image in track(sorted(of_image), total=len(of_image), label=label, show=task.progress):
        rows = [row for _, row in of_image[image]]
        frame, known = _frame(task.model, images, image)
        found, filled, shown = _detected(task.model, frame), frame[0], torch.zeros(1, 1, *frame.shape[2:]) > 0
        for row, explained in zip(rows, run.maps(method, [n for n, _ in of_image[image]]), strict=True):
            part = _evidence(task, frame, explained, row, along)
            shown |= part
            filled = _filled(filled, part[0], _own_mask(found, row), _span(row))
        yield _Scene(image, frame, filled[None], found, known, [row["reference"] for row in rows], shown)


def _detected(model: Model, frame: Tensor) -> Detections:
    """Everything that is found in a frame ``(1, C, H, W)``."""
    return model.detect(frame, threshold=0)[0]


def _frame(model: Model, images: Images, number: int) -> tuple[Tensor, list[Reference]]:
    """The frame of an image ``(1, C, H, W)``, and its annotated objects there."""
    photo = images[number]
    frame, placement = model.prepare(photo.pixels, photo.orientation)
    objects = images.objects(number)
    if placement is None or objects is None:
        raise InputError(f"act mask: image '{images.ids[number]}' has no annotated objects any more.")
    return frame[None], references(objects, model, placement)


def _reason(task: Task) -> Tensor:
    """The direction ``(K,)`` of the group's evidence."""
    groups, held = task.groups, task.groups.points
    return reason_of(
        project.normalised(held.vectors), groups.state.labels, groups.facts.classes[held.image], task.group.number
    )


def _evidence(task: Task, frame: Tensor, explained: Tensor, row: dict[str, Any], along: Tensor) -> Tensor:
    """Where a frame ``(1, C, H, W)`` shows the group's reason near one object: ``(1, 1, H, W)`` bool."""
    groups, model = task.groups, task.model
    near = around(row["box"], frame)
    part = region(explained * F.adaptive_avg_pool2d(near[None], (explained.shape[-2], explained.shape[-1])), -1)
    inside = wider([part], frame.shape[2:]) & (near > 0)
    place = at_box(model, frame, tuple(row["box"]), row["class_index"], of=_asked(task).of)
    layer = groups.run.method(str(groups.settings["method"]))[1].asked_layer or place.view.layer_name
    return inside if layer is None else pixels(place.view, layer, frame, along, inside, span=_span(row))


def _span(row: dict[str, Any]) -> float:
    """The shorter side of an object's box."""
    left, top, right, bottom = row["box"]
    return float(min(right - left, bottom - top))


def _own_mask(found: Detections, row: dict[str, Any]) -> Tensor | None:
    """The mask ``(H, W)`` that an object of the run was detected with, from what is detected in its frame now."""
    same = (found.labels == row["class_index"]).nonzero()[:, 0]
    if found.masks is None or not len(same):
        return None
    apart = (found.boxes[same] - torch.tensor(row["box"])).abs().amax(1)
    return found.masks[same[apart.argmin()]]


def _filled(frame: Tensor, region: Tensor, own: Tensor | None, span: float) -> Tensor:
    """A frame ``(C, H, W)`` whose region ``(1, H, W)`` has the median colour around it, on the object if possible.

    What lies on an object and reaches its rim would otherwise be filled with the ground, and the object be gone.
    """
    reach = max(1, round(RING * span))
    grown = F.max_pool2d(region.float(), 2 * reach + 1, stride=1, padding=reach) > 0
    ring = (grown & ~region)[0]
    ring = ring & own if own is not None and bool((ring & own).any()) else ring
    if not bool(ring.any()):
        return frame
    return torch.where(region, frame[:, ring].median(1).values[:, None, None], frame)


def _asked(task: Task) -> Instances:
    return Instances.spelled(str(task.run.plan.settings["target"])) or Instances()
