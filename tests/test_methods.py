"""Every method, one line each: its closed forms, then the contract of `whylens.testing` on images and tables."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from test_dax import CASES_DAX
from test_excitation import CASES_EXCITATION
from test_gax import CASES_GAX
from test_gsinquire import CASES_GSINQUIRE
from test_igos import CASES_IGOS
from test_lime_shap import CASES_LIME_SHAP
from test_meaningful_perturbation import CASES_PERTURBATION
from whylens import _plugins, testing
from whylens.contract import Method
from whylens.testing import Case
from whylens.testing.held import hold

# ---- nets whose attributions are known by algebra ------------------------------------------------------------


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FRAMES = random(4, 3, 6, 6, seed=5)
WEIGHTS = random(3, 6, 6, seed=6)


class Function(nn.Module):
    """A net given by a formula; two outputs, so that the target matters."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        value = self.formula(x).flatten(1).sum(1)
        return torch.stack([-3 * value, value], 1)


def linear(x: Tensor) -> Tensor:
    return WEIGHTS * x + 0.25


def squared(x: Tensor) -> Tensor:
    return WEIGHTS * x * x


def rectified(x: Tensor) -> Tensor:
    return WEIGHTS * F.relu(2 * x + 0.3, inplace=True)


def expect(method: str, formula: Callable[[Tensor], Tensor], maps: Tensor, **params: object) -> Callable[[], None]:
    """A closed form: what a method must give on a net of that formula, for output 1."""

    def check() -> None:
        found = whylens.explain(Function(formula), FRAMES, method=method, target=1, params=params or None).maps
        torch.testing.assert_close(found, maps, rtol=1e-5, atol=1e-5)

    return check


class Patch(nn.Module):
    """Class 1 sees the mean of one patch of a 16 x 16 frame, class 0 what is left of 1."""

    def forward(self, x: Tensor) -> Tensor:
        seen = 8 * x[:, :, 4:8, 8:12].mean((1, 2, 3)) - 4
        return torch.stack([-seen, seen], 1)


def planted(method: str, **params: object) -> Callable[[], None]:
    """The patch of a bright image holds the map: its mean there is well above the mean elsewhere, on both images."""

    def check() -> None:
        frames = torch.ones(2, 3, 16, 16) * torch.tensor([1.0, 0.8]).view(2, 1, 1, 1)
        params_ = {"baseline": "black", **params}
        found = whylens.explain(Patch(), frames, method=method, target=1, params=params_)
        maps = found.at((16, 16)).sum(1)
        inside = maps[:, 4:8, 8:12].mean((1, 2))
        outside = (maps.sum((1, 2)) - maps[:, 4:8, 8:12].sum((1, 2))) / (16 * 16 - 16)
        spread = maps.amax((1, 2)) - maps.amin((1, 2))
        hold(bool((inside - outside > 0.4 * spread).all()), f"{method}: the patch is not found")

    return check


def covered_by_hand() -> None:
    """Windows of 2 x 2 on a 3 x 3 grid of 2-pixel cells, one after another; a cell is the mean of its windows."""
    found = whylens.explain(
        Function(squared), FRAMES, method="occlusion", target=1, params={"cells": 3, "window": 2, "baseline": "white"}
    ).maps
    value = (WEIGHTS * FRAMES**2).sum((1, 2, 3))
    total, count = torch.zeros(4, 3, 3), torch.zeros(3, 3)
    for row in range(2):
        for column in range(2):
            covered = FRAMES.clone()
            covered[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] = 1
            fall = value - (WEIGHTS * covered**2).sum((1, 2, 3))
            total[:, row : row + 2, column : column + 2] += fall.view(4, 1, 1)
            count[row : row + 2, column : column + 2] += 1
    torch.testing.assert_close(found[:, 0], total / count, rtol=1e-4, atol=1e-4)


