"""Places: where in an image a detector or a segmentation net is explained, and the net there as a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn

from ._check import Range
from ._state import as_found
from .detections import Detections, Instance, Of
from .errors import InputError
from .model import Model
from .placement import Box, Placement
from .rcnn import INSIDE, AtBox, Pyramid
from .segmenter import AtPixels, pixel_scores, predicted_region

NOT_PREDICTED = "not_predicted"
"""The flag of a class that no pixel is predicted to be."""


@dataclass(frozen=True)
class Instances:
    """Objects as target of a detector: those it finds with at least `threshold`, or `boxes` of your own.

    `boxes` hold for each image what `Model.detect` gives, or a list of ``(left, top, right, bottom, class)``, in
    pixels of the frame. `classes` keeps only these, by number or name. `of` is what is explained at a box: "class",
    the score of its class, or "mask", the mean logit of its mask head over the cells the mask is predicted at.
    """

    threshold: Annotated[float, Range(0, 1)] = 0.5
    boxes: Sequence[Any] | None = None
    classes: Sequence[int | str] | None = None
    of: Of = "class"

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise InputError(f"Instances: threshold must be a number in [0, 1]. Got {self.threshold!r}.")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"Instances: threshold must be in [0, 1]. Got {self.threshold!r}.")
        if self.of not in get_args(Of):
            raise InputError(f"Instances: of must be 'class' or 'mask'. Got {self.of!r}.")

    @property
    def words(self) -> str:
        """As a run and the command line spell it: ``instances:threshold=0.3,of=mask,classes=cat|dog``."""
        if self.boxes is not None:
            raise InputError("Boxes of your own cannot be said in words. An audit explains what the detector finds.")
        said = {"threshold": f"{self.threshold:g}", "of": self.of} | (
            {"classes": "|".join(map(str, self.classes))} if self.classes is not None else {}
        )
        return "instances:" + ",".join(f"{name}={value}" for name, value in said.items())

    @classmethod
    def spelled(cls, words: str) -> Instances | None:
        """What `words` spell; None where they are something else."""
        if words.partition(":")[0].strip().lower() != "instances":
            return None
        said: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in words.partition(":")[2].split(","))):
            name, sign, value = part.partition("=")
            if not sign or name not in ("threshold", "of", "classes"):
                raise InputError(f"target '{words}': write instances:threshold=0.3,of=mask,classes=cat|dog.")
            said[name] = value
        if "threshold" in said:
            try:
                said["threshold"] = float(said["threshold"])
            except ValueError:
                raise InputError(
                    f"Instances: threshold must be a number in [0, 1]. Got '{said['threshold']}'."
                ) from None
        if "classes" in said:
            said["classes"] = tuple(int(c) if c.isdecimal() else c for c in said["classes"].split("|"))
        return cls(**said)


@dataclass(frozen=True)
class Region:
    """A class of a segmentation net as target: its mean score over the pixels it is predicted at, else over all.

    `target` is a class by number or name, or one per image. With `masks`, one ``(H, W)`` per image in the upright
    photo or one for all, the mean is over these pixels, whatever is predicted there.
    """

    target: Any
    masks: Any = None


@dataclass(frozen=True)
class Place:
    """One place of one image: the model there as a classifier, the output explained, and what is known of it."""

    view: Model
    index: int
    instance: Instance | None = None
    grids: tuple[tuple[int, int], tuple[int, int]] | None = None  # of the box's level, and the finest there is
    flags: Mapping[str, bool] = field(default_factory=dict)
    given: bool = False  # its pixels are the caller's
    mask: Tensor | None = None  # (H, W) bool, as it was detected


def read_place(target: Any, model: Model, count: int) -> Instances | Region:
    """What a detector or a segmentation net is to be explained at; InputError where that makes no sense."""
    if model.task == "segmentation":
        return _read_region(target, model, count)
    if not model.finds_boxes:
        raise InputError(
            f"{model.name} is no Faster or Mask R-CNN of torchvision, whose boxes can be explained. This detection "
            "model needs a target function: target=lambda output: one score per image (N,)."
        )
    spelled = Instances.spelled(target) if isinstance(target, str) else None
    if spelled is not None:
        asked = spelled
    elif target is None or isinstance(target, Instances):
        asked = target or Instances()
    elif isinstance(target, int | str) and not isinstance(target, bool):
        asked = Instances(classes=(target,))
    else:
        raise InputError(
            "target: of a detector it must be None (what it finds), a class, Instances(...) or a function of the "
            f"output. Got {type(target).__name__}."
        )
    heads: Any = model.net.roi_heads
    if asked.of == "mask" and not heads.has_mask():
        raise InputError(f"Instances: of='mask' needs a mask head, and {model.name} has none. Leave it out.")
    if asked.boxes is not None and len(asked.boxes) != count:
        raise InputError(f"Instances: boxes must hold one entry per image, {count}. Got {len(asked.boxes)}.")
    _numbers(asked.classes or (), model)
    return asked


def find(
    model: Model, asked: Instances | Region, frame: Tensor, position: int, placement: Placement | None
) -> list[Place] | str:
    """The places of one frame ``(1, C, H, W)``, the image's number among all; a reason where there is none."""
    if isinstance(asked, Region):
        return [_at_pixels(model, asked, frame, position, placement)]
    if asked.boxes is not None:
        found, reason = _given(asked.boxes[position], model), "no box was given for it"
    else:
        (every,) = model.detect(frame, threshold=0)
        found, reason = every.take(every.scores >= asked.threshold), _best(every, asked.threshold)
    if asked.classes is not None:
        wanted = torch.tensor(_numbers(asked.classes, model))
        kept = found.take(torch.isin(found.labels, wanted))
        reason = f"{reason}, of the classes asked for" if len(kept) < len(found) or not len(found) else reason
        found = kept
    if not len(found):
        return reason
    boxes = [tuple(box) for box in found.boxes.tolist()]
    places = [
        at_box(model, frame, box, int(label), number=k, score=float(score), of=asked.of)
        for k, (box, label, score) in enumerate(zip(boxes, found.labels, found.scores, strict=True))
    ]
    return places if found.masks is None else [replace(p, mask=m) for p, m in zip(places, found.masks, strict=True)]


