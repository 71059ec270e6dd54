"""The contract suite can fail: for every check a method or metric that breaks it, and only then."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor

from whylens import Maps, MethodFacts, MetricFacts, Probe, Range, Trial, Values, testing
from whylens._check import parameters
from whylens.testing import Case, ContractError

FACTS = MethodFacts(needs=("input gradient",), unit="score per frame value", signed=True)
SAYS = """A gradient for the tests of the suite.

    maps: (N, C, H, W).   cost: 1 forward, 1 backward.

    Source: none.
    """


def method(function: Any) -> Any:
    function.__doc__ = SAYS
    return FACTS(function)


@method
def sound(probe: Probe, *, power: Annotated[int, Range(1, 3)] = 1, seed: int = 0) -> Tensor:
    noise = torch.rand(probe.frames.shape[1:], generator=torch.Generator().manual_seed(seed))
    return probe.input_gradient() ** power * (1 + noise)


@method
def mixes_the_batch(probe: Probe) -> Tensor:
    return probe.input_gradient() / probe.input_gradient().abs().max()


@method
def trains(probe: Probe) -> Tensor:
    probe.model.net.train()
    return probe.input_gradient()


@method
def writes_into_the_net(probe: Probe) -> Tensor:
    gradient = probe.input_gradient().clone()
    with torch.no_grad():
        next(probe.model.net.parameters()).mul_(1.001)
    return gradient


@method
def draws_from_the_world(probe: Probe) -> Tensor:
    return probe.input_gradient() * torch.rand(probe.frames.shape[1:])


@method
def ignores_its_seed(probe: Probe, *, seed: int = 0) -> Tensor:
    return probe.input_gradient()


@method
def never_zero(probe: Probe) -> Tensor:
    return probe.input_gradient() + probe.frames


@method
def divides_by_the_image(probe: Probe) -> Tensor:
    return probe.input_gradient() / probe.frames


@method
def runs_too_often(probe: Probe) -> Tensor:
    return probe.path_gradient(lambda _k: probe.frames, [0.5, 0.5])


@method
def needs_even_sides(probe: Probe) -> Tensor:
    gradient = probe.input_gradient()
    return gradient if gradient.shape[2] % 2 == 0 else gradient / 0.0


@FACTS
def says_nothing(probe: Probe) -> Tensor:
    return probe.input_gradient()


def wrong_form() -> None:
    raise ContractError("planned")


def test_a_sound_method_passes() -> None:
    testing.check_method(sound)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Case(says_nothing), testing.methods.declares_itself),
        (Case(sound, closed_forms=(wrong_form,)), testing.methods.has_its_closed_forms),
        (Case(mixes_the_batch), testing.methods.equals_one_at_a_time),
        (Case(trains), testing.methods.leaves_the_world_as_found),
        (Case(writes_into_the_net), testing.methods.leaves_the_world_as_found),
        (Case(draws_from_the_world), testing.methods.leaves_the_world_as_found),
        (Case(draws_from_the_world), testing.methods.repeats_with_its_seed),
        (Case(ignores_its_seed), testing.methods.repeats_with_its_seed),
        (Case(needs_even_sides), testing.methods.takes_odd_sizes),
        (Case(never_zero), testing.methods.flags_a_constant_score),
        (Case(divides_by_the_image), testing.methods.stays_finite_on_a_constant_image),
        (Case(runs_too_often), testing.methods.stays_within_its_passes),
    ],
    ids=lambda v: v.method.__name__ if isinstance(v, Case) else v.__name__,
)
def test_each_check_catches_what_breaks_it(broken: Case, check: Any) -> None:
    with pytest.raises(ContractError):
        check(broken)


def test_bounds_that_are_declared_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Range, "__contains__", lambda _self, _value: True)
    with pytest.raises(ContractError, match="power=0 was accepted"):
        testing.methods.refuses_values_out_of_bounds(Case(sound))


@MetricFacts(direction="higher", low=0.0, high=1.0)
def share_on_top(trial: Trial) -> Values:
    """Share of the map's mass in its upper half."""
    mass = trial.explanation.maps.abs()
    return Values(mass[:, :, : mass.shape[2] // 2].flatten(1).sum(1) / mass.flatten(1).sum(1).clamp(min=1e-9))


@MetricFacts(direction="higher", low=0.0, high=0.1)
def leaves_its_range(trial: Trial) -> Tensor:
    return trial.explanation.maps.abs().flatten(1).mean(1) + 1


@MetricFacts(direction="lower")
def depends_on_order(trial: Trial) -> Tensor:
    return torch.arange(len(trial.images)).float()


@MetricFacts(direction="lower")
def one_for_all(trial: Trial) -> Tensor:
    return trial.explanation.maps.mean()


def test_metrics() -> None:
    testing.check_metric(share_on_top)
    for broken in (leaves_its_range, depends_on_order, one_for_all, lambda trial: trial.images):
        with pytest.raises(ContractError):
            testing.check_metric(broken)


def test_maps_with_a_check_of_the_wrong_length() -> None:
    @method
    def misses_rows(probe: Probe) -> Maps:
        return Maps(probe.input_gradient(), checks={"odd": torch.zeros(1)})

    from whylens import InputError

    with pytest.raises(InputError, match="the check 'odd' must have shape"):
        testing.methods.equals_one_at_a_time(Case(misses_rows))


def test_choices_of_two_literals_are_all_known() -> None:
    def method(probe: object, *, baseline: Literal["mean", "black"] | Literal["segments"] = "segments") -> None: ...

    known = parameters(method)["baseline"]
    assert set(known.choices) == {"mean", "black", "segments"}
    assert known.accept("black", "method") == "black"
