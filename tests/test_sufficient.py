"""Sufficient sets: exact where the answer is known, held to brute force, and every set put to the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import networkx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whylens import InputError, Model
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.structured.diverse import by_jaccard, by_overlap, counts, diverse
from whylens.structured.exhaustive import minimal_sets
from whylens.structured.sets import Scored, bitmask, children, patches
from whylens.structured.sufficient import Limits, Sufficient, beam_search, pruned, sufficient

A, B, C, D = 9, 24, 40, 30
SEEDS = 200
ALL = np.arange(2**16)
BITS = (ALL[:, None] >> np.arange(16) & 1).astype(bool)


class Logic(nn.Module):
    """0.97 for class 0 where cells A and B, or C, of a 7 x 7 grid are bright, else 0.03.

    A bright D suppresses: 0.4 is left where one of the two is seen, 0.6 where both are.
    """

    def __init__(self, veto: bool = False) -> None:
        super().__init__()
        self.veto = veto

    def forward(self, x: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 7).flatten(1) > 0.5
        ways = (seen[:, A] & seen[:, B]).float() + seen[:, C].float()
        p = torch.where(ways > 0, 0.97, 0.03)
        if self.veto:
            p = torch.where((ways > 0) & seen[:, D], 0.2 + 0.2 * ways, p)
        return torch.stack([torch.logit(p), torch.zeros_like(p)], 1)


def logic(veto: bool = False) -> Model:
    return Model(Logic(veto), classes=["yes", "no"], name="logic", differentiable=False)


def probe_of(model: Model, frames: Tensor, target: int = 0) -> Probe:
    return Probe(Passes(model, frames), torch.full((len(frames),), target))


def guide(*units: int) -> Tensor:
    """A map that is high on these cells of a 7 x 7 grid."""
    values = torch.zeros(1, 1, 7, 7)
    values.view(-1)[list(units)] = 1.0
    return values


WHITE = torch.ones(1, 3, 28, 28)


# ---- a known answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("veto", [False, True])
def test_two_ways_are_found_exactly(veto: bool) -> None:
    (found,) = sufficient(probe_of(logic(veto), WHITE), guide=guide(A, B, C, D))
    assert found.patches == ((C,), (A, B))
    assert found.scores == pytest.approx((0.97, 0.97))
    assert found.full == pytest.approx(0.6 if veto else 0.97)
    assert found.kept == pytest.approx(0.03)
    assert found.stop == "no set left"
    assert not found.flags


def test_without_a_guide_every_unit_is_tried() -> None:
    (found,) = sufficient(probe_of(logic(), WHITE), max_sets=1)
    assert found.patches == ((C,),)
    assert found.score.scored == 2 + 49  # nothing, everything, every single cell


def test_the_searched_baseline_takes_the_target_away() -> None:
    """A blurred white image is white: the search must go on to the mean, which is black here."""
    (found,) = sufficient(probe_of(logic(), WHITE), guide=guide(A, B, C), baseline="auto")
    assert found.baseline.names == ("mean",)
    (kept,) = sufficient(probe_of(logic(), WHITE), guide=guide(A, B, C), baseline="white")
    assert kept.flags == ("baseline_keeps_target",)
    assert kept.patches == ((),)


def test_soft_edges_are_bilinear_with_the_corner_cells_on_the_corners() -> None:
    (found,) = sufficient(probe_of(logic(), WHITE), guide=guide(C), edges="soft", baseline="black", max_sets=1)
    masks = torch.zeros(1, 49)
    masks[0, C] = 1
    laid = found.units.regions.expand(masks, torch.zeros(1, dtype=torch.long))[0, 0]
    at = torch.arange(28) * 6 / 27  # the pixel's place among the seven cells
    across, down = (at - C % 7).abs(), (at - C // 7).abs()
    by_hand = (1 - down).clamp(min=0)[:, None] * (1 - across).clamp(min=0)[None]
    torch.testing.assert_close(laid, by_hand, rtol=0, atol=1e-6)


# ---- against brute force -------------------------------------------------------------------------------------------


def random_scores(seed: int) -> np.ndarray:
    """Scores of all sets of 16 units: the best of a few clauses by the share that is there, a veto, noise."""
    rng = np.random.default_rng(seed)
    scores = np.full(len(ALL), 0.02)
    for _ in range(rng.integers(8, 20)):
        clause = rng.choice(16, rng.integers(1, 5), replace=False)
        scores = np.maximum(scores, rng.uniform(0.7, 1) * BITS[:, clause].mean(1) ** 2)
    scores[BITS[:, rng.integers(16)]] *= rng.uniform(0.5, 1)
    return scores + 0.05 * rng.random(len(ALL))


SHARES = [(Limits(3, 10, 10, None), 0.431), (Limits(3, 10, None, None), 0.464), (Limits(15, 16, None, None), 0.803)]
"""What a search of these limits finds of the sets of brute force, its guide being chance: told in docs/graphs.md."""


def lookup(values: np.ndarray) -> Callable[[Sequence[int]], list[float]]:
    held = values.tolist()
    return lambda sets: [held[members] for members in sets]


def test_brute_force_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = lookup(rng.random(2**6))
        enough = {m for m in range(2**6) if scores([m])[0] > 0.7}
        by_definition = {m for m in enough if not any(other != m and other & m == other for other in enough)}
        assert set(minimal_sets(scores, 6, 0.7)) == by_definition


def test_without_limits_the_search_finds_what_brute_force_finds() -> None:
    for seed in range(SEEDS):
        values = random_scores(seed)
        threshold = 0.9 * float(values[-1])
        found, stop = beam_search(Scored(lookup(values)), 16, threshold)
        assert stop == "no set left"
        assert set(found) == set(minimal_sets(lambda sets, values=values: values, 16, threshold)), seed
        assert len(set(found)) == len(found)


@pytest.mark.parametrize(("limits", "share"), SHARES)
def test_what_a_narrow_search_finds_passes_every_single_removal(limits: Limits, share: float) -> None:
    """And the share of the sets of brute force that it finds is what the documentation says."""
    hits = total = 0
    for seed in range(SEEDS):
        values = random_scores(seed)
        threshold = 0.9 * float(values[-1])
        order = np.random.default_rng([seed, 1]).permutation(16).tolist()
        score = Scored(lookup(values))
        found, _ = beam_search(score, 16, threshold, order=order, limits=limits)
        assert found
        for members in found:
            assert values[members] > threshold
            assert all(values[child] <= threshold for child in children(members))
            assert not any(other != members and other & members == other for other in found)
        known = minimal_sets(lambda sets, values=values: values, 16, threshold)
        hits += len(set(found) & set(known))
        total += len(known)
    assert hits / total == pytest.approx(share, abs=0.005)


def test_exhaustive_is_the_search_on_the_model() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    probe = probe_of(Model(net), torch.rand(1, 3, 12, 12))
    (every,) = sufficient(probe, grid=3, search="exhaustive", baseline="black")
    (beam,) = sufficient(probe, grid=3, beam=10_000, max_sets=1000, baseline="black")
    assert every.patches == beam.patches
    assert every.score.scored == 2**9
    with pytest.raises(InputError, match="at most 16 units"):
        sufficient(probe, grid=5, search="exhaustive", baseline="black")


# ---- limits and counts ---------------------------------------------------------------------------------------------


def test_no_set_is_scored_twice_and_both_counts_are_told() -> None:
    calls: list[int] = []

    def score(sets: Sequence[int]) -> list[float]:
        calls.extend(sets)
        return [0.9 if patches(m)[:2] == (0, 1) else 0.1 for m in sets]

    scored = Scored(score)
    beam_search(scored, 6, 0.5, limits=Limits(beam=3))
    assert len(calls) == len(set(calls)) == scored.scored
    assert scored.asked > scored.scored


def test_a_level_is_one_call() -> None:
    sizes: list[int] = []

    def score(sets: Sequence[int]) -> list[float]:
        sizes.append(len(sets))
        return [0.0] * len(sets)

    assert beam_search(Scored(score), 5, 0.5, limits=Limits(beam=2)) == ((), "no set left")
    assert sizes == [1, 5, 4 + 4 - 1, 3 + 3 - 1, 2 + 2 - 1, 1]


def test_the_search_says_why_it_ended() -> None:
    values = lookup(random_scores(3))
    threshold = 0.9 * values([2**16 - 1])[0]
    for limits, stop in ((Limits(3, 10, 1, None), "max_sets"), (Limits(3, 10, None, 5), "max_scores")):
        found, told = beam_search(Scored(values), 16, threshold, limits=limits)
        assert told == stop
        assert len(found) <= 1 or stop == "max_scores"


def test_pruning_takes_the_removals_that_leave_most() -> None:
    left = {0b111: 0.9, 0b110: 0.8, 0b101: 0.85, 0b011: 0.7, 0b100: 0.75, 0b001: 0.6, 0b010: 0.1, 0b000: 0.0}
    score = Scored(lambda sets: [left[m] for m in sets])
    assert pruned(score, [0b111], 0.5) == [0b100]
    assert pruned(score, [0b111, 0b011], 0.65) == [0b100, 0b011]
    assert pruned(score, [0b111], 0.95) == [0b111]
    assert pruned(score, [0b111], 0.78) == [0b101]  # two could go alone, but not together


def test_pruning_many_units_costs_few_scores() -> None:
    """Of 40 units two are needed: 40 single removals, all that can go at once, and the last two removals."""
    score = Scored(lambda sets: [1.0 if m & 0b11 == 0b11 else 0.0 for m in sets])
    assert pruned(score, [2**40 - 1], 0.5) == [0b11]
    assert score.scored == 40 + 6 + 2


# ---- on models -----------------------------------------------------------------------------------------------------


def conv(classes: int = 3) -> Model:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, classes),
    )
    with torch.no_grad():
        net[-1].weight.mul_(20)
        for layer in (net[0], net[2], net[5]):
            layer.bias.zero_()  # so that black decides nothing
    return Model(net.eval())


def same(one: Sufficient, other: Sufficient) -> None:
    assert one.sets == other.sets
    assert one.scores == other.scores
    assert (one.full, one.kept, one.stop, one.score.scored) == (other.full, other.kept, other.stop, other.score.scored)


def test_a_batch_is_searched_as_its_images_alone() -> None:
    model, frames = conv(), torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    maps = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    kept = frames.clone()
    together = sufficient(probe_of(model, frames), guide=maps, grid=6, beam=2)
    for n in range(3):
        (alone,) = sufficient(probe_of(model, frames[n : n + 1]), guide=maps[n : n + 1], grid=6, beam=2)
        same(together[n], alone)
    assert torch.equal(frames, kept)
    assert all(p.grad is None for p in model.net.parameters())


def test_scores_are_those_of_the_composed_image() -> None:
    model, frames = conv(), torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    (found,) = sufficient(probe_of(model, frames), grid=4, baseline="black", beam=2)
    labels = found.units.regions.labels[0]
    for members, score in zip(found.sets, found.scores, strict=True):
        shown = torch.isin(labels, torch.tensor(patches(members)))
        assert float(model.predict(frames * shown)[0, 0]) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("kind", ["grid", "slic"])
def test_a_constant_score_needs_nothing(kind: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    probe = probe_of(Model(net), torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)))
    (found,) = sufficient(probe, regions=kind, segments=9)
    assert found.patches == ((),)
    assert found.scores == pytest.approx((1 / 3,))
    assert found.flags == ("baseline_keeps_target",)


def test_a_black_image_on_black_needs_nothing() -> None:
    (found,) = sufficient(probe_of(conv(), torch.zeros(1, 3, 24, 24)), baseline="black")
    assert found.patches == ((),)
    assert found.kept == pytest.approx(found.full)


def test_superpixels_are_units() -> None:
    frame = torch.zeros(1, 3, 24, 24)
    frame[..., :12] = 1.0
    (found,) = sufficient(probe_of(conv(), frame), regions="slic", segments=6, baseline="black", beam=2)
    assert found.units.grid is None
    assert found.units.count == int(found.units.regions.labels.max()) + 1
    assert found.units.area(tuple(range(found.units.count))) == pytest.approx(1)
    maps = torch.rand(1, 1, 24, 24)
    values = found.units.values(maps)
    by_hand = [float(maps[0, 0][found.units.regions.labels[0] == k].mean()) for k in range(found.units.count)]
    assert values.tolist() == pytest.approx(by_hand, abs=1e-6)
    with pytest.raises(InputError, match="Superpixels have hard ones"):
        sufficient(probe_of(conv(), frame), regions="slic", edges="soft")


def test_tokens_are_units() -> None:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3)
    (found,) = sufficient(probe_of(Model(net.eval()), torch.rand(1, 3, 32, 32)), regions="tokens", beam=2)
    assert found.units.grid == (4, 4)
    with pytest.raises(InputError, match="has no tokens"):
        sufficient(probe_of(conv(), torch.rand(1, 3, 24, 24)), regions="tokens")


def test_a_guide_of_the_grids_size_is_taken_as_it_is() -> None:
    (found,) = sufficient(probe_of(conv(), torch.rand(1, 3, 24, 24)), grid=4, max_scores=1)
    maps = torch.rand(1, 2, 4, 4)
    assert found.units.values(maps).tolist() == pytest.approx(maps.sum(1).flatten().tolist(), abs=1e-6)


def test_what_cannot_be_searched_is_refused() -> None:
    probe = probe_of(conv(), torch.rand(2, 3, 24, 24))
    with pytest.raises(InputError, match=r"guide must be maps \(2, C, h, w\)"):
        sufficient(probe, guide=torch.rand(1, 1, 7, 7))
    negative = Probe(Passes(conv(), torch.rand(1, 3, 24, 24)), None, function=lambda output: -output.abs().sum(1) - 1)
    with pytest.raises(InputError, match="must be above 0"):
        sufficient(negative)


def test_a_score_that_is_no_number_is_refused() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)) / x.amax((1, 2, 3)), torch.zeros(len(x))], 1)

    with pytest.raises(InputError, match="not a number"):
        sufficient(probe_of(Model(Broken(), differentiable=False), torch.ones(1, 3, 14, 14)), baseline="black")


# ---- diverse sets --------------------------------------------------------------------------------------------------


def test_the_published_example_of_three_that_overlap() -> None:
    sets = [bitmask(units, 49) for units in ((16, 18), (16, 17), (17, 18))]
    said = counts(sets, [0.95, 0.94, 0.93])
    assert (said["t0"], said["t1"], said["t2"], said["jaccard"]) == (1, 3, 3, 1)
    assert diverse(sets, [0.93, 0.95, 0.94], by_overlap(0)) == (1,)
    assert diverse(sets, [0.93, 0.95, 0.94], by_jaccard(1 / 3)) == (0, 1, 2)


def test_two_plain_ways_are_two() -> None:
    said = counts([bitmask((A, B), 49), bitmask((C,), 49)], [0.97, 0.97])
    assert [said[name] for name in ("t0", "t1", "t2", "jaccard")] == [2, 2, 2, 2]
    assert [counts([], [])[name] for name in ("t0", "t1")] == [0, 0]


def test_the_largest_choice_by_trying_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        sets = [int(rng.integers(1, 2**8)) for _ in range(9)]
        scores = [round(float(s), 1) for s in rng.random(9)]  # with ties
        apart: Any = by_overlap(int(rng.integers(3))) if rng.random() < 0.7 else by_jaccard(0.3)
        allowed = [
            chosen
            for size in range(10)
            for chosen in combinations(range(9), size)
            if all(apart(sets[a], sets[b]) for a, b in combinations(chosen, 2))
        ]
        most = max((len(chosen), sum(scores[k] for k in chosen)) for chosen in allowed)
        found = diverse(sets, scores, apart)
        assert found in allowed
        assert len(found) == most[0]
        assert sum(scores[k] for k in found) == pytest.approx(most[1])


def test_the_largest_choice_of_many_by_networkx() -> None:
    rng = np.random.default_rng(1)
    for size in (40, 60):
        sets = [bitmask(rng.choice(49, 6, replace=False).tolist(), 49) for _ in range(size)]
        graph = networkx.Graph()
        graph.add_nodes_from(range(size))
        graph.add_edges_from(p for p in combinations(range(size), 2) if (sets[p[0]] & sets[p[1]]).bit_count() <= 1)
        largest = max(map(len, networkx.find_cliques(graph)))
        assert len(diverse(sets, [1.0] * size, by_overlap(1))) == largest


def test_sets_are_numbers_and_back() -> None:
    assert patches(bitmask((48, 3, 0), 49)) == (0, 3, 48)
    assert [patches(child) for child in children(bitmask((1, 5), 6))] == [(5,), (1,)]
    with pytest.raises(InputError, match="from 0 to 48"):
        bitmask((49,), 49)
