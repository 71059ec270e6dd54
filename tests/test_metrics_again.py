"""Metrics that explain again: max_sensitivity, model_randomisation, impact_coverage; a small trained net for the truth.

The net tells bars, crosses and rings apart: five convolutions, trained for seconds until it does.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.metrics import sensitivity_max
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

import whylens
from test_scoring import Weighed, drawn, same, scored, trial
from whylens import InputError, Method, MethodFacts, Trial, testing
from whylens.metrics.impact_coverage import _place
from whylens.metrics.model_randomisation import _similarity
from whylens.randomisation import cascade, redraw
from whylens.similarity import spearman, ssim
from whylens.testing import SmallNet, SmallTable
from whylens.trial import trial_of


def explained(net: nn.Module, frames: Tensor, method: Any, *, target: Any = 1, **model: Any) -> Trial:
    """The trial of an explanation as it is."""
    opened = whylens.Model(net, **model)
    images = whylens.load_images(frames)
    explanation = whylens.explain(opened, images, method=method, target=target)
    own = method if callable(method) else None
    return trial_of(opened, images, explanation, frames, method=None if own is None else Method(own))


# ---- similarity ------------------------------------------------------------------------------------------------------


def test_spearman_by_hand_and_by_scipy() -> None:
    one = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [2, 2, 2, 2]])
    other = torch.tensor([[10.0, 20, 40, 30], [4, 3, 2, 1], [-9, 0, 1, 8], [1, 2, 3, 4]])
    same(spearman(one, other), [0.8, -1.0, 1.0, float("nan")])  # 1 - 6 * 2 / (4 * 15)
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 9, (5, 300), generator=rng).float() for _ in range(2))
    expected = [spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    same(spearman(first, second), expected)


@pytest.mark.parametrize("size", [(24, 31), (11, 11)])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    first, second = drawn(3, *size), drawn(3, *size, seed=1)
    same(ssim(first, first), [1.0] * 3)
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = [
        structural_similarity(a, b, data_range=1.0, **options)
        for a, b in zip(first.numpy(), second.numpy(), strict=True)
    ]
    same(ssim(first, second), theirs, 1e-5)


@pytest.mark.parametrize("size", [(7, 7), (5, 3), (1, 1)])
def test_ssim_of_a_map_smaller_than_the_window(size: tuple[int, int]) -> None:
    """One window as large as the map: its weighted moments, written out."""
    a, b = drawn(*size), drawn(*size, seed=1)
    weight = torch.tensor([[(i - size[0] // 2) ** 2 + (j - size[1] // 2) ** 2 for j in range(size[1])]
                           for i in range(size[0])])  # fmt: skip
    weight = torch.exp(-weight / (2 * 1.5**2))
    weight = weight / weight.sum()
    at, bt = (weight * a).sum(), (weight * b).sum()
    spread = (weight * (a - at) ** 2).sum() + (weight * (b - bt) ** 2).sum()
    shared = (weight * (a - at) * (b - bt)).sum()
    expected = (2 * at * bt + 1e-4) / (at**2 + bt**2 + 1e-4) * (2 * shared + 9e-4) / (spread + 9e-4)
    same(ssim(a[None], b[None]), expected[None], 1e-5)
    assert bool(ssim(drawn(1, 8, 6), drawn(1, 8, 6, seed=1)).isfinite())


# ---- weights drawn anew ----------------------------------------------------------------------------------------------


def test_layers_go_from_the_output_to_the_input() -> None:
    model = whylens.Model(SmallNet())
    assert cascade(model, drawn(1, 3, 20, 20), 10) == [("head",), ("high",), ("low", "norm")]
    assert cascade(model, drawn(1, 3, 20, 20), 2) == [("head", "high"), ("low", "norm")]
    assert cascade(model, drawn(1, 3, 20, 20), 1) == [("head", "high", "low", "norm")]


def test_layers_are_in_the_order_in_which_they_run() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.unused, self.first = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(5, 4)
            self.uncalled, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(1, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x * self.scale).relu() @ self.uncalled.weight)

    model = whylens.Model(Odd(), task="tabular")
    assert cascade(model, drawn(1, 5), 9) == [("last",), ("first",), ("uncalled",), ("",)]
    assert not any(p.grad is not None for p in model.net.parameters())


def test_every_weight_of_a_transformer_is_drawn_anew() -> None:
    """Also attention, whose projection is used without being called, and tokens that belong to no layer."""
    torch.manual_seed(0)
    plain = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    for net, frame in (
        (timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=16, depth=2), drawn(1, 3, 32, 32)),
        (nn.Sequential(nn.Unflatten(1, (3, 8)), plain, nn.Flatten(), nn.Linear(24, 2)), drawn(1, 24)),
    ):
        with torch.no_grad():
            for weights in net.parameters():
                weights.copy_(torch.randn(weights.shape))
        new = copy.deepcopy(net)
        for names in cascade(whylens.Model(net.eval(), task="tabular"), frame, 50):
            redraw(new, names, 0)
        for (name, before), after in zip(net.named_parameters(), new.parameters(), strict=True):
            assert not torch.equal(before, after), name


def test_weights_are_drawn_as_they_are_initialised_and_by_the_seed() -> None:
    nets = [copy.deepcopy(SmallNet()) for _ in range(3)]
    nets[0].norm.running_mean.fill_(3)
    state = torch.get_rng_state()
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        redraw(net, ("low", "norm", "head"), seed)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(nets[0].low.weight, nets[1].low.weight)
    assert not torch.equal(nets[0].low.weight, nets[2].low.weight)
    assert torch.equal(nets[0].high.weight, SmallNet().high.weight)
    assert float(nets[0].low.weight.detach().abs().max()) <= 1 / 27**0.5  # as a convolution of 27 inputs is
    assert nets[0].norm.running_mean.tolist() == [0.0] * 6
    assert nets[0].norm.weight.tolist() == [1.0] * 6


# ---- model randomisation ---------------------------------------------------------------------------------------------


def stubbed(maps: Any, others: list[Any]) -> Trial:
    """A trial whose method gives these maps ``(h, w)`` one after another, whatever the net."""
    frames = drawn(1, 3, 12, 12)
    at = trial(SmallNet(), frames, torch.tensor(maps).float()[None, None])
    given = iter(others)
    return replace(at, again=lambda **_: torch.tensor(next(given)).float()[None, None])


def test_the_value_is_the_mean_over_layers() -> None:
    one = [[1, 2], [3, 4]]
    found = scored("model_randomisation", stubbed(one, [[[1, 2], [4, 3]], [[4, 3], [2, 1]], [[5, 5], [5, 5]]]))
    same(found.curve, [[0.8, -1.0, 0.0]])
    same(found.values, [-0.2 / 3])
    same(found.checks["last"], [0.0])
    same(found.checks["flat"], [1 / 3])
    signed = [[-1, 2], [-3, 4]]
    found = scored("model_randomisation", stubbed(signed, [one, one, one]), compare="spearman_abs")
    same(found.values, [1.0])
    found = scored("model_randomisation", stubbed(signed, [one, one, one]), compare="ssim")
    same(found.values, [1.0])
    flat = scored("model_randomisation", stubbed([[2, 2], [2, 2]], [one] * 3))
    assert flat.values.isnan().all()
    assert flat.checks["flat_map"].tolist() == [True]


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_an_independent_plain_loop(mode: str) -> None:
    """Copies of the net, changed by hand, and explained by the verb."""
    net, frames = SmallNet(), drawn(3, 3, 16, 16)
    at = explained(net, frames, "saliency", layer="high")
    found = scored("model_randomisation", at, mode=mode, seed=4)
    curve, moved = [], copy.deepcopy(net)
    for names in (("head",), ("high",), ("low", "norm")):
        moved = copy.deepcopy(net) if mode == "independent" else moved
        redraw(moved, names, 4)
        maps = whylens.explain(whylens.Model(moved, layer="high"), frames, method="saliency", target=1).maps
        curve.append(
            [
                spearmanr(a.sum(0).flatten(), b.sum(0).flatten()).statistic
                for a, b in zip(at.explanation.maps.numpy(), maps.numpy(), strict=True)
            ]
        )
    same(found.curve, np.transpose(curve), 1e-5)
    assert mode == "independent" or len(set(found.curve[0].tolist())) == 3


def test_what_cannot_be_randomised_is_one_sentence() -> None:
    frames, maps = drawn(2, 3, 12, 12), drawn(2, 1, 3, 3)
    at = trial(SmallNet(), frames, maps)
    box = whylens.Model(lambda x: x.mean((2, 3)))
    explanation = whylens.explain(box, frames, method="occlusion", params={"cells": 3}, target=0)
    closed = trial_of(box, whylens.load_images(frames), explanation, frames)
    with pytest.raises(InputError, match=r"draws a net's weights anew, and .* shows none\. Give a torch net"):
        scored("model_randomisation", closed)
    with pytest.raises(InputError, match=r"maps \(3, 12, 12\) where those of the explanation are \(1, 3, 3\)"):
        scored("model_randomisation", at)
    with pytest.raises(InputError, match="brings no method"):
        scored("max_sensitivity", replace(at, again=None))
    with pytest.raises(InputError, match="no structure"):
        _similarity(torch.zeros(2, 5), torch.zeros(2, 5), "ssim")

    class Held(SmallNet):
        def __deepcopy__(self, _memo: Any) -> Any:
            raise RuntimeError("is locked.\nNo copies")

    with pytest.raises(InputError, match=r"must copy the net, and Held cannot be: is locked\."):
        scored("model_randomisation", explained(Held(), frames, "saliency"))


# ---- on a trained net ------------------------------------------------------------------------------------------------


@MethodFacts(needs=("scores",), unit="frame value", signed=False)
def edges(probe: whylens.Probe) -> Tensor:
    """An edge detector: it looks at the image, and at no net."""
    x = probe.frames
    return x.diff(dim=2).abs()[..., :-1] + x.diff(dim=3).abs()[:, :, :-1]


PREPROCESS = whylens.Preprocess((32, 32), mean=(0.4,) * 3, std=(0.25,) * 3)
STROKES = torch.zeros(4, 13, 13)
STROKES[0, 5:8], STROKES[1, :, 5:8] = 1, 1
STROKES[2] = STROKES[:2].amax(0)
STROKES[3] = 1
STROKES[3, 3:10, 3:10] = 0


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames ``(N, 3, 32, 32)`` with a bright figure anywhere on noise, and which of the four it is."""
    rng, labels = torch.Generator().manual_seed(seed), torch.arange(count) % 4
    frames = 0.3 + 0.1 * torch.randn((count, 3, 32, 32), generator=rng)
    for frame, label in zip(frames, labels, strict=True):
        top, left = torch.randint(0, 19, (2,), generator=rng).tolist()
        colour = 0.5 + 0.5 * torch.rand((3, 1, 1), generator=rng)
        place = frame[:, top : top + 13, left : left + 13]
        place.copy_(torch.where(STROKES[label] > 0, colour, place))
    return frames.clamp(0, 1), labels


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    inner = [[nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)] for _ in range(2)]
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *inner[0], *inner[1])
    net.extend([nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)])
    frames, labels = pictures(512, seed=0)
    optimiser, rng = torch.optim.Adam(net.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randint(0, 512, (32,), generator=rng)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(PREPROCESS.normalise(frames[rows])), labels[rows]).backward()
        optimiser.step()
    net.eval()
    seen, truth = pictures(200, seed=1)
    assert float((net(PREPROCESS.normalise(seen)).argmax(1) == truth).float().mean()) > 0.95
    return net


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return pictures(24, seed=2)[0]


