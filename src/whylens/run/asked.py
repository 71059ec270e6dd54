"""Asked: the arguments of an audit, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..contract import Method, Metric
from ..errors import InputError
from ..images import Images
from ..measure import refuse_maskless
from ..model import Model
from ..places import Instances, Region, read_place
from ..probe import score_kind
from ..sources import load_images
from . import local
from .plan import image_table, images_hash
from .reopen import describe


@dataclass(frozen=True)
class Asked:
    """The arguments, read and checked; `table` is the image list that they make, `mark` what tells it from others."""

    model: Model
    images: Images
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    given: Mapping[str, Any]
    described: Mapping[str, Any]
    table: Any
    mark: str

    @classmethod
    def read(cls, model: Any, images: Any, methods: Any, metrics: Any, given: Mapping[str, Any]) -> Asked:
        """Refuse what cannot be an audit, whatever the folder holds."""
        if isinstance(model, str | Path):
            raise InputError(
                f"audit: model must be a Model, a torch module or a function. Open it: whylens.load_model('{model}')."
            )
        model = model if isinstance(model, Model) else Model(model)
        images = images if isinstance(images, Images) else load_images(images)
        _check(given)
        listed = [methods] if isinstance(methods, str | Method) or callable(methods) else list(methods)
        if not listed:
            raise InputError("audit: methods must name at least one method. All methods: whylens methods.")
        requests = tuple(_named(Method.read(m), model) for m in listed)
        measures = tuple(Metric.read(m) for m in ([metrics] if isinstance(metrics, str | Metric) else metrics))
        for metric in measures:
            metric.checked_params(given["seed"])
            refuse_maskless(images, metric)
        target = given["target"]
        if isinstance(target, Region):
            if target.masks is not None:
                raise InputError(
                    "audit: a run does not keep masks of your own. Explain the class where it is predicted."
                )
            given = {**given, "target": target.target}
            target = given["target"]
        if model.finds_boxes and not (callable(target) and not isinstance(target, Instances)):
            given = {**given, "target": _instances(target, model, len(images)).words}
            target = given["target"]
            if measures:
                raise InputError(
                    f"audit: {measures[0].key} cannot be stored for objects of a detector. Measure some of them: "
                    "measure(model, images, run.explanation(label, rows), metric=...)."
                )
            own = next((m for m in requests if m.target is not None), None)
            if own is not None:
                raise InputError(f"audit: {own.key}: the objects are the same for all methods: target=Instances(...).")
        table = image_table(images, model, _per_image(target, model, len(images)))
        return cls(model, images, requests, measures, given, describe(model), table, images_hash(table))

    @property
    def of_objects(self) -> bool:
        """Whether rows of methods are objects of a detector."""
        return self.model.finds_boxes and isinstance(self.given["target"], str)

    def setting(self, name: str) -> Any:
        """A setting as it stands in a plan; "auto" where the plan may choose."""
        value = self.given[name]
        if name == "score":
            return score_kind(self.model, value)
        if name == "target":
            if isinstance(value, Tensor | list | tuple):
                return local.PER_IMAGE
            if callable(value):
                return {"function": getattr(value, "__name__", "function")}
        return value


def _named(method: Method, model: Model) -> Method:
    """A layer by its name, and a target that words can say."""
    from ..layers import resolve

    if isinstance(method.target, Tensor | list | tuple):
        raise InputError(
            f"audit: {method.key}: targets per image belong to the audit, not to one method: target=[...]."
        )
    if isinstance(method.layer, nn.Module):
        return replace(method, layer=resolve(model.net, method.layer))
    return method


def _instances(target: Any, model: Model, count: int) -> Instances:
    """Which objects are explained; InputError for boxes of one's own."""
    asked = read_place(target, model, count)
    return asked if isinstance(asked, Instances) else Instances()


def _per_image(target: Any, model: Model, count: int) -> list[int] | None:
    """Targets given one per image, as outputs of the model."""
    if not isinstance(target, Tensor | list | tuple):
        if isinstance(target, str) and target.startswith("top"):
            raise InputError(
                f"audit: a run holds one map per image and method. Got target '{target}'. "
                "Ask a method several times with a target each: --method grad_cam:target=tabby."
            )
        return None
    values = target.tolist() if isinstance(target, Tensor) else list(target)
    if len(values) != count:
        raise InputError(f"audit: target must be one per image, {count}. Got {len(values)}.")
    return [model.class_index(v) if isinstance(v, str) else int(v) for v in values]


def _check(given: Mapping[str, Any]) -> None:
    """Bounds of the plain settings."""
    for name, low in (("batch_size", 1), ("shard_rows", 1), ("workers", 1), ("threads", 1), ("seed", 0)):
        value = given[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not whole and not (value == "auto" and name != "seed"):
            auto = "" if name == "seed" else "'auto' or "
            raise InputError(f"audit: {name} must be {auto}an integer >= {low}. Got {value!r}.")
    for name, known in (("precision", ("float32", "auto")), ("store", ("pooled", "full")), ("engine", ("local",))):
        if given[name] not in known:
            raise InputError(f"audit: {name} must be {' or '.join(map(repr, known))}. Got {given[name]!r}.")
