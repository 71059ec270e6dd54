"""LIME, KernelSHAP, PartitionSHAP and expected gradients: closed forms, brute force, the packages lime and shap."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import whylens
from test_hierarchy import by_orders
from test_surrogate import brute_force, random
from whylens import InputError, Model, hierarchy, regions, surrogate, testing
from whylens.testing import Case

# ---- nets whose values are known -------------------------------------------------------------------------------------

FRAMES = random(3, 3, 16, 16, seed=5)
WEIGHTS = random(2, 16, seed=6)


def patches(x: Tensor, side: int = 4) -> Tensor:
    """Mean of each patch ``(N, side²)``."""
    return nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), side).flatten(1)


class PatchLinear(nn.Module):
    """Each output a weighed sum of the means of 16 patches."""

    def forward(self, x: Tensor) -> Tensor:
        return patches(x) @ WEIGHTS.T + torch.tensor([0.5, -1.0])


class Game(nn.Module):
    """A score of which of 9 patches are bright; frames of ones against black show all against nothing."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        value = self.score(patches(x, 3))
        return torch.stack([-value, value], 1)


class Bent(nn.Module):
    """A random net with rectifiers: nothing about it is additive."""

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.low, self.high = random(3 * frame, 40, seed=1) / frame**0.5, random(40, 3, seed=2) / 4

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.low - 0.3).relu() @ self.high


SHOWN = torch.ones(1, 3, 9, 9)


def run(net: nn.Module | Model, frames: Tensor, method: str, target: Any = 1, **params: Any) -> whylens.Explanation:
    return whylens.explain(net, frames, method=method, target=target, params=params or None)


def values_of(found: whylens.Explanation, *, total: bool = True) -> list[Tensor]:
    """Each image's unit values, read off its map: the sum over a unit's pixels, or what every pixel carries."""
    assert found.parts is not None
    values = []
    for own, labels in zip(found.maps.flatten(1), found.parts[:, 0].flatten(1).long(), strict=True):
        size = labels.bincount()
        added = torch.zeros(len(size)).index_add_(0, labels, own)
        values.append(added if total else added / size)
    return values


def additive(method: str, *, total: bool, **params: object) -> Callable[[], None]:
    """On PatchLinear the value of a patch is its weight times its mean's difference from the fill, to 1e-6."""

    def check() -> None:
        for name, fill in (("white", 1.0), ("mean", 0.0)):
            for target in (0, 1):
                found = run(PatchLinear(), FRAMES, method, target, baseline=name, count=16, **params)
                expected = WEIGHTS[target] * (patches(FRAMES) - fill)
                values = torch.stack(values_of(found, total=total))
                bar = 1e-6 * float(expected.abs().max()) + 2e-6 * (total or 0)  # sums of 16 float32 pixels
                torch.testing.assert_close(values, expected, rtol=0, atol=bar)

    return check


def games(method: str, **params: object) -> Callable[[], None]:
    """Both needed: half each. Exactly one: nothing. Two equal ones share; one never seen gets nothing."""

    def check() -> None:
        cases: list[tuple[Callable[[Tensor], Tensor], dict[int, float]]] = [
            (lambda p: p[:, 0] * p[:, 1], {0: 0.5, 1: 0.5}),
            (lambda p: p[:, 0] + p[:, 1] - 2 * p[:, 0] * p[:, 1], {}),
            (lambda p: torch.maximum(p[:, 0], p[:, 1]) + 2 * p[:, 8], {0: 0.5, 1: 0.5, 8: 2.0}),
            (lambda p: p[:, 0] * p[:, 4] * 3 - p[:, 7], {0: 1.5, 4: 1.5, 7: -1.0}),
        ]
        for score, expected in cases:
            found = run(Game(score), SHOWN, method, baseline="black", units="grid", count=9, **params)
            values = torch.tensor([expected.get(i, 0.0) for i in range(9)])
            torch.testing.assert_close(values_of(found)[0], values, rtol=0, atol=2e-6)
            assert float(found.checks["residual"][0] * found.checks["difference"][0].abs()) < 1e-5

    return check


