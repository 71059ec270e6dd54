"""Excitation backprop: closed forms by matrices and loops, conservation, every way to write a net, what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import whylens
from whylens import InputError, Model, testing
from whylens.testing import Case

NAME = "excitation_backprop"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FRAMES = random(3, 3, 6, 6, seed=5)


def run(
    net: nn.Module | Model, frames: Tensor, layer: str | None = None, target: Any = 1, **params: Any
) -> whylens.Explanation:
    return whylens.explain(net, frames, method=NAME, layer=layer, target=target, params=params or None)


class Sown(nn.Module):
    """A net as a function of its parts, which are a module ``seen`` (the layer) and tensors of random numbers."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.seen, self.formula = nn.Identity(), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self.seen(x))


# ---- second formulas: the rule by loops over numbers -----------------------------------------------------------------


def share(x: Tensor, weight: Tensor, p: Tensor) -> Tensor:
    """Shares of the inputs ``(N, J)`` of ``y = W x``, W ``(I, J)``, from those of its outputs, by loops."""
    found, weight = torch.zeros_like(x), weight.detach()
    for n in range(len(x)):
        for i in range(len(weight)):
            parts = [max(float(x[n, j]), 0.0) * max(float(weight[i, j]), 0.0) for j in range(x.shape[1])]
            total = sum(parts)
            for j, part in enumerate(parts):
                found[n, j] += part / total * p[n, i] if total > 0 else 0.0
    return found


def dense(weight: Tensor, side: int) -> Tensor:
    """A padded 3 x 3 convolution as one matrix, entry by entry."""
    out, inner = weight.shape[:2]
    matrix = torch.zeros(out, side, side, inner, side, side)
    for row in range(side):
        for column in range(side):
            for down in range(-1, 2):
                for across in range(-1, 2):
                    if 0 <= row + down < side and 0 <= column + across < side:
                        matrix[:, row, column, :, row + down, column + across] = weight[:, :, down + 1, across + 1]
    return matrix.view(out * side * side, inner * side * side)


A, B, C = random(7, 108, seed=1), random(6, 7, seed=3), random(2, 6, seed=7)


