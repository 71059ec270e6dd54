"""Runs every method on every kind of net and writes the table of docs/matrix.md.

    python docs/matrix.py

Nets of torchvision have random weights, so nothing is downloaded. What training would move and an untrained net leaves
at 0 or 1 (biases, heads, layer scales, the statistics of batch norms) is moved: else whole nets are constant.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import whylens
from whylens import _plugins
from whylens.contract import Method
from whylens.demo import photos

PAGE = Path(__file__).parent / "matrix.md"
START, END = "<!-- matrix: start -->", "<!-- matrix: end -->"
QUICK = {
    "dax": {"samples": 100, "steps": 50},
    "expected_gradients": {"samples": 8},
    "gax": {"steps": 20},
    "gsinquire": {"steps": 5, "rounds": 1, "count": 60},
    "igos": {"iterations": 1, "steps": 2},
    "igos_pp": {"iterations": 1, "steps": 2},
    "kernel_shap": {"samples": 128},
    "lime": {"samples": 200},
    "meaningful_perturbation": {"iterations": 10},
    "occlusion": {"cells": 7},
    "partition_shap": {"max_evals": 64},
    "rise": {"samples": 64},
    "smooth_grad": {"samples": 4},
}
STEPS = (50, 150)  # the default, and what is tried where it does not add up
TARGETS = (None, 0, 1, 2)  # the predicted class; others where every part speaks against it
WORDS = {"incomplete": "flagged: incomplete", "rule_not_applied": "flagged: rule not applied"}


@dataclass(frozen=True)
class Column:
    """One kind of net, by the nets that were run."""

    head: str
    make: tuple[Callable[[], whylens.Model], ...]
    frames: tuple[int, ...] | None = None  # None: the demo's two photos


class Free(nn.Module):
    """Pixels shuffled by a matrix, so that no layer is a grid over the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.head = nn.Linear(3 * 32 * 32, 33), nn.Linear(33, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return self.head(torch.relu(self.low(x.flatten(1))))


def trained(net: nn.Module, frames: tuple[int, ...]) -> nn.Module:
    """The net as if it had been trained: nothing at its first value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1 and not bool(weight.any()):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
            elif weight.ndim == 1 or weight.numel() == max(weight.shape):
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = None
        net.train()(torch.rand((8, *frames), generator=generator))
    return net.eval()


def of_torchvision(name: str) -> Callable[[], whylens.Model]:
    """A net by name with random weights."""

    def make() -> whylens.Model:
        torch.manual_seed(0)
        net = trained(torchvision.models.get_model(name, weights=None), (3, 224, 224))
        return whylens.Model(net, preprocess="imagenet", name=name)

    return make


def black_box() -> whylens.Model:
    """What an ONNX file gives: scores without gradients."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "mean", [x], [scores])
    path = Path(tempfile.mkdtemp()) / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return whylens.load_model(path)


def table() -> whylens.Model:
    """Rows (N, F)."""
    torch.manual_seed(0)
    return whylens.Model(nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 3)), task="tabular")


COLUMNS = (
    Column("CNN with ReLU", (of_torchvision("resnet18"),)),
    Column("CNN with other activations", (of_torchvision("mobilenet_v3_small"),)),
    Column("ViT", (of_torchvision("vit_b_16"),)),
    Column("Swin, ConvNeXt", (of_torchvision("swin_t"), of_torchvision("convnext_tiny"))),
    Column("ONNX black box", (black_box,), (3, 32, 32)),
    Column("any `nn.Module` without a grid", (lambda: whylens.Model(Free()),), (3, 32, 32)),
    Column("tables (N, F)", (table,), (7,)),
)


def cell(method: str, model: whylens.Model, frames: Any) -> str:
    """Yes, no, or flagged."""
    if method != "integrated_gradients":
        return tried(method, model, frames, QUICK.get(method))[0]
    words, missing = tried(method, model, frames, {"steps": STEPS[0]})
    if "incomplete" not in words:
        return words
    words, less = tried(method, model, frames, {"steps": STEPS[1]})
    if "incomplete" not in words:
        return f"{words}, {STEPS[1]} steps"
    return f"{words}, more steps help" if less < missing / 2 else words


def tried(method: str, model: whylens.Model, frames: Any, params: dict[str, int] | None) -> tuple[str, float]:
    """One run, and the residual. That a baseline keeps the target is a fact of the random net, and left out."""
    for target in TARGETS:
        try:
            e = whylens.explain(model, frames, method=method, params=params, target=target)
        except whylens.InputError as error:
            print(f"   {method} on {model.name}: {error}", flush=True)
            return "no layer" if "No feature layer" in str(error) else "no", 0.0
        flags = dict.fromkeys(f for row in range(len(e)) for f in e.flags(row) if f != "baseline_keeps_target")
        if "flat" not in flags:
            break
    measured = {name: round(float(v.max()), 4) for name, v in e.checks.items() if v.dtype != torch.bool}
    print(f"   {method} {params or ''} on {model.name}: {tuple(e.maps.shape)} {list(flags)} {measured}", flush=True)
    words = ", ".join(WORDS.get(flag, f"flagged: {flag}") for flag in flags) or "yes"
    return words, float(measured.get("residual", 0.0))


def main() -> None:
    """The table, one column after the other."""
    logging.getLogger("whylens").setLevel(logging.ERROR)
    names = sorted(_plugins.names("methods"), key=lambda name: (Method(name).facts.needs[0] != "layer", name))
    cells: dict[str, list[str]] = {name: [] for name in names}
    for column in COLUMNS:
        print(column.head)
        frames: Any = [str(path) for path in photos()]
        if column.frames is not None:
            frames = torch.rand((2, *column.frames), generator=torch.Generator().manual_seed(1))
        models = [make() for make in column.make]
        for name in names:
            found = list(dict.fromkeys(cell(name, model, frames) for model in models))
            cells[name].append(found[0] if len(found) == 1 else " / ".join(found))
    heads = ["method", *(column.head for column in COLUMNS)]
    lines = [heads, ["---"] * len(heads), *([f"`{name}`", *cells[name]] for name in names)]
    made = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = PAGE.read_text("utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{made}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