def tiles(rows: int, columns: int) -> Tensor:
    """A frame ``(1, 3, 15, 14)`` of random tiles: segments that are easily found."""
    colours = torch.rand((1, 3, rows, columns), generator=torch.Generator().manual_seed(rows * columns))
    return nn.functional.interpolate(colours, size=(15, 14))


def every_score(net: nn.Module, frame: Tensor, labels: Tensor, target: int) -> dict[tuple[int, ...], float]:
    """The score of every set of units shown on black, by a plain loop."""
    units = int(labels.max()) + 1
    masks = list(product((0, 1), repeat=units))
    shown = torch.tensor(masks, dtype=torch.float32)[:, labels.flatten()].view(-1, 1, *labels.shape)
    with torch.no_grad():
        return dict(zip(masks, net(shown * frame)[:, target].tolist(), strict=True))


def by_brute_force(method: str, **params: object) -> Callable[[], None]:
    """On a rectifier net: Shapley values by their definition, Owen values over all orders of the tree."""

    def check() -> None:
        net, frames = Bent(15 * 14), torch.cat([tiles(2, 2), tiles(2, 3), tiles(3, 3)])
        for units, count in (("grid", 9), ("slic", 9)):
            found = run(net, frames, method, 2, baseline="black", units=units, count=count, **params)
            assert found.parts is not None
            labels = found.parts[:, 0].long()
            assert units == "grid" or len({int(own.max()) for own in labels}) > 1  # images with more units and fewer
            for n, values in enumerate(values_of(found)):
                scores = every_score(net, frames[n], labels[n], 2)
                if method == "kernel_shap":
                    expected = brute_force(scores, len(values))
                else:
                    expected = by_orders(hierarchy.trees(frames[n : n + 1], labels[n : n + 1], units)[0], scores)
                torch.testing.assert_close(values.double(), expected, rtol=0, atol=1e-5)

    return check


def mean_over_references() -> None:
    """Linear: the weights times the difference from the references' mean; squared: the points one by one."""
    references, weights = random(4, 3, 6, 6, seed=3), random(3, 6, 6, seed=4)
    frames = random(2, 3, 6, 6, seed=5)
    for power in (1, 2):
        net = Sum(weights, power)
        found = run(net, frames, "expected_gradients", samples=8, references=references, seed=7)
        order = torch.randperm(4, generator=torch.Generator().manual_seed(7))
        expected = torch.zeros_like(frames)
        for k in range(8):
            move = torch.rand((), generator=torch.Generator().manual_seed((7 * 1_000_003 + k) * 2)).item()
            start = references[order[k % 4]]
            point = start + (k + move) / 8 * (frames - start)
            expected += weights * power * point ** (power - 1) * (frames - start) / 8
        torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)
        scores = net(frames)[:, 1] - net(references)[:, 1].mean()
        torch.testing.assert_close(found.checks["difference"], scores, rtol=1e-4, atol=1e-4)
        if power == 1:
            torch.testing.assert_close(found.maps, weights * (frames - references.mean(0)), rtol=1e-4, atol=1e-5)
            assert float(found.checks["residual"].max()) < 1e-4


class Sum(nn.Module):
    """A weighed sum of powers; output 1 counts."""

    def __init__(self, weights: Tensor, power: int) -> None:
        super().__init__()
        self.weights, self.power = weights, power

    def forward(self, x: Tensor) -> Tensor:
        value = (self.weights * x**self.power).flatten(1).sum(1)
        return torch.stack([-3 * value, value], 1)


def is_integrated_gradients() -> None:
    """With one black reference and many samples it is the integrated gradient."""
    net, frames = testing.SmallNet(), random(2, 3, 12, 12, seed=1).abs()
    many = run(net, frames, "expected_gradients", samples=400, references=torch.zeros(1, 3, 12, 12)).maps
    path = run(net, frames, "integrated_gradients", steps=200, baseline="black").maps
    assert float((many - path).abs().max() / path.abs().max()) < 0.01


