"""Agreement with Captum and pytorch-grad-cam, side by side on the same nets, frames and targets.

    python benchmarks/agree_captum.py [--out benchmarks/agree_captum.csv] [--seed 0] [--only NET]

Nets of torchvision with random weights, so no download. What training would move and an untrained net leaves at 0 or
1 (biases, norms, layer scales, the head of a ViT) is moved too: without biases DeepLIFT from a zero baseline is input
times gradient, and a wrong rule would pass. Rows that are there already are kept, so a stopped run goes on.

`difference` is the largest over the images of max |ours - theirs| / max |theirs|; the bar is 1e-4. Where float32 does
not meet it both sides run again in float64 (`float64`): a difference that goes away was rounding (a rectifier or a
pooling window all but undecided falls either way), one that stays is a rule. `peer_rounding` is how far the peer's own
float32 map is from its float64 map.
`residual` is |sum of the map - (f(x) - f(x0))| / |f(x) - f(x0)|, the largest over the images.

Where a peer's rule does not reach the net its row says so, and a further row holds ours, on the net as it is, to the
peer on a copy it can handle: every rectifier call its own module, pooling windows apart, or the peer's own rule for
ReLU given to smooth activations as well. Captum's max-pooling rule is met only on such a copy: behind a ReLU module its
ReLU hook reads the gradient before the pooling hook replaces it, and where windows overlap max_unpool overwrites what
it should add. tests/test_peers.py works both out by hand. Maps of pytorch-grad-cam are taken before it scales and
resizes them.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import operator
import os
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import captum.attr as peer
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchvision
from captum.attr._core import deep_lift as captum_deep_lift
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, fx, nn

import whylens
from whylens.baseline import blur
from whylens.grid import Grid

HERE = Path(__file__).parent
BAR = 1e-4
NETS = ("resnet18", "resnet34", "densenet121", "vgg11", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "swin_t")
MEASURED = [
    "net", "method", "peer", "rule", "difference", "float64", "peer_rounding", "residual", "peer_residual", "flags",
    "note",
]  # fmt: skip
FIELDS = [*MEASURED, "commit", "torch", "captum", "grad_cam", "seed", "machine"]
NOT_APPLIED, RAISES = "peer's rule did not apply", "peer raises"
RELU = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
SMOOTH = (nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.SiLU)

Row = dict[str, str]
Rows = Iterator[Row]
Request = tuple[str, Mapping[str, Any] | None]


# ---- what is explained ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """One net, frames, a target for each, and the maps whylens gave already."""

    name: str
    net: nn.Module
    frames: Tensor
    targets: Tensor
    known: dict[str, whylens.Explanation] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)

    def copy(self) -> nn.Module:
        """A net of its own for a peer, which hooks it and leaves gradients behind."""
        return copy.deepcopy(self.net)

    def on(self, net: nn.Module) -> Subject:
        return replace(self, net=net, known={})

    def double(self) -> Subject:
        return replace(self.on(self.copy().double()), frames=self.frames.double())

    def explain(
        self, method: str, params: Mapping[str, Any] | None = None, layer: str | None = None
    ) -> whylens.Explanation:
        """Maps of whylens; with a layer that was met before, laid out as it was there."""
        key = f"{method} {params}"
        if key not in self.known:
            model = whylens.Model(self.net, layer=layer, reshape_transform=self.grids.get(layer or ""))
            self.known[key] = whylens.explain(model, self.frames, method=method, target=self.targets, params=params)
        return self.known[key]

    def grid(self, layer: str) -> Grid:
        """How the layer's output is laid out; the same for every copy of the net."""
        if layer not in self.grids:
            self.grids[layer] = whylens.Model(self.net).layer(layer, tuple(self.frames.shape[1:])).grid
        return self.grids[layer]

    def captum(
        self, kind: type, net: nn.Module | None = None, layer: nn.Module | None = None, **options: Any
    ) -> Tensor:
        """What a method of Captum gives for the same frames and targets."""
        net = self.copy() if net is None else net
        method = kind(net) if layer is None else kind(net, layer)
        return method.attribute(self.frames.clone(), target=self.targets, **options).detach()

    def start(self, request: Request) -> Tensor:
        """The baseline of a request: blurred frames, or zeros."""
        blurred = (request[1] or {}).get("baseline") == "blur"
        return blur(self.frames, min(self.frames.shape[2:]) / 10) if blurred else torch.zeros_like(self.frames)

    def missing(self, maps: Tensor, request: Request) -> float:
        """The residual of maps that should add up to the score's difference from the baseline."""
        with torch.no_grad():
            gain = (self.net(self.frames) - self.net(self.start(request))).gather(1, self.targets[:, None])[:, 0]
        return float(((maps.to(gain).flatten(1).sum(1) - gain).abs() / gain.abs()).max())


