"""Separation: areas, medians, distributions and cuts against hand-worked values and independent formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from whylens import separation as module
from whylens.interval import DRAWS, wilson
from whylens.separation import (
    FEWEST,
    auroc,
    auroc_difference,
    cut,
    halved,
    kolmogorov_smirnov,
    median_difference,
    placements,
    separation,
    threshold,
)

Array = np.ndarray[Any, Any]


def drawn(right: int, wrong: int, shift: float, seed: int = 0, digits: int = 6) -> tuple[Array, Array]:
    """Values of right and wrong rows; few digits make ties."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, right).round(digits), rng.normal(0, 1, wrong).round(digits)


def resampled(right: Array, wrong: Array, of: Any, seed: int = 1) -> Array:
    """The bootstrap as the books have it: one draw after another."""
    rng = np.random.default_rng(seed)
    return np.array([of(rng.choice(right, len(right)), rng.choice(wrong, len(wrong))) for _ in range(DRAWS)])


def area(right: Array, wrong: Array) -> float:
    """All pairs, one by one."""
    return float(((right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)).mean())


# ---- areas -------------------------------------------------------------------------------------------------


def test_an_area_worked_by_hand() -> None:
    """Of 6 pairs 3 > 1, 4 > 1, 5 > 1 and 5 > 4 are won, 4 = 4 is half: 4.5."""
    assert auroc(np.array([3.0, 4, 5]), np.array([1.0, 4])).value == pytest.approx(4.5 / 6)
    assert auroc(np.array([1.0, 4]), np.array([3.0, 4, 5])).value == pytest.approx(1.5 / 6)


@pytest.mark.parametrize("digits", [6, 0])
@pytest.mark.parametrize(("right", "wrong"), [(40, 13), (11, 70)])
def test_areas_are_those_of_scikit_learn(right: int, wrong: int, digits: int) -> None:
    values = drawn(right, wrong, 0.7, digits=digits)
    truth = np.r_[np.ones(right), np.zeros(wrong)]
    assert auroc(*values).value == pytest.approx(roc_auc_score(truth, np.concatenate(values)))


@pytest.mark.parametrize("digits", [6, 0])
def test_the_interval_of_an_area_is_that_of_plain_resampling(digits: int) -> None:
    values = drawn(50, 30, 0.7, digits=digits)
    found = auroc(*values)
    low, high = np.quantile(resampled(*values, area), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.n == 80


def test_beyond_many_rows_the_interval_hardly_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(700, 300, 0.7, digits=1)
    other = drawn(700, 300, 0.6, seed=5, digits=1)
    correct = np.arange(1000) < 700
    first, second = np.concatenate(values), np.concatenate(other)
    before = auroc(*values), auroc_difference(first, second, correct)
    monkeypatch.setattr(module, "MANY", 100)
    after = auroc(*values), auroc_difference(first, second, correct)
    for boot, normal in zip(before, after, strict=True):
        assert boot.value == normal.value
        assert boot != normal
        assert (boot.low, boot.high) == pytest.approx((normal.low, normal.high), abs=0.004)


def test_a_clean_separation_is_not_certain() -> None:
    found = auroc(np.arange(20.0) + 100, np.arange(5.0))
    assert (found.value, found.high, found.n) == (1.0, 1.0, 25)
    assert found.low == wilson(5, 5).low < 0.6
    assert auroc(np.arange(5.0), np.arange(20.0) + 100).high == wilson(0, 5).high


def test_constant_values_are_finite_and_show_no_gap() -> None:
    same = np.full(40, 2.5)
    correct = np.arange(40) < 20
    found = separation("same", same, correct, halved(correct))
    assert (found.auroc.value, found.auroc.low, found.auroc.high) == (0.5, 0.5, 0.5)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.ks, found.ks_p, found.verdict) == (0, 1, "no gap")
    assert found.threshold is not None
    assert found.threshold.kept.value == 1  # the lowest value keeps everything