def masks_by_hand() -> None:
    """RISE as a loop over masks made by another interpolation (scipy's), weighed and summed one by one."""
    import numpy as np
    from scipy.interpolate import RegularGridInterpolator

    from whylens.methods.rise import _draw

    frames = FRAMES.abs() / FRAMES.abs().max()
    found = whylens.explain(Patched(), frames, method="rise", target=1, params={"samples": 30, "cells": 2, "seed": 4})
    units, moves = _draw(30, 2, 0.5, (6, 6), 4)
    expected = torch.zeros(4, 6, 6)
    for cells, (down, across) in zip(units.numpy(), moves.int().tolist(), strict=True):
        centres = (np.arange(2) + 0.5) * 9 / 2 - 0.5  # two cells blown up to (2 + 1) * 3 pixels
        at = np.clip(np.arange(9), centres[0], centres[1])
        grid = RegularGridInterpolator((centres, centres), cells)(np.stack(np.meshgrid(at, at, indexing="ij"), -1))
        mask = torch.from_numpy(grid[down : down + 6, across : across + 6]).float()
        expected += Patched()(frames * mask).softmax(1)[:, 1].view(4, 1, 1) * mask / (30 * 0.5)
    torch.testing.assert_close(found.maps[:, 0], expected, rtol=1e-4, atol=1e-5)


class Patched(nn.Module):
    """Two bounded outputs of a weighed sum."""

    def forward(self, x: Tensor) -> Tensor:
        value = (WEIGHTS * x).flatten(1).sum(1) / 10
        return torch.stack([-value, value], 1)


def noisy_mean_of_squares() -> Callable[[], None]:
    def check() -> None:
        found = whylens.explain(
            Function(squared), FRAMES, method="smooth_grad", target=1, params={"samples": 3, "noise": 0.2, "seed": 9}
        ).maps
        spread = 0.2 * (FRAMES.flatten(1).max(1).values - FRAMES.flatten(1).min(1).values).view(-1, 1, 1, 1)
        draws = [torch.randn((3, 6, 6), generator=torch.Generator().manual_seed(9 * 1_000_003 + k)) for k in range(3)]
        mean = sum(FRAMES + spread * d for d in draws) / 3
        torch.testing.assert_close(found, 2 * WEIGHTS * mean, rtol=1e-4, atol=1e-5)

    return check


class TwoLayers(nn.Module):
    """x -> relu(A x + a) -> relu(B . + b) -> C: small enough for plain matrix algebra."""

    def __init__(self) -> None:
        super().__init__()
        self.A, self.a = random(10, 108, seed=1), random(10, seed=2)
        self.B, self.b = random(6, 10, seed=3), random(6, seed=4)
        self.C = random(2, 6, seed=7)
        self.relu = nn.ReLU(inplace=True)  # used twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x.flatten(1) @ self.A.T + self.a)
        return self.relu(x @ self.B.T + self.b) @ self.C.T


def by_algebra(rule: str) -> Callable[[], None]:
    """The rule on TwoLayers written out as matrix products, layer by layer."""

    def check() -> None:
        net = TwoLayers()
        found = whylens.explain(net, FRAMES, method=rule, target=0).maps
        x = FRAMES.flatten(1)
        h = x @ net.A.T + net.a
        k = h.clamp(min=0) @ net.B.T + net.b
        g = net.C[0].expand(4, -1)
        if rule == "deep_lift":
            h0, zero = net.a, torch.zeros(())
            k0 = h0.clamp(min=0) @ net.B.T + net.b
            g = g * (k.maximum(zero) - k0.maximum(zero)) / (k - k0)
            g = (g @ net.B) * (h.maximum(zero) - h0.maximum(zero)) / (h - h0)
            expected = x * (g @ net.A)
        else:
            for inputs, weights in ((k, net.B), (h, net.A)):
                g = g.clamp(min=0)
                if rule == "guided_backprop":
                    g = g * (inputs > 0)
                g = g @ weights
            expected = g
        torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-4)

    return check


