"""Agreement with Captum and pytorch-grad-cam, side by side on small nets; all of it: benchmarks/agree_captum.py.

Maps with respect to the frame are compared in float64: in float32 a rectifier whose input is all but zero may switch
either way on either side. The peers get copies of the net, since they hook it and leave gradients behind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import captum.attr as peer
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import whylens
from whylens.baseline import blur

BAR = 1e-4
TARGETS = torch.tensor([1, 2])

pytestmark = [
    # Captum announces its own hooks, and that it asks the frames for gradients
    pytest.mark.filterwarnings("ignore:Setting :UserWarning"),
    pytest.mark.filterwarnings("ignore:Input Tensor . did not already require gradients:UserWarning"),
]


# ---- nets, and copies a peer can handle -----------------------------------------------------------------------------


class Step(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def stack(*bends: nn.Module | Callable[[Tensor], Tensor], copies: bool = False, seed: int = 0) -> nn.Sequential:
    """Convolution, bend, max pooling, and so on; layers of the same seed are the same whatever bends.

    With `copies` pooling works on a copy: Captum's hooks on a rectifier and on the pooling behind it sit on one tensor
    and run in the wrong order, which costs it its max-pooling rule.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for width, following, bend in zip((3, 8, 12), (8, 12, 16), bends, strict=True):
        layers += [nn.Conv2d(width, following, 3, padding=1), bend if isinstance(bend, nn.Module) else Step(bend)]
        layers += [Step(torch.clone)] * copies + [nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)).eval()


def plain() -> nn.Sequential:
    return stack(*(nn.ReLU(inplace=True) for _ in range(3)))


def resnet(depth: int) -> nn.Module:
    """One in-place rectifier module called twice in every block; biases are moved off their initial zero."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(f"resnet{depth}", weights=None, num_classes=5).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.2)
                module.running_var.fill_(2)
    return net


NETS = {"plain": (plain, 32), "resnet18": (lambda: resnet(18), 64)}


def frames_of(side: int) -> Tensor:
    return torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(5))


# ---- both sides -----------------------------------------------------------------------------------------------------


def ours(net: nn.Module, frames: Tensor, method: str, layer: str | None = None, **params: object) -> Tensor:
    found = whylens.explain(net, frames, method=method, target=TARGETS, layer=layer, params=params or None)
    assert not found.checks["flat"].any()
    return found.maps


def captum(kind: type, net: nn.Module, frames: Tensor, layer: str | None = None, **options: Any) -> Tensor:
    net = copy.deepcopy(net)
    method = kind(net) if layer is None else kind(net, net.get_submodule(layer))
    return method.attribute(frames.to(next(net.parameters()).dtype), target=TARGETS, **options).detach()


def grad_cam(kind: type, net: nn.Module, frames: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What pytorch-grad-cam sums up ``(N, 1, h, w)``, and what it returns ``(N, 1, H, W)``: scaled, resized, scaled."""
    net = copy.deepcopy(net)
    kept: list[np.ndarray] = []
    with kind(model=net, target_layers=[net.get_submodule(layer)]) as cam:
        image = cam.get_cam_image
        cam.get_cam_image = lambda *given: kept.append(image(*given)) or kept[-1]
        scaled = cam(frames.clone(), [ClassifierOutputTarget(int(k)) for k in TARGETS])
    return torch.from_numpy(kept[0]).clamp(min=0)[:, None], torch.from_numpy(scaled)[:, None]


def agree(found: Tensor, theirs: Tensor, bar: float = BAR) -> None:
    """Per image, max |ours - theirs| / max |theirs|."""
    assert found.shape == theirs.shape
    found, theirs = found.double().flatten(1), theirs.double().flatten(1)
    apart = (found - theirs).abs().amax(1) / theirs.abs().amax(1)
    assert bool((apart <= bar).all()), f"relative difference {apart.tolist()}"


# ---- maps of the frame ----------------------------------------------------------------------------------------------

INPUT_MAPS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "saliency": (peer.Saliency, {"abs": False}, {}),
    "input_x_gradient": (peer.InputXGradient, {}, {}),
    "integrated_gradients": (peer.IntegratedGradients, {"n_steps": 12, "method": "gausslegendre"}, {"steps": 12}),
    "guided_backprop": (peer.GuidedBackprop, {}, {}),
    "deconvolution": (peer.Deconvolution, {}, {}),
}


@pytest.mark.parametrize("method", INPUT_MAPS)
@pytest.mark.parametrize("name", NETS)
def test_input_maps_agree_with_captum(name: str, method: str) -> None:
    make, side = NETS[name]
    net, frames = make().double(), frames_of(side)
    kind, options, params = INPUT_MAPS[method]
    agree(ours(net, frames, method, **params), captum(kind, net, frames, **options))


@pytest.mark.parametrize("method", [peer.GuidedBackprop, peer.Deconvolution, peer.DeepLift], ids=lambda k: k.__name__)
def test_rules_reach_functions_as_captum_reaches_modules(method: type) -> None:
    """Ours on functional, method and shared rectifiers; Captum on the same layers with a module each."""
    net = stack(F.relu, lambda x: x.relu_(), lambda x: torch.clamp(x, min=0)).double()
    twin = stack(nn.ReLU(), nn.ReLU(), nn.ReLU(), copies=True).double()
    frames = frames_of(32)
    name = {"GuidedBackprop": "guided_backprop", "Deconvolution": "deconvolution", "DeepLift": "deep_lift"}
    start = {"baselines": blur(frames, 3.2).double()} if method is peer.DeepLift else {}
    params = {"baseline": "blur"} if method is peer.DeepLift else {}
    agree(ours(net, frames, name[method.__name__], **params), captum(method, twin, frames, **start))


