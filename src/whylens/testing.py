"""The contract of methods and metrics, as checks to run on your own: ``check_method(my_method)``, ``check_metric``.

The same suite runs on those of the package. A check that fails raises `ContractError` with the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn

from ._check import Range, parameters
from .contract import Method, Metric, MetricFacts
from .errors import InputError, WhylensError
from .explain import explain
from .explanation import Explanation
from .images import Images
from .measure import measure
from .model import Model
from .scores import Scores
from .sources import load_images
from .trial import score_batch, trial_of

TOLERANCE = 1e-5
"""Largest difference between a map in a batch and the map alone, as a share of the map's largest value."""


class ContractError(WhylensError, AssertionError):
    """A plug-in breaks its contract; the message says where and by how much."""


class SmallNet(nn.Module):
    """Two convolutions with every way to write a rectifier: in place, as a function, one module used twice."""

    def __init__(self, channels: int = 3, classes: int = 4, *, seed: int = 0, constant: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low = nn.Conv2d(channels, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.high = nn.Conv2d(6, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            if constant:
                self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(N, classes)``."""
        x = self.pool(self.relu(self.norm(self.low(x))))
        x = F.relu(self.relu(self.high(x)) - 0.05)
        scores: Tensor = self.head(self.drop(x.mean((2, 3))))
        return scores


class SmallTable(nn.Module):
    """Two linear layers with a rectifier between them, for rows of a table."""

    def __init__(self, features: int = 7, classes: int = 3, *, seed: int = 0, constant: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low, self.head = nn.Linear(features, 9), nn.Linear(9, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if constant:
                self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(N, classes)``."""
        scores: Tensor = self.head(F.relu(self.low(x)))
        return scores


@dataclass(frozen=True)
class Case:
    """What the suite needs to know of one method: parameters that keep it quick, and closed forms to hold it to.

    Each entry of `closed_forms` is a function without arguments that raises when the method is wrong. With `table`
    the checks run on rows ``(N, F)`` instead of images.
    """

    method: str | Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    closed_forms: tuple[Callable[[], None], ...] = ()
    table: bool = False
    tolerance: float = TOLERANCE


def check_method(method: str | Callable[..., Any] | Case) -> None:
    """Run every check of the contract on a method; raises `ContractError` at the first that fails."""
    case = method if isinstance(method, Case) else Case(method)
    for check in method_checks():
        check(case)


def method_checks() -> tuple[Callable[[Case], None], ...]:
    """All checks of the contract, to be run one by one."""
    return (
        declares_itself,
        has_its_closed_forms,
        equals_one_at_a_time,
        leaves_the_world_as_found,
        repeats_with_its_seed,
        refuses_values_out_of_bounds,
        takes_odd_sizes,
        flags_a_constant_score,
        stays_finite_on_a_constant_image,
        stays_within_its_passes,
    )


def declares_itself(case: Case) -> None:
    """Facts, a first line, a source, and maps described in the docstring."""
    method = Method(case.method)
    said = method.function.__doc__ or ""
    for word in ("maps:", "cost:", "Source:"):
        _hold(word in said, f"{method.plain_name}: the docstring needs a line '{word}'")
    _hold(len(said.split("\n")[0].strip()) > 20, f"{method.plain_name}: the first line must say what is computed")
    _hold(bool(method.facts.needs), f"{method.plain_name}: declares no needs")


def has_its_closed_forms(case: Case) -> None:
    """The closed forms of the case."""
    for closed_form in case.closed_forms:
        closed_form()


def equals_one_at_a_time(case: Case) -> None:
    """A batch of five gives each image the map that it gets alone, whatever the batch size."""
    model, frames = _setting(case)
    target = torch.tensor([0, 1, 2, 1, 0])
    whole = _run(case, model, frames, target=target).maps
    for size in (1, 2):
        parts = _run(case, model, frames, target=target, batch_size=size).maps
        _close(whole, parts, case.tolerance, f"{_name(case)}: batch of 5 against batches of {size}")
    alone = torch.cat([_run(case, model, frames[i : i + 1], target=int(target[i])).maps for i in range(5)])
    _close(whole, alone, case.tolerance, f"{_name(case)}: batch against one at a time")


def leaves_the_world_as_found(case: Case) -> None:
    """Weights, buffers, modes, gradients, hooks, random state and inputs; also after a forward that raises."""
    model, frames = _setting(case)
    model.net.train()
    next(model.net.children()).eval()
    first, *_, last = model.net.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    kept = frames.clone()
    with _unchanged(model.net, _name(case)):
        _run(case, model, frames)
    with _unchanged(model.net, f"{_name(case)}, after an error"):
        handle = model.net.register_forward_hook(_raise)
        try:
            _run(case, model, frames)
        except (RuntimeError, WhylensError) as error:
            _hold("planned" in str(error), f"{_name(case)}: the net's own error was replaced by {error!r}")
        else:
            raise ContractError(f"{_name(case)}: an error of the net was swallowed")
        finally:
            handle.remove()
    _hold(torch.equal(frames, kept), f"{_name(case)}: the input frames were changed")


def repeats_with_its_seed(case: Case) -> None:
    """Same seed, same map, to the bit; another seed changes a method that draws."""
    model, frames = _setting(case)
    first, again = (_run(case, model, frames, seed=3).maps for _ in range(2))
    _hold(torch.equal(first, again), f"{_name(case)}: two runs with one seed differ")
    if "seed" in parameters(Method(case.method).function):
        other = _run(case, model, frames, seed=4).maps
        _hold(not torch.equal(first, other), f"{_name(case)}: the seed changes nothing")


def refuses_values_out_of_bounds(case: Case) -> None:
    """Every declared bound is kept, with a message that names the parameter; unknown parameters are refused."""
    model, frames = _setting(case)
    _refuses(
        _name(case),
        Method(case.method).function,
        lambda given: explain(model, frames, method=case.method, params={**case.params, **given}),
    )


def takes_odd_sizes(case: Case) -> None:
    """Odd frames, one image, one class."""
    if case.table:
        model, frames = Model(SmallTable(5, 1), task="tabular"), torch.rand(1, 5)
    else:
        model, frames = Model(SmallNet(classes=1), layer="high"), torch.rand(1, 3, 17, 23)
    found = _run(case, model, frames)
    _hold(len(found.maps) == 1 and not bool(found.checks["not_finite"]), f"{_name(case)}: odd sizes give no finite map")


def flags_a_constant_score(case: Case) -> None:
    """A score that does not depend on the image gives a flat map (zeros where gradients are used) and a flag."""
    model, frames = _setting(case, constant=True)
    found = _run(case, model, frames)
    spread = float((found.maps.flatten(1).amax(1) - found.maps.flatten(1).amin(1)).max())
    _hold(spread == 0, f"{_name(case)}: a constant score gives a map that varies by {spread:.3g}")
    _hold(
        Method(case.method).facts.black_box or not found.maps.any(), f"{_name(case)}: a constant score gives no zeros"
    )
    _hold(all(found.flags(i) for i in range(len(found))), f"{_name(case)}: a constant score is not flagged")


def stays_finite_on_a_constant_image(case: Case) -> None:
    """A black, a white and a grey image give finite maps that needed no mending."""
    model, frames = _setting(case)
    for value in (0.0, 0.5, 1.0):
        found = _run(case, model, torch.full_like(frames[:2], value))
        _hold(not bool(found.checks["not_finite"].any()), f"{_name(case)}: an image of {value} gives no finite map")


def stays_within_its_passes(case: Case) -> None:
    """Passes counted, alone and as run, stay within the declared bound."""
    model, frames = _setting(case)
    method = Method(case.method, params=case.params or None)
    forwards, backwards = method.facts.passes(method.checked_params(0))
    found = _run(case, model, frames).cost
    counted = found["forwards"], found["backwards"]
    _hold(
        counted[0] <= forwards and counted[1] <= backwards,
        f"{_name(case)}: {counted} forwards and backwards counted, declared {(forwards, backwards)}",
    )
    run = found["run_forwards"], found["run_backwards"]
    _hold(
        run[0] <= forwards and run[1] <= backwards,
        f"{_name(case)}: {run} forwards and backwards run per image, declared {(forwards, backwards)}",
    )


# ---- metrics -------------------------------------------------------------------------------------------


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
        metric_leaves_the_world_as_found,
        metric_refuses_values_out_of_bounds,
        bears_a_flat_map,
        ranks_planted_maps,
        metric_stays_within_its_passes,
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


def metric_leaves_the_world_as_found(metric: Metric) -> None:
    """Weights, buffers, modes, gradients, hooks, random state; maps and frames."""
    model, images, explanation = _scene(3)
    model.net.train()
    trial = trial_of(model, images, explanation, torch.stack([photo.pixels for photo in images]))
    maps, frames = explanation.maps.clone(), trial.images.clone()
    with _unchanged(model.net, metric.plain_name):
        score_batch(metric, trial, seed=0)
    _hold(torch.equal(maps, explanation.maps), f"{metric.plain_name}: the maps were changed")
    _hold(torch.equal(frames, trial.images), f"{metric.plain_name}: the frames were changed")


def metric_refuses_values_out_of_bounds(metric: Metric) -> None:
    """Every declared bound is kept, with a message that names the parameter; unknown parameters are refused."""
    model, images, explanation = _scene(1)
    _refuses(
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
    _hold(better, f"{metric.plain_name}: planted maps give {planted:.3g}, random {random:.3g}, inverted {inverted:.3g}")


def metric_stays_within_its_passes(metric: Metric) -> None:
    """Forwards asked of the probe, and explanations by the same method, stay within the declared bounds."""
    model, images, explanation = _scene(3)
    trial = trial_of(model, images, explanation, torch.stack([photo.pixels for photo in images]))
    explain_again = trial.again
    asked: list[Any] = []

    def again(*given: Any, **changed: Any) -> Tensor:
        asked.append(changed)
        _hold(explain_again is not None, f"{metric.plain_name}: the trial cannot explain again")
        return explain_again(*given, **changed) if explain_again else torch.empty(0)

    score_batch(metric, replace(trial, again=again), seed=0)
    repeats = metric.facts.repeats(metric.checked_params(0))
    _hold(len(asked) <= repeats, f"{metric.plain_name}: {len(asked)} explanations were asked for, declared {repeats}")
    bound, run = metric.facts.passes(metric.checked_params(0)), trial.probe.passes.forwards / 3
    _hold(run <= bound, f"{metric.plain_name}: {run:g} forwards run per image, declared {bound}")


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
    _hold(torch.equal(expected.values.isnan(), found.values.isnan()), f"{where}: other rows have a value")
    _close(expected.values.nan_to_num(), found.values.nan_to_num(), TOLERANCE, where)


# ---- what the checks stand on ----------------------------------------------------------------------------------------


def _frames() -> Tensor:
    return torch.rand((5, 3, 20, 20), generator=torch.Generator().manual_seed(1))


def _setting(case: Case, *, constant: bool = False) -> tuple[Model, Tensor]:
    if case.table:
        return Model(SmallTable(constant=constant), task="tabular"), torch.rand(5, 7)
    return Model(SmallNet(constant=constant), layer="high"), _frames()


def _run(case: Case, model: Model, frames: Tensor, **options: Any) -> Explanation:
    return explain(model, frames, method=case.method, params=dict(case.params) or None, **options)


def _name(case: Case) -> str:
    return Method(case.method).plain_name


def _refuses(where: str, function: Callable[..., Any], run: Callable[[dict[str, Any]], Any]) -> None:
    wrong: list[tuple[str, Any]] = [("no_such_parameter", 1)]
    for parameter in parameters(function).values():
        wrong += [(parameter.name, value) for value in _outside(parameter.range)]
        wrong += [(parameter.name, "no such choice")] if parameter.choices or str not in parameter.kinds else []
    for name, value in wrong:
        try:
            run({name: value})
        except InputError as error:
            _hold(name in str(error), f"{where}: the message does not name {name}: {error}")
        else:
            raise ContractError(f"{where}: {name}={value!r} was accepted")


def _outside(bounds: Range | None) -> list[float]:
    if bounds is None:
        return []
    below = [] if bounds.low is None else [bounds.low - 1]
    return below + ([] if bounds.high is None else [bounds.high + 1])


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ContractError(otherwise + ".")


def _close(expected: Tensor, found: Tensor, tolerance: float, where: str) -> None:
    largest = float(expected.abs().max().clamp(min=1e-12))
    difference = float((expected - found).abs().max()) / largest
    _hold(difference <= tolerance, f"{where}: they differ by {difference:.3g} of the largest value")


def _raise(*_: Any) -> None:
    raise RuntimeError("planned failure of the net")


@contextmanager
def _unchanged(net: nn.Module, where: str) -> Iterator[None]:
    def state() -> dict[str, Any]:
        return {
            "weights and buffers": {k: v.clone() for k, v in net.state_dict().items()},
            "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
            "requires_grad": [p.requires_grad for p in net.parameters()],
            "modes": [m.training for m in net.modules()],
            "hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()
            ],
            "random state": torch.get_rng_state(),
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    yield
    for name, value in state().items():
        _hold(_same(before[name], value), f"{where}: {name} changed")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