def subject(name: str, seed: int) -> Subject:
    """The net with nothing left at its initial constant; two frames of noise, their first and second class."""
    torch.manual_seed(seed)
    net = torchvision.models.get_model(name, weights=None).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.min() == parameter.max():
                start = float(parameter.flatten()[0] == 1)
                parameter.copy_(start + 0.2 * torch.randn(parameter.shape, generator=generator))
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:  # the statistics of what enters, as training would leave them
            norm.momentum = 1.0
            norm.train()
        net(torch.randn((4, 3, 224, 224), generator=generator))
        frames = torch.randn((2, 3, 224, 224), generator=generator)
        targets = net.eval()(frames).topk(2).indices.diagonal().clone()
    return Subject(name, net, frames, targets)


# ---- copies that a peer can handle ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blind:
    """What Captum's hooks on modules do not see in a net."""

    functional: int = 0  # rectifiers called as functions
    shared: int = 0  # rectifier calls through a module that was called before
    pools: int = 0  # max pooling right behind a rectifier module


def rewritten(net: nn.Module, *, copies: bool = False) -> tuple[nn.Module, Blind]:
    """The same function with a module of its own for every rectifier call and no in-place sum, and why it was needed.

    With `copies` max pooling works on a copy, so that the hooks before it and on it meet different tensors.
    """
    traced = fx.symbolic_trace(copy.deepcopy(net))
    modules, used, functional, pools = dict(traced.named_modules()), [], 0, 0
    for node in list(traced.graph.nodes):
        module = modules.get(node.target) if node.op == "call_module" else None
        if node.op == "call_function" and node.target is operator.iadd:
            node.target = operator.add
        if isinstance(module, nn.MaxPool2d):
            pools += node.args[0].name.startswith("rectifier")
            if copies:
                with traced.graph.inserting_before(node):
                    node.args = (traced.graph.call_function(torch.clone, (node.args[0],)),)
        if isinstance(module, nn.ReLU) or (node.op in ("call_function", "call_method") and node.target in RELU):
            functional += module is None
            used += [] if module is None else [node.target]
            name = f"rectifier_{functional + len(used)}"
            traced.add_submodule(name, nn.ReLU())
            with traced.graph.inserting_before(node):
                node.replace_all_uses_with(traced.graph.call_module(name, (node.args[0],)))
            traced.graph.erase_node(node)
    traced.recompile()
    return traced.eval(), Blind(functional, len(used) - len(set(used)), pools)


def pools_apart(net: nn.Module) -> nn.Module:
    """A copy whose max pooling windows do not overlap."""
    net = copy.deepcopy(net)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.MaxPool2d) and module.kernel_size > module.stride:
            replace_module(net, name, nn.MaxPool2d(module.stride, module.stride))
    return net


