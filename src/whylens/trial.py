"""Trial of one batch: what a metric receives is made here, and what it gives is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import _plugins
from ._check import Range
from .collect import finished
from .contract import Maps, Method, Metric, Trial, Values
from .engine import Precision
from .errors import ImageError, InputError
from .explanation import Explanation
from .images import Images
from .masks import Label, Mask
from .model import Model
from .passes import Passes
from .probe import Probe, Score

ROUNDING = 1e-5
"""How far beyond its declared range a value may lie, as a share of the bound; it is then set to the bound."""


def trial_of(
    model: Model,
    images: Images,
    explanation: Explanation,
    frames: Tensor,
    *,
    masks: Sequence[Mask | None] | None = None,
    labels: Sequence[Label] | None = None,
    method: Method | None = None,
    precision: Precision = "float32",
) -> Trial:
    """The trial of rows and their frames ``(N, C, H, W)``, one frame per row; no pass is run before one is asked for.

    `masks` and `labels`, one per row, save reading them from `images`, where a mask that cannot be read counts as
    none. `method` is the explanation's, needed to explain again where it was a function of your own.
    """
    if masks is None or labels is None:
        position = {name: i for i, name in enumerate(images.ids)}
        at = [position[name] for name in explanation.ids]
        masks = [mask_of(images, i) for i in at] if masks is None else masks
        labels = [images.labels[i] for i in at] if labels is None else labels
    known = any(label is not None for label in labels)
    probe = _probe(model, frames, explanation, precision)
    return Trial(
        probe=probe,
        explanation=explanation,
        images=frames,
        masks=tuple(masks),
        labels=torch.tensor([_output(model, label) for label in labels]) if known else None,
        again=partial(explain_again, probe, explanation, method=method),
    )


def score_batch(metric: Metric, trial: Trial, *, seed: int) -> Values:
    """What a metric gives for one batch, checked, as float32 on the CPU: values ``(N,)``, curve ``(N, T)``, checks.

    NaN where a metric needs masks and a row has none. Raises InputError where the metric breaks its contract.
    """
    name, facts, ids = metric.key, metric.facts, trial.explanation.ids
    masks = trial.masks or (None,) * len(ids)
    if len(masks) != len(ids):
        raise InputError(f"{name}: a trial must bring one mask, or None, per row, {len(ids)}. Got {len(masks)}.")
    given = metric.function(replace(trial, masks=masks), **metric.checked_params(seed))
    given = given if isinstance(given, Values) else Values(given)
    values = _finite(_rows(given.values, len(ids), f"{name}: the values"), ids, f"{name}: the values")
    if facts.needs_masks:
        values = values.masked_fill(torch.tensor([mask is None for mask in masks]), torch.nan)
    values = _within(values, Range(facts.low, facts.high), ids, name)
    curve = None
    if given.curve is not None:
        curve = _finite(_rows(given.curve, len(ids), f"{name}: the curve", axes=2), ids, f"{name}: the curve")
    checks = {}
    for key, value in given.checks.items():
        check = _rows(value, len(ids), f"{name}: the check '{key}'")
        checks[key] = check if check.dtype == torch.bool else _finite(check, ids, f"{name}: the check '{key}'")
    return Values(values, curve, checks)


def explain_again(
    probe: Probe,
    explanation: Explanation,
    images: Tensor | None = None,
    model: Model | nn.Module | None = None,
    targets: Tensor | None = None,
    *,
    method: Method | None = None,
) -> Tensor:
    """Maps ``(N, C, h, w)`` of the same method, layer, parameters and targets once more; what `Trial.again` calls.

    `images` are moved frames ``(N, C, H, W)``, `model` another one; a bare net is taken as the probe's model with
    other weights, `targets` ``(N,)`` other outputs. `method` is needed where it was a function of your own: an
    explanation keeps only its name.
    """
    method = method or _method_of(explanation)
    if model is None:
        model = probe.model
    elif not isinstance(model, Model):
        model = probe.model.with_net(model)
    frames = probe.frames if images is None else images
    if not isinstance(frames, Tensor) or frames.ndim != probe.frames.ndim or len(frames) != len(probe):
        came = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise InputError(f"again: images must be frames like {tuple(probe.frames.shape)}. Got {came}.")
    needs = method.facts.needs
    layers = {model.layer(explanation.layer, tuple(frames.shape[1:])).name} if "layer" in needs else set()
    passes = Passes(model, frames, layers=layers, to_input="input gradient" in needs)
    index = probe.index if targets is None else targets
    index = None if index is None else index.to(model.device)
    function = probe.function if targets is None else None
    moved = Probe(passes, index, function=function, layer=explanation.layer, score=probe.score_kind)
    given = method.function(moved, **method.checked_params(explanation.seed))
    result = given if isinstance(given, Maps) else Maps(given)
    return finished(explanation.label, result, moved.score.float().cpu())[0]


# ---- what a trial is made of -----------------------------------------------------------------------------


def mask_of(images: Images, position: int) -> Mask | None:
    """The mask of an image; None where it has none, or one that cannot be read."""
    try:
        return images.mask(position)
    except ImageError:
        return None


def _probe(model: Model, frames: Tensor, explanation: Explanation, precision: Precision) -> Probe:
    passes = Passes(model, frames, precision=precision)
    if explanation.score_kind == "function":
        return Probe(passes, None, function=_lost(explanation.target_names[0]), layer=explanation.layer)
    index = explanation.targets.to(model.device)
    return Probe(passes, index, layer=explanation.layer, score=cast(Score, explanation.score_kind))


def _lost(name: str) -> Callable[[Any], Tensor]:
    """A target function that says it is not here."""

    def refuse(_output: Any) -> Tensor:
        raise InputError(
            f"The explanation's target is a function, '{name}', and an explanation does not keep it, so this metric "
            "cannot ask for its score. Explain a class, by number or name."
        )

    return refuse


def _output(model: Model, label: Label) -> int:
    """The output that a true class stands for, -1 where that is unknown."""
    if isinstance(label, str):
        try:
            return model.class_index(label)
        except InputError:
            return -1
    return -1 if label is None else label


def _method_of(explanation: Explanation) -> Method:
    if explanation.method not in _plugins.names("methods"):
        raise InputError(
            f"again: the explanation keeps only the name of its method, and '{explanation.method}' is none of whylens. "
            "Use a metric that does not explain again, or explain with a method of whylens: whylens methods."
        )
    return Method(explanation.method, params=explanation.params)


# ---- what a metric gave ----------------------------------------------------------------------------------


def _rows(given: Any, count: int, what: str, axes: int = 1) -> Tensor:
    """A tensor with one entry per row, on the CPU."""
    if not isinstance(given, Tensor) or given.ndim != axes or len(given) != count:
        came = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        shape = f"({count}{', T' if axes == 2 else ','})"
        raise InputError(f"{what} of a metric must be a tensor {shape}, one entry per row. Got {came}.")
    rows: Tensor = given.detach().cpu()
    return rows


def _finite(given: Tensor, ids: tuple[str, ...], what: str) -> Tensor:
    """The same as float32, if no entry is infinite."""
    given = given.float()
    endless = given.isinf().reshape(len(ids), -1).any(1).nonzero().flatten().tolist()
    if endless:
        raise InputError(f"{what} must be finite, or NaN where there is none. Got inf for image '{ids[endless[0]]}'.")
    return given


def _within(values: Tensor, bounds: Range, ids: tuple[str, ...], name: str) -> Tensor:
    """Values in the declared range, rounding put right."""
    low = -torch.inf if bounds.low is None else bounds.low
    high = torch.inf if bounds.high is None else bounds.high
    slack = ROUNDING * max(1.0, *(abs(b) for b in (bounds.low, bounds.high) if b is not None), 0.0)
    outside = ((values < low - slack) | (values > high + slack)).nonzero().flatten().tolist()
    if outside:
        raise InputError(
            f"{name}: values must be {bounds}, as the metric declares. Got {float(values[outside[0]]):g} for image "
            f"'{ids[outside[0]]}'. Correct the metric or its MetricFacts."
        )
    return values.clamp(low, high)