CASES_LIME_SHAP = [
    Case("lime", {"samples": 60, "units": "grid", "count": 9}, (
        additive("lime", total=False, units="grid", samples=60, ridge=0.0, value="score"),
        additive("lime", total=False, units="grid", samples=60, ridge=1e-9, value="score", width=1.0, paired=False))),
    Case("kernel_shap", {"samples": 40, "units": "grid", "count": 9}, (
        additive("kernel_shap", total=True, units="grid", samples=60), games("kernel_shap", samples=492),
        by_brute_force("kernel_shap", samples=500))),
    Case("partition_shap", {"max_evals": 60, "count": 16}, (
        additive("partition_shap", total=True, max_evals=172), games("partition_shap", max_evals=400),
        by_brute_force("partition_shap", max_evals=2000))),
    Case("expected_gradients", {"samples": 6}, (mean_over_references, is_integrated_gradients)),
]  # fmt: skip

OWN_UNITS = [
    Case("lime", {"samples": 60, "units": "slic", "count": 60}),
    Case("lime", {"samples": 400, "units": "slic", "count": 60, "stable": 2, "baseline": "blur", "value": "score"}),
    Case("kernel_shap", {"samples": 0, "units": "slic", "count": 60, "value": "probability"}),
    Case("partition_shap", {"max_evals": 40, "units": "slic", "count": 60, "baseline": "black"}),
]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_LIME_SHAP + OWN_UNITS, ids=lambda c: f"{c.method}-{c.params.get('units')}")
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


# ---- the packages ----------------------------------------------------------------------------------------------------


