"""Scoring: orders and areas, and the four metrics that move the image, against closed forms and plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import whylens
from whylens import InputError, Trial, Values, testing
from whylens.augmentation import augmented
from whylens.baseline import search
from whylens.contract import Metric
from whylens.probe import Probe
from whylens.scoring import (
    Prefixes,
    area,
    chunk_counts,
    co,
    even_counts,
    normalised,
    ranks,
    rise_blur,
    tied,
    units,
)
from whylens.testing import SmallNet
from whylens.trial import score_batch, trial_of

MOVING = ("co_score", "deletion", "impact_score", "insertion")


class Weighed(nn.Module):
    """Scores are sums of the frame's values with these weights ``(K, U)``, through a function."""

    def __init__(self, weights: Tensor, bias: Tensor | None = None, through: Any = None) -> None:
        super().__init__()
        self.head = nn.Linear(weights.shape[1], len(weights))
        self.head.weight.data, self.head.bias.data = weights, torch.zeros(len(weights)) if bias is None else bias
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(x.flatten(1))
        return scores if self.through is None else self.through(scores)


def shares(weights: Tensor) -> Weighed:
    """A net whose first probability is the weighed sum itself, and whose second is the rest."""
    return Weighed(torch.stack([weights, -weights]), torch.tensor([0.0, 1.0]))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def trial(net: nn.Module, frames: Tensor, maps: Tensor, *, target: Any = 0, labels: Any = None, **model: Any) -> Trial:
    opened = whylens.Model(net, **model)
    images = whylens.load_images(frames, labels=labels)
    explanation = whylens.explain(opened, images, method="saliency", target=target)
    return trial_of(opened, images, replace(explanation, maps=maps.float()), frames)


def linear(weights: Tensor, frames: Tensor, maps: Tensor) -> Trial:
    return trial(shares(weights), frames, maps, output="probabilities")


def scored(name: str, at: Trial, seed: int = 0, **params: Any) -> Values:
    return score_batch(Metric(name, params=params), at, seed=seed)


def same(found: Tensor, expected: Any, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        found.double(), torch.as_tensor(expected).double(), rtol=0, atol=tolerance, equal_nan=True
    )


# ---- orders ----------------------------------------------------------------------------------------------------------


def test_ranks_put_the_highest_first_and_draw_ties_once_for_all() -> None:
    values = torch.tensor([[0.5, 2.0, -1.0, 2.0, 0.5]] * 2 + [[5.0, 4.0, 3.0, 2.0, 1.0]])
    found = {tuple(ranks(values, seed)[0].tolist()) for seed in range(60)}
    assert found == {(a, b, 4, c, d) for a, d in ((2, 3), (3, 2)) for b, c in ((0, 1), (1, 0))}
    for seed in range(5):
        one = ranks(values, seed)
        assert torch.equal(one[0], one[1])
        assert one[2].tolist() == [0, 1, 2, 3, 4]
        assert torch.equal(one, ranks(values, seed))
        assert torch.equal(one[1:], ranks(values[1:], seed))
    same(tied(values), [0.8, 0.8, 0.0])
    assert tied(torch.zeros(1, 1)).tolist() == [0.0]


def test_units_are_summed_over_channels_and_enlarged_without_breaking_ties() -> None:
    maps = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    total = maps.sum(1, keepdim=True)
    expected = F.interpolate(total, size=(9, 10), mode="bilinear") / total.abs().amax((1, 2, 3), keepdim=True)
    same(units(maps, (9, 10)), expected.flatten(1))
    for level in (0.1, 0.3, 1e-30, 3e38, -0.7, 0.0):
        flat = units(torch.full((1, 2, 3, 3), level), (17, 23))
        assert bool(flat.isfinite().all())
        assert tied(flat).tolist() == [1.0]
        assert len(flat.unique()) == 1
    assert units(torch.tensor([[1.0, 3.0, -6.0]])).tolist() == [[pytest.approx(1 / 6), 0.5, -1.0]]


def test_every_flat_order_is_as_likely() -> None:
    places = torch.stack([ranks(torch.zeros(1, 4), seed)[0] for seed in range(2000)]).double()
    same(places.mean(0), [1.5] * 4, 0.1)


# ---- areas -----------------------------------------------------------------------------------------------------------


