"""Target: which output an explanation speaks for. Resolved once, in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .model import Model
from .places import Instances, Region, read_place


@dataclass(frozen=True)
class Target:
    """The output asked for, for every image: `fixed` ``(N,)``, the `top` k predicted ones, or a `function`.

    At a `place` of a detector or a segmentation net it is the class that is there.
    """

    fixed: Tensor | None = None
    top: int = 1
    function: Callable[[Any], Tensor] | None = None
    place: Instances | Region | None = None

    def indices(self, scores: Tensor, positions: Sequence[int]) -> Tensor:
        """Outputs ``(n, top)`` for the images at these positions, given their scores ``(n, K)``."""
        if self.fixed is None:
            return scores.topk(min(self.top, scores.shape[1]), dim=1).indices
        chosen = self.fixed[list(positions)].to(scores.device)
        if bool((chosen >= scores.shape[1]).any()):
            raise InputError(
                f"target: the net has {scores.shape[1]} outputs, 0 to {scores.shape[1] - 1}. Got {int(chosen.max())}."
            )
        return chosen[:, None]


def read(target: Any, model: Model, count: int) -> Target:
    """An int, a class name, ``(N,)`` of either, "top5", a callable ``output -> (N,)``, or None (the predicted class).

    A detector and a segmentation net take their own: `Instances`, `Region`, or what stands for one of them.

    Raises InputError for an unknown class, a number below 0, or a length that is not `count`.
    """
    if model.task in ("detection", "segmentation") and (isinstance(target, Instances | Region) or not callable(target)):
        return Target(place=read_place(target, model, count))
    if isinstance(target, Instances | Region):
        raise InputError(
            f"target: {type(target).__name__} is for task='detection' and 'segmentation'. {model.name} has the task "
            f"'{model.task}'."
        )
    if target is None:
        return Target()
    if isinstance(target, str):
        ranks = re.fullmatch(r"top(\d+)", target.strip().lower())
        if ranks and int(ranks[1]) > 0 and target not in (model.classes or ()):
            return Target(top=int(ranks[1]))
        return _fixed([target] * count, model)
    if isinstance(target, int) and not isinstance(target, bool):
        return _fixed([target] * count, model)
    if (
        isinstance(target, Tensor)
        or (isinstance(target, Sequence) and not callable(target))
        or hasattr(target, "tolist")
    ):
        values = target.tolist() if hasattr(target, "tolist") else list(target)
        values = values if isinstance(values, list) else [values] * count
        if len(values) != count:
            raise InputError(f"target: {count} images need {count} targets, or one for all. Got {len(values)}.")
        return _fixed(values, model)
    if callable(target):
        return Target(function=target)
    raise InputError(
        "target: must be an int, a class name, one of these per image, 'top5', or a function of the output. "
        f"Got {type(target).__name__}."
    )


def _fixed(values: list[Any], model: Model) -> Target:
    numbers = []
    for value in values:
        number = _number(value, model)
        if not 0 <= number < 2**31:
            raise InputError(f"target: outputs are counted from 0 to one less than their number. Got {number}.")
        numbers.append(number)
    return Target(fixed=torch.tensor(numbers, dtype=torch.long))


def _number(value: Any, model: Model) -> int:
    if isinstance(value, str):
        plain = value.strip()
        known = model.classes is not None and plain.lower() in (c.lower() for c in model.classes)
        return int(plain) if re.fullmatch(r"-?\d+", plain) and not known else model.class_index(plain)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"target: must be whole numbers or class names. Got {value!r}.")
    return value
