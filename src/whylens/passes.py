"""Passes: all runs of one batch through one net, each at most once.

One traced forward per batch, from the frames where an input gradient is wanted, else from the feature layer upwards
(no graph below it); backwards on that graph; the net at a baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import excitation, rules
from ._state import Hook, as_found, hooked
from .engine import Engine, Precision, memory_layout
from .errors import InputError
from .layers import first_tensor, with_first
from .model import Model

ROWS_PER_PASS = 16
"""Rows of a pass over moved frames (path methods): more is slower on a CPU and only needs memory elsewhere."""


@dataclass(frozen=True)
class Baseline:
    """What a removed region is filled with: frames ``(1, C, H, W)`` or ``(N, C, H, W)``.

    A searched one says for each image what it is, in `names`, and the probability it leaves the target, in `kept`.
    """

    name: str
    frames: Tensor
    names: tuple[str, ...] = ()
    kept: Tensor | None = None


@dataclass
class Trace:
    """One forward with its graph."""

    leaf: Tensor | None
    output: Any
    activations: dict[str, Tensor]
    switch: rules.Switch


class Passes:
    """All passes of one batch of frames ``(N, C, H, W)`` through one model, shared by its probes.

    `layers` and `to_input` say beforehand what will be asked, so that one forward serves all of it; what was not
    said costs one more forward when asked.
    """

    def __init__(
        self,
        model: Model,
        frames: Tensor,
        *,
        layers: Iterable[str] = (),
        to_input: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self.model = model
        frames = frames.clone() if frames.is_inference() else frames.detach()  # else no gradient may reach them
        self.frames = frames.to(device=model.device, dtype=model.dtype)
        self.engine = Engine(model, precision)
        self._forwards = self._backwards = 0
        self._layers, self._to_input = set(layers), to_input
        self._trace: Trace | None = None
        self._references: dict[tuple[str, int, bool], tuple[Any, list[Tensor]]] = {}
        self._searched: list[Baseline] = []

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def forwards(self) -> int:
        """Frames that went through the net."""
        return self._forwards + self.engine.forwards

    @property
    def backwards(self) -> int:
        """Frames whose gradient was taken."""
        return self._backwards + self.engine.backwards

    def count(self, *, forwards: int = 0, backwards: int = 0) -> None:
        """Add frames that went through the net elsewhere."""
        self._forwards += forwards
        self._backwards += backwards

    def trace(self, *, layer: str | None = None, to_input: bool = False) -> Trace:
        """The forward with a graph from `layer` or from the frames; run once unless more is asked than was planned."""
        trace = self._trace
        if trace is None or (layer is not None and layer not in trace.activations) or (to_input and trace.leaf is None):
            if (layer is not None or to_input) and not self.model.differentiable:
                raise InputError(
                    f"{self.model.name} gives no gradients (it is a black box). Use a method that needs scores alone: "
                    "whylens methods."
                )
            self._layers |= {layer} if layer is not None else set()
            self._to_input |= to_input
            self._trace = trace = None  # its graph is freed before the next one is built
            self._trace = trace = self._run()
        return trace

    def reference(self, baseline: Baseline, record: bool) -> tuple[Any, list[Tensor]]:
        """The net's output for a baseline and, with `record`, what entered its nonlinearities."""
        own = (baseline.name, id(baseline.frames) if baseline.names else 0)  # a search finds others for other targets
        key = (*own, record)
        if not record and (*own, True) in self._references:
            key = (*own, True)
        if key not in self._references:
            entered: list[Tensor] = []
            with as_found(self.model.net), torch.no_grad():
                frames = baseline.frames.to(self.frames)
                if record:
                    with rules.Recording(rules.Switch(), into=entered):
                        output = self.model.forward(frames)
                else:
                    output = self.model.forward(frames)
            self._forwards += len(frames)
            self._references[key] = (output, entered)
            self._searched.append(baseline)  # alive, so that no other takes its id
        return self._references[key]

    def differentiate(self, total: Tensor, at: Tensor, trace: Trace, rule: rules.Rule) -> Tensor:
        """Gradient of a sum of scores with respect to a tensor of the trace; zeros where it does not depend on it."""
        if not total.requires_grad:
            return torch.zeros_like(at)
        trace.switch.rule = rule
        try:
            (gradient,) = torch.autograd.grad(total, at, retain_graph=True, allow_unused=True)
        finally:
            trace.switch.rule = "plain"
        self._backwards += len(self)
        return torch.zeros_like(at) if gradient is None else gradient.detach()

    def under(self, rule: excitation.Excitation, layer: str) -> Trace:
        """One more forward, under the rule, with a graph from `layer` upwards."""
        net = self.model.net
        activations: dict[str, Tensor] = {}
        hooks = {net.get_submodule(layer): keep_output(layer, activations)}
        with as_found(net), torch.no_grad(), hooked(hooks), rule:
            frames = self.frames.clone(memory_format=memory_layout(net, self.frames))
            output = self.model.forward(rule.follow(frames))
        self._forwards += len(self)
        return Trace(None, output, activations, rules.Switch())

    def _run(self) -> Trace:
        net, frames = self.model.net, self.frames
        activations: dict[str, Tensor] = {}
        switch = rules.Switch()
        named = dict(net.named_modules())
        hooks = {named[name]: keep_output(name, activations) for name in self._layers}
        with as_found(net), torch.set_grad_enabled(self._to_input), hooked(hooks):
            frames = frames.clone(memory_format=memory_layout(net, frames))
            leaf = frames.requires_grad_() if self._to_input else None
            if leaf is not None:
                with rules.Recording(switch):
                    output = self.model.forward(leaf.clone())
            else:
                output = self.model.forward(frames)
        missing = self._layers - set(activations)
        if missing:
            raise InputError(f"The layer '{min(missing)}' did not run. Name another one.")
        self._forwards += len(frames)
        return Trace(leaf, output, activations, switch)


def keep_output(name: str, activations: dict[str, Tensor]) -> Hook:
    """Keep a layer's output and start a graph there if none came up to it; later in-place work meets a copy."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        value = first_tensor(output)
        if value is None:
            raise InputError(f"The layer '{name}' gives no tensor. Name another one.")
        if name in activations:
            raise InputError(f"The layer '{name}' runs more than once in one pass. Name a layer that runs once.")
        torch.set_grad_enabled(True)
        kept = value if value.requires_grad else value.detach().requires_grad_()
        activations[name] = kept
        return with_first(output, kept.clone())

    return hook