def at_box(
    model: Model, frame: Tensor, box: Box, label: int, *, number: int = 0, score: float = torch.nan, of: Of = "class"
) -> Place:
    """A detector at one box of one frame ``(1, C, H, W)``; InputError where the box does not lie in the frame."""
    _check_box(box, frame)
    heads: Any = model.net.roi_heads
    pool = heads.box_roi_pool if of == "class" else heads.mask_roi_pool
    pyramid = _pyramid(model, frame)
    level, layer = pyramid.level(box, pool)
    cells = None if of == "class" else _mask_cells(model, frame, AtBox(model.net, box, level), label)
    net = AtBox(model.net, box, level, cells).to(model.device)
    view = model.view(net, frame, task="classification" if of == "class" else "multilabel", layer=layer)
    name = view.layer_name or layer.name
    reason = layer.reason if name == layer.name else "chosen by the caller"
    instance = Instance(number, box, label, model.class_name(label), score, of, name, reason)
    return Place(view, label, instance, (layer.grid.size, pyramid.finest(pool)))


# ---- boxes -----------------------------------------------------------------------------------------------


_PYRAMIDS: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Pyramid]] = WeakKeyDictionary()


def _pyramid(model: Model, frame: Tensor) -> Pyramid:
    """A detector's feature maps for frames of that shape."""
    size = (int(frame.shape[-2]), int(frame.shape[-1]))
    known = _PYRAMIDS.setdefault(model.net, {})
    if size not in known:
        with as_found(model.net), torch.no_grad():
            known[size] = Pyramid.of(model.net, model.normalised(frame.to(model.device, model.dtype)))
    return known[size]


def _mask_cells(model: Model, frame: Tensor, net: AtBox, label: int) -> Tensor:
    """The cells of the box ``(m, m)`` that the mask is predicted at, else all, as 1 and 0."""
    with as_found(model.net), torch.no_grad():
        logits = net.to(model.device).mask_logits(model.normalised(frame.to(model.device, model.dtype)))
    inside = logits[0, label].sigmoid() >= INSIDE
    return (inside if bool(inside.any()) else torch.ones_like(inside)).float()


def _check_box(box: Box, frame: Tensor) -> None:
    left, top, right, bottom = box
    rows, columns = frame.shape[-2:]
    if not (0 <= left < right <= columns and 0 <= top < bottom <= rows):
        raise InputError(
            f"target: a box must be (left, top, right, bottom) inside the frame of {rows} x {columns} pixels "
            f"(rows x columns). Got ({', '.join(f'{edge:g}' for edge in box)})."
        )