class PooledLinear(nn.Module):
    """conv -> relu -> global mean -> linear: where class activation maps have a closed form."""

    def __init__(self, fixed: Tensor | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 2, bias=False)
        self.fixed = fixed
        with torch.no_grad():
            self.conv.weight.copy_(random(5, 3, 3, 3, seed=8))
            self.head.weight.copy_(random(2, 5, seed=9))

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def class_activation(method: str) -> Callable[[], None]:
    """On a pooled linear head the gradient is w / (h w) everywhere: every method of the family is algebra.

    Seen at the convolution's output: its gradient is that of the rectifier's output where that is positive.
    """

    def check() -> None:
        net = PooledLinear()
        found = whylens.explain(net, FRAMES, method=method, target=1, layer="conv").maps
        conv, w = net.conv(FRAMES).detach(), net.head.weight[1].detach().view(1, 5, 1, 1)
        gradient = (conv > 0) * w / 36
        if method == "grad_cam":
            expected = (gradient.mean((2, 3), keepdim=True) * conv).sum(1, keepdim=True)
        elif method == "layer_cam":
            expected = (gradient.clamp(min=0) * conv).sum(1, keepdim=True)
        else:
            total = conv.sum((2, 3), keepdim=True)
            denominator = 2 * gradient**2 + total * gradient**3
            alpha = torch.where((gradient > 0) & (denominator > 0), gradient**2 / denominator, torch.zeros(()))
            expected = ((alpha * gradient.clamp(min=0)).sum((2, 3), keepdim=True) * conv).sum(1, keepdim=True)
        torch.testing.assert_close(found, expected.clamp(min=0), rtol=1e-4, atol=1e-6)

    return check


def is_cam() -> None:
    """Grad-CAM over the pooled features is the class activation map of Zhou et al. over h w."""

    class Tail(nn.Sequential):
        pass

    net = Tail(
        nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    )
    found = whylens.explain(net, FRAMES, method="grad_cam", target=1, params={"relu": False})
    cam = torch.einsum("k,nkij->nij", net[3].weight[1], net[0](FRAMES))[:, None].detach() / 36
    torch.testing.assert_close(found.maps, cam, rtol=1e-4, atol=1e-6)
    assert found.layer == "0"


class Given(nn.Module):
    """A layer whose output and gradient are fixed numbers."""

    def __init__(self, activation: Tensor, gradient: float) -> None:
        super().__init__()
        self.activation, self.gradient, self.layer = activation, gradient, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(self.activation.expand(len(x), -1, -1, -1) + 0 * x.mean())
        return (self.gradient * a).flatten(1).sum(1, keepdim=True)


def worked_example() -> None:
    """A = [[1, 0], [2, 1]], gradient 0.5 everywhere: alpha = 0.25, weight 0.5; a gradient of -0.5 gives no map."""
    activation = torch.tensor([[[[1.0, 0.0], [2.0, 1.0]]]])
    for gradient, weight in ((0.5, 0.5), (-0.5, 0.0)):
        net = Given(activation, gradient)
        found = whylens.explain(net, FRAMES[:1], method="grad_cam_pp", target=0, layer="layer").maps
        torch.testing.assert_close(found, weight * activation)
    found = whylens.explain(
        Given(activation, 0.5), FRAMES[:1], method="grad_cam_pp", target=0, layer="layer",
        params={"normalize_alpha": True},
    ).maps  # fmt: skip
    torch.testing.assert_close(found, 0.5 * activation)  # the four alphas of 1/4 already add up to one


def product_of_both() -> None:
    net = PooledLinear()
    both, cam = (Method(name, layer="conv", label=name) for name in ("guided_grad_cam", "grad_cam"))
    many = whylens.explain_many(net, FRAMES, target=1, methods=[both, cam, "guided_backprop"])
    expected = many["guided_backprop"].maps * many["grad_cam"].at((6, 6))
    torch.testing.assert_close(many["guided_grad_cam"].maps, expected)


SLOPE = (F.relu(2 * FRAMES + 0.3) - 0.3) / torch.where(FRAMES.abs() < 1e-7, 1, FRAMES)