def test_counts() -> None:
    assert even_counts(4, 50).tolist() == [0, 1, 2, 3, 4]
    assert even_counts(10, 4).tolist() == [0, 3, 5, 8, 10]
    assert even_counts(50176, 224).diff().unique().tolist() == [224]
    assert even_counts(7, 1).tolist() == [0, 7]
    assert chunk_counts(49, 50).tolist() == list(range(50))
    assert chunk_counts(10, 4).tolist() == [0, 2, 4, 6, 8, 10]
    assert chunk_counts(11, 4).tolist() == [0, 2, 4, 6, 8, 10, 11]
    for count in (1, 49, 99, 100, 196, 784):
        assert len(chunk_counts(count, 50)) <= 2 * 50 + 1


def test_the_published_last_chunk() -> None:
    """r / N of section 6.1 of the fact sheet, at six resolutions."""
    offsets = {7: 0.0204, 14: 0.0051, 28: 0.0051, 56: 0.0115, 112: 0.0035, 224: 0.0005}
    for side, offset in offsets.items():
        counts = chunk_counts(side * side, 50)
        curve = torch.zeros(1, len(counts))
        assert float(area(curve, counts, "igospp_published")) == pytest.approx(offset, abs=5e-5), side
        for mode in ("igospp", "rise"):
            assert float(area(curve, counts, mode)) == 0
        full = torch.full((1, len(counts)), 0.4)
        same(area(full, counts, "rise"), [0.4])
        same(area(full, counts, "igospp"), [0.4])
        same(area(full, counts, "igospp_published"), [0.4 + 0.6 * float(counts[-1] - counts[-2]) / side**2])


def test_areas_by_hand() -> None:
    curve, counts = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]]), torch.tensor([0, 1, 4])
    same(area(curve, counts, "rise"), [(0.5 + 0.75 * 3) / 4, 0.125])
    same(area(curve, counts, "igospp"), [(1 + 0.5 * 3) / 4, 0.0])
    same(area(curve, counts, "igospp_published"), [(1 + 3) / 4, 0.75])
    low, high = torch.tensor([0.2, 0.2, 0.5]), torch.tensor([0.7, 0.2, 0.1])
    same(normalised(torch.tensor([0.3, 0.2, 0.3]), low, high), [0.2, float("nan"), float("nan")])


# ---- insertion and deletion ------------------------------------------------------------------------------------------


def test_a_linear_net_gives_partial_sums() -> None:
    weights = drawn(30, seed=1) / 30
    frames, maps = drawn(3, 1, 5, 6, seed=2), torch.randn(3, 1, 5, 6, generator=torch.Generator().manual_seed(3))
    at = linear(weights, frames, maps)
    order = maps.flatten(1).argsort(descending=True)
    parts = (frames.flatten(1) * weights).gather(1, order)
    shown = F.pad(parts.cumsum(1), (1, 0)).double()
    for name, curve in (("insertion", shown), ("deletion", shown[:, -1:] - shown)):
        found = scored(name, at, steps=30, baseline="black")
        same(found.curve, curve)
        same(found.values, (curve.sum(1) - curve[:, 0] / 2 - curve[:, -1] / 2) / 30)
        same(found.checks["full"], shown[:, -1])
        same(found.checks["baseline"], torch.zeros(3))
        same(found.checks["normalised"], found.values / shown[:, -1], 1e-5)
        same(found.checks["step"], torch.full((3,), 1 / 30))
        same(found.checks["tied"], torch.zeros(3))


@pytest.mark.parametrize("mode", ["rise", "igospp"])
def test_deletion_of_the_reversed_map_mirrors(mode: str) -> None:
    """What is put in for a map is what is left for the reversed one, on any net; on a linear one the curves mirror."""
    side = 12 if mode == "rise" else 4  # enlarged maps have ties along the border
    frames, maps = drawn(3, 3, 12, 12), torch.randn(3, 1, side, side, generator=torch.Generator().manual_seed(1))
    put, back, gone = (
        scored(name, trial(SmallNet(), frames, m), mode=mode, steps=16, baseline="blur")
        for name, m in (("insertion", maps), ("deletion", -maps), ("deletion", maps))
    )
    same(put.curve, back.curve.flip(1), 1e-5)
    assert not torch.allclose(put.curve, gone.curve.flip(1), atol=1e-3)
    weights = drawn(16) / 16
    frames, maps = drawn(2, 1, 4, 4, seed=5), drawn(2, 1, 4, 4, seed=6)
    one, other = (scored("deletion", linear(weights, frames, m), mode=mode, baseline="white") for m in (maps, -maps))
    same(one.curve + other.curve.flip(1), (one.curve[:, :1] + one.curve[:, -1:]).expand_as(one.curve))


