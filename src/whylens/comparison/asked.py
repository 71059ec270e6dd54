"""Asked: the arguments of compare, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from torch import Tensor, nn

from ..contract import Method, Metric
from ..errors import InputError, no_such
from ..explain import BATCH
from ..images import Images
from ..measure import refuse_maskless
from ..model import Model
from ..run.plan import label_index
from ..sources import load_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counted = Literal["all", "correct", "correct_by_all"]
Kind = Literal["models", "methods"]
Net = Model | nn.Module | Callable[[Tensor], Any]
Measure = Metric | str | Callable[..., Any]

METHODS = ("grad_cam", "grad_cam_pp")
IOU = Metric("iou", params={"threshold": 0.5}, label="iou")
OF_MODELS = (IOU, "insertion", "co_score")
OF_METHODS = ("insertion", "deletion", IOU, "energy_inside")
"""Metrics where the caller names none; those that the images or a model do not allow are left out, and it is said."""


@dataclass(frozen=True)
class Asked:
    """The request: `labels` are the outputs that the labels mean, by model, -1 where there is none.

    `missing` says why a usual metric was left out, `shown` the positions of the images to be drawn.
    """

    kind: Kind
    models: Mapping[str, Model]
    images: Images
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    missing: Mapping[str, str]
    required: bool  # the metrics were named by the caller
    target: Any
    labels: Mapping[str, NDArray[np.int64]]
    counted: Counted
    shown: frozenset[int]
    repeats: int
    batch_size: int
    precision: Literal["float32", "auto"]
    seed: int

    @classmethod
    def read(cls, models: Any, images: Any, methods: Any, metrics: Any, given: Mapping[str, Any]) -> Asked:
        """The arguments of `compare`, checked; `given` holds the plain ones."""
        if images is None:
            raise InputError("compare: models need images: compare(models, images). Two runs need none.")
        named = _named(models)
        images = images if isinstance(images, Images) else load_images(images)
        _check(given, images)
        target, usual = given["target"], OF_MODELS if len(named) > 1 else OF_METHODS
        labels = {name: _labels(model, images) for name, model in named.items()}
        _check_target(target, images, labels)
        measures, missing = _metrics(metrics, usual, images)
        return cls(
            kind="models" if len(named) > 1 else "methods",
            models=named,
            images=images,
            methods=_methods(methods),
            metrics=measures,
            missing=missing,
            required=metrics is not None,
            target=target,
            labels=labels,
            counted=given["counted"],
            shown=_shown(given["pictures"], images),
            repeats=given["repeats"],
            batch_size=BATCH if given["batch_size"] == "auto" else given["batch_size"],
            precision=given["precision"],
            seed=given["seed"],
        )

    def target_of(self, name: str, at: Sequence[int]) -> Any:
        """The target of a model for the images at these positions."""
        if isinstance(self.target, str) and self.target == "label":
            return [int(self.labels[name][k]) for k in at]
        if isinstance(self.target, Tensor | list | tuple):
            return [self.target[k] for k in at]
        return self.target


def _named(models: Any) -> dict[str, Model]:
    """Models by name; equal names are numbered."""
    if isinstance(models, Mapping):
        given = [(str(name), _model(model)) for name, model in models.items()]
    else:
        several = models if isinstance(models, list | tuple) else [models]
        made = [_model(model) for model in several]
        given = [(model.name, model) for model in made]
    if not given:
        raise InputError("compare: there must be at least one model. Got none.")
    names: dict[str, Model] = {}
    for name, model in given:
        count = sum(known == name or known.startswith(f"{name} (") for known in names)
        names[f"{name} ({count + 1})" if count else name] = model
    return names


def _model(model: Any) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, str) or not (isinstance(model, nn.Module) or callable(model)):
        raise InputError(
            f"compare: a model must be a Model, a torch module or a function. Got {model!r}. "
            "Open it: whylens.load_model(...)."
        )
    return Model(model)


def _methods(methods: Any) -> tuple[Method, ...]:
    listed = METHODS if methods is None else [methods] if isinstance(methods, str | Method) else methods
    found = tuple(Method.read(m) for m in listed)
    keys = [m.key for m in found]
    if not found or len(set(keys)) < len(keys):
        raise InputError(f"compare: methods must be one or more, each once. Got {', '.join(keys) or 'none'}.")
    for method in found:
        method.checked_params(0)
    return found


def _metrics(metrics: Any, usual: Sequence[Measure], images: Images) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """The metrics asked for; else the usual ones that the images allow, and why others are left out."""
    if metrics is None:
        found, lost = [_metric(name) for name in usual], {}
        if not masked(images):
            lost = {m.key: "needs masks, and no image has one" for m in found if m.facts.needs_masks}
        return tuple(m for m in found if m.key not in lost), lost
    asked = tuple(_metric(m) for m in ([metrics] if isinstance(metrics, str | Metric) else metrics))
    for metric in asked:
        refuse_maskless(images, metric)
    return asked, {}


def _metric(request: Measure) -> Metric:
    """A metric, its parameters checked."""
    metric = Metric.read(request)
    metric.checked_params(0)
    return metric


def masked(images: Images) -> bool:
    """Whether any image has a mask."""
    try:
        refuse_maskless(images, IOU)
    except InputError:
        return False
    return True


def _labels(model: Model, images: Images) -> NDArray[np.int64]:
    known = {label: label_index(label, model, images.classes) for label in set(images.labels)}
    found = [known[label] for label in images.labels]
    return np.array([-1 if index is None else index for index in found], np.int64)


def _shown(pictures: int | Sequence[str], images: Images) -> frozenset[int]:
    """Positions of the images to be drawn: those named, or so many evenly along the list."""
    if isinstance(pictures, int):
        return frozenset(np.linspace(0, len(images) - 1, min(pictures, len(images))).round().astype(int).tolist())
    position = {name: k for k, name in enumerate(images.ids)}
    for name in pictures:
        if name not in position:
            raise no_such("image", name, list(images.ids[:10_000]), f"There are {len(images)} images.")
    return frozenset(position[name] for name in pictures)


def _check(given: Mapping[str, Any], images: Images) -> None:
    counted = given["counted"]
    if counted not in get_args(Counted):
        raise InputError(f"compare: counted must be one of {', '.join(get_args(Counted))}. Got {counted!r}.")
    if counted != "all" and not any(label is not None for label in images.labels):
        raise InputError(f"compare: counted='{counted}' needs labels, and none of the {len(images)} images has one.")
    for name, low in (("repeats", 1), ("seed", 0), ("batch_size", 1)):
        value = given[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not whole and not (name == "batch_size" and value == "auto"):
            either = "'auto' or " if name == "batch_size" else ""
            raise InputError(f"compare: {name} must be {either}an integer >= {low}. Got {value!r}.")


def _check_target(target: Any, images: Images, labels: Mapping[str, NDArray[np.int64]]) -> None:
    if isinstance(target, str) and target.startswith("top"):
        raise InputError(f"compare: there is one map per image and method. Got target '{target}'. Ask for one class.")
    if isinstance(target, Tensor | list | tuple) and len(target) != len(images):
        raise InputError(f"compare: target must be one per image, {len(images)}. Got {len(target)}.")
    if isinstance(target, str) and target == "label":
        for name, known in labels.items():
            if (known < 0).any():
                image = images.ids[int((known < 0).argmax())]
                raise InputError(f"compare: target='label', and the label of {image} is no class that {name} knows.")


def one_label(methods: Any) -> str | None:
    """The one method by whose maps two runs are compared; None where it is left open."""
    if methods is None:
        return None
    label, *more = (m.key for m in _methods(methods))
    if more:
        raise InputError("compare: two runs are compared by the maps of one method. Name one.")
    return label