def _given(boxes: Any, model: Model) -> Detections:
    """Boxes of the caller's own for one image."""
    if isinstance(boxes, Detections):
        return boxes
    rows = list(boxes)
    if any(not isinstance(row, Sequence) or len(row) != 5 for row in rows):
        raise InputError("Instances: a box must be (left, top, right, bottom, class), or what Model.detect gives.")
    labels = _numbers([row[4] for row in rows], model)
    edges = torch.tensor([[float(edge) for edge in row[:4]] for row in rows]).reshape(-1, 4)
    return Detections(edges, torch.tensor(labels, dtype=torch.long), torch.full((len(rows),), torch.nan))


def _numbers(classes: Sequence[Any], model: Model) -> list[int]:
    numbers = [model.class_index(one) if isinstance(one, str) else one for one in classes]
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise InputError(f"target: an object's class must be a name, or a number from 1 on. Got {number!r}.")
    return numbers


def _best(every: Detections, threshold: float) -> str:
    best = f"the best has {float(every.scores.max()):.2g}" if len(every) else "nothing is found at all"
    return f"no detection with a score of {threshold:g} or more ({best})"


# ---- pixels ----------------------------------------------------------------------------------------------


def _read_region(target: Any, model: Model, count: int) -> Region:
    asked = target if isinstance(target, Region) else Region(target)
    several = isinstance(asked.target, Sequence | Tensor | np.ndarray) and not isinstance(asked.target, str)
    values = list(asked.target.tolist() if hasattr(asked.target, "tolist") else asked.target) if several else None
    if values is not None and len(values) != count:
        raise InputError(f"target: {count} images need {count} targets, or one for all. Got {len(values)}.")
    classes = [_class(value, model) for value in ([asked.target] if values is None else values)]
    masks = asked.masks
    if masks is not None:
        single = getattr(masks, "ndim", 0) == 2
        masks = [masks] * count if single else list(masks)
        if len(masks) != count:
            raise InputError(f"Region: masks must hold one mask per image, {count}, or one for all. Got {len(masks)}.")
        masks = tuple(_mask(mask) for mask in masks)
    return Region(tuple(classes if several else classes * count), masks)


def _class(value: Any, model: Model) -> int:
    if isinstance(value, str):
        return int(value) if value.isdecimal() else model.class_index(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(
            "A segmentation model needs target=, the class whose pixels are explained, by number or name, or a "
            f"function of its output. Got {value!r}."
        )
    return value


def _mask(mask: Any) -> Tensor:
    inside: Tensor = torch.as_tensor(np.asarray(mask) if not isinstance(mask, Tensor) else mask.detach().cpu()) != 0
    if inside.ndim != 2 or not bool(inside.any()):
        raise InputError(f"Region: a mask must be (H, W) and hold at least one pixel. Got {tuple(inside.shape)}.")
    return inside


def _at_pixels(model: Model, asked: Region, frame: Tensor, position: int, placement: Placement | None) -> Place:
    index = asked.target[position]
    with as_found(model.net), torch.no_grad():
        scores = pixel_scores(model.forward(frame.to(model.device, model.dtype)), index)
    flags: dict[str, bool] = {}
    if asked.masks is None:
        region, some = predicted_region(scores, index, probabilities=model.output == "probabilities")
        weights, flags = region[0].float(), {NOT_PREDICTED: not bool(some)}
    else:
        weights = _weights(asked.masks[position], frame, placement, (int(scores.shape[2]), int(scores.shape[3])))
    if model.differentiable:
        with suppress(InputError):  # a method that needs a layer says why there is none
            model.layer(None, tuple(frame.shape[-3:]))  # that of all pixels: a small region's score reaches few cells
    view = model.view(AtPixels(model.net, weights.to(scores)), frame, task="classification")
    return Place(view, index, flags=flags, given=asked.masks is not None)


def _weights(mask: Tensor, frame: Tensor, placement: Placement | None, size: tuple[int, int]) -> Tensor:
    """How much of each pixel of the output a mask of the photo covers ``(h, w)``."""
    rows, columns = int(frame.shape[-2]), int(frame.shape[-1])
    inside = (placement or Placement.identity(rows, columns)).to_frame(mask)
    weights = F.adaptive_avg_pool2d(inside[None, None], size)[0, 0]
    if not bool(weights.any()):
        raise InputError("Region: a mask lies outside the part of the photo that the net sees.")
    return weights