def hidden(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What enters each of three linear layers."""
    x = x.flatten(1)
    first = F.relu(x @ A.T + 0.3)
    return x, first, F.relu(first @ B.T - 0.1)


def by_matrices(mode: str) -> Callable[[], None]:
    """Three linear layers with biases and rectifiers; the contrast negates the uppermost alone."""

    def check() -> None:
        net = Sown(lambda x: hidden(x)[2] @ C.T)
        x, first, second = hidden(FRAMES)
        for target in (0, 1):
            one = F.one_hot(torch.full((3,), target), 2).float()
            top = share(second, C, one)
            if mode == "contrastive":
                top = top - share(second, -C, one)
            expected = share(x, A, share(first, B, top)).view(3, 3, 6, 6).sum(1, keepdim=True).clamp(min=0)
            found = run(net, FRAMES, "seen", target, mode=mode)
            torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-6)
            assert bool(expected.any())

    return check


KERNEL, HEAD = random(4, 3, 3, 3, seed=8), random(2, 4, seed=9)


def pooled() -> None:
    """conv, relu, global mean, linear: seen at the features in closed form, seen at the frame by loops."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.features = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            features = self.features(F.conv2d(self.seen(x), KERNEL, torch.full((4,), -0.2), padding=1))
            return F.linear(F.adaptive_avg_pool2d(F.relu(features), 1).flatten(1), HEAD)

    net, frames = Net(), FRAMES.abs()
    features = F.relu(F.conv2d(frames, KERNEL, torch.full((4,), -0.2), padding=1))
    weighed = HEAD[1].clamp(min=0).view(1, 4, 1, 1) * features
    top = weighed / weighed.sum((1, 2, 3), keepdim=True)  # the mean cancels: a cell's share of what the class sees
    found = run(net, frames, "features").maps
    torch.testing.assert_close(found, top.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)
    expected = share(frames.flatten(1), dense(KERNEL, 6), top.flatten(1)).view(3, 3, 6, 6).sum(1, keepdim=True)
    torch.testing.assert_close(run(net, frames, "seen").maps, expected, rtol=1e-4, atol=1e-6)


def residual() -> None:
    """A sum of two branches by hand: 3 and 1 take three and one quarter, or all goes one way."""
    for skip, parts in (("split", (0.75, 0.25)), ("ignore", (0.0, 1.0))):
        scale = torch.tensor([1.0, 1.0, 1.0]).view(3, 1, 1, 1)

        def branches(x: Tensor, scale: Tensor = scale) -> Tensor:
            straight, bent = x[:, :, :1], F.conv2d(x[:, :, 1:2], scale, groups=3)
            return (straight + bent).flatten(1) @ torch.ones(6, 2)

        frames = torch.tensor([3.0, 1.0]).view(1, 1, 2, 1).expand(1, 3, 2, 2)
        found = run(Sown(branches), frames, "seen", skip=skip).maps[0, 0].sum(1)
        torch.testing.assert_close(found, torch.tensor(parts))
        one_sided = run(Sown(branches), frames * torch.tensor([-1.0, 1.0]).view(1, 1, 2, 1), "seen", skip=skip).maps
        torch.testing.assert_close(one_sided[0, 0].sum(1), torch.tensor([0.0, 0.0]))  # the sum is below 0


class Branch(nn.Module):
    """The layer is one of two branches, worth 1 of 4; the other goes around it, or is a constant."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.seen, self.other = nn.Conv2d(3, 3, 1, groups=3, bias=False), other
        nn.init.ones_(self.seen.weight)

    def forward(self, x: Tensor) -> Tensor:
        return (self.other(x) + self.seen(x)).flatten(1) @ torch.ones(12, 2)


@pytest.mark.parametrize(
    ("other", "split"),
    [(lambda x: 3 * x, 0.25), (lambda x: torch.full((1, 3, 2, 2), 3.0), 1.0)],
    ids=["way", "constant"],
)
def test_what_goes_around_the_layer_is_lost_and_constants_take_nothing(
    other: Callable[[Tensor], Tensor], split: float
) -> None:
    for frames in (torch.ones(1, 3, 2, 2), torch.ones(2, 3, 2, 2)):
        found = run(Branch(other), frames, "seen")
        assert found.checks["conserved"].tolist() == pytest.approx([split] * len(frames))
        assert run(Branch(other), frames, "seen", skip="ignore").checks["conserved"].tolist() == [1.0] * len(frames)


CASES_EXCITATION = [
    Case(NAME, closed_forms=(by_matrices("marginal"), by_matrices("contrastive"), pooled, residual)),
]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("params", [{}, {"mode": "contrastive", "skip": "ignore"}], ids=["marginal", "contrastive"])
def test_contract(params: dict[str, Any], check: Callable[[Case], None]) -> None:
    check(Case(NAME, params, CASES_EXCITATION[0].closed_forms))


# ---- conservation ----------------------------------------------------------------------------------------------------


class Positive(nn.Module):
    """Every layer kind with weights above 0, in double precision: nothing may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.pool, self.side = nn.BatchNorm2d(6), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 6, 1)
        self.join, self.head = nn.Conv2d(12, 5, 2, stride=2), nn.Linear(5, 3)
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                weight.copy_(random(*weight.shape, seed=k).abs() + 0.01)
            self.two.weight *= 0.02
            self.two.bias *= 0.02
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.one(x))
        x = self.pool(self.norm(x))
        x = x + F.relu(self.two(x), inplace=True) * torch.sigmoid(x.mean((2, 3), keepdim=True))
        side = self.side(x)
        side += x
        x = side
        x = torch.cat([F.avg_pool2d(x, 3, 1, 1), F.interpolate(F.avg_pool2d(x, 2), size=x.shape[2:])], 1)
        return self.head(F.gelu(self.join(x)).mean((2, 3)))


@pytest.mark.parametrize("skip", ["split", "ignore"])
@pytest.mark.parametrize("layer", ["one", "norm", "pool", "two", "join"])
def test_all_that_starts_arrives(layer: str, skip: str) -> None:
    frames = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).double()
    found = run(Positive(), frames, layer, skip=skip)
    if layer != "two" or skip == "ignore":  # else what took the shortcut passes it by
        torch.testing.assert_close(found.checks["conserved"], torch.ones(2), rtol=0, atol=1e-6)
    else:
        assert bool(((found.checks["conserved"] > 0.05) & (found.checks["conserved"] < 0.95)).all())
    torch.testing.assert_close(found.maps.sum((1, 2, 3)), found.checks["conserved"])
    assert bool((found.maps >= 0).all())
    assert found.checks["rule_share"].tolist() == [1, 1]


def test_a_leak_is_told() -> None:
    """The middle unit is active by its bias alone: its half of the class was excited by nothing."""
    frames = torch.ones(1, 3, 2, 2)

    def biased(x: Tensor) -> Tensor:
        weight = torch.stack([torch.ones(12), -torch.ones(12), -torch.ones(12)])
        return F.relu(F.linear(x.flatten(1), weight, torch.tensor([0.0, 24.0, 24.0]))) @ torch.ones(3, 2)

    found = run(Sown(biased), frames, "seen")
    assert float(found.checks["conserved"][0]) == pytest.approx(1 / 3)
    assert found.flags(0) == ("leaking", "flat")


