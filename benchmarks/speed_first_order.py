"""Speed of Grad-CAM and of six methods together, as ratios against peers, side by side in one process.

    python benchmarks/speed_first_order.py [--repeats 7] [--out benchmarks/speed_first_order.json]

Two figures per row: against the peer as its users call it (the bar), and against the peer given our memory layout
(what remains). Runs are interleaved, A B C A B C ..., and each figure is a ratio of medians.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from side_by_side import HERE, channels_last, interleaved, medians, rounded, written
from torch import Tensor, nn

import whylens

SIX = ("saliency", "input_x_gradient", "grad_cam", "deconvolution", "guided_backprop", "deep_lift")


def one_relu_each(net: nn.Module) -> nn.Module:
    """A ResNet-34 whose blocks own a rectifier per use, not in place: without this Captum's DeepLift raises."""
    net = copy.deepcopy(net)

    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        kept = x if self.downsample is None else self.downsample(x)
        return self.relu_after(out + kept)

    net.relu = nn.ReLU()
    for module in net.modules():
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            module.relu, module.relu_after = nn.ReLU(), nn.ReLU()
            module.forward = forward.__get__(module)
    return net


def captum_five(net: nn.Module, frames: Tensor, target: Tensor, layer: nn.Module, last: bool) -> None:
    """Captum's saliency, input x gradient, Grad-CAM, deconvolution and guided backpropagation, one after another."""
    from captum import attr

    x = frames.contiguous(memory_format=torch.channels_last) if last else frames
    for make in (attr.Saliency, attr.InputXGradient, attr.Deconvolution, attr.GuidedBackprop):
        make(net).attribute(x.clone().requires_grad_(), target=target)
    attr.LayerGradCam(net, layer).attribute(x, target=target)


def captum_deep_lift(net: nn.Module, frames: Tensor, target: Tensor) -> None:
    from captum.attr import DeepLift

    DeepLift(net).attribute(frames.clone().requires_grad_(), baselines=torch.zeros_like(frames), target=target)


def six_methods(repeats: int) -> dict[str, Any]:
    """saliency, input x gradient, Grad-CAM, deconvolution, guided, DeepLift: ResNet-34, batch 16."""
    torch.manual_seed(0)
    net = torchvision.models.resnet34(weights=None).eval()
    frames, target = torch.rand(16, 3, 224, 224), torch.arange(16)
    model = whylens.Model(copy.deepcopy(net), layer="layer4")
    plain, last, apart = copy.deepcopy(net), channels_last(net), one_relu_each(net)
    residual: list[float] = []

    def ours() -> None:
        many = whylens.explain_many(model, frames, methods=SIX, target=target, batch_size=16)
        residual.append(float(many["deep_lift"].checks["residual"].max()))

    runs = {
        "whylens, six": ours,
        "captum, five": lambda: captum_five(plain, frames, target, plain.layer4, last=False),
        "captum, five, channels last": lambda: captum_five(last, frames, target, last.layer4, last=True),
        "captum, DeepLift on a rewritten net": lambda: captum_deep_lift(apart, frames, target),
    }
    seconds = interleaved(runs, repeats)
    median = medians(seconds)
    us = median["whylens, six"]
    return {
        "work": "six methods, ResNet-34, batch 16, 224",
        "seconds": rounded(seconds),
        "ours over captum's five as called (bar 0.60, aim 0.45)": round(us / median["captum, five"], 3),
        "ours over captum's five in channels last": round(us / median["captum, five, channels last"], 3),
        "ours over captum's six as called": round(
            us / (median["captum, five"] + median["captum, DeepLift on a rewritten net"]), 3
        ),
        "largest DeepLift residual": max(residual),
    }


def grad_cam(name: str, batch: int, repeats: int) -> dict[str, Any]:
    """Grad-CAM over a batch against the plain forward of the same net."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None).eval() if name != "efficientnet-lite0" else None
    if net is None:
        opened = whylens.load_model(name, weights="none", device="cpu")
        net = opened.net.eval()
    frames = torch.rand(batch, 3, 224, 224)
    model = whylens.Model(copy.deepcopy(net))
    plain, last = copy.deepcopy(net), channels_last(net)
    frames_last = frames.contiguous(memory_format=torch.channels_last)

    def forward(module: nn.Module, x: Tensor) -> None:
        with torch.no_grad():
            module(x)

    model.layer(shape=(3, 224, 224))
    runs = {
        "whylens": lambda: whylens.explain(model, frames, method="grad_cam", batch_size=batch),
        "plain forward": lambda: forward(plain, frames),
        "plain forward, channels last": lambda: forward(last, frames_last),
    }
    seconds = interleaved(runs, repeats)
    median = medians(seconds)
    memory = {k: round(peak(run), 1) for k, run in runs.items()}
    return {
        "work": f"Grad-CAM, {name}, batch {batch}, 224",
        "seconds": rounded(seconds),
        "throughput over the plain forward (bar 0.9, aim 1.3)": round(median["plain forward"] / median["whylens"], 3),
        "throughput over the forward in channels last": round(
            median["plain forward, channels last"] / median["whylens"], 3
        ),
        "peak memory, MB": memory,
        "memory over a no-grad forward (bar 1.3)": round(memory["whylens"] / memory["plain forward"], 3),
    }


def peak(run: Callable[[], Any]) -> float:
    """Largest sum of live tensor bytes that torch's allocator saw during a run, in MB."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    live = most = 0
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "speed_first_order.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    rows = [six_methods(options.repeats)]
    rows += [grad_cam(name, 16, options.repeats) for name in ("resnet50", "resnet34", "efficientnet-lite0")]
    written(options.out, rows, repeats=options.repeats)


if __name__ == "__main__":
    main()
