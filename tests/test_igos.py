"""I-GOS and iGOS++: planted patches, saturation, redundancy; a loss that never rises; penalties by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import Method, Model, mask_search, optimise, penalty, testing
from whylens.baseline import fill
from whylens.optimise import Objective, Part
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.testing import Case, SmallNet
from whylens.testing.held import hold

QUICK = {"size": 7, "iterations": 10, "steps": 8, "rate": 100.0, "baseline": "black"}


def seen(x: Tensor, cell: tuple[int, int]) -> Tensor:
    """Mean brightness of the four pixels under the centre of one cell of 7 x 7 in frames of 28 x 28."""
    row, column = 9 * cell[0] // 2, 9 * cell[1] // 2
    return x[:, :, row : row + 2, column : column + 2].mean((1, 2, 3))


class Rule(nn.Module):
    """Two outputs; the second one's probability is a steep function of which cells are seen."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        z = self.value(x)
        return torch.stack([-z / 2, z / 2], 1)


A, B, C = (1, 1), (1, 5), (5, 3)


def redundant(x: Tensor) -> Tensor:
    """Either of two cells is enough, and with both the net is so sure that its gradient is 0."""
    return 40 * (seen(x, A) + seen(x, B)) - 20


def logic(x: Tensor) -> Tensor:
    """(A and B) or C, softly: 0.97 or 0.03."""
    both = 1 - (1 - seen(x, A) * seen(x, B)) * (1 - seen(x, C))
    return 14 * (both - 0.5)


def bright(n: int = 1) -> Tensor:
    return torch.ones(n, 3, 28, 28)


def run(net: nn.Module, method: str, frames: Tensor | None = None, **params: Any) -> whylens.Explanation:
    return whylens.explain(
        Model(net), bright() if frames is None else frames, method=method, target=1, params={**QUICK, **params}
    )


def marked(e: whylens.Explanation, row: int = 0) -> set[tuple[int, int]]:
    """Cells above half of the map's largest value."""
    maps = e.maps[row, 0]
    return {(int(r), int(c)) for r, c in (maps > 0.5 * maps.max()).nonzero()}


def test_integrated_gradients_find_redundant_cells_that_plain_descent_does_not() -> None:
    plain = run(Rule(redundant), "igos", steps=1, noise=0.0)
    assert "flat" in plain.flags(0)
    for noise in (0.0, 0.2):
        found = run(Rule(redundant), "igos", noise=noise, smooth=0.1)
        assert marked(found) == {A, B}
        assert float(found.checks["deleted"][0]) < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_igos_pp_finds_a_sufficient_set_and_nothing_else(seed: int) -> None:
    found = run(Rule(logic), "igos_pp", smooth=0.1, seed=seed)
    cells = marked(found)
    assert cells <= {A, B, C}
    assert {A, B} <= cells or C in cells
    assert float(found.checks["inserted"][0]) > 0.9 * float(found.probabilities[0])
    assert float(found.checks["deleted"][0]) < 0.5


@pytest.mark.parametrize("method", ["igos", "igos_pp"])
def test_the_loss_never_rises_under_one_noise(method: str) -> None:
    frames = torch.rand((3, 3, 20, 20), generator=torch.Generator().manual_seed(0))
    held: list[optimise.Found] = []
    kept = optimise.descend

    def watched(*args: Any, **options: Any) -> optimise.Found:
        held.append(kept(*args, **options))
        return held[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_search, "descend", watched)
        whylens.explain(
            Model(SmallNet()),
            frames,
            method=method,
            params={"size": 5, "iterations": 6, "steps": 4, "area": 0.02, "smooth": 0.02},
        )
    losses, lowered = held[0].losses, held[0].lowered
    moved = ~losses.isnan()
    assert moved[0].all()
    assert (lowered[moved] <= losses[moved] + 1e-6).all()
    assert (lowered[0] < losses[0]).any()


