"""Meaningful perturbation: planted patches, what its weights do, its start, and the gradient of its mask by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import Model, penalty, testing
from whylens.baseline import fill
from whylens.methods import meaningful_perturbation as plugin
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.testing import Case
from whylens.testing.held import hold

QUICK = {"size": 6, "iterations": 60, "smooth": 0.3, "baseline": "black"}
WEIGHTS = {(1, 1): 1.0, (4, 4): 0.5, (1, 4): -1.0}


class Patches(nn.Module):
    """Softplus of a weighed sum of the means of patches of 4 x 4 in frames of 24 x 24, as a margin of two outputs."""

    def forward(self, x: Tensor) -> Tensor:
        total = sum(w * x[:, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean((1, 2, 3)) for (r, c), w in WEIGHTS.items())
        z = F.softplus(6 * total) - 1
        return torch.stack([-z / 2, z / 2], 1)


def run(**params: Any) -> whylens.Explanation:
    frames = torch.cat([torch.ones(1, 3, 24, 24), 0.9 * torch.ones(1, 3, 24, 24)])
    return whylens.explain(
        Model(Patches()), frames, method="meaningful_perturbation", target=1, params={**QUICK, **params}
    )


def patches_for_are_removed() -> None:
    """Where patches speak for the target they are removed, the stronger one more; the one against it stays."""
    maps = run(area=0.2).maps[:, 0]
    hold(bool((maps[:, 1, 1] > 0.5).all()), "meaningful_perturbation: the patch is not found")
    hold(bool((maps[:, 1, 1] >= maps[:, 4, 4] - 0.05).all()), "meaningful_perturbation: the order is wrong")
    hold(bool((maps[:, 1, 4] < 0.1).all()), "meaningful_perturbation: what speaks against is removed")


def test_a_dear_mask_removes_nothing_and_a_free_one_all_that_counts() -> None:
    assert float(run(area=500.0, rate=0.5).maps.max()) < 1e-3
    found = run(area=0.0)
    assert float(found.maps[0, 0, 4, 4]) > 0.5
    assert float(found.checks["deleted"][0]) < 0.6 * float(found.probabilities[0])


def test_the_start_is_the_smallest_disc_that_is_enough() -> None:
    class Centre(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = 40 * x[:, :, 10:14, 10:14].mean((1, 2, 3)) - 10
            return torch.stack([-z, z], 1)

    probe = Probe(Passes(Model(Centre()), torch.ones(1, 3, 24, 24)), torch.tensor([1]))
    start = 1 - plugin._disc(probe, fill(probe, "black"), (12, 12))[0, 0]
    assert float(start[5:7, 5:7].min()) > 0.8
    assert float(start.mean()) < 0.3
    assert not start[0].any()


def test_the_pull_is_the_gradient_of_the_shifted_composition() -> None:
    net, frames = testing.SmallNet(), torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    probe = Probe(Passes(Model(net), frames), torch.tensor([1, 2]))
    filled = fill(probe, "blur")
    over = torch.rand((2, 1, 16, 16), generator=torch.Generator().manual_seed(1))
    found = plugin._pull(probe, filled, over, [1, -2])
    leaf, moved = over.clone().requires_grad_(), []
    for t in (frames, filled.frames):
        padded = F.pad(t, (2, 2, 2, 2), mode="replicate")
        moved.append(padded[:, :, 1:17, 4:20])
    rows = moved[0] * leaf + moved[1] * (1 - leaf)
    total = net.eval()(rows).softmax(1)[torch.arange(2), torch.tensor([1, 2])].sum()
    (expected,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_roughness_by_hand() -> None:
    masks = torch.tensor([[[[1.0, 0.4], [0.2, 0.4]]]])
    by_hand = ((0.8**2 + 0.6**2) ** 1.5 + 0.0 + 0.2**3 + 0.0) / 4
    assert float(penalty.roughness(masks, 3.0)) == pytest.approx(by_hand, rel=1e-5)
    leaf = torch.ones(1, 1, 3, 3, requires_grad=True)
    penalty.roughness(leaf, 1.0).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


CASES_PERTURBATION = [
    Case("meaningful_perturbation", {"size": 5, "iterations": 6, "area": 0.02}, (patches_for_are_removed,))
]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_PERTURBATION, ids=lambda c: str(c.method))
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