# ---- DeepLIFT -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bends",
    [(nn.ReLU, nn.ReLU, nn.ReLU), (nn.ELU, nn.Tanh, nn.LeakyReLU), (nn.Sigmoid, nn.Softplus, nn.ELU)],
    ids=["rectifiers", "bounded", "smooth"],
)
def test_deep_lift_agrees_with_captum(bends: tuple[type[nn.Module], ...]) -> None:
    """Pooling windows apart, a baseline without ties: there Captum's rules all apply."""
    places = [{"inplace": True} if bend in (nn.ReLU, nn.ELU, nn.LeakyReLU) else {} for bend in bends]
    net = stack(*(bend(**place) for bend, place in zip(bends, places, strict=True))).double()
    twin = stack(*(bend(**place) for bend, place in zip(bends, places, strict=True)), copies=True).double()
    frames = frames_of(32)
    theirs = captum(peer.DeepLift, twin, frames, baselines=blur(frames, 3.2).double())
    agree(ours(net, frames, "deep_lift", baseline="blur"), theirs)


def test_deep_lift_adds_up_on_resnet34_as_it_is() -> None:
    """Captum refuses this net; on a rewritten copy its max_unpool loses parts of the sum."""
    net = resnet(34)
    found = whylens.explain(net, frames_of(64), method="deep_lift", target=TARGETS)
    with torch.no_grad():
        gain = (net(frames_of(64)) - net(torch.zeros(1, 3, 64, 64))).gather(1, TARGETS[:, None])[:, 0]
    residual = (found.maps.flatten(1).sum(1) - gain).abs() / gain.abs()
    assert bool((residual <= 1e-3).all()), residual.tolist()
    torch.testing.assert_close(found.checks["difference"], gain, rtol=1e-4, atol=1e-5)


class Pooled(nn.Module):
    """Sum of max pooling, behind a rectifier or not."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], relu: bool) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU() if relu else nn.Identity(), nn.MaxPool2d(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(x)).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("relu", [False, True])
def test_max_pooling_worked_by_hand(relu: bool) -> None:
    """Where Captum is not asked: its max_unpool gives 5 for 10, and behind a ReLU it gives 4 for -5 (0.9.0)."""
    row = torch.tensor([[[[0.0, 0.0, 5.0, 0.0, 0.0]]]])  # the 5 wins two overlapping windows: 10
    found = whylens.explain(Pooled((1, 3), (1, 2), relu), row, method="deep_lift", target=0)
    torch.testing.assert_close(found.maps, 2 * row)
    # from 9 to 4 in one window: the baseline's winner takes the loss, the image's winner has gained nothing over it
    image, start = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[9.0, 6.0], [5.0, 0.0]]]])
    net = nn.Sequential(Step(lambda x: x + start), Pooled((2, 2), (2, 2), relu))
    found = whylens.explain(net, image - start, method="deep_lift", target=0)
    torch.testing.assert_close(found.maps, torch.tensor([[[[-5.0, 0.0], [0.0, 0.0]]]]))


# ---- class activation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["plain", "resnet18"])
def pooled(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, str]:
    """A net, frames, a layer behind a rectifier. A steep head, so that grad-cam's eps of 1e-6 weighs nothing."""
    make, side = NETS[request.param]
    net = make()
    head = net.fc if request.param == "resnet18" else net[-1]
    with torch.no_grad():
        head.weight.mul_(1e4)
    return net, frames_of(side), {"plain": "7", "resnet18": "layer3"}[request.param]


def test_grad_cam_agrees_with_captum(pooled: tuple[nn.Module, Tensor, str]) -> None:
    net, frames, layer = pooled
    agree(ours(net, frames, "grad_cam", layer, relu=False), captum(peer.LayerGradCam, net, frames, layer))


def test_guided_grad_cam_agrees_with_captum(pooled: tuple[nn.Module, Tensor, str]) -> None:
    net, frames, layer = pooled
    theirs = captum(peer.GuidedGradCam, net, frames, layer, interpolate_mode="bilinear")
    agree(ours(net, frames, "guided_grad_cam", layer), theirs)


FAMILY = {
    "grad_cam": pytorch_grad_cam.GradCAM,
    "grad_cam_pp": pytorch_grad_cam.GradCAMPlusPlus,
    "layer_cam": pytorch_grad_cam.LayerCAM,
}


@pytest.mark.parametrize("method", FAMILY)
def test_family_agrees_with_grad_cam(pooled: tuple[nn.Module, Tensor, str], method: str) -> None:
    """Before scaling and after: the least value 0, the greatest 1, resized between pixel centres."""
    net, frames, layer = pooled
    raw, scaled = grad_cam(FAMILY[method], net, frames, layer)
    found = ours(net, frames, method, layer)
    agree(found, raw)
    resized = F.interpolate(_to_one(found), frames.shape[2:], mode="bilinear", align_corners=False)
    agree(_to_one(resized), scaled)


def _to_one(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low)
