"""The verb gap: whether CO scores, or any other values of a run, tell right predictions from wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .contract import Method, Metric
from .errors import InputError
from .explain import Request
from .interval import Interval
from .model import Model
from .right_wrong import CONFIDENCE, LISTED, Gap, largest, values_of
from .run.audit import extend
from .run.read import Run, open_run
from .run.schema import metric_column
from .separation import Separation, auroc_difference, halved, separation

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAPER = ("saliency", "input_x_gradient", "grad_cam", "deconvolution", "guided_backprop", "deep_lift")
"""The six methods of the paper that found the gap; its Grad-CAM looks at the first convolution."""


def gap(
    run: Run | str | Path,
    *,
    methods: Sequence[Request] | Literal["paper"] | None = None,
    metric: Metric | str = "co_score",
    model: Model | None = None,
    images: Any = None,
    seed: int = 0,
    workers: int | Literal["auto"] = "auto",
    progress: bool = False,
) -> Gap:
    """How well the values of a metric tell images that the model gets right from those it gets wrong.

    `run` is an audit or its folder. `methods` are labels of the run or methods it does not hold yet; the default is
    all it holds, "paper" the six of the paper. What the run does not hold yet is computed and added to it, with
    `model` and `images` or, where they are not given, as the run opens them again. `seed` draws the halves on which
    the threshold is chosen and judged, and the bootstrap.

    Raises InputError where no image has a label, or a value is missing and cannot be computed.
    """
    stored = run if isinstance(run, Run) else open_run(run)
    request = Metric.read(metric)
    _refuse_unlabelled(stored)
    labels, missing = _asked(stored, methods)
    if missing or request.key not in stored.metrics:
        _refuse_unfinished(stored)
        stored = extend(
            stored, methods=missing, metrics=[request], model=model, images=images, workers=workers, progress=progress
        )
    rows, left_out = _rows(stored, request.key, labels, seed)
    correct, halves = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("correct", "half"))
    halves = halves == "choose"
    found = [separation(label, values_of(rows, label), correct, halves, seed=seed) for label in labels]
    return Gap(
        run=str(stored.folder),
        metric=request.key,
        seed=seed,
        separations=tuple(found),
        confidence=separation(CONFIDENCE, values_of(rows), correct, halves, seed=seed),
        lead=_lead(found, rows, correct, seed),
        left_out=left_out,
        other_class=_other_class(stored, labels),
        rows=rows,
    )


# ---- what a run holds ------------------------------------------------------------------------------------


def _asked(run: Run, methods: Sequence[Request] | str | None) -> tuple[list[str], list[Request]]:
    """Labels in the order asked, and the methods that the run does not hold yet."""
    if methods is None:
        return list(run.labels), []
    given = [methods] if isinstance(methods, str | Method) else list(methods)
    wanted = [name for one in given for name in (PAPER if one == "paper" else [one])]
    held = {label.replace("-", "_"): label for label in run.labels}
    labels: list[str] = []
    missing: list[Request] = []
    for one in wanted:
        known = held.get(one.replace("-", "_")) if isinstance(one, str) else None
        request = None if known else Method.read(one)
        key = known or (request.key if request else "")
        if key not in run.labels and key not in labels:
            missing.append(one)
        labels.append(key)
    return list(dict.fromkeys(labels)), missing


def _refuse_unlabelled(run: Run) -> None:
    run.refuse_objects("gap")
    correct = run.table(["correct"]).column("correct")
    if correct.null_count == len(correct):
        raise InputError(
            f"gap: none of the {len(run)} images of '{run.folder}' has a label that the model knows, so nobody can say "
            "which are right. Audit class folders, or a list with a column 'label'."
        )


def _refuse_unfinished(run: Run) -> None:
    if not run.finished:
        raise InputError(
            f"gap: '{run.folder}' is not finished: {run.committed} of {len(run)} images are committed. "
            "Run the same audit again, then ask for the gap."
        )


def _rows(run: Run, metric: str, labels: Sequence[str], seed: int) -> tuple[pa.Table, dict[str, int]]:
    """The images judged, with a value per method, and how many others there are, by reason."""
    columns = {f"value.{label}": metric_column(metric, label) for label in labels}
    base = [name for name in LISTED if name != "half"]
    table = run.table([*base, "status", *columns.values()])
    ok = pc.equal(table.column("status"), "ok")
    known = pc.is_valid(table.column("correct"))
    left_out = {
        "not committed yet": len(run) - table.num_rows,
        "failed": table.num_rows - int(pc.sum(ok).as_py() or 0),
        "no label that the model knows": int(pc.sum(pc.and_(ok, pc.invert(known))).as_py() or 0),
    }
    table = table.filter(pc.and_(ok, known))
    half = halved(table.column("correct").to_numpy(zero_copy_only=False), seed=seed)
    made = table.select(base).append_column("half", pa.array(np.where(half, "choose", "judge")))
    for name, column in columns.items():
        made = made.append_column(name, pc.cast(table.column(column), pa.float64()))
        missing = made.column(name).null_count
        left_out |= {f"no value of {name.removeprefix('value.')}": missing} if missing else {}
    return made, {why: count for why, count in left_out.items() if count}


def _other_class(run: Run, labels: Sequence[str]) -> dict[str, int]:
    """Maps of another class than the predicted one, by method; the paper explains the prediction."""
    table = run.table(["prediction_index", *(f"target.{label}" for label in labels)])
    predicted = table.column("prediction_index")
    counts = {
        label: int(pc.sum(pc.not_equal(table.column(f"target.{label}"), predicted)).as_py() or 0) for label in labels
    }
    return {label: count for label, count in counts.items() if count}


def _lead(found: Sequence[Separation], rows: pa.Table, correct: NDArray[Any], seed: int) -> Interval | None:
    """The best area less the second best, on the rows that have both; None where there is no second."""
    best = largest([one for one in found if one.verdict == "gap"])
    second = largest([one for one in found if one.verdict != "too few" and one is not best])
    if best is None or second is None:
        return None
    return auroc_difference(values_of(rows, best.label), values_of(rows, second.label), correct, seed=seed)