def last(net: nn.Module, frames: Tensor, method: Any, **params: Any) -> Tensor:
    """Similarity ``(N,)`` once all layers are drawn anew."""
    at = explained(net, frames, method, target=None, preprocess=PREPROCESS)
    return scored("model_randomisation", at, **params).checks["last"]


def test_slopes_and_grad_cam_change_and_guided_backprop_stays(trained: nn.Module, frames: Tensor) -> None:
    """What Adebayo et al. found: the interval of guided backprop above the gradient does not hold 0."""
    found = {
        name: whylens.Scores(last(trained, frames, name), tuple(map(str, range(24))), "model_randomisation", name)
        for name in ("input_x_gradient", "saliency", "grad_cam", "guided_backprop")
    }
    means = {name: scores.summary().mean for name, scores in found.items()}
    assert abs(means["input_x_gradient"]) < 0.3
    assert abs(means["saliency"]) < 0.3
    assert abs(means["grad_cam"]) < 0.3
    above = found["guided_backprop"].compare(found["saliency"])
    assert above.low > 0.1, means
    assert above.above == 24


def test_an_edge_detector_passes_for_nothing(trained: nn.Module, frames: Tensor) -> None:
    for params in ({}, {"compare": "spearman_abs"}, {"compare": "ssim"}, {"mode": "independent"}):
        at = explained(trained, frames[:4], edges, target=None, preprocess=PREPROCESS)
        same(scored("model_randomisation", at, **params).values, [1.0] * 4)