def test_one_row_of_a_kind_has_no_interval() -> None:
    found = auroc(np.array([1.0]), np.array([0.0, 2, 3]))
    assert found.value == pytest.approx(1 / 3)
    assert np.isnan([found.low, found.high]).all()
    none = separation("none", np.array([1.0, 2]), np.array([True, True]), np.array([True, False]))
    assert np.isnan([none.auroc.value, none.ks, none.difference.value, none.median_wrong]).all()
    assert none.verdict == "too few"


def test_placements_of_either_side_have_the_area_as_their_mean() -> None:
    for digits in (6, 0):
        values = drawn(40, 13, 0.7, digits=digits)
        above, below = placements(*values)
        assert (above.mean(), below.mean()) == pytest.approx((area(*values),) * 2)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = drawn(30, 30, 0.5)
    assert auroc(*values, seed=3) == auroc(*values, seed=3)
    assert auroc(*values, seed=3) != auroc(*values, seed=4)


# ---- differences of areas ------------------------------------------------------------------------------------


def test_a_monotone_change_of_the_values_makes_no_difference_at_all() -> None:
    right, wrong = drawn(40, 20, 0.5)
    values, correct = np.concatenate([right, wrong]), np.arange(60) < 40
    found = auroc_difference(values, values**3, correct)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_difference_is_resampled_in_pairs() -> None:
    """The same rows, a little noise: the difference is known better than either area."""
    right, wrong = drawn(60, 40, 1)
    values, correct = np.concatenate([right, wrong]), np.arange(100) < 60
    near = values + np.random.default_rng(1).normal(0, 0.2, 100)
    found, alone = auroc_difference(values, near, correct), auroc(right, wrong)
    rng, draws = np.random.default_rng(2), []
    for _ in range(DRAWS):
        up, down = rng.choice(60, 60), 60 + rng.choice(40, 40)
        draws.append(area(values[up], values[down]) - area(near[up], near[down]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.004)
    assert found.high - found.low < (alone.high - alone.low) / 2


def test_rows_without_one_of_the_values_are_left_out_of_a_difference() -> None:
    right, wrong = drawn(40, 20, 0.5)
    values, correct = np.concatenate([right, wrong]), np.arange(60) < 40
    holes = values.copy()
    holes[::3] = np.nan
    assert auroc_difference(values, holes, correct).n == 40
    assert auroc_difference(values, holes, correct).value == 0


# ---- medians, distributions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "wrong"), [(31, 12), (12, 31), (2, 40), (41, 3)])
def test_the_interval_of_medians_is_that_of_plain_resampling(right: int, wrong: int) -> None:
    values = drawn(right, wrong, 0.7)
    found = median_difference(*values)
    assert found.value == float(np.median(values[0]) - np.median(values[1]))
    plain = np.quantile(resampled(*values, lambda a, b: np.median(a) - np.median(b)), [0.025, 0.5, 0.975])
    assert (found.low, found.high) == pytest.approx((plain[0], plain[2]), abs=0.12)


def test_distances_of_distributions_are_those_of_scipy() -> None:
    for digits in (6, 0):
        values = drawn(40, 25, 0.8, digits=digits)
        expected = ks_2samp(*values)
        assert kolmogorov_smirnov(*values) == pytest.approx((expected.statistic, expected.pvalue))
    assert kolmogorov_smirnov(np.array([1.0, 2]), np.array([3.0]))[0] == 1
    assert np.isnan(kolmogorov_smirnov(np.array([]), np.array([3.0]))).all()


# ---- cuts ----------------------------------------------------------------------------------------------------


def test_a_cut_worked_by_hand() -> None:
    """Of 3, 5, 6 and 0, 1, 4: 2 keeps all and rejects two, 4.5 keeps two and rejects all; the middle of two is the
    upper one. Of 2, 3, 5, 6 and 0, 1, 2.5, 4 three are equally good: 1.5, 2.75 and 4.5."""
    assert cut(np.array([5.0, 6]), np.array([0.0, 1])) == 3.0
    assert cut(np.array([3.0, 5, 6]), np.array([0.0, 1, 4])) == 4.5
    assert cut(np.array([2.0, 3, 5, 6]), np.array([0.0, 1, 2.5, 4])) == 2.75
    assert cut(np.array([1.0]), np.array([1.0])) == 1.0


def test_a_cut_counts_shares_and_not_rows() -> None:
    """Of 8 right and 2 wrong: 1.5 keeps all and rejects half, J 1/2; 4.75 keeps 5 of 8 and rejects all, J 5/8."""
    assert cut(np.arange(2.0, 10), np.array([1.0, 4.5])) == 4.75


def test_a_cut_is_the_best_of_all() -> None:
    right, wrong = drawn(37, 23, 0.6, digits=1)
    chosen = cut(right, wrong)

    def gain(at: float) -> float:
        return float((right >= at).mean() + (wrong < at).mean() - 1)

    assert gain(chosen) == pytest.approx(max(gain(at) for at in np.linspace(-4, 4, 1601)))


def test_a_threshold_is_judged_where_it_was_not_chosen() -> None:
    """Chosen on 0 | 2: at 1. Judged on 0.5 right, 3 right, 4 wrong, 0 wrong."""
    values = np.array([2.0, 0, 0.5, 3, 4, 0])
    correct = np.array([True, False, True, True, False, False])
    halves = np.array([True, True, False, False, False, False])
    found = threshold(values, correct, halves)
    assert (found.value, found.chosen_on) == (1.0, 2)
    assert (found.before.value, found.before.n) == (0.5, 4)
    assert (found.kept.value, found.kept.n) == (0.5, 4)
    assert (found.accuracy.value, found.accuracy.n) == (0.5, 2)
    assert (found.right_kept.value, found.wrong_rejected.value) == (0.5, 0.5)
    assert found.accuracy == wilson(1, 2)


def test_halves_are_drawn_within_right_and_wrong_by_the_seed() -> None:
    correct = np.arange(31) % 3 > 0
    half = halved(correct, seed=2)
    assert (half & correct).sum() == (correct.sum() + 1) // 2
    assert (half & ~correct).sum() == ((~correct).sum() + 1) // 2
    assert np.array_equal(half, halved(correct, seed=2))
    assert not np.array_equal(half, halved(correct, seed=3))


# ---- what may be said ------------------------------------------------------------------------------------------


def test_verdicts() -> None:
    right, wrong = drawn(60, 40, 1.5)
    values, correct = np.concatenate([right, wrong]), np.arange(100) < 60
    half = halved(correct)
    found = separation("one", values, correct, half)
    assert found.verdict == "gap"
    assert separation("one", -values, correct, half).verdict == "reversed"
    few = np.flatnonzero(~correct)[FEWEST - 1 :]
    holes = values.copy()
    holes[few] = np.nan
    scarce = separation("one", holes, correct, half)
    assert (scarce.wrong, scarce.verdict, scarce.threshold) == (FEWEST - 1, "too few", None)
    holes[few[0]] = values[few[0]]
    assert separation("one", holes, correct, half).verdict == "gap"


def test_noise_shows_no_gap_nineteen_times_of_twenty() -> None:
    correct = np.arange(100) < 60
    found = [
        separation("noise", np.concatenate(drawn(60, 40, 0, seed=seed)), correct, halved(correct)).verdict
        for seed in range(60)
    ]
    assert found.count("no gap") >= 54


def test_the_interval_covers_the_truth() -> None:
    """Two normals 1 apart: the area is the normal distribution at 1 / sqrt 2, 0.7602."""
    held = [auroc(*drawn(50, 50, 1, seed=seed), seed=seed) for seed in range(60)]
    assert sum(one.low <= 0.7602 <= one.high for one in held) >= 54
