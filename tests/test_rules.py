"""Backward rules: every way to write a nonlinearity is seen, in place or not, and the forward is not changed by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import rules
from whylens.passes import Baseline, Passes
from whylens.probe import Probe


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "x.clamp": lambda x: x.clamp(min=0),
    "x.clamp_min": lambda x: x.clamp_min(0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "F.threshold": lambda x: F.threshold(x, 0, 0),
}
BOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "x.clamp both": lambda x: x.clamp(0, 6),
    "F.hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
}
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "silu in place": lambda x: F.silu(x, inplace=True),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "mish": F.mish,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "x.sigmoid": lambda x: x.sigmoid(),
    "tanh": torch.tanh,
    "x.tanh_": lambda x: x.tanh_(),
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "hardtanh": F.hardtanh,
    "clamp above": lambda x: x.clamp(max=1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
}


class Net(nn.Module):
    """scores = C f(A x): one nonlinearity f between two linear maps, its input also used by a second path."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.A, self.C, self.function = values(9, 6, seed=1), values(2, 9, seed=2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x @ self.A.T) @ self.C.T


def gradient(net: nn.Module, x: Tensor, rule: rules.Rule, x0: Tensor | None = None) -> Tensor:
    """Gradient of output 1 under a rule, by hand from the recording mode: no Probe in between."""
    switch, leaf = rules.Switch(), x.clone().requires_grad_()
    with rules.Recording(switch):
        score = net(leaf)[:, 1].sum()
    if x0 is not None:
        entered: list[Tensor] = []
        with rules.Recording(rules.Switch(), into=entered), torch.no_grad():
            net(x0.clone())
        rules.pair(switch, entered)
    switch.rule = rule
    (found,) = torch.autograd.grad(score, leaf)
    return found


@pytest.mark.parametrize("name", [*RECTIFIERS, *BOUNDED])
def test_guided_and_deconv_on_every_spelling_of_a_rectifier(name: str) -> None:
    function = (RECTIFIERS | BOUNDED)[name]
    net, x = Net(function), values(4, 6)
    hidden = x @ net.A.T
    active = (hidden > 0) & (hidden < (6 if name in BOUNDED else torch.inf))
    top = net.C[1].clamp(min=0).expand(4, -1)
    torch.testing.assert_close(gradient(net, x, "guided"), (top * active) @ net.A)
    torch.testing.assert_close(gradient(net, x, "deconv"), top @ net.A)


@pytest.mark.parametrize("name", [*RECTIFIERS, *BOUNDED, *SMOOTH])
def test_plain_is_autograd_and_the_forward_is_unchanged(name: str) -> None:
    function = (RECTIFIERS | BOUNDED | SMOOTH)[name]
    net, x = Net(function), values(4, 6)
    leaf = x.clone().requires_grad_()
    expected = net(leaf)
    with rules.Recording(rules.Switch()):
        found = net(x.clone().requires_grad_())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient(net, x, "plain"), torch.autograd.grad(expected[:, 1].sum(), leaf)[0])


@pytest.mark.parametrize("name", [*RECTIFIERS, *BOUNDED, *SMOOTH])
def test_rescale_is_the_secant_and_sums_to_the_difference(name: str) -> None:
    function = (RECTIFIERS | BOUNDED | SMOOTH)[name]
    net, x, x0 = Net(function), values(4, 6), values(1, 6, seed=7)
    found = gradient(net, x, "rescale", x0)
    h, h0 = x @ net.A.T, x0 @ net.A.T
    slope = (function(h.clone()) - function(h0.clone())) / (h - h0)
    torch.testing.assert_close(found, (net.C[1] * slope) @ net.A)
    torch.testing.assert_close((found * (x - x0)).sum(1), (net(x) - net(x0))[:, 1])


@pytest.mark.parametrize("name", [n for n in SMOOTH if "hardtanh" not in n])
def test_smooth_nonlinearities_keep_their_derivative_under_guided_and_are_counted(name: str) -> None:
    net, x = Net(SMOOTH[name]), values(4, 6)
    torch.testing.assert_close(gradient(net, x, "guided"), gradient(net, x, "plain"))
    switch = rules.Switch()
    with rules.Recording(switch):
        net(x.clone().requires_grad_())
    assert switch.hits() == (0, 1)


class Pooled(nn.Module):
    """conv -> relu -> max pooling -> linear."""

    def __init__(self, pool: Callable[[Tensor], Tensor], side: int) -> None:
        super().__init__()
        self.W = values(4, 2, 3, 3, seed=3)
        self.pool = pool
        self.C = values(2, self.pool(torch.zeros(1, 4, side, side, dtype=torch.float64)).numel(), seed=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(F.conv2d(x, self.W, padding=1), inplace=True)).flatten(1) @ self.C.T


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "2": nn.MaxPool2d(2),
    "3 stride 2 padded, overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    "ceil": nn.MaxPool2d(2, ceil_mode=True),
    "function": lambda x: F.max_pool2d(x, 3, 1),
    "torch": lambda x: torch.max_pool2d(x, 2),
    "adaptive": nn.AdaptiveMaxPool2d(2),
    "dilated": nn.MaxPool2d(2, dilation=2),
}