CASES = [
    Case("saliency", closed_forms=(
        expect("saliency", linear, WEIGHTS.expand(4, -1, -1, -1)), expect("saliency", squared, 2 * WEIGHTS * FRAMES))),
    Case("input_x_gradient", closed_forms=(
        expect("input_x_gradient", linear, WEIGHTS * FRAMES),
        expect("input_x_gradient", squared, 2 * WEIGHTS * FRAMES**2),
        expect("input_x_gradient", linear, WEIGHTS * (FRAMES - 1), baseline="white"))),
    Case("integrated_gradients", {"steps": 6}, (
        expect("integrated_gradients", linear, WEIGHTS * FRAMES, steps=1),
        expect("integrated_gradients", squared, WEIGHTS * FRAMES**2, steps=2))),
    Case("smooth_grad", {"samples": 4}, (
        expect("smooth_grad", linear, WEIGHTS.expand(4, -1, -1, -1)),
        expect("smooth_grad", squared, 2 * WEIGHTS * FRAMES, noise=0.0, samples=2), noisy_mean_of_squares())),
    Case("deconvolution", closed_forms=(
        expect("deconvolution", rectified, 2 * WEIGHTS.clamp(min=0).expand(4, -1, -1, -1)),
        by_algebra("deconvolution"))),
    Case("guided_backprop", closed_forms=(
        expect("guided_backprop", rectified, 2 * WEIGHTS.clamp(min=0) * (2 * FRAMES + 0.3 > 0)),
        by_algebra("guided_backprop"))),
    Case("deep_lift", closed_forms=(
        expect("deep_lift", linear, WEIGHTS * FRAMES),
        expect("deep_lift", rectified, WEIGHTS * FRAMES * SLOPE), by_algebra("deep_lift"))),
    Case("occlusion", {"cells": 5}, (
        expect("occlusion", linear, (WEIGHTS * FRAMES).sum(1, keepdim=True), cells=6, window=1, baseline="black"),
        covered_by_hand, planted("occlusion", cells=8))),
    Case("rise", {"samples": 40, "cells": 3}, (masks_by_hand, planted("rise", samples=600, cells=4))),
    Case("grad_cam", closed_forms=(class_activation("grad_cam"), is_cam)),
    Case("grad_cam_pp", closed_forms=(class_activation("grad_cam_pp"), worked_example)),
    Case("layer_cam", closed_forms=(class_activation("layer_cam"),)),
    Case("guided_grad_cam", closed_forms=(product_of_both,)),
]  # fmt: skip

# with their closed forms, and run through the contract there
ELSEWHERE = [
    *CASES_DAX,
    *CASES_EXCITATION,
    *CASES_GAX,
    *CASES_GSINQUIRE,
    *CASES_IGOS,
    *CASES_LIME_SHAP,
    *CASES_PERTURBATION,
]

TABLES = [Case(c.method, c.params, table=True, tolerance=c.tolerance) for c in CASES if Method(c.method).facts.tables]


def test_every_method_has_its_line() -> None:
    assert sorted(str(c.method) for c in CASES + ELSEWHERE) == sorted(_plugins.names("methods"))


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.method))
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", TABLES, ids=lambda c: str(c.method))
def test_contract_on_tables(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


def test_files_hold_one_method_and_import_no_other() -> None:
    for file in Path(_plugins.__file__).parent.joinpath("methods").glob("[a-z]*.py"):
        text = file.read_text("utf-8")
        assert f"def {file.stem}(" in text
        assert "from .." in text
        assert "from . import" not in text
        assert "methods." not in text


@pytest.mark.parametrize(("cells", "size"), [(7, (56, 56)), (5, (31, 18)), (2, (3, 9))])
def test_rise_lays_masks_out_as_cut_bilinear_pictures(cells: int, size: tuple[int, int]) -> None:
    module = importlib.import_module("whylens.methods.rise")
    units, moves = module._draw(40, cells, 0.5, size, 3)
    large = [(cells + 1) * -(-side // cells) for side in size]
    pictures = torch.nn.functional.interpolate(units[:, None], size=large, mode="bilinear", align_corners=False)
    masks = torch.stack(
        [p[:, y : y + size[0], x : x + size[1]] for p, (y, x) in zip(pictures, moves.long().tolist(), strict=True)]
    )
    expand, weights = module._Shifted(cells, size), torch.linspace(0, 1, 80).view(2, 40)
    torch.testing.assert_close(expand(torch.cat([units.flatten(1), moves], 1), torch.zeros(40)), masks)
    torch.testing.assert_close(expand.weighed(units, moves, weights), torch.einsum("nm,mchw->nhw", weights, masks))