def test_a_map_of_noise_is_like_no_other(trained: nn.Module, frames: Tensor) -> None:
    at = explained(trained, frames, "saliency", target=None, preprocess=PREPROCESS)
    noise = torch.randn(at.explanation.maps.shape, generator=torch.Generator().manual_seed(0))
    found = scored("model_randomisation", replace(at, explanation=replace(at.explanation, maps=noise)))
    assert float(found.values.abs().mean()) < 0.02


def test_coverage_finds_what_turned_the_decision(trained: nn.Module, frames: Tensor) -> None:
    """Above chance by the interval of the difference; and only images whose decision turned have a value."""
    at = explained(trained, frames, "saliency", target=None, preprocess=PREPROCESS)
    found = scored("impact_coverage", at, steps=30, rate=0.2)
    changed = ~found.checks["not_changed"]
    assert int(changed.sum()) >= 12
    assert torch.equal(found.values.isnan(), ~changed)
    same(found.checks["chance"], [49 / 1024 / (2 - 49 / 1024)] * 24)
    ours, chance = (whylens.Scores(v, at.explanation.ids, "", "") for v in (found.values, found.checks["chance"]))
    assert ours.compare(chance).low > 0.01


# ---- impact coverage -------------------------------------------------------------------------------------------------


def dark_patch_net(side: int, place: tuple[slice, slice]) -> Weighed:
    """Class 0 counts 1; class 1 the brightness of the square at `place`."""
    weights = torch.zeros(2, side * side)
    weights[1].view(side, side)[place] = 1.0
    return Weighed(weights, torch.tensor([1.05, 0.0]))