# ---- every way to write a net ----------------------------------------------------------------------------------------


class Modules(nn.Module):
    """A net whose every step is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.norm, self.high = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        self.down, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 3)
        self.first, self.second, self.third = nn.ReLU(), nn.ReLU(), nn.Hardtanh(0, 4)
        self.pool, self.mean, self.flat = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                weight.copy_(random(*weight.shape, seed=k) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(self.norm(self.low(x))))
        x = self.second(torch.add(self.high(x), self.down(x)))
        return self.head(self.flat(self.mean(self.third(x))))


class Functions(Modules):
    """The same net with functions, in place, one rectifier used twice."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        x = F.relu(F.batch_norm(self.low(x), norm.running_mean, norm.running_var, norm.weight, norm.bias), inplace=True)
        x = F.max_pool2d(x, 2)
        side = F.conv2d(x, self.down.weight, self.down.bias)
        x = F.conv2d(x, self.high.weight, bias=self.high.bias, padding=1)
        x += side
        x = self.third(self.third(x).clone().clamp_min_(0))
        x = x.flatten(2).sum(-1) / (x.shape[2] * x.shape[3])
        return torch.matmul(x, self.head.weight.t()) + self.head.bias


@pytest.mark.parametrize("params", [{}, {"mode": "contrastive"}, {"skip": "ignore", "mode": "contrastive"}])
def test_functions_in_place_and_reused_are_the_same_as_modules(params: dict[str, str]) -> None:
    frames = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    expected = run(Modules(), frames, "low", **params)
    found = run(Functions(), frames, "low", **params)
    assert bool(expected.maps.any())
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-7)


def test_views_written_in_place() -> None:
    """Half of the channels is added to the other half in its own memory."""

    def sliced(x: Tensor) -> Tensor:
        x = x * 1.0
        x[:, :1].add_(x[:, 1:2])
        x[:, 1].relu_()
        return x[:, :2].flatten(1) @ torch.ones(8, 2)

    def plain(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1] + x[:, 1:2], F.relu(x[:, 1:2])], 1).flatten(1) @ torch.ones(8, 2)

    frames = random(2, 3, 2, 2)
    expected = run(Sown(plain), frames, "seen").maps
    torch.testing.assert_close(run(Sown(sliced), frames, "seen").maps, expected)


def test_a_function_of_the_output_and_a_softmax_at_the_end() -> None:
    frames = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    net = Modules()
    expected = run(net, frames, "low").maps
    for function in (lambda out: out[:, 1], lambda out: 3 * out[:, 1] - out[:, 0], lambda out: out.softmax(1)[:, 1]):
        torch.testing.assert_close(run(net, frames, "low", function).maps, expected, rtol=1e-4, atol=1e-7)
    closed = Model(nn.Sequential(net, nn.Softmax(1)), output="probabilities")
    torch.testing.assert_close(run(closed, frames, "0.low").maps, expected, rtol=1e-4, atol=1e-7)
    named = whylens.explain(net, frames, method=NAME, layer="low", target=1, score="probability").maps
    torch.testing.assert_close(named, expected)


# ---- attention -------------------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """Tokens of 2 x 2 patches through one attention and a mean; `kind` says how attention is written."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.seen = kind, nn.Identity()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.embed, self.head = nn.LayerNorm(8), nn.Conv2d(3, 8, 2, stride=2), nn.Linear(8, 3)
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                weight.copy_(random(*weight.shape, seed=k))

    def forward(self, x: Tensor) -> Tensor:
        x = self.seen(self.embed(x)).flatten(2).transpose(1, 2)
        return self.head((x + self.attend(self.norm(x))).mean(1))

    def attend(self, x: Tensor) -> Tensor:
        own = self.attention
        if self.kind in ("module", "weights"):
            return own(x, x, x, need_weights=self.kind == "weights")[0]
        q, k, v = F.linear(x, own.in_proj_weight, own.in_proj_bias).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.kind == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = F.dropout((q @ k.transpose(-2, -1) / 2).softmax(-1), 0.1, self.training) @ v
        return own.out_proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["module", "weights", "fused", "products"])
