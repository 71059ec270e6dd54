"""Metrics that hold a map to a truth: iou, accuracy_after, completeness; pointing beside a distance transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import jaccard_score
from torch import Tensor

import whylens
from test_metrics import at as region
from test_metrics import trial as over
from test_scoring import Weighed, drawn, linear, same, scored, trial
from whylens import testing
from whylens.contract import Metric
from whylens.masks import Mask
from whylens.placement import Placement
from whylens.testing import SmallNet
from whylens.trial import score_batch


def whole(inside: Tensor) -> Mask:
    return Mask(inside, torch.zeros_like(inside))


# ---- IoU -------------------------------------------------------------------------------------------------------------


def test_iou_is_the_jaccard_score_of_scikit_learn() -> None:
    for seed in range(5):
        maps = torch.randn(9, 13, generator=torch.Generator().manual_seed(seed))
        inside = drawn(9, 13, seed=seed) < 0.4
        found = score_batch(Metric("iou", params={"threshold": 0.3}), over(maps, whole(inside), (9, 13)), seed=0)
        expected = [
            jaccard_score(inside.flatten(), (maps >= t * maps.max()).flatten()) for t in (0.3, *np.arange(1, 20) / 20)
        ]
        same(found.values, expected[:1])
        assert found.curve is not None
        same(found.curve[0], expected[1:])
        same(found.checks["best"], [max(expected[1:])])
        best = score_batch(Metric("iou", params={"threshold": None}), over(maps, whole(inside), (9, 13)), seed=0)
        same(best.values, [max(expected[1:])])
        same(found.checks["best_threshold"], [(1 + int(np.argmax(expected[1:]))) / 20])


def test_a_mask_finer_than_the_frame_counts_by_its_share() -> None:
    """A photo of 8 x 8 in a frame of 4 x 4: the object covers half of the second column."""
    place = Placement((4, 4), (8, 8), (2.0, 2.0))
    maps = torch.tensor([[1.0, 1, 0, 0]]).expand(4, 4)
    found = score_batch(
        Metric("iou", params={"threshold": 0.5}), over(maps, whole(region((8, 8), np.s_[:, :3])), place=place), seed=0
    )
    same(found.values, [6 / 8])
    same(found.checks["area"], [3 / 8])


def test_whether_the_net_was_right_stands_beside_it() -> None:
    frames, masks = drawn(4, 3, 12, 12), torch.ones(4, 12, 12)
    model = whylens.Model(SmallNet(), layer="high", classes=["a", "b", "c", "d"])
    first = whylens.explain(model, frames)
    right, wrong = first.prediction_names[0], next(n for n in "abcd" if n != first.prediction_names[1])
    images = whylens.load_images(frames, masks=masks, labels=[right, wrong, None, "no such class"])
    found = whylens.measure(model, images, whylens.explain(model, images), metric="iou")
    same(found.checks["correct"], [1, 0, float("nan"), float("nan")])
    assert found.curve is not None
    assert found.curve.shape == (4, 19)


def test_pointing_is_a_distance_to_the_mask() -> None:
    """A single maximum in the middle of a pixel hits where scipy's distance to the mask is below the tolerance."""
    for seed in range(30):
        maps, inside = drawn(20, 30, seed=seed), drawn(20, 30, seed=100 + seed) < 0.004
        inside[seed % 20, seed] = True
        away = distance_transform_edt(~inside.numpy())[np.unravel_index(int(maps.argmax()), (20, 30))]
        for tolerance in (1, 5, 9):
            metric = Metric("pointing_game", params={"tolerance": tolerance})
            found = score_batch(metric, over(maps, whole(inside), (20, 30)), seed=0)
            assert float(found.values) == float(away < tolerance)