def test_coverage_by_hand() -> None:
    """The patch is the only evidence: 4 x 4 of 80 x 5 % pixels, turned once its 16 pixels add up to more than 1.05."""
    place = _place(18, 18, 0.05, 3)
    assert [s.stop - s.start for s in place] == [4, 4]
    net = dark_patch_net(18, place)
    frames = torch.zeros(2, 1, 18, 18)
    frames[:, :, 0, 0] = 1.0  # the range of a pixel, where tensors enter as they are
    at = explained(net, frames, "saliency", target=0)
    found = scored("impact_coverage", at, seed=3, rate=0.02)
    assert found.values.tolist() == [1.0, 1.0]
    assert found.checks["steps"].tolist() == [4.0, 4.0]  # 16 * 0.02 * 4 = 1.28
    few = scored("impact_coverage", at, seed=3, rate=0.02, steps=3)
    assert few.values.isnan().all()
    assert few.checks["not_changed"].tolist() == [True, True]
    assert few.checks["steps"].tolist() == [3.0, 3.0]
    blind = dark_patch_net(18, (slice(0, 0), slice(0, 0)))
    assert scored("impact_coverage", explained(blind, frames, "saliency", target=0), seed=3).values.isnan().all()


def test_the_wrong_class_is_explained_on_the_patched_image() -> None:
    place = _place(18, 18, 0.05, 0)
    frames = torch.zeros(1, 1, 18, 18)
    frames[:, :, 0, 0] = 1.0
    at = explained(dark_patch_net(18, place), frames, "input_x_gradient", target=0)
    asked: dict[str, Any] = {}

    def again(**given: Any) -> Tensor:
        asked.update(given)
        return torch.zeros(1, 1, 18, 18)

    scored("impact_coverage", replace(at, again=again))
    assert asked["targets"].tolist() == [1]
    assert float((asked["images"] - frames)[0, 0][place].min()) > 0
    assert int((asked["images"] != frames).sum()) == 16


def test_pixels_stay_in_their_range() -> None:
    preprocess = whylens.Preprocess((18, 18), mean=(0.5,) * 3, std=(0.25,) * 3)
    net, frames = SmallNet(), drawn(2, 3, 18, 18)
    at = explained(net, frames, "saliency", target=0, preprocess=preprocess)
    asked: dict[str, Tensor] = {}

    def again(**given: Any) -> Tensor:
        asked.update(given)
        return torch.zeros(2, 3, 18, 18)

    scored("impact_coverage", replace(at, again=again), rate=0.5)
    assert (asked["images"] >= 0).all()
    assert (asked["images"] <= 1).all()


