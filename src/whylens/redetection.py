"""Redetection: what a detector finds where the evidence of a group of objects is filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from numpy.typing import NDArray
from torch import Tensor

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
    """The images in which a group's objects lie, their annotated objects, and where the evidence is.

    `objects` are pairs of an image's place among the frames ``(N, C, H, W)`` and the number of an annotated object
    there; `shown` ``(N, 1, H, W)`` is the evidence, `filled` the frames without it, `found` what is detected in the
    frames as they are, `ids` the images' numbers in the run.
    """

    frames: Tensor
    filled: Tensor
    found: Sequence[Detections]
    known: list[list[Reference]]
    objects: list[tuple[int, int]]
    shown: Tensor
    ids: list[int]


def mask_objects(task: Task) -> Effect:
    """The share of annotated masks of a group's objects that are whole, before and after its evidence is filled.

    Before, after and under the control the frame is searched anew. An object that is no longer found is not whole.
    Control: random regions of equal area in the same images. Beside it stands the mean average precision of these
    images, and what the same fill does to as many other objects of the class.
    """
    scene = _scene(task, list(task.group.ids))
    control = elsewhere(scene.shown, scene.ids, task.seed)
    changed = (scene.filled, removed(scene.frames, control))
    found = [scene.found, *(task.model.detect(frames, threshold=0) for frames in changed)]
    threshold = _threshold(task)
    before, after, random = (_whole(scene, one, threshold) for one in found)
    judged = [Judged(one, scene.known) for one in found]
    precision, change = average_precision(judged, seed=task.seed)
    said: dict[str, Any] = {
        "incomplete_before": round(1 - float(before.mean()), 4),
        "incomplete_after": round(1 - float(after.mean()), 4),
        f"mean_average_precision_of_{judged[0].kind}_before": precision[0],
        "after": precision[1],
        "its_change": change[0],
        "its_change_with_random_regions": change[1],
        "area_filled": round(float(scene.shown.float().mean()), 4),
        "whole_means_covered_by": WHOLE,
    }
    said |= _others(task, len(before), threshold)
    return measured(
        "mask",
        task.group.name,
        "share of annotated masks that are whole",
        before,
        after,
        {"random regions of equal area": random},
        seed=task.seed,
        said=said,
        images=np.array([image for image, _ in scene.objects]),
    )


def _others(task: Task, count: int, threshold: float) -> dict[str, Any]:
    """The same fill on random other objects of the class, as many: what filling does where it is not the reason."""
    facts, own = task.groups.facts, np.array(task.group.ids)
    same = (facts.classes == facts.classes[own[0]]).nonzero()[0]
    rest = np.setdiff1d(same, own)
    if not len(rest):
        return {"random_objects_of_equal_number": "there are no others of the class"}
    drawn = np.sort(np.random.default_rng([task.seed, len(own)]).permutation(rest)[:count])
    try:
        scene = _scene(task, drawn.tolist())
    except InputError:
        return {"random_objects_of_equal_number": "there are none with an annotated mask"}
    before = _whole(scene, scene.found, threshold)
    after = _whole(scene, task.model.detect(scene.filled, threshold=0), threshold)
    effect = measured(
        "mask", "others", "", before, after, {}, seed=task.seed, images=np.array([k for k, _ in scene.objects])
    )
    return {"random_objects_of_equal_number": f"change {effect.change} on {effect.n}"}


def _scene(task: Task, numbers: Sequence[int]) -> _Scene:
    """Of objects by their numbers; InputError where none of them has an annotated mask."""
    run, images = task.run, task.own_images()
    rows = run.instances_at(list(numbers)).to_pylist()
    kept = [(n, row) for n, row in zip(numbers, rows, strict=True) if row["covered"] is not None]
    if not kept:
        raise InputError(
            f"act mask: no object of '{task.group.name}' is matched to an annotated mask, so nothing can be measured. "
            "Audit images that have them: load_images(..., masks='instances.json')."
        )
    ids = sorted({row["image_id"] for _, row in kept})
    place = {image: k for k, image in enumerate(ids)}
    frames, known = _frames(task.model, images, ids)
    found, filled = task.model.detect(frames, threshold=0), frames.clone()
    shown = torch.zeros((len(ids), 1, *frames.shape[2:]), dtype=torch.bool)
    maps = run.maps(str(task.groups.settings["method"]), [n for n, _ in kept])
    for (_, row), explained in zip(kept, maps, strict=True):
        k = place[row["image_id"]]
        part = _evidence(task, frames[k : k + 1], explained, row)[0]
        shown[k] |= part
        filled[k] = _filled(filled[k], part, _own_mask(found[k], row), _span(row))
    objects = [(place[row["image_id"]], row["reference"]) for _, row in kept]
    return _Scene(frames, filled, found, known, objects, shown, ids)


def _frames(model: Model, images: Images, ids: Sequence[int]) -> tuple[Tensor, list[list[Reference]]]:
    frames, known = [], []
    for i in ids:
        frame, placement = model.prepare(images[i].pixels, images[i].orientation)
        objects = images.objects(i)
        if placement is None or objects is None:
            raise InputError(f"act mask: image '{images.ids[i]}' has no annotated objects any more.")
        frames.append(frame)
        known.append(references(objects, model, placement))
    return torch.stack(frames), known


def _evidence(task: Task, frame: Tensor, explained: Tensor, row: dict[str, Any]) -> Tensor:
    """Where a frame ``(1, C, H, W)`` shows the group's reason near one object: ``(1, 1, H, W)`` bool."""
    groups, model = task.groups, task.model
    near = around(row["box"], frame)
    part = region(explained * F.adaptive_avg_pool2d(near[None], (explained.shape[-2], explained.shape[-1])), -1)
    inside = wider([part], frame.shape[2:]) & (near > 0)
    held = groups.points
    along = reason_of(
        project.normalised(held.vectors), groups.state.labels, groups.facts.classes[held.image], task.group.number
    )
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


def _whole(scene: _Scene, found: Sequence[Detections], threshold: float) -> Array:
    """Whether the mask of each object is whole ``(M,)``: 1 or 0."""
    covered: list[dict[int, float]] = []
    for one, known in zip(found, scene.known, strict=True):
        kept = one.take(one.scores >= threshold)
        covered.append({m.reference: m.covered for m in matched(kept, known) if m is not None})
    return np.array([float(covered[k].get(number, 0.0) >= WHOLE) for k, number in scene.objects])


def _asked(task: Task) -> Instances:
    return Instances.spelled(str(task.run.plan.settings["target"])) or Instances()


def _threshold(task: Task) -> float:
    return _asked(task).threshold
