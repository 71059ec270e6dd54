"""The verb compare: models side by side, methods side by side on one model, or two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from .comparison.asked import Asked, Counted, Measure, Net, one_label
from .comparison.changes import Changes
from .comparison.runs import changes
from .comparison.sides import Work
from .comparison.table import Comparison
from .comparison.tabulate import tabulate
from .errors import InputError
from .explain import Request
from .run.read import Run


@overload
def compare(models: Sequence[Run], *, methods: Sequence[Request] | str | None = None) -> Changes: ...


@overload
def compare(
    models: Net | Sequence[Net] | Mapping[str, Net],
    images: Any,
    *,
    methods: Sequence[Request] | str | None = None,
    metrics: Sequence[Measure] | str | None = None,
    target: Any = None,
    counted: Counted = "all",
    pictures: int | Sequence[str] = 4,
    repeats: int = 5,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "auto"] = "float32",
    seed: int = 0,
    progress: bool = False,
) -> Comparison: ...


def compare(
    models: Any,
    images: Any = None,
    *,
    methods: Sequence[Request] | str | None = None,
    metrics: Sequence[Measure] | str | None = None,
    target: Any = None,
    counted: Counted = "all",
    pictures: int | Sequence[str] = 4,
    repeats: int = 5,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "auto"] = "float32",
    seed: int = 0,
    progress: bool = False,
) -> Comparison | Changes:
    """Models over one list of images, methods on one model, or two runs over the same images: a table with intervals.

    `models`: several, as a list or by name; one, whose `methods` are then compared; or two runs, `methods` naming the
    one whose maps count. Models give accuracy, parameters, MB, seconds of a forward (the median of `repeats`, taken
    in turn after a warm-up) and, for each method, every metric and how alike their maps are; methods give their
    seconds and passes, each alone. `target` None is the class each model predicts, "label" the true one; otherwise as
    in `explain`. `counted` says which maps count: those of all images, of those that a model gets right, or of those
    that all get right. `pictures` are ids, or how many images `Comparison.figure` shows.

    Raises InputError for what cannot be done as asked; what one row alone cannot do is missing there, with a note.
    """
    if isinstance(models, list | tuple) and any(isinstance(m, Run) for m in models):
        if images is not None:
            raise InputError("compare: runs bring their own images. Leave images out.")
        return changes(models, method=one_label(methods))
    asked = Asked.read(models, images, methods, metrics, locals())
    work = Work(asked)
    work.run(progress)
    return tabulate(work)