def test_attention_is_fixed_weights_however_it_is_written(kind: str) -> None:
    frames, net = random(2, 3, 6, 4), Heads("products").eval()
    with torch.no_grad():
        x = net.embed(frames).flatten(2).transpose(1, 2)
        normed, own = net.norm(x), net.attention
        q, k, v = F.linear(normed, own.in_proj_weight, own.in_proj_bias).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        summed = x + own.out_proj(mixed)
    top = share(summed.mean(1), net.head.weight, F.one_hot(torch.tensor([1, 1]), 3).float())
    top = summed.clamp(min=0) * (top / summed.clamp(min=0).sum(1).clamp(min=1e-20))[:, None]
    skip, main = x.clamp(min=0), (summed - x).clamp(min=0)
    both = (skip + main).clamp(min=1e-20)
    down = share(mixed.flatten(0, 1), own.out_proj.weight, (top * main / both).flatten(0, 1)).view(2, 6, 2, 4)
    values = torch.zeros(2, 2, 6, 4)
    for n in range(2):
        for head in range(2):
            p = down[n, :, head].T  # a channel of a head is a linear layer over tokens
            values[n, head] = share(v[n, head].T, weights[n, head], p).T
    inner = share(normed.flatten(0, 1), own.in_proj_weight[16:], values.permute(0, 2, 1, 3).flatten(2).flatten(0, 1))
    expected = (top * skip / both + inner.view(2, 6, 8)).sum(2).view(2, 1, 3, 2)
    found = run(Heads(kind).eval(), frames, "seen").maps
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


# ---- nets as they come -----------------------------------------------------------------------------------------------

NETS: dict[str, tuple[Callable[[], nn.Module], str, tuple[float, float]]] = {
    "resnet18": (torchvision.models.resnet18, "layer3", (1.0, 1.0)),
    "vgg11": (lambda: torchvision.models.vgg11(init_weights=False), "features.15", (1.0, 1.0)),
    "densenet121": (torchvision.models.densenet121, "features.denseblock3", (1.0, 1.0)),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, "features.14", (1.0, 1.0)),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, "features.9", (0.7, 0.6)),
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), "blocks.11.norm1", (0.1, 0.8)),
    "swin": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2), "layers.2", (1.0, 1.0),
    ),
    "vit_torchvision": (
        lambda: torchvision.models.VisionTransformer(64, 16, 3, 4, 64, 128),
        "encoder.layers.encoder_layer_2.ln_1", (0.1, 0.8),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "skip"),
    [(name, skip) for name in NETS for skip in ("split", "ignore") if (name, skip) != ("vgg11", "ignore")],
)
def test_nets_with_random_weights_conserve(name: str, skip: str) -> None:
    """All arrives but what positive parts do not explain (hard swish) and, in a ViT, what the class token keeps: its
    shortcut goes around the layer."""
    make, layer, (split, ignore) = NETS[name]
    least = split if skip == "split" else ignore
    torch.manual_seed(0)
    net = make()
    for weight in net.parameters():
        if weight.ndim > 1 and not weight.any():  # heads left at 0
            nn.init.normal_(weight, std=0.02)
    frames = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    found = run(net.eval(), frames, layer, skip=skip)
    assert least - 1e-4 <= float(found.checks["conserved"][0]) <= 1 + 1e-4
    assert float(found.maps.max()) > 0
    assert found.flags(0) == (("leaking",) if least < 0.5 else ())
    assert float(found.checks["rule_share"][0]) == 1
    contrast = run(net, frames, layer, skip=skip, mode="contrastive")
    assert bool(contrast.maps.isfinite().all())
    assert float(contrast.maps.max()) > 0


# ---- what is refused, what is guessed --------------------------------------------------------------------------------


class Own(torch.autograd.Function):
    """A swish with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def scripted() -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(doubled)


def doubled(x: Tensor) -> Tensor:
    return torch.relu(x * 2.0 + x)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "linear attention": (lambda x: x.relu() @ x.relu().transpose(-1, -2), "matmul"),
    "spread": (lambda x: x.std((2, 3), keepdim=True), "std"),
    "complex": (lambda x: torch.fft.fft2(x).real, "fft_fft2"),
    "own backward": (Own.apply, "Own"),
    "compiled": (lambda x: scripted()(x), "DifferentiableGraph"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    formula, said = REFUSED[name]
    net = Sown(lambda x: formula(x).flatten(1).sum(1, keepdim=True).expand(-1, 2) * torch.ones(2))
    with pytest.raises(InputError, match=f"no rule says how '{said}' hands its shares on. Use grad_cam"):
        run(net, torch.rand(2, 3, 4, 4), "seen")


def test_what_keeps_its_shape_is_guessed_and_told() -> None:
    found = run(Sown(lambda x: x.cumsum(2).sinc().flatten(1) @ torch.ones(48, 2)), torch.rand(1, 3, 4, 4), "seen")
    assert found.extra == {"taken for elementwise": ["cumsum", "sinc"]}
    assert float(found.checks["rule_share"][0]) == pytest.approx(1 / 3)


def test_a_cut_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="cuts the gradient"):
        run(Sown(lambda x: x.detach().flatten(1) @ torch.ones(48, 2)), torch.rand(1, 3, 4, 4), "seen")