def test_the_gradient_is_that_of_the_mean_over_the_path() -> None:
    """Against autograd through every step written out: noise, both kinds of path, a product of two masks."""
    net, frames = SmallNet(), torch.rand((2, 3, 12, 12), generator=torch.Generator().manual_seed(3))
    probe = Probe(Passes(Model(net), frames), torch.tensor([1, 2]))
    baseline = fill(probe, "blur")
    masks = torch.rand((2, 2, 1, 4, 4), generator=torch.Generator().manual_seed(4))

    def parts(pair: Tensor) -> list[Part]:
        delete, insert = (mask_search.enlarged(mask, (12, 12)) for mask in pair)
        return [Part(delete * insert, 0.5), Part(1 - insert, -0.25, inserts=True)]

    objective = Objective(probe, baseline, parts, lambda m: penalty.removed(m.prod(0)), steps=3, noise=0.1, seed=5)
    loss, gradient = objective.gradient(masks, torch.arange(2), draw=7)
    noise = 0.1 * torch.randn((3, 3, 12, 12), generator=torch.Generator().manual_seed(5 * 1_000_003 + 7))
    leaf = masks.clone().requires_grad_()
    delete, insert = (F.interpolate(m, (12, 12), mode="bilinear", align_corners=True) for m in leaf)
    total, net = torch.zeros(2), net.eval()
    for k in range(3):
        s = (k + 1) / 3
        keep, cover = s * delete * insert, 1 - s * insert
        for weight, shown in ((0.5, keep), (-0.25, cover)):
            rows = frames * shown + baseline.frames * (1 - shown) + noise[k]
            total = total + weight / 3 * net(rows).softmax(1)[torch.arange(2), torch.tensor([1, 2])]
    (expected,) = torch.autograd.grad(total.sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(loss, (total + penalty.removed(masks.prod(0))).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(objective(masks, torch.arange(2), 7), loss)


def test_a_penalty_settles_where_it_should() -> None:
    """Area alone: the step moves by its weight; a smooth penalty: the solution of its linear equations."""
    probe = Probe(Passes(Model(SmallNet()), torch.rand(1, 3, 12, 12)), torch.tensor([0]))
    given = 0.3 + 0.4 * torch.rand((1, 1, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    plain = Objective(probe, fill(probe, "mean"), lambda m: [], lambda m: 0.8 * penalty.removed(m[0]))
    torch.testing.assert_close(plain.settled(given, torch.tensor([2.0])), given + 2.0 * 0.8 / 16)
    smooth = Objective(
        probe, fill(probe, "mean"), lambda m: [], lambda m: 1.5 * penalty.total_variation(m[0]), smooth=1.5
    )
    down = torch.zeros(12, 16)
    for k in range(12):
        down[k, k], down[k, k + 4] = 1, -1
    pairs = [(4 * r + c, 4 * r + c + 1) for r in range(4) for c in range(3)]
    across = torch.zeros(12, 16)
    for k, (left, right) in enumerate(pairs):
        across[k, left], across[k, right] = 1, -1
    system = torch.eye(16) + 3.0 * 1.5 * 2 / 12 * (down.T @ down + across.T @ across)
    expected = torch.linalg.solve(system, given.flatten()).view(1, 1, 1, 4, 4)
    torch.testing.assert_close(smooth.settled(given, torch.tensor([3.0])), expected, rtol=1e-4, atol=1e-5)


def test_bilateral_weights_are_alike_down_and_across() -> None:
    frames = torch.rand((2, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    masks = torch.rand((2, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    turned = frames.transpose(2, 3), masks.transpose(2, 3)
    one = penalty.total_variation(masks, edges=penalty.edge_weights(frames, (6, 6)))
    other = penalty.total_variation(turned[1], edges=penalty.edge_weights(turned[0], (6, 6)))
    torch.testing.assert_close(one, other)
    opposite = torch.zeros(1, 2, 2, 2)  # one channel rises, the other falls: an edge all the same, in both directions
    opposite[0, 0, 1], opposite[0, 1, 0] = 1, 1
    down, _ = penalty.edge_weights(opposite, (2, 2))
    assert float(down.max()) < 1e-6


def test_a_flat_image_pays_the_plain_variation() -> None:
    masks = torch.tensor([[[[1.0, 0.5], [0.0, 0.5]]]])
    by_hand = (1.0 + 0.0) / 2 + (0.25 + 0.25) / 2
    assert float(penalty.total_variation(masks)) == pytest.approx(by_hand)
    edges = penalty.edge_weights(torch.full((1, 3, 8, 8), 0.4), (2, 2))
    assert float(penalty.total_variation(masks, edges=edges)) == pytest.approx(by_hand)


def test_starts_differ_and_the_best_one_is_kept() -> None:
    masks = mask_search.starts(5, (7, 7), 0.2)
    assert masks[0].eq(1).all()
    corners = [set(map(tuple, (m[0] < 1).nonzero().tolist())) for m in masks[1:]]
    assert all(corners)
    assert not any(a & b for i, a in enumerate(corners) for b in corners[:i])
    found = run(Rule(logic), "igos_pp", smooth=0.1, starts=5, iterations=6)
    assert found.parts is not None
    assert found.parts.shape == (1, 5, 7, 7)
    assert any(torch.equal(found.parts[0, k], found.maps[0, 0]) for k in range(5))


def test_coarse_to_fine_ends_at_the_size_asked() -> None:
    assert mask_search.coarse_to_fine(28) == [7, 14, 28]
    assert mask_search.coarse_to_fine(10) == [10]
    found = run(Rule(redundant), "igos", size=14, coarse_to_fine=True, smooth=0.1)
    assert found.maps.shape == (1, 1, 14, 14)
    assert float(found.checks["deleted"][0]) < 0.1


@pytest.mark.parametrize("method", ["igos", "igos_pp"])
def test_nesterov_finds_the_cells_too(method: str) -> None:
    found = run(Rule(redundant), method, optimizer="nesterov", rate=300.0, iterations=20, area=1.0, smooth=0.1)
    assert marked(found) <= {A, B}
    assert float(found.checks["inserted"][0]) > 0.5 or float(found.checks["deleted"][0]) < 0.5


def test_masks_follow_the_shape_of_the_frame() -> None:
    assert mask_search.cells(7, torch.zeros(1, 3, 28, 56)) == (7, 14)
    assert mask_search.cells(28, torch.zeros(1, 3, 17, 23)) == (17, 23)


def test_each_image_has_its_own_search() -> None:
    """A bright, a dimmer and a black image: to the bit what each gets alone, one of them done early."""
    frames = torch.stack([bright()[0], 0.6 * bright()[0], 0 * bright()[0]])
    together = run(Rule(logic), "igos_pp", frames).maps
    for n in range(3):
        assert torch.equal(together[n], run(Rule(logic), "igos_pp", frames[n : n + 1]).maps[0])


def found_on_one_patch(method: str) -> Callable[[], None]:
    """The one cell that counts is the one marked, on two brightnesses."""

    def check() -> None:
        frames = torch.cat([bright(), 0.8 * bright()])
        found = run(Rule(lambda x: 12 * seen(x, B) - 6), method, frames, smooth=0.1)
        hold(all(marked(found, n) == {B} for n in range(2)), f"{method}: the cell is not found")

    return check


CHEAP = {"size": 5, "iterations": 3, "steps": 3, "area": 0.02, "smooth": 0.02}
CASES_IGOS = [Case(name, CHEAP, (found_on_one_patch(name),)) for name in ("igos", "igos_pp")]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_IGOS, ids=lambda c: str(Method(c.method).plain_name))
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