def test_where_no_patch_can_be_trained() -> None:
    frames = drawn(2, 3, 12, 12)
    box = whylens.Model(lambda x: x.mean((2, 3)))
    explanation = whylens.explain(box, frames, method="occlusion", params={"cells": 3}, target=0)
    with pytest.raises(InputError, match=r"trains a patch on images by the net's gradient.*Use impact_score"):
        scored("impact_coverage", trial_of(box, whylens.load_images(frames), explanation, frames))
    with pytest.raises(InputError, match="has one output"):
        scored("impact_coverage", explained(SmallNet(classes=1), frames, "saliency", target=0))
    table = explained(SmallTable(), drawn(2, 7), "saliency", task="tabular")
    with pytest.raises(InputError, match="trains a patch on images"):
        scored("impact_coverage", table)


# ---- max sensitivity -------------------------------------------------------------------------------------------------


def test_a_linear_net_has_one_slope_and_a_square_one_has_its_change() -> None:
    linear = Weighed(torch.randn(2, 27, generator=torch.Generator().manual_seed(0)), torch.full((2,), 3.0))
    frames = drawn(2, 3, 3, 3)
    same(scored("max_sensitivity", explained(linear, frames, "saliency")).values, [0.0, 0.0])

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.square().flatten(1).sum(1), 9 + 0 * x.flatten(1).sum(1)], 1)

    at = explained(Square(), frames, "saliency", target=0)  # its map is 2 x
    found = scored("max_sensitivity", at, radius=0.1, samples=6, seed=2)
    draws = [torch.rand((3, 3, 3), generator=torch.Generator().manual_seed(2_000_006 + k)) for k in range(6)]
    sizes = torch.stack([(0.2 * d - 0.1).norm() for d in draws])
    same(found.values, sizes.max() / frames.flatten(1).norm(dim=1), 1e-5)
    same(found.checks["mean"], sizes.mean() / frames.flatten(1).norm(dim=1), 1e-5)


def test_sensitivity_is_captums_on_the_same_draws() -> None:
    net, frames = SmallNet(), drawn(2, 3, 12, 12)
    at = explained(net, frames, "input_x_gradient", target=torch.tensor([1, 3]))
    found = scored("max_sensitivity", at, radius=0.05, samples=5)
    net.eval()

    def maps(x: Any, target: Any) -> tuple[Tensor]:
        x = (x[0] if isinstance(x, tuple) else x).detach()
        with torch.enable_grad():
            x.requires_grad_()
            (slope,) = torch.autograd.grad(net(x).gather(1, torch.as_tensor(target)[:, None]).sum(), x)
        return (slope * x.detach(),)

    def moved(x: Any, radius: float) -> Tensor:
        x = x[0] if isinstance(x, tuple) else x
        draws = [torch.rand((3, 12, 12), generator=torch.Generator().manual_seed(k % 5)) for k in range(len(x))]
        return x + radius * (2 * torch.stack(draws) - 1)

    theirs = sensitivity_max(maps, frames, moved, perturb_radius=0.05, n_perturb_samples=5, target=torch.tensor([1, 3]))
    torch.testing.assert_close(found.values.double(), theirs.double(), rtol=1e-4, atol=1e-6)


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_sensitivity", "model_randomisation", "impact_coverage"])
def test_a_constant_net(name: str) -> None:
    """Its maps are zero: there is nothing to compare, and no decision to turn."""
    for method in ("grad_cam", "saliency"):
        at = explained(SmallNet(constant=True), drawn(2, 3, 14, 14), method, layer="high")
        found = scored(name, at)
        assert found.values.isnan().all()
        why = {"max_sensitivity": "no_mass", "model_randomisation": "flat_map", "impact_coverage": "not_changed"}[name]
        assert found.checks[why].tolist() == [True, True]


@pytest.mark.parametrize(
    "request_",
    ["max_sensitivity:samples=3,radius=0.3", "model_randomisation:mode=independent,compare=ssim,steps=2",
     "model_randomisation:compare=spearman_abs", "impact_coverage:area=0.2,steps=20,rate=0.2"],
)  # fmt: skip
def test_contract_with_other_parameters(request_: str) -> None:
    testing.check_metric(request_)