@pytest.mark.parametrize("name", POOLS)
def test_max_pooling_plain_and_rescaled(name: str) -> None:
    net, x, x0 = Pooled(POOLS[name], 7), values(3, 2, 7, 7), values(1, 2, 7, 7, seed=9)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]
    torch.testing.assert_close(gradient(net, x, "plain"), expected)
    shares = (gradient(net, x, "rescale", x0) * (x - x0)).flatten(1).sum(1)
    torch.testing.assert_close(shares, (net(x) - net(x0))[:, 1])


def test_max_pooling_by_hand() -> None:
    """One window, values (3, 1) against a baseline of (0, 2): the winner gains 3 - 2, the loser's fall gives 2 - 2."""
    net = Net(lambda x: x)
    net.forward = lambda x: F.max_pool1d(x[:, None], 2).flatten(1).expand(-1, 2)  # type: ignore[method-assign]
    x, x0 = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 2.0]])
    shares = gradient(net, x, "rescale", x0) * (x - x0)
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0.0]]))


def test_a_constant_baseline_ties_and_the_images_winner_takes_its_own_loss() -> None:
    """max of (-3, -1, -4, -2) against a baseline of zeros: the winner lost 1, wherever it stands."""
    window = torch.tensor([[-3.0, -1.0], [-4.0, -2.0]])
    for turned in (window, window.flip(0), window.flip(1), window.T):
        net = Net(lambda x: x)
        net.forward = lambda x: F.max_pool2d(x, 2).flatten(1).expand(-1, 2)  # type: ignore[method-assign]
        shares = gradient(net, turned[None, None], "rescale", torch.zeros(1, 1, 2, 2)) * turned
        torch.testing.assert_close(shares[0, 0], torch.where(turned == -1, -1.0, 0.0))


def test_a_difference_below_rounding_still_takes_its_share_of_a_pool() -> None:
    x, x0 = torch.tensor([[2e-8, 0.0]]), torch.tensor([[0.0, 1e-8]])
    net = Net(lambda x: x)
    net.forward = lambda x: F.max_pool1d(x[:, None], 2).flatten(1).expand(-1, 2)  # type: ignore[method-assign]
    shares = gradient(net, x, "rescale", x0) * (x - x0)
    torch.testing.assert_close(shares, torch.tensor([[1e-8, 0.0]]), rtol=1e-4, atol=1e-12)


def test_an_alias_left_by_an_in_place_call_is_seen() -> None:
    """x + relu_(x) uses the rectified x twice; a copy that forgets the aliasing gives x + relu(x)."""
    net = Net(lambda x: x + F.relu(x, inplace=True))
    x = values(4, 6)
    leaf = x.clone().requires_grad_()
    expected = net(leaf)
    torch.testing.assert_close(gradient(net, x, "plain"), torch.autograd.grad(expected[:, 1].sum(), leaf)[0])
    with rules.Recording(rules.Switch()):
        torch.testing.assert_close(net(x.clone().requires_grad_()), expected)


def test_a_net_that_takes_another_path_for_the_baseline_is_refused() -> None:
    net = Net(lambda x: F.relu(x) if float(x.detach().abs().sum()) > 0 else x)
    with pytest.raises(whylens.InputError, match="another path for the baseline"):
        gradient(net, values(4, 6), "rescale", torch.zeros(1, 6, dtype=torch.float64))


def test_the_switch_is_plain_again_after_an_error() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x).sum((2, 3))

    passes = Passes(whylens.Model(Fragile()), torch.rand(2, 3, 4, 4), to_input=True)
    probe = Probe(passes, torch.zeros(2, dtype=torch.long))
    trace = passes.trace(to_input=True)
    with pytest.raises((IndexError, RuntimeError)):
        passes.differentiate(probe._score(trace.output).sum(), trace.leaf, trace, "rescale")  # type: ignore[arg-type]
    assert trace.switch.rule == "plain"
    torch.testing.assert_close(probe.input_gradient()[:, 0], torch.ones(2, 4, 4))


def test_one_baseline_row_serves_the_whole_batch() -> None:
    net = Pooled(nn.MaxPool2d(2), 6).float()
    net.W, net.C = net.W.float(), net.C.float()
    frames = values(5, 2, 6, 6).float()
    one = Probe(Passes(whylens.Model(net), frames), torch.ones(5, dtype=torch.long))
    many = Probe(Passes(whylens.Model(net), frames), torch.ones(5, dtype=torch.long))
    zero = torch.zeros(1, 2, 6, 6)
    torch.testing.assert_close(
        one.input_gradient("rescale", Baseline("zero", zero)),
        many.input_gradient("rescale", Baseline("zero", zero.expand(5, -1, -1, -1))),
    )
    assert one.passes.forwards == 5 + 1
    assert many.passes.forwards == 5 + 5


NORMS = [(nn.BatchNorm1d, (4, 5)), (nn.BatchNorm2d, (4, 5, 3, 2)), (nn.BatchNorm3d, (4, 5, 2, 3, 2))]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("norm", "shape"), NORMS)
def test_batch_norm_is_the_same(norm: type[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    layer: Any = norm(5).double()
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            tensor.copy_(torch.randn(5, generator=torch.Generator().manual_seed(3)))
        layer.running_var.uniform_(0.5, 2)
    layer.train(training)
    x = values(*shape).requires_grad_()

    def forward_and_backward() -> tuple[Tensor, Tensor]:
        out = layer(x)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        return out, torch.autograd.grad((out * weights).sum(), x)[0]

    expected = forward_and_backward()
    with rules.Recording(rules.Switch()):
        found = forward_and_backward()
    torch.testing.assert_close(found, expected)