class Photo(nn.Module):
    """Two outputs of a small convolution for frames in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = testing.SmallNet(classes=3)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.net(x)


class Peer:
    """The lime package on one frame and its segments; what it drew and what it found."""

    def __init__(self, net: nn.Module, frame: Tensor, labels: Tensor, hide: int | None, seed: int) -> None:
        from lime.lime_image import LimeImageExplainer

        def classifier(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            with torch.no_grad():
                return net(torch.from_numpy(pictures).permute(0, 3, 1, 2).float()).softmax(1).numpy()

        def keep(data: Any, *args: Any, **options: Any) -> Any:
            self.masks = torch.from_numpy(np.asarray(data)).float()
            return explain(data, *args, **options)

        explainer = LimeImageExplainer(random_state=seed)
        explain = explainer.base.explain_instance_with_data
        explainer.base.explain_instance_with_data = keep
        found = explainer.explain_instance(
            frame.permute(1, 2, 0).double().numpy(), classifier, labels=(1,), top_labels=None, num_samples=200,
            hide_color=hide, segmentation_fn=lambda _: labels.numpy(),
        )  # fmt: skip
        self.values = torch.zeros(int(labels.max()) + 1)
        for unit, value in found.local_exp[1]:
            self.values[unit] = value
        self.r_squared = float(found.score[1] if isinstance(found.score, dict) else found.score)


@pytest.mark.parametrize("fill", ["segments", "black"])
def test_lime_is_that_of_the_lime_package_on_its_masks(fill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = Photo().eval(), torch.rand((2, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    found = regions.find(frames, "slic", count=60)
    for n in range(2):
        peer = Peer(net, frames[n], found.labels[n], None if fill == "segments" else 0, n)
        assert peer.masks.shape == (200, int(found.counts[n]))
        chunks = iter(peer.masks.split(surrogate.CHUNK))
        monkeypatch.setattr(surrogate, "draws", lambda *a, chunks=chunks, **k: next(chunks))
        ours = run(net, frames[n : n + 1], "lime", samples=200, units="slic", count=60, baseline=fill, paired=False)
        assert ours.parts is not None
        assert torch.equal(ours.parts[0, 0].long(), found.labels[n])
        difference = (values_of(ours, total=False)[0] - peer.values).abs().max() / peer.values.abs().max()
        assert float(difference) < 1e-4
        assert float(ours.checks["r_squared"][0]) == pytest.approx(peer.r_squared, abs=1e-4)


def test_with_draws_of_its_own_lime_ranks_as_the_lime_package_does_under_two_seeds() -> None:
    """Rank correlation of ours with theirs, less theirs with itself under another seed: 24 pictures, paired."""
    from scipy.stats import spearmanr

    from whylens.interval import mean

    blocks = torch.rand((24, 3, 6, 6), generator=torch.Generator().manual_seed(7))
    net, frames = Photo().eval(), F.interpolate(blocks, size=(24, 24), mode="nearest")
    found = regions.find(frames, "slic", count=30)
    assert int(found.counts.min()) > 15
    ours = run(net, frames, "lime", samples=200, units="slic", count=30, paired=True, seed=5)
    gains = []
    for n in range(len(frames)):
        first, second = (Peer(net, frames[n], found.labels[n], None, seed).values for seed in (11, 12))
        own = values_of(ours[n : n + 1], total=False)[0][: len(first)]
        with_ours = (spearmanr(own, first).statistic + spearmanr(own, second).statistic) / 2
        gains.append(with_ours - spearmanr(first, second).statistic)
    gain = mean(np.array(gains))
    assert gain.low > -0.1, gain
    assert gain.high > 0, gain  # not worse, as far as 24 pictures tell


@pytest.mark.filterwarnings("ignore")
def test_kernel_shap_is_that_of_the_shap_package() -> None:
    shap = pytest.importorskip("shap")
    net, frame = Bent(12 * 12), random(1, 3, 12, 12, seed=3).abs() / 3
    labels = regions.grid(frame, 3).labels[0]
    ours = run(net, frame, "kernel_shap", 2, baseline="black", units="grid", count=9, samples=492)

    def score(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shown = torch.from_numpy(masks).float()[:, labels.flatten()].view(-1, 1, 12, 12)
        return net(shown * frame)[:, 2].numpy()

    explainer = shap.KernelExplainer(score, np.zeros((1, 9)))
    peer = explainer.shap_values(np.ones((1, 9)), nsamples=510, l1_reg=False, silent=True)[0]
    np.testing.assert_allclose(values_of(ours)[0], peer, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("evals", [2000, 40])
def test_partition_shap_is_that_of_the_shap_package(evals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On our tree, whole and with a budget that leaves branches closed, opened one by one on both sides."""
    shap = pytest.importorskip("shap")
    monkeypatch.setattr(hierarchy, "TOGETHER", 1)
    net, frame = Bent(12 * 12), random(1, 3, 12, 12, seed=3).abs() / 3
    labels, tree = regions.grid(frame, 3).labels[0], hierarchy.halving(3, 3)
    ours = run(net, frame, "partition_shap", 2, baseline="black", count=9, max_evals=evals + 2)
    linkage: list[list[float]] = []

    def number(node: hierarchy.Node) -> int:
        if node.halves is None:
            return node.units[0]
        first, second = map(number, node.halves)
        linkage.append([first, second, len(node.units), len(node.units)])
        return 8 + len(linkage)

    number(tree)

    def score(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shown = torch.from_numpy(masks).float()[:, labels.flatten()].view(-1, 1, 12, 12)
        return net(shown * frame)[:, 2].numpy()

    masker = shap.maskers.Partition(np.zeros((1, 9)), clustering=np.array(linkage))
    explainer = shap.explainers.PartitionExplainer(score, masker)
    peer = explainer(np.ones((1, 9)), max_evals=evals + 2, batch_size=2, silent=True).values[0]
    np.testing.assert_allclose(values_of(ours)[0], peer, atol=2e-5)


# ---- what else must hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "partition_shap"])
def test_a_black_box_and_a_function_are_explained(method: str) -> None:
    frames = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    net = testing.SmallNet().eval()
    params = {"units": "grid", "count": 9, "value": "score", "baseline": "black"}
    box = Model(net, differentiable=False)
    plain = run(net, frames, method, 2, **params).maps
    torch.testing.assert_close(run(box, frames, method, 2, **params).maps, plain, rtol=1e-4, atol=1e-6)
    by_function = run(net, frames, method, lambda output: output[:, 2], **params).maps
    torch.testing.assert_close(by_function, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", ["score", "probability"])
@pytest.mark.parametrize("method", ["kernel_shap", "partition_shap"])
def test_shapley_values_add_up_in_what_is_asked(method: str, value: str) -> None:
    frames = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    net = Photo().eval()
    found = run(net, frames, method, 1, value=value, baseline="black", count=16)
    with torch.no_grad():
        ends = net(frames), net(torch.zeros(1, 3, 16, 16))
        whole, nothing = (e.softmax(1)[:, 1] if value == "probability" else e[:, 1] for e in ends)
    torch.testing.assert_close(found.maps.sum((1, 2, 3)), whole - nothing, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.checks["difference"], whole - nothing, rtol=1e-4, atol=1e-5)
    assert not found.checks["incomplete"].any()


def test_lime_finds_two_that_are_both_needed_and_says_how_sure() -> None:
    """Patches 0 and 1 together decide; their coefficients stand out by many standard errors, the others' do not."""
    net = Game(lambda p: 6 * p[:, 0] * p[:, 1] - 3)
    found = run(net, SHOWN, "lime", units="grid", count=9, baseline="black")
    values = values_of(found, total=False)[0]
    assert found.parts is not None
    errors = torch.stack([found.parts[0, 1][found.parts[0, 0] == i].mean() for i in range(9)])
    assert set(values.topk(2).indices.tolist()) == {0, 1}
    assert bool((values[:2] > 10 * errors[:2]).all())
    assert bool((values[2:].abs() < 4 * errors[2:]).all())
    assert 0.5 < float(found.checks["r_squared"][0]) < 0.95
    assert float(found.checks["error"][0]) == pytest.approx(float(errors.mean() / values.max()), rel=1e-4)


@pytest.mark.parametrize("paired", [False, True])
def test_lime_is_its_fit_of_its_draws(paired: bool) -> None:
    net = Game(lambda p: 6 * p[:, 0] * p[:, 1] - p[:, 5])
    found = run(net, SHOWN, "lime", units="grid", count=9, baseline="black", samples=150, paired=paired, seed=3)
    masks = torch.cat([surrogate.draws(k, 9, seed=3, paired=paired) for k in range(2)])[:150].clone()
    masks[0] = 1
    scores = net(masks.view(-1, 1, 3, 3).expand(-1, 3, -1, -1)).softmax(1)[:, 1]
    groups = torch.arange(150) // 2 if paired else None
    fit = surrogate.fit(masks, scores, surrogate.nearness(masks, 0.25), ridge=1.0, groups=groups)
    assert found.parts is not None
    for painted, expected in ((found.maps[0, 0], fit.coefficients), (found.parts[0, 1], fit.errors)):
        torch.testing.assert_close(painted[1::3, 1::3].flatten(), expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "partition_shap"])
def test_rounding_is_no_map(method: str) -> None:
    for size, flat in ((1e-6, True), (1e-2, False)):
        net = Game(lambda p, size=size: 5 + size * p[:, 0])  # type: ignore[misc]
        found = run(net, SHOWN, method, units="grid", count=9, baseline="black", value="score")
        assert found.flags(0) == ("baseline_keeps_target",) + ("flat",) * flat
        assert bool(found.maps.any()) is not flat


def torn(p: Tensor) -> Tensor:
    """A plain sum for bright patches, noise for dim ones."""
    bright = (p > 0.9).any(1)
    return torch.where(bright, 3 * p[:, 0] + 2 * p[:, 4], (40 * p @ torch.arange(1.0, 10.0)).sin())


def test_each_image_stops_by_itself() -> None:
    """A plain game is settled after three fits, a torn one goes on; neither knows of the other."""
    frames, net = torch.cat([SHOWN, SHOWN * 0.7]), Game(torn)
    params = {"units": "grid", "count": 9, "baseline": "black", "stable": 2, "value": "score"}
    found = run(net, frames, "lime", **params)
    alone = [run(net, frames[n : n + 1], "lime", **params) for n in range(2)]
    assert [float(a.checks["draws"][0]) for a in alone] == found.checks["draws"].tolist()
    assert found.checks["draws"][0] == 300 < found.checks["draws"][1] < 1000
    for n in range(2):
        torch.testing.assert_close(alone[n].maps[0], found.maps[n], rtol=1e-4, atol=1e-5)
    assert found.cost["forwards"] <= sum(a.cost["forwards"] for a in alone) / 2 + 10
    first = run(net, frames[:1], "lime", **{**params, "stable": 0, "samples": 300})
    torch.testing.assert_close(first.maps[0], found.maps[0], rtol=1e-4, atol=1e-5)
    assert (run(net, frames, "lime", **{**params, "stable": 0}).checks["draws"] == 1000).all()


def test_what_stays_closed_is_spread_evenly() -> None:
    found = run(PatchLinear(), FRAMES, "partition_shap", baseline="mean", count=16, max_evals=4)
    halves = found.maps[:, 0, [0, 7, 8, 15]][..., [0, 15]]
    torch.testing.assert_close(halves[:, 0, 0], halves[:, 1, 1])
    torch.testing.assert_close(halves[:, 2, 0], halves[:, 3, 1])
    expected = (WEIGHTS[1] * patches(FRAMES)).view(3, 2, 8).sum(2) / 128
    torch.testing.assert_close(torch.stack([halves[:, 0, 0], halves[:, 2, 0]], 1), expected, rtol=1e-4, atol=1e-6)
    assert found.checks["opened"].tolist() == [1, 1, 1]


# ---- references ------------------------------------------------------------------------------------------------------


def test_references_are_a_folder_photos_or_frames(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    frames, net = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0)), testing.SmallNet()
    given = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    maps = [
        run(net, frames, "expected_gradients", samples=3, references=r).maps
        for r in (str(tmp_path), whylens.load_images(tmp_path), given)
    ]
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r"references must have the frames' shape \(3, 8, 8\). Got \(3, 4, 4\)"):
        run(net, frames, "expected_gradients", references=torch.rand(2, 3, 4, 4))
    with pytest.raises(InputError, match="nowhere"):
        run(net, frames, "expected_gradients", references=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("kind", ["colours", "noise", "blurs", "varied"])
def test_drawn_references_are_no_other_image_and_same_for_all(kind: str) -> None:
    """What an image meets does not depend on its neighbours; blurs are its own."""
    frames, net = torch.rand((3, 3, 14, 14), generator=torch.Generator().manual_seed(0)), testing.SmallNet()
    whole = run(net, frames, "expected_gradients", samples=6, baseline=kind)
    other = frames.clone()
    other[1:] = 0.3
    kept = run(net, other, "expected_gradients", samples=6, baseline=kind)
    torch.testing.assert_close(whole.maps[0], kept.maps[0], rtol=1e-4, atol=1e-6)
    assert whole.baseline == f"6 references ({kind})"


def test_more_samples_leave_less_missing() -> None:
    frames, net = torch.rand((4, 3, 14, 14), generator=torch.Generator().manual_seed(0)), testing.SmallNet()
    missing = []
    for samples in (6, 300):
        checks = run(net, frames, "expected_gradients", samples=samples, baseline="noise").checks
        missing.append(float((checks["residual"] * checks["difference"].abs()).mean()))
    assert missing[1] < missing[0] / 2