def plain_loop(at: Trial, insert: bool, mode: str, steps: int, fills: Tensor) -> tuple[list[float], list[list[float]]]:
    """Insertion and deletion pixel by pixel, one image at a time, without ties."""
    model, frames, maps = at.probe.model, at.probe.frames, at.explanation.maps
    H, W = frames.shape[2:]
    areas, curves = [], []
    for n in range(len(frames)):
        cells = maps[n].sum(0)
        h, w = cells.shape
        ranked = sorted(((float(cells[i, j]), i, j) for i in range(h) for j in range(w)), reverse=True)
        edges = [round(k * h * w / steps) for k in range(steps + 1)]
        if mode != "rise":
            chunk = max(1, h * w // steps)
            edges = [*range(0, h * w, chunk), h * w]
        curve, shown = [], np.zeros((h, w)) if insert else np.ones((h, w))
        for start, stop in zip([0, *edges], edges, strict=False):
            for _, i, j in ranked[start:stop]:
                shown[i, j] = 1 - shown[i, j]
            kept = torch.tensor(shown)
            if mode != "rise":
                kept = nn.UpsamplingBilinear2d((H, W))(kept[None, None])[0, 0]
            mixed = kept * frames[n] + (1 - kept) * fills[n]
            curve.append(float(model.predict(mixed[None].float())[0, int(at.explanation.targets[n])]))
        total = 0.0
        for k in range(1, len(edges)):
            width, value = edges[k] - edges[k - 1], curve[k]
            if mode == "rise":
                value = (curve[k] + curve[k - 1]) / 2
            if mode == "igospp_published" and k == len(edges) - 1:
                value = 1.0
            total += value * width
        areas.append(total / (h * w))
        curves.append(curve)
    return areas, curves


@pytest.mark.parametrize("mode", ["rise", "igospp", "igospp_published"])
@pytest.mark.parametrize("name", ["insertion", "deletion"])
def test_an_independent_plain_loop(name: str, mode: str) -> None:
    size = (14, 18) if mode == "rise" else (5, 7)  # enlarged maps have ties along the border
    frames, maps = drawn(3, 3, 14, 18, seed=1), torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(2))
    preprocess = whylens.Preprocess((14, 18), mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    at = trial(SmallNet(), frames, maps, target=torch.tensor([0, 1, 2]), preprocess=preprocess)
    fills = torch.tensor(preprocess.mean).view(1, 3, 1, 1).expand_as(frames)
    if mode != "rise":
        fills = search(at.probe).frames
    elif name == "insertion":
        fills = rise_blur(at.probe).frames
    areas, curves = plain_loop(at, name == "insertion", mode, 9, fills)
    found = scored(name, at, mode=mode, steps=9)
    same(found.curve, curves, 1e-5)
    same(found.values, areas, 1e-5)
    same(found.checks["step"], [28 / 252 if mode == "rise" else 3 / 35] * 3)


def test_the_blur_is_that_of_the_rise_code() -> None:
    """Its kernel is scipy's Gaussian of a single point, 11 wide, with zeros around the normalised image."""
    preprocess = whylens.Preprocess((224, 230), mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    frames = drawn(1, 3, 224, 230)
    at = trial(SmallNet(), frames, torch.zeros(1, 1, 2, 2), preprocess=preprocess)
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(point, 5)).float()[None, None].expand(3, 1, 11, 11)
    expected = F.conv2d(preprocess.normalise(frames), kernel, padding=5, groups=3)
    same(preprocess.normalise(rise_blur(at.probe).frames), expected, 1e-5)


@pytest.mark.parametrize("mode", ["rise", "igospp", "igospp_published"])
def test_a_constant_net_gives_its_constant(mode: str) -> None:
    net, frames, maps = SmallNet(constant=True), drawn(2, 3, 20, 20), drawn(2, 1, 7, 7)
    at = trial(net, frames, maps)
    level = float(at.explanation.probabilities[0])
    for name in ("insertion", "deletion"):
        found = scored(name, at, mode=mode)
        offset = (1 - level) / 49 if mode == "igospp_published" else 0.0
        same(found.values, [level + offset] * 2)
        assert found.checks["normalised"].isnan().all()


def test_the_offset_is_in_the_published_mode_only() -> None:
    at = trial(SmallNet(), drawn(2, 3, 21, 21), drawn(2, 1, 7, 7, seed=4))
    for name, end in (("deletion", "baseline"), ("insertion", "full")):
        right, published = (scored(name, at, mode=m) for m in ("igospp", "igospp_published"))
        same(published.values - right.values, (1 - right.checks[end]) / 49)
        same(published.curve, right.curve)
        same(published.checks["normalised"], right.checks["normalised"])
        middle = (right.curve.sum(1) - (right.curve[:, 0] + right.curve[:, -1]) / 2) / 49
        same(right.values - middle, (right.curve[:, -1] - right.curve[:, 0]) / 98)


def test_the_size_of_a_step_hardly_matters() -> None:
    weights = drawn(144, seed=1) / 144
    at = linear(weights, drawn(2, 1, 12, 12, seed=2), drawn(2, 1, 12, 12, seed=3))
    for name in ("insertion", "deletion"):
        exact = scored(name, at, steps=144, baseline="black").values
        for steps in (7, 20, 50, 100):
            found = scored(name, at, steps=steps, baseline="black")
            same(found.values, exact, 0.5 / steps)
            assert found.curve is not None
            assert found.curve.shape == (2, steps + 1)
        assert torch.equal(scored(name, at, steps=1000, baseline="black").values, exact)


def test_a_flat_map_gets_what_random_orders_get() -> None:
    weights, frames = torch.linspace(0, 1, 36) / 18, drawn(1, 1, 6, 6)
    at = linear(weights, frames, torch.full((1, 1, 3, 3), 0.1))
    full = float((weights * frames.flatten()).sum())
    for name in ("insertion", "deletion"):
        found = torch.stack([scored(name, at, seed=seed, baseline="black").values[0] for seed in range(150)])
        assert float(found.mean()) == pytest.approx(full / 2, abs=0.02)  # their spread is 0.03
        assert float(found.std()) > 0.01
        one, again = (scored(name, at, seed=3, baseline="black") for _ in range(2))
        assert torch.equal(one.values, again.values)
        same(one.checks["tied"], [1.0])


@pytest.mark.parametrize("name", MOVING)
def test_planted_beats_random_beats_inverted(name: str) -> None:
    """A net that sees one patch, and nothing else."""
    patch = torch.zeros(12, 12)
    patch[2:5, 6:10] = 1.0
    net = Weighed(torch.stack([patch.flatten() * 2, -patch.flatten() * 2]), torch.tensor([-6.0, 6.0]))
    frames = 0.5 + 0.5 * drawn(20, 1, 12, 12)
    maps = [patch.expand(20, 1, 12, 12), drawn(20, 1, 12, 12, seed=1), -patch.expand(20, 1, 12, 12)]
    params = {"baseline": "black"} if name != "co_score" else {"unlabelled": "target"}
    planted, random, inverted = (float(scored(name, trial(net, frames, m), **params).values.mean()) for m in maps)
    if name == "impact_score":
        assert (planted, inverted) == (1.0, 0.0)
        assert random <= 0.2
    sign = 1 if Metric(name).facts.direction == "higher" else -1
    margin = 0.0 if name == "impact_score" else 0.1
    assert sign * planted > sign * random + margin
    assert sign * random >= sign * inverted + margin


def test_a_target_function_is_measured_as_it_is() -> None:
    at = linear(drawn(16) / 16, drawn(2, 1, 4, 4, seed=1), drawn(2, 1, 4, 4, seed=2))
    function = Probe(at.probe.passes, None, function=lambda output: -5 * output[:, 0])
    plain, moved = (scored("insertion", t, baseline="black") for t in (at, replace(at, probe=function)))
    assert float(moved.values.max()) < 0
    same(moved.values, -5 * plain.values, 1e-5)
    same(moved.checks["full"], -5 * plain.checks["full"], 1e-5)
    assert moved.checks["normalised"].isnan().all()  # the image has less of it than the baseline
    assert bool(scored("deletion", replace(at, probe=function), mode="igospp").values.isfinite().all())


def test_rows_of_a_table() -> None:
    rows, maps = drawn(2, 5), drawn(2, 5, seed=1)
    at = trial(shares(torch.full((5,), 0.2)), rows, maps, output="probabilities", task="tabular")
    parts = (rows * 0.2).gather(1, maps.argsort(1, descending=True))
    for mode in ("rise", "igospp"):
        found = scored("insertion", at, mode=mode)
        same(found.curve, F.pad(parts.cumsum(1), (1, 0)))
    found = scored("impact_score", at, area=1.0, baseline="mean")
    assert found.values.tolist() == [float(p > 0.5) for p in parts.sum(1)]
    assert len(found.values.unique()) == 2


def test_each_step_is_scored_once() -> None:
    at = trial(SmallNet(), drawn(4, 3, 20, 20), drawn(4, 1, 7, 7))
    scored("deletion", at, steps=10)
    assert at.probe.passes.forwards == 4 * 11
    scored("insertion", at, steps=10)
    assert at.probe.passes.forwards == 2 * 4 * 11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_steps_are_told_apart_in_every_precision(dtype: torch.dtype) -> None:
    T = 3001
    expand = Prefixes(torch.arange(T - 1)[None], torch.arange(T), None, None, True)
    for step in (0, 1, 255, 257, 2049, 3000):
        kept = expand(torch.eye(T)[step : step + 1].to(dtype), torch.tensor([0]))
        assert int(kept.float().sum()) == step


# ---- CO score --------------------------------------------------------------------------------------------------------


def test_kappa_adds_up_to_nothing() -> None:
    for K in (2, 3, 1000):
        kappa = co(torch.zeros(K, K), torch.eye(K), torch.zeros(K, dtype=torch.long))
        assert float(kappa[0]) == 1
        same(kappa[1:], torch.full((K - 1,), -1 / (K - 1)))
        assert abs(float(kappa.sum())) < 1e-12
    before, truth = torch.randint(-9, 9, (50, 7)).float(), torch.arange(50) % 7
    assert co(before, before + 0.375, truth).tolist() == [0.0] * 50
    gain = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    loop = [
        g[t] - sum(g[j] for j in range(7) if j != t) / 6 for g, t in zip(gain.tolist(), truth.tolist(), strict=True)
    ]
    same(co(torch.zeros(50, 7), gain, truth), loop)


TOY = (  # a1, angle, x, h, A - B: the vectors of section 20.3 of the fact sheet
    (0.95, 0.0, (0.95, 0.05), (2.033, 0.047), 1.986),
    (0.95, np.pi / 4, (0.6364, 0.7071), (1.3237, 0.7071), 1.872),
    (0.95, np.pi / 2, (-0.05, 0.95), (-0.047, 2.033), 1.986),
    (0.7, np.pi / 8, (0.5319, 0.5450), (0.9755, 0.3521), 1.084),
)


@pytest.mark.parametrize(("a1", "angle", "x", "h", "gain"), TOY)
def test_the_two_dimensional_toy(a1: float, angle: float, x: Any, h: Any, gain: float) -> None:
    """x = W a for a rotation W, f = W^-1 x, h = (w + 1.2 grad) x: the CO score is A - B, here over max |h|."""
    c, s = np.cos(angle), np.sin(angle)
    w = torch.tensor([[c, -s], [s, c]]).float()
    point = w @ torch.tensor([a1, 1 - a1])
    same(point, x, 1e-4)
    added = torch.stack([point[0] * (1 + 1.2 * (c + s) * point[0]), point[1] * (1 - 1.2 * (c - s) * point[1])])
    same(added, h, 1e-3)
    lifted = torch.full((2,), 3.0)  # logits that add up to 1 would be taken for probabilities
    at = trial(Weighed(torch.linalg.inv(w), lifted), point[None], added[None], labels=[0], task="tabular")
    found = scored("co_score", at).values * added.abs().max()
    same(found, [gain], 1e-3)
    net = Weighed(torch.linalg.inv(w), through=lambda z: F.leaky_relu(z) + 3)
    leaky = trial(net, point[None], added[None], labels=[0], task="tabular")
    a, moved = (torch.linalg.inv(w) @ v for v in (point, point + added / added.abs().max()))
    expected = F.leaky_relu(moved[0]) - F.leaky_relu(a[0]) - F.leaky_relu(moved[1]) + F.leaky_relu(a[1])
    same(scored("co_score", leaky).values, expected[None])


def test_a_map_like_the_image_gains_its_coefficients() -> None:
    """With h = x, positive a and a leaky rectifier the score is a1 - a2 (over max |x|)."""
    a = torch.tensor([[0.7, 0.3]])
    at = trial(Weighed(torch.eye(2), through=lambda z: F.leaky_relu(z) + 3), a, a, labels=[0], task="tabular")
    same(scored("co_score", at).values, [0.4 / 0.7])


def test_a_shift_of_all_logits_is_nothing_and_a_zero_map_has_no_value() -> None:
    frames, maps = (drawn(3, 1, 4, 4) * 8).round() / 8, (drawn(3, 1, 4, 4, seed=1) * 4).round() / 4
    maps[:, 0, 0, 0], maps[2] = 2.0, 0.0
    shift = Weighed(torch.ones(5, 16), torch.arange(5.0))
    found = scored("co_score", trial(shift, frames, maps, labels=[0, 3, 1]))
    assert found.values[:2].tolist() == [0.0, 0.0]
    assert found.values[2].isnan()
    assert found.checks["no_mass"].tolist() == [False, False, True]


@pytest.mark.parametrize("mode", ["add", "multiply"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_both_sides_enter_the_net_alike(mode: str, order: Any) -> None:
    """In the frame or behind the normalisation, against the sums written out."""
    preprocess = whylens.Preprocess((12, 15), mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4), order=order)
    net, frames = SmallNet(), drawn(3, 3, 12, 15)
    maps = torch.randn(3, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    at = trial(net, frames, maps, labels=[0, 3, 1], preprocess=preprocess)
    h = F.interpolate(maps, size=(12, 15), mode="bilinear")
    h = h / h.abs().amax((1, 2, 3), keepdim=True)
    net.eval()
    x = preprocess.normalise(frames)
    turned = h.flip(1) if order == "BGR" else h
    inside = net(x + turned if mode == "add" else x * turned)
    for space, z1 in (
        ("frame", net(preprocess.normalise(frames + h if mode == "add" else frames * h))),
        ("normalised", inside),
    ):
        gain = (z1 - net(x)).detach()
        expected = [gain[n, t] - (gain[n].sum() - gain[n, t]) / 3 for n, t in enumerate((0, 3, 1))]
        same(scored("co_score", at, mode=mode, space=space).values, torch.stack(expected), 1e-5)
    assert torch.equal(augmented(at.probe, h * 0, "add", "normalised"), at.probe.frames)


def test_probabilities_on_both_sides() -> None:
    net, frames, maps = SmallNet(), drawn(2, 3, 12, 12), drawn(2, 1, 12, 12, seed=1)
    at = trial(net, frames, maps, labels=[2, 0])
    net.eval()
    h = maps / maps.amax((1, 2, 3), keepdim=True)
    gain = (net(frames + h).softmax(1) - net(frames).softmax(1)).detach()
    own = gain[torch.arange(2), torch.tensor([2, 0])]
    same(scored("co_score", at, score="probability").values, own * 4 / 3, 1e-5)  # the others lose what it gains
    closed = trial(Weighed(torch.eye(4), through=lambda z: z.softmax(1)), frames[:, 0, 0, :4], h[:, 0, 0, :4],
                   labels=[0, 1], output="probabilities", task="tabular")  # fmt: skip
    with pytest.raises(InputError, match="needs raw logits, and Weighed gives probabilities"):
        scored("co_score", closed)
    assert bool(scored("co_score", closed, score="probability").values.isfinite().all())


def test_the_truth_is_the_label() -> None:
    net, frames, maps = SmallNet(), drawn(4, 3, 12, 12), drawn(4, 1, 3, 3, seed=1)
    at = trial(net, frames, maps, target=2, labels=[1, None, 0, 9])
    found, fallback = (scored("co_score", at, unlabelled=u) for u in ("skip", "target"))
    assert found.values.isnan().tolist() == [False, True, False, True]
    assert found.checks["no_label"].tolist() == [False, True, False, True]
    assert fallback.values.isnan().tolist() == [False, False, False, True]
    same(fallback.values[[0, 2]], found.values[[0, 2]])
    alone = trial(net, frames, maps, target=2)
    assert scored("co_score", alone).checks["no_label"].all()
    same(scored("co_score", alone, unlabelled="target").values[1:2], fallback.values[1:2])
    predicted = at.explanation.predictions
    hits = [float(predicted[0] == 1), float("nan"), float(predicted[2] == 0), float("nan")]
    same(found.checks["correct"], hits)
    with pytest.raises(InputError, match="has one output"):
        scored("co_score", trial(SmallNet(classes=1), frames, maps))


# ---- impact score ----------------------------------------------------------------------------------------------------


def test_what_impact_counts() -> None:
    """p = 1, .6, .3, .1, 0 with 0 to 4 of four pixels removed; the second class has the rest."""
    weights, frames = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.ones(1, 1, 2, 2)
    at = linear(weights, frames, weights.view(1, 1, 2, 2))
    for share, tau, strict, value, left in (
        (0.0, 1.0, True, 0, 1.0),
        (0.25, 0.5, False, 0, 0.6),
        (0.25, 0.7, False, 1, 0.6),
        (0.25, 0.7, True, 0, 0.6),
        (0.5, 0.1, False, 1, 0.3),
        (0.5, 0.1, True, 1, 0.3),
        (0.6, 0.1, True, 1, 0.3),
        (1.0, 0.5, False, 1, 0.0),
    ):
        found = scored("impact_score", at, area=share, tau=tau, strict=strict, baseline="black")
        assert float(found.values) == value, share
        same(found.checks["left"], [left])
        same(found.checks["area"], [round(share * 4) / 4])
        assert float(found.checks["flipped"]) == float(left < 0.5)


def test_impact_removes_equal_areas() -> None:
    frames = drawn(4, 3, 20, 20)
    maps = torch.cat([torch.zeros(1, 1, 7, 7), torch.ones(1, 1, 7, 7), drawn(1, 1, 7, 7), -drawn(1, 1, 7, 7).round()])
    for share in (0.05, 0.1, 0.2):
        found = scored("impact_score", trial(SmallNet(), frames, maps), area=share)
        same(found.checks["area"], [round(share * 400) / 400] * 4)


def test_impact_is_each_images_own_and_its_ties_are_drawn() -> None:
    frames, maps = drawn(3, 3, 20, 20), drawn(3, 1, 7, 7, seed=1)
    left = scored("impact_score", trial(SmallNet(), frames, maps), area=0.4).checks["left"]
    for n in range(3):
        alone = scored("impact_score", trial(SmallNet(), frames[n : n + 1], maps[n : n + 1]), area=0.4)
        same(alone.checks["left"], left[n : n + 1], 1e-5)
    flat = trial(SmallNet(), frames, torch.ones_like(maps))
    assert len({float(scored("impact_score", flat, seed=seed, area=0.4).checks["left"][0]) for seed in range(3)}) == 3
    same(scored("impact_score", flat, area=0.0).checks["left"], [1.0] * 3)


def test_impact_at_its_limits() -> None:
    """A confidence that does not move is as low as tau 1 asks; what is filled with itself is not removed."""
    constant = trial(SmallNet(constant=True), drawn(2, 3, 12, 12), drawn(2, 1, 3, 3))
    assert scored("impact_score", constant).values.tolist() == [0.0, 0.0]
    assert scored("impact_score", constant, tau=1.0).values.tolist() == [1.0, 1.0]
    at = linear(torch.full((4,), 0.25), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    for baseline, value in (("white", 0.0), ("black", 1.0)):
        assert scored("impact_score", at, area=1.0, baseline=baseline).values.tolist() == [value]


def test_one_output_is_a_yes_and_a_no() -> None:
    """p falls from .9 to .4: a yes becomes a no."""
    net = Weighed(torch.tensor([[0.5, 0.4]]))
    at = trial(net, torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), output="probabilities", task="multilabel")
    found = scored("impact_score", at, area=0.5, tau=0.1, strict=True, baseline="black")
    assert (float(found.values), float(found.checks["left"])) == (1.0, pytest.approx(0.4 / 0.9))


# ---- the contract, with other parameters than the usual ones ---------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    ["insertion:mode=igospp,steps=7", "deletion:mode=igospp_published,steps=3", "deletion:baseline=auto,steps=1",
     "co_score:unlabelled=target,mode=multiply", "co_score:unlabelled=target,score=probability",
     "impact_score:area=0.3,strict=true,baseline=mean"],
)  # fmt: skip
def test_contract(request_: str) -> None:
    testing.check_metric(request_)
