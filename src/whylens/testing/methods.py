"""The contract of methods: a check is a function of a `Case` that raises where the method breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._check import parameters
from ..contract import Method
from ..errors import WhylensError
from ..explain import explain
from ..explanation import Explanation
from ..model import Model
from .held import TOLERANCE, ContractError, close, hold, planned, refuses, unchanged
from .nets import SmallNet, SmallTable


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
        hold(word in said, f"{method.plain_name}: the docstring needs a line '{word}'")
    hold(len(said.split("\n")[0].strip()) > 20, f"{method.plain_name}: the first line must say what is computed")
    hold(bool(method.facts.needs), f"{method.plain_name}: declares no needs")


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
        close(whole, parts, case.tolerance, f"{_name(case)}: batch of 5 against batches of {size}")
    alone = torch.cat([_run(case, model, frames[i : i + 1], target=int(target[i])).maps for i in range(5)])
    close(whole, alone, case.tolerance, f"{_name(case)}: batch against one at a time")


def leaves_the_world_as_found(case: Case) -> None:
    """Weights, buffers, modes, gradients, hooks, random state and inputs; also after a forward that raises."""
    model, frames = _setting(case)
    model.net.train()
    next(model.net.children()).eval()
    first, *_, last = model.net.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    kept = frames.clone()
    with unchanged(model.net, _name(case)):
        _run(case, model, frames)
    with unchanged(model.net, f"{_name(case)}, after an error"):
        handle = model.net.register_forward_hook(planned)
        try:
            _run(case, model, frames)
        except (RuntimeError, WhylensError) as error:
            hold("planned" in str(error), f"{_name(case)}: the net's own error was replaced by {error!r}")
        else:
            raise ContractError(f"{_name(case)}: an error of the net was swallowed")
        finally:
            handle.remove()
    hold(torch.equal(frames, kept), f"{_name(case)}: the input frames were changed")


def repeats_with_its_seed(case: Case) -> None:
    """Same seed, same map, to the bit; another seed changes a method that draws."""
    model, frames = _setting(case)
    first, again = (_run(case, model, frames, seed=3).maps for _ in range(2))
    hold(torch.equal(first, again), f"{_name(case)}: two runs with one seed differ")
    if "seed" in parameters(Method(case.method).function):
        other = _run(case, model, frames, seed=4).maps
        hold(not torch.equal(first, other), f"{_name(case)}: the seed changes nothing")


def refuses_values_out_of_bounds(case: Case) -> None:
    """Every declared bound is kept, with a message that names the parameter; unknown parameters are refused."""
    model, frames = _setting(case)
    refuses(
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
    hold(len(found.maps) == 1 and not bool(found.checks["not_finite"]), f"{_name(case)}: odd sizes give no finite map")


def flags_a_constant_score(case: Case) -> None:
    """A score that does not depend on the image gives a flat map (zeros where gradients are used) and a flag."""
    model, frames = _setting(case, constant=True)
    found = _run(case, model, frames)
    spread = float((found.maps.flatten(1).amax(1) - found.maps.flatten(1).amin(1)).max())
    hold(spread == 0, f"{_name(case)}: a constant score gives a map that varies by {spread:.3g}")
    hold(Method(case.method).facts.black_box or not found.maps.any(), f"{_name(case)}: a constant score gives no zeros")
    hold(all(found.flags(i) for i in range(len(found))), f"{_name(case)}: a constant score is not flagged")


def stays_finite_on_a_constant_image(case: Case) -> None:
    """A black, a white and a grey image give finite maps that needed no mending."""
    model, frames = _setting(case)
    for value in (0.0, 0.5, 1.0):
        found = _run(case, model, torch.full_like(frames[:2], value))
        hold(not bool(found.checks["not_finite"].any()), f"{_name(case)}: an image of {value} gives no finite map")


def stays_within_its_passes(case: Case) -> None:
    """Passes counted, alone and as run, stay within the declared bound."""
    model, frames = _setting(case)
    method = Method(case.method, params=case.params or None)
    forwards, backwards = method.facts.passes(method.checked_params(0))
    found = _run(case, model, frames).cost
    counted = found["forwards"], found["backwards"]
    hold(
        counted[0] <= forwards and counted[1] <= backwards,
        f"{_name(case)}: {counted} forwards and backwards counted, declared {(forwards, backwards)}",
    )
    run = found["run_forwards"], found["run_backwards"]
    hold(
        run[0] <= forwards and run[1] <= backwards,
        f"{_name(case)}: {run} forwards and backwards run per image, declared {(forwards, backwards)}",
    )


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
