"""What the fitted methods share: draws, weights, least squares and its errors, the Shapley kernel."""

from __future__ import annotations

from itertools import product
from math import comb, factorial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from whylens import Model, Probe, regions, surrogate
from whylens.passes import Passes
from whylens.regions import Regions


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bent(masks: Tensor, seed: int = 0) -> Tensor:
    """Scores ``(M,)`` of masks ``(M, U)`` by a small rectifier net."""
    units = masks.shape[1]
    hidden = (masks @ random(units, 32, seed=seed) / units**0.5 - 0.2).clamp(min=0)
    return hidden @ random(32, seed=seed + 1) / 3


def lime_draws(samples: int, units: int, *, seed: int, paired: bool) -> Tensor:
    chunks = range(samples // surrogate.CHUNK)
    masks = torch.cat([surrogate.draws(k, units, seed=seed, paired=paired) for k in chunks])
    masks[0] = 1
    return masks


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_draws_of_a_unit_do_not_depend_on_how_many_there_are() -> None:
    for paired in (False, True):
        few, many = (surrogate.draws(3, units, seed=5, paired=paired) for units in (4, 61))
        assert few.shape == (surrogate.CHUNK, 4)
        assert torch.equal(few, many[:, :4])
        assert torch.equal(few, surrogate.draws(3, 4, seed=5, paired=paired))
        assert not torch.equal(few, surrogate.draws(2, 4, seed=5, paired=paired))
        assert not torch.equal(few, surrogate.draws(3, 4, seed=6, paired=paired))
        assert set(many.unique().tolist()) == {0.0, 1.0}
        assert float(many.mean()) == pytest.approx(0.5, abs=0.03)
    pairs = surrogate.draws(0, 9, seed=1, paired=True).view(-1, 2, 9)
    assert torch.equal(pairs[:, 0], 1 - pairs[:, 1])


def test_masks_of_an_image_with_fewer_units_leave_the_others_out() -> None:
    labels = torch.tensor([[[0, 1, 2]], [[0, 1, 1]]])
    masks = torch.ones(4, 3)
    own = surrogate.own(masks, regions.segments(labels))
    assert own.tolist() == [[[1, 1, 1]] * 4, [[1, 1, 0]] * 4]
    assert surrogate.own(masks, regions.segments(labels[:1])).shape == (1, 4, 3)


def test_nearness_is_that_of_the_sheet() -> None:
    kept = {0.9: 0.979, 0.75: 0.866, 0.5: 0.503, 0.25: 0.135, 1.0: 1.0, 0.0: 3.4e-4}
    masks = torch.stack([(torch.arange(20) < 20 * share).float() for share in kept])
    for weight, expected in zip(surrogate.nearness(masks, 0.25).tolist(), kept.values(), strict=True):
        assert weight == pytest.approx(expected, abs=6e-4 if expected > 0.01 else 2e-5)
    from sklearn.metrics import pairwise_distances

    masks = surrogate.draws(0, 7, seed=0)
    distance = pairwise_distances(masks.numpy(), np.ones((1, 7)), metric="cosine")[:, 0]
    np.testing.assert_allclose(surrogate.nearness(masks, 0.4), np.sqrt(np.exp(-(distance**2) / 0.4**2)), rtol=1e-6)


# ---- least squares ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
def test_the_fit_is_that_of_scikit_learn(ridge: float) -> None:
    masks = lime_draws(200, 12, seed=0, paired=False)
    scores, weights = bent(masks), surrogate.nearness(masks, 0.25)
    found = surrogate.fit(masks, scores, weights, ridge=ridge)
    peer = Ridge(alpha=ridge, fit_intercept=True).fit(masks.double(), scores.double(), sample_weight=weights)
    np.testing.assert_allclose(found.coefficients, peer.coef_, atol=1e-9)
    assert found.r_squared == pytest.approx(peer.score(masks.double(), scores.double(), sample_weight=weights))
    assert 0.1 < found.r_squared < 1


def test_what_cannot_be_told_apart_is_shared() -> None:
    masks = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = surrogate.fit(masks, 2 * masks[:, 0], torch.ones(4))
    torch.testing.assert_close(found.coefficients, torch.tensor([1.0, 1.0, 0.0]).double())


def test_constant_scores_give_zeros() -> None:
    """Constant up to rounding; a little more than that is a score like any other."""
    masks, subsets = surrogate.draws(0, 5, seed=0), surrogate.subsets(5, 100, seed=0)
    for spread, told in ((2e-7, False), (1e-4, True)):
        scores = 0.3 * (1 + spread * masks[:, 0])
        found = surrogate.fit(masks, scores, torch.ones(100))
        assert bool(found.coefficients.any()) is bool(found.errors.any()) is told
        scores = 0.3 * (1 + spread * torch.cat([subsets.masks[:, 0], torch.tensor([0.0, 1.0])]))
        assert float(scores.max()) > float(scores.min())
        found = surrogate.shapley(subsets, scores[:-2], scores[-2:])
        assert bool(found.coefficients.any()) is told


def test_errors_come_from_the_draws_alone() -> None:
    """Rows that were not drawn may disagree as they like; draws that are all the same leave no error."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).double()
    y, groups = torch.tensor([1.0, 3.0, 5.0, 2.0, 2.0, 2.0]).double(), torch.tensor([-1, -1, -1, 0, 1, 2])
    _, covariance = surrogate.solve(x, y, torch.ones(6).double(), groups=groups)
    torch.testing.assert_close(covariance, torch.zeros(2, 2).double(), rtol=0, atol=1e-12)
    _, covariance = surrogate.solve(x, y, torch.ones(6).double())
    assert float(covariance.diagonal().min()) > 0.01


@pytest.mark.parametrize("paired", [False, True])
def test_errors_are_the_spread_over_seeds(paired: bool) -> None:
    groups = torch.arange(300) // 2 if paired else None
    found = []
    for seed in range(80):
        masks = lime_draws(300, 15, seed=seed, paired=paired)
        weights = surrogate.nearness(masks, 0.25)
        found.append(surrogate.fit(masks, bent(masks), weights, ridge=1.0, groups=groups))
    spread = torch.stack([f.coefficients for f in found]).std(0)
    said = torch.stack([f.errors for f in found]).mean(0)
    assert float(spread.min()) > 0
    assert float((said / spread).mean()) == pytest.approx(1, abs=0.1)


# ---- the Shapley kernel ----------------------------------------------------------------------------------------------


def brute_force(values: dict[tuple[int, ...], float], units: int) -> Tensor:
    """Shapley values by their definition, from the score of every mask."""
    found = torch.zeros(units, dtype=torch.double)
    for mask in product((0, 1), repeat=units):
        size = sum(mask)
        for i in range(units):
            if not mask[i]:
                weight = factorial(size) * factorial(units - size - 1) / factorial(units)
                with_i = (*mask[:i], 1, *mask[i + 1 :])
                found[i] += weight * (values[with_i] - values[mask])
    return found


@pytest.mark.parametrize("units", [1, 2, 3, 6, 7])
def test_all_subsets_give_shapley_values(units: int) -> None:
    masks = torch.tensor(list(product((0.0, 1.0), repeat=units)))
    scores = bent(masks, seed=3)
    values = {tuple(int(v) for v in m): float(s) for m, s in zip(masks, scores, strict=True)}
    subsets = surrogate.subsets(units, 2**units, seed=0)
    assert len(subsets.masks) == 2**units - 2 == len(torch.unique(subsets.masks, dim=0)) * (units > 1)
    found = surrogate.shapley(subsets, bent(subsets.masks, seed=3), scores[[0, -1]])
    torch.testing.assert_close(found.coefficients, brute_force(values, units), rtol=0, atol=2e-6)
    assert not found.errors.any()


def test_weights_of_the_kernel() -> None:
    """Of four units: 0.25 for each subset of one or three, 0.125 for each of two."""
    subsets = surrogate.subsets(4, 14, seed=0)
    kernel = {1: 0.25, 2: 0.125, 3: 0.25}
    expected = torch.tensor([kernel[int(size)] for size in subsets.masks.sum(1)])
    torch.testing.assert_close(subsets.weights, expected)
    assert (subsets.groups == -1).all()


@pytest.mark.parametrize(("units", "budget"), [(10, 100), (10, 700), (12, 24), (50, 2148), (9, 5)])
def test_sizes_are_taken_whole_from_the_outside_in(units: int, budget: int) -> None:
    subsets = surrogate.subsets(units, budget, seed=2)
    whole, drawn = subsets.groups < 0, subsets.groups >= 0
    assert budget - 1 <= len(subsets.masks) <= budget
    sizes = subsets.masks.sum(1)
    taken = sorted({int(s) for s in sizes[whole]})
    assert taken == [s for s in range(1, units) if s in taken or units - s in taken]
    assert len(torch.unique(subsets.masks[whole], dim=0)) == sum(comb(units, s) for s in taken)
    assert not set(taken) & {int(s) for s in sizes[drawn]}
    pairs = subsets.masks[drawn].view(-1, 2, units)
    assert torch.equal(pairs[:, 0], 1 - pairs[:, 1])
    kernel = {s: (units - 1) / (s * (units - s)) for s in range(1, units)}
    assert float(subsets.weights.sum()) == pytest.approx(sum(kernel.values()), rel=1e-5)
    assert (subsets.groups[drawn].bincount() == 2).all()
    if (units, budget) == (50, 2148):
        assert taken == [1, 49]
        middle = float((((sizes[drawn] - 25).abs()) <= 10).float().mean())
        share = sum(v for s, v in kernel.items() if abs(s - 25) <= 10) / sum(v for s, v in kernel.items() if 1 < s < 49)
        assert middle == pytest.approx(share, abs=0.04)


def test_drawn_subsets_come_near_and_add_up() -> None:
    units = 10
    masks = torch.tensor(list(product((0.0, 1.0), repeat=units)))
    ends = bent(masks[[0, -1]])
    exact = surrogate.subsets(units, 2**units, seed=0)
    true = surrogate.shapley(exact, bent(exact.masks), ends).coefficients
    found = []
    for seed in range(60):
        subsets = surrogate.subsets(units, 200, seed=seed)
        found.append(surrogate.shapley(subsets, bent(subsets.masks), ends))
        assert float(found[-1].coefficients.sum()) == pytest.approx(float(ends[1] - ends[0]), abs=1e-6)
    values = torch.stack([f.coefficients for f in found])
    said = torch.stack([f.errors for f in found]).mean(0)
    assert float((said / values.std(0)).mean()) == pytest.approx(1, abs=0.15)
    assert float(((values.mean(0) - true).abs() / (values.std(0) / 60**0.5)).max()) < 4
    assert float((values - true).abs().max() / true.abs().max()) < 0.2


# ---- fills -----------------------------------------------------------------------------------------------------------


class Nothing(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


def found(count: int = 2) -> tuple[Probe, Regions]:
    x = random(count, 3, 9, 11).abs()
    return Probe(Passes(Model(Nothing()), x), torch.zeros(count, dtype=torch.long)), regions.find(x, "slic", count=6)


def test_segments_are_filled_with_their_mean_colour() -> None:
    probe, units = found()
    filled = surrogate.filled(probe, units, "segments", units="slic 6", seed=0)
    for n in range(2):
        for unit in range(int(units.counts[n])):
            inside = units.labels[n] == unit
            mean = probe.frames[n][:, inside].mean(1, keepdim=True)
            torch.testing.assert_close(filled.frames[n][:, inside], mean.expand(-1, int(inside.sum())))
    assert surrogate.filled(probe, units, "black", units="", seed=0).name == "black"
    names = {
        surrogate.spoken("slic", 6, 0), surrogate.spoken("slic", 7, 0), surrogate.spoken("grid", 6, 0),
        surrogate.spoken("quickshift", 6, 0), surrogate.spoken("quickshift", 6, 1),
    }  # fmt: skip
    assert len(names) == 5  # other units, another baseline: passes are cached by its name


def test_a_value_is_shared_out_over_its_pixels() -> None:
    _, units = found()
    values = random(2, units.count)
    values[torch.arange(units.count) >= units.counts[:, None]] = 0
    maps = surrogate.shared_out(units, values)
    torch.testing.assert_close(maps.sum((1, 2, 3)), values.sum(1))