class ToGrid(nn.Module):
    """Tokens or channels-last maps as ``(N, C, h, w)``; what stands before the patches is kept aside."""

    def __init__(self, prefix: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.prefix, self.size = prefix, size

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2)
        self.before = x[:, : self.prefix]
        return x[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def back(self, x: Tensor) -> Tensor:
        if not hasattr(self, "before"):
            return x.permute(0, 2, 3, 1)
        return torch.cat([self.before, x.flatten(2).transpose(1, 2)], 1)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def at_layer(s: Subject, layer: str, *, guard: bool = True) -> tuple[nn.Module, nn.Module]:
    """A copy of the net, and the module in it whose output is the layer's grid ``(N, C, h, w)``.

    With `guard` what the net does in place behind the layer meets a copy.
    """
    grid = s.grid(layer)
    net = s.copy()
    found = net.get_submodule(layer)
    if grid.layout != "NCHW":
        to = ToGrid(grid.prefix, grid.size)
        replace_module(net, layer, nn.Sequential(found, to, Call(to.back)))
        return net, to
    if guard:
        replace_module(net, layer, nn.Sequential(found, Call(torch.clone)))
    return net, found


def replace_module(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)


# ---- one row --------------------------------------------------------------------------------------------------------


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest over the images of max |ours - theirs| / max |theirs|; two maps of zeros agree."""
    if ours.shape != theirs.shape:
        raise ValueError(f"the maps differ in shape: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    ours, theirs = (maps.double().flatten(1) for maps in (ours, theirs))
    away, scale = (ours - theirs).abs().amax(1), theirs.abs().amax(1)
    return float((away / scale.where(scale > 0, 1)).max())


def compare(
    s: Subject,
    request: Request,
    name: str,
    theirs: Callable[[Subject], Tensor],
    *,
    rule: str = "",
    note: str = "",
    sums: bool = False,
) -> Row:
    """A row: both sides, and once more in float64 where they are further apart than the bar."""
    ours = s.explain(*request)
    flags = " ".join(k for k, v in ours.checks.items() if v.dtype == torch.bool and bool(v.any()))
    row = {"peer": name, "rule": rule, "flags": flags, "note": note}
    if sums:
        row["residual"] = f"{s.missing(ours.maps, request):.1e}"
    try:
        maps = theirs(s)
    except (RuntimeError, AssertionError) as error:
        return {**row, "rule": RAISES, "note": f"{type(error).__name__}: {str(error).split('. ')[0]}"}
    apart = difference(ours.maps, maps)
    row["difference"] = f"{apart:.1e}"
    if apart > BAR and not rule:
        double = s.double()
        exact = theirs(double)
        apart = difference(double.explain(*request, layer=ours.layer).maps, exact)
        row |= {"float64": f"{apart:.1e}", "peer_rounding": f"{difference(maps, exact):.1e}"}
    if sums:
        row["peer_residual"] = f"{s.missing(maps, request):.1e}"
    row["rule"] = rule or ("agrees" if apart <= BAR else "differs")
    return row


# ---- gradients ------------------------------------------------------------------------------------------------------


def saliency(s: Subject) -> Rows:
    yield compare(s, ("saliency", None), "Captum Saliency", lambda s: s.captum(peer.Saliency, abs=False))


def input_x_gradient(s: Subject) -> Rows:
    yield compare(s, ("input_x_gradient", None), "Captum InputXGradient", lambda s: s.captum(peer.InputXGradient))


def integrated_gradients(s: Subject) -> Rows:
    def theirs(s: Subject) -> Tensor:
        return s.captum(peer.IntegratedGradients, n_steps=20, method="gausslegendre", internal_batch_size=8)

    request = ("integrated_gradients", {"steps": 20})
    yield compare(s, request, "Captum IntegratedGradients", theirs, sums=True, note="20 Gauss-Legendre points")


def smooth_grad(s: Subject) -> Rows:
    def theirs(s: Subject) -> Tensor:
        flat = s.frames.flatten(1)
        spread = 0.15 * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
        draws = [torch.randn(s.frames.shape[1:], generator=torch.Generator().manual_seed(k)) for k in range(5)]
        moved = [replace(s, frames=s.frames + spread * draw.to(s.frames)) for draw in draws]
        return torch.stack([m.captum(peer.Saliency, abs=False) for m in moved]).mean(0)

    request = ("smooth_grad", {"samples": 5, "noise": 0.15, "seed": 0})
    yield compare(s, request, "Captum Saliency", theirs, note="mean over the same 5 draws")


# ---- rectifier rules ------------------------------------------------------------------------------------------------


def deconvolution(s: Subject) -> Rows:
    yield from rectified(s, "deconvolution", peer.Deconvolution)


def guided_backprop(s: Subject) -> Rows:
    yield from rectified(s, "guided_backprop", peer.GuidedBackprop)


def guided_grad_cam(s: Subject) -> Rows:
    yield from rectified(s, "guided_grad_cam", peer.GuidedGradCam, interpolate_mode="bilinear")


def rectified(s: Subject, method: str, kind: type, **options: Any) -> Rows:
    """Captum's rule on the net as it is, and on a copy without functional rectifiers where there are any."""
    ours = s.explain(method)

    def theirs(s: Subject) -> Tensor:
        net, layer = (s.copy(), None) if ours.layer is None else at_layer(s, ours.layer)
        return s.captum(kind, net, layer, **options)

    def theirs_rewritten(s: Subject) -> Tensor:
        net = rewritten(s.net)[0]
        layer = None if ours.layer is None else net.get_submodule(last_leaf(s.net, ours.layer))
        return s.captum(kind, net, layer, **options)

    request, name = (method, None), f"Captum {kind.__name__}"
    functional = rewritten(s.net)[1].functional
    if functional:
        note = f"Captum does not see {functional} rectifier called as a function"
        yield compare(s, request, name, theirs, rule=NOT_APPLIED, note=note)
        note = "their copy: every rectifier its own module"
        yield compare(s, request, f"{name}, rewritten copy", theirs_rewritten, note=note)
        return
    hits = int(ours.checks["rule_hits"][0])
    reached = f"{hits} rectifier calls, {float(ours.checks['rule_share'][0]):.0%} of the nonlinear ones"
    yield compare(s, request, name, theirs, note=reached)
    if not hits and ours.layer is None:
        note = "no rectifier: nothing but the derivative"
        yield compare(s, request, "whylens saliency", lambda s: s.explain("saliency").maps, note=note)


def last_leaf(net: nn.Module, layer: str) -> str:
    """The last module in a chain gives what the chain gives; a traced copy calls no containers."""
    while isinstance(found := net.get_submodule(layer), nn.Sequential):
        layer += "." + list(dict(found.named_children()))[-1]
    return layer


# ---- DeepLIFT -------------------------------------------------------------------------------------------------------


def deep_lift(s: Subject) -> Rows:
    """Captum as it is; then whatever lets its rule reach the net: a rewritten copy, windows apart, a longer table."""
    zeros, blurred = ("deep_lift", None), ("deep_lift", {"baseline": "blur"})

    def plain(s: Subject) -> Tensor:
        return s.captum(peer.DeepLift)

    def own_modules(s: Subject) -> Tensor:
        return s.captum(peer.DeepLift, rewritten(s.net)[0])

    def own_tensors(s: Subject) -> Tensor:
        return s.captum(peer.DeepLift, rewritten(s.net, copies=True)[0], baselines=s.start(blurred))

    blind = rewritten(s.net)[1]
    smooth = sorted({type(m).__name__ for m in s.net.modules() if isinstance(m, SMOOTH)})
    missed = [f"{blind.functional} rectifier called as a function"] if blind.functional else []
    missed += [f"{blind.pools} max pooling right behind a ReLU module"] if blind.pools else []
    missed += [f"no rule for {', '.join(smooth)}"] if smooth else []
    name, note = "Captum DeepLift", "; ".join(missed)
    yield compare(s, zeros, name, plain, sums=True, rule=NOT_APPLIED if missed else "", note=note)
    if blind.functional or blind.shared:
        note = "every rectifier its own module; max pooling still behind a ReLU, so it passes on its derivative"
        yield compare(s, zeros, f"{name}, rewritten copy", own_modules, sums=True, note=note)
    if blind.pools:
        name = f"{name}, rewritten copy, blurred baseline"
        note = "max pooling on a copy of its input"
        note += "; windows overlap and max_unpool overwrites" if overlaps(s) else ""
        yield compare(s, blurred, name, own_tensors, sums=True, note=note)
    if overlaps(s):
        note = "max pooling on a copy of its input, 2 x 2 on both sides"
        apart = s.on(pools_apart(s.net))
        yield compare(apart, blurred, f"{name}, windows apart", own_tensors, sums=True, note=note)
    if smooth:
        with mock.patch.dict(captum_deep_lift.SUPPORTED_NON_LINEAR, dict.fromkeys(SMOOTH, captum_deep_lift.nonlinear)):
            note = "Captum's rule for ReLU given to smooth activations; gates, norms and attention: derivatives"
            yield compare(s, zeros, f"{name}, table extended", plain, sums=True, note=note)


def overlaps(s: Subject) -> bool:
    return any(isinstance(m, nn.MaxPool2d) and m.kernel_size > m.stride for m in s.net.modules())


# ---- class activation -----------------------------------------------------------------------------------------------


def grad_cam(s: Subject) -> Rows:
    layer = s.explain("grad_cam").layer

    def theirs(s: Subject) -> Tensor:
        return s.captum(peer.LayerGradCam, *at_layer(s, layer))

    yield compare(s, ("grad_cam", {"relu": False}), "Captum LayerGradCam", theirs, note=f"at {layer}, signed")
    yield from family(s, "grad_cam", pytorch_grad_cam.GradCAM)


def grad_cam_pp(s: Subject) -> Rows:
    layer = s.explain("grad_cam_pp").layer
    activation, gradient = evaluated(s, layer)
    signs = "" if bool((activation >= 0).all()) else ", activations of both signs"
    note = f"; their eps of 1e-6 beside gradients of at most {float(gradient.abs().max()):.0e}{signs}"
    yield from family(s, "grad_cam_pp", pytorch_grad_cam.GradCAMPlusPlus, note)

    def without_eps(s: Subject) -> Tensor:
        return before_scaling(pytorch_grad_cam.GradCAMPlusPlus, s, layer, scale=1e6)

    note = f"activations / 1e6 with gradients * 1e6: the same alphas, their eps negligible{signs}"
    yield compare(s, ("grad_cam_pp", None), "grad-cam GradCAMPlusPlus, no eps", without_eps, note=note)
    note = "one channel after another in float64; no weight where an alpha's denominator is not positive"
    yield compare(s, ("grad_cam_pp", None), "closed form", lambda s: closed_form(s, layer), note=note)


def layer_cam(s: Subject) -> Rows:
    yield from family(s, "layer_cam", pytorch_grad_cam.LayerCAM)


def family(s: Subject, method: str, kind: type, note: str = "") -> Rows:
    layer = s.explain(method).layer
    name, moved = f"grad-cam {kind.__name__}", changed_in_place(s, layer)

    def theirs(s: Subject, guard: bool = True) -> Tensor:
        return before_scaling(kind, s, layer, guard=guard)

    if moved:
        said = "they read the layer after the net rectified it in place"
        yield compare(s, (method, None), name, lambda s: theirs(s, guard=False), rule=NOT_APPLIED, note=said)
        name += ", a copy behind the layer"
    yield compare(s, (method, None), name, theirs, note=f"at {layer}{note}")


def changed_in_place(s: Subject, layer: str) -> bool:
    """Whether the net overwrites what the layer gave."""
    net, found = at_layer(s, layer, guard=False)
    kept: list[Tensor] = []
    found.register_forward_hook(lambda _m, _i, output: kept.extend([output, output.clone()]))
    with torch.no_grad():
        net(s.frames)
    return not torch.equal(*kept)


def before_scaling(kind: type, s: Subject, layer: str, *, scale: float = 1.0, guard: bool = True) -> Tensor:
    """The positive part of what pytorch-grad-cam sums up at a layer, ``(N, 1, h, w)``."""
    net, at = at_layer(s, layer, guard=guard)
    kept = []
    with kind(model=net, target_layers=[at]) as cam:
        image, weights = cam.get_cam_image, cam.get_cam_weights
        cam.get_cam_image = lambda *given: kept.append(image(*given)) or kept[-1]
        if scale != 1:
            cam.get_cam_weights = lambda x, at, targets, a, g: weights(x, at, targets, a / scale, g * scale) / scale
        cam(s.frames.clone(), [ClassifierOutputTarget(int(k)) for k in s.targets])
    return torch.from_numpy(kept[0]).clamp(min=0)[:, None]


def evaluated(s: Subject, layer: str) -> tuple[Tensor, Tensor]:
    """What a layer gives, and the score's gradient there, by plain autograd."""
    net, at = at_layer(s, layer)
    kept: list[Tensor] = []
    at.register_forward_hook(lambda _m, _i, output: kept.append(output))
    score = net(s.frames).gather(1, s.targets[:, None]).sum()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def closed_form(s: Subject, layer: str) -> Tensor:
    """Grad-CAM++ in float64, one channel after another."""
    maps = []
    for image, slopes in zip(*evaluated(s.double(), layer), strict=True):
        total = torch.zeros_like(image[0])
        for a, g in zip(image, slopes, strict=True):
            denominator = 2 * g**2 + a.sum() * g**3
            counts = (g > 0) & (denominator > 0)
            total += (g[counts] ** 3 / denominator[counts]).sum() * a
        maps.append(total.clamp(min=0))
    return torch.stack(maps)[:, None]


METHODS: tuple[Callable[[Subject], Rows], ...] = (
    saliency, input_x_gradient, integrated_gradients, smooth_grad, deconvolution, guided_backprop, deep_lift,
    grad_cam, grad_cam_pp, layer_cam, guided_grad_cam,
)  # fmt: skip


# ---- the table ------------------------------------------------------------------------------------------------------


def about(seed: int) -> Row:
    """Where and with what the rows were made."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "--no-optional-locks", *words]
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)

    head = git("rev-parse", "--short", "HEAD").stdout.strip() or "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", "../src/whylens").returncode == 1
    return {
        "commit": head + ("+changes" if changed else ""),
        "torch": torch.__version__,
        "captum": version("captum"),
        "grad_cam": version("grad-cam"),
        "seed": str(seed),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE / "agree_captum.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NET")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[Row] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    done, facts = {(r["net"], r["method"]) for r in rows}, about(options.seed)
    for name in (n for n in NETS if options.only in n):
        wanted = [m for m in METHODS if (name, m.__name__) not in done]
        s = subject(name, options.seed) if wanted else None
        for method in wanted:
            new = [{"net": name, "method": method.__name__, **row, **facts} for row in method(s)]
            gc.collect()  # the peers' hooks hold their nets in cycles
            for row in new:
                print(*(row.get(k) or "-" for k in MEASURED), sep=" | ", flush=True)
            rows += new
            with options.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)
    rules = [r["rule"] for r in rows]
    print({rule: rules.count(rule) for rule in sorted(set(rules))})


if __name__ == "__main__":
    main()
