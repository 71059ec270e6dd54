"""The contract of metrics: a check is a function of a `Metric` that raises where it is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..contract import Metric, MetricFacts
from ..errors import InputError
from ..explain import explain
from ..explanation import Explanation
from ..images import Images
from ..measure import measure
from ..model import Model
from ..scores import Scores
from ..sources import load_images
from ..trial import score_batch, trial_of
from .held import TOLERANCE, ContractError, close, hold, refuses, unchanged
from .nets import SmallNet


def check_metric(metric: str | Callable[..., Any] | Metric, *, params: Mapping[str, Any] | None = None) -> None:
    """Run every check of the contract on a metric; raises `ContractError` at the first that fails."""
    request = Metric.read(metric)
    request = replace(request, params={**(request.params or {}), **(params or {})} or None)
    if not isinstance(getattr(request.function, "facts", None), MetricFacts):
        raise ContractError(f"{request.plain_name}: declares no facts. Put @MetricFacts(direction=...) above it.")
    for check in metric_checks():
        check(request)


def metric_checks() -> tuple[Callable[[Metric], None], ...]:
    """All checks of the contract of a metric, to be run one by one."""
    return (
        values_are_each_images_own,
        leaves_the_world_as_found,
        refuses_values_out_of_bounds,
        bears_a_flat_map,
        ranks_planted_maps,
        stays_within_its_passes,
    )


def values_are_each_images_own(metric: Metric) -> None:
    """One value per row in the declared range; the same in any batch, in any order, and with the same seed."""
    scene = _scene(5)
    whole = _scored(metric, *scene)
    model, images, explanation = scene
    turned = _scored(metric, model, images, explanation[::-1]).values.flip(0)
    _close_or_missing(whole, replace(whole, values=turned), f"{whole.metric}: the order of images matters")
    for size in (1, 2):
        _close_or_missing(whole, _scored(metric, *scene, batch_size=size), f"{whole.metric}: a batch of {size}")


def leaves_the_world_as_found(metric: Metric) -> None:
    """Weights, buffers, modes, gradients, hooks, random state; maps and frames."""
    model, images, explanation = _scene(3)
    model.net.train()
    trial = trial_of(model, images, explanation, torch.stack([photo.pixels for photo in images]))
    maps, frames = explanation.maps.clone(), trial.images.clone()
    with unchanged(model.net, metric.plain_name):
        score_batch(metric, trial, seed=0)
    hold(torch.equal(maps, explanation.maps), f"{metric.plain_name}: the maps were changed")
    hold(torch.equal(frames, trial.images), f"{metric.plain_name}: the frames were changed")


def refuses_values_out_of_bounds(metric: Metric) -> None:
    """Every declared bound is kept, with a message that names the parameter; unknown parameters are refused."""
    model, images, explanation = _scene(1)
    refuses(
        metric.plain_name,
        metric.function,
        lambda given: measure(model, images, explanation, metric=metric, params=given),
    )


def bears_a_flat_map(metric: Metric) -> None:
    """A map of zeros and a map of ones give a value in the range, or none; never an error."""
    model, images, explanation = _scene(2)
    for level in (0.0, 1.0):
        _scored(metric, model, images, replace(explanation, maps=torch.full_like(explanation.maps, level)))


def ranks_planted_maps(metric: Metric) -> None:
    """Where masks tell the truth: maps on the object are better than random ones, those better than maps off it."""
    if not metric.facts.needs_masks or metric.facts.direction == "none":
        return
    model, images, explanation = _scene(24)
    centre = torch.tensor([[8.0 + 32 * (i % 2), 8.0 + 32 * (i // 2 % 2)] for i in range(24)])
    cells = (torch.arange(24) + 0.5) * 2
    far = (cells[None, :, None] - centre[:, 0, None, None]) ** 2 + (cells - centre[:, 1, None, None]) ** 2
    on = torch.exp(-far / 64)[:, None]
    noise = torch.rand(on.shape, generator=torch.Generator().manual_seed(2))
    planted, random, inverted = (
        _scored(metric, model, images, replace(explanation, maps=maps)).summary().mean
        for maps in (on, noise, far[:, None] / far.max())
    )
    better = planted > random > inverted if metric.facts.direction == "higher" else planted < random < inverted
    hold(better, f"{metric.plain_name}: planted maps give {planted:.3g}, random {random:.3g}, inverted {inverted:.3g}")


def stays_within_its_passes(metric: Metric) -> None:
    """Forwards asked of the probe, and explanations by the same method, stay within the declared bounds."""
    model, images, explanation = _scene(3)
    trial = trial_of(model, images, explanation, torch.stack([photo.pixels for photo in images]))
    explain_again = trial.again
    asked: list[Any] = []

    def again(*given: Any, **changed: Any) -> Tensor:
        asked.append(changed)
        hold(explain_again is not None, f"{metric.plain_name}: the trial cannot explain again")
        return explain_again(*given, **changed) if explain_again else torch.empty(0)

    score_batch(metric, replace(trial, again=again), seed=0)
    repeats = metric.facts.repeats(metric.checked_params(0))
    hold(len(asked) <= repeats, f"{metric.plain_name}: {len(asked)} explanations were asked for, declared {repeats}")
    bound, run = metric.facts.passes(metric.checked_params(0)), trial.probe.passes.forwards / 3
    hold(run <= bound, f"{metric.plain_name}: {run:g} forwards run per image, declared {bound}")


def _scene(count: int) -> tuple[Model, Images, Explanation]:
    """Photos of noise with a square object in one of four corners, and maps of them."""
    frames = torch.rand((count, 3, 48, 48), generator=torch.Generator().manual_seed(1))
    masks = torch.zeros((count, 48, 48), dtype=torch.bool)
    for i in range(count):
        top, left = 2 + 32 * (i % 2), 2 + 32 * (i // 2 % 2)
        masks[i, top : top + 12, left : left + 12] = True
    model, images = Model(SmallNet(), layer="high"), load_images(frames, masks=masks)
    return model, images, explain(model, images, target=1)


def _scored(metric: Metric, model: Model, images: Images, explanation: Explanation, **options: Any) -> Scores:
    try:
        return measure(model, images, explanation, metric=metric, **options)
    except InputError as error:
        raise ContractError(str(error)) from error


def _close_or_missing(expected: Scores, found: Scores, where: str) -> None:
    hold(torch.equal(expected.values.isnan(), found.values.isnan()), f"{where}: other rows have a value")
    close(expected.values.nan_to_num(), found.values.nan_to_num(), TOLERANCE, where)