# ---- accuracy after --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["add", "multiply"])
@pytest.mark.parametrize("space", ["frame", "normalised"])
def test_the_mean_is_the_accuracy_of_a_plain_loop(mode: str, space: str) -> None:
    preprocess = whylens.Preprocess((12, 15), mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    frames = drawn(40, 3, 12, 15)
    net = Weighed(torch.randn(4, 540, generator=torch.Generator().manual_seed(3)))
    maps = torch.randn(40, 1, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    at = trial(net, frames, maps, target=None, labels=labels, preprocess=preprocess)
    found = scored("accuracy_after", at, mode=mode, space=space)
    net.eval()
    hits = before = 0
    for n in range(40):
        h = torch.nn.functional.interpolate(maps[n : n + 1], size=(12, 15), mode="bilinear") / maps[n].abs().max()
        x, normalise = frames[n : n + 1], preprocess.normalise
        inner = normalise(x)
        if space == "frame":
            moved = normalise(x + h if mode == "add" else x * h)
        else:
            moved = inner + h if mode == "add" else inner * h
        hits += int(net(moved).argmax() == labels[n])
        before += int(net(inner).argmax() == labels[n])
    assert float(found.values.mean()) == pytest.approx(hits / 40)
    assert float(found.checks["before"].mean()) == pytest.approx(before / 40)
    assert 0 < float(found.checks["changed"].mean()) < 1
    assert set(found.values.tolist()) == {0.0, 1.0}


def test_a_map_that_adds_the_class_makes_it_right() -> None:
    """A net whose logits are three pixels: planted maps add the true one, inverted maps another, random ones any."""
    labels = [k % 3 for k in range(30)]
    frames = drawn(30, 1, 1, 3)
    true = torch.nn.functional.one_hot(torch.tensor(labels), 3).float().view(30, 1, 1, 3)
    means = []
    for maps in (true, drawn(30, 1, 1, 3, seed=1), true.roll(1, 3)):
        at = trial(Weighed(torch.eye(3), torch.full((3,), 9.0)), frames, maps, labels=labels)
        means.append(float(scored("accuracy_after", at).values.mean()))
    assert means[0] == 1.0
    assert means[0] > means[1] > means[2]
    assert means[2] == 0.0


def test_a_constant_net_keeps_its_accuracy() -> None:
    at = trial(SmallNet(constant=True), drawn(4, 3, 12, 12), drawn(4, 1, 3, 3), labels=[0, 1, 2, 3])
    found = scored("accuracy_after", at)
    same(found.values, found.checks["before"])
    assert float(found.values.sum()) == 1
    same(found.checks["changed"], [0.0] * 4)


# ---- completeness ----------------------------------------------------------------------------------------------------


def test_shares_add_up_and_other_maps_do_not() -> None:
    weights, frames = torch.randn(48, generator=torch.Generator().manual_seed(0)), drawn(3, 3, 4, 4)
    parts = (weights * (frames.flatten(1) - 0.25)).view(3, 3, 4, 4)
    net = Weighed(torch.stack([weights, -weights]), torch.full((2,), 3.0))
    preprocess = whylens.Preprocess((4, 4), mean=(0.25,) * 3, std=(1.0,) * 3)
    at = trial(net, frames, parts, preprocess=preprocess)
    same(scored("completeness", at).values, [0.0] * 3, 1e-5)
    missing = trial(net, frames, parts * 0.75, preprocess=preprocess)
    same(scored("completeness", missing).values, [0.25] * 3, 1e-5)
    black = scored("completeness", at, baseline="black")
    difference = (weights * frames.flatten(1)).sum(1)
    same(black.checks["difference"], difference, 1e-5)
    same(black.checks["sum"], parts.flatten(1).sum(1), 1e-5)
    same(black.values, (parts.flatten(1).sum(1) - difference).abs() / difference.abs(), 1e-4)


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
def test_the_baseline_is_that_of_the_explanation(baseline: str) -> None:
    model, frames = whylens.Model(SmallNet()), drawn(3, 3, 16, 16)
    params = {"baseline": baseline, "steps": 200}
    explanation = whylens.explain(model, frames, method="integrated_gradients", target=1, params=params)
    found = whylens.measure(model, frames, explanation, metric="completeness")
    same(found.values, explanation.checks["residual"], 1e-4)
    other = whylens.measure(model, frames, explanation, metric="completeness", params={"baseline": "auto"})
    assert float(other.values.max()) > 0.1


def test_planted_beats_random_beats_inverted() -> None:
    """Shares of a linear net's score, random ones a tenth short of the same total, shares of the other sign."""
    weights, frames = drawn(36) / 18, drawn(10, 1, 6, 6)
    parts = (weights * frames.flatten(1)).view(10, 1, 6, 6)
    random = drawn(10, 1, 6, 6, seed=1)
    means = [
        float(scored("completeness", linear(weights, frames, maps), baseline="black").values.mean())
        for maps in (
            parts,
            random / random.sum((1, 2, 3), keepdim=True) * 0.9 * parts.sum((1, 2, 3), keepdim=True),
            -parts,
        )
    ]
    assert means == pytest.approx([0.0, 0.1, 2.0], abs=1e-5)


def test_a_constant_net_has_no_difference() -> None:
    found = scored("completeness", trial(SmallNet(constant=True), drawn(2, 3, 12, 12), drawn(2, 1, 3, 3)))
    assert found.values.isnan().all()
    assert found.checks["no_difference"].tolist() == [True, True]


@pytest.mark.parametrize("request_", ["iou:threshold=none", "iou:threshold=0.6", "completeness:baseline=auto"])
def test_contract_with_other_parameters(request_: str) -> None:
    testing.check_metric(request_)


def test_ranges_hold_for_labels_too() -> None:
    frames, labels = drawn(6, 3, 16, 16), [0, 1, 2, 3, None, 9]
    at = trial(SmallNet(), frames, drawn(6, 1, 4, 4), labels=labels)
    for params in ({}, {"mode": "multiply"}):
        found = scored("accuracy_after", at, **params)
        assert found.values.isnan().tolist() == [False] * 4 + [True] * 2
        assert found.checks["no_label"].tolist() == [False] * 4 + [True] * 2
    metric: Any = Metric("accuracy_after")
    assert (metric.facts.low, metric.facts.high, metric.facts.direction) == (0.0, 1.0, "higher")
