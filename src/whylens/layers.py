"""The feature layer: where the last full grid of features stands before the score gives up places.

One rule for CNN, ViT, Swin, ConvNeXt and the rest, found by running the net once, forwards and backwards, on one
frame of noise: no list of architectures. The steps:

1. Every module whose output is a grid (feature maps, channels-last maps, tokens) and whose cells nearly all carry
   gradient from the scores is a candidate. In a net with a class token the last block's output fails this: its
   patches no longer count.
2. Outputs that only pool, drop, reorder or pass on are not features; neither is a grid of class scores whose mean
   is the answer.
3. The last candidate in order of execution wins. Where it lies inside a module that itself gives up places (queries
   and values inside the last attention), step out to the last candidate before that module.
4. Where one output has several names, the outermost is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ._state import as_found, hooked
from .errors import InputError
from .grid import Grid, Size, infer

REACHED = 0.5
"""Share of cells that must carry gradient for the score to depend on the whole grid."""

_NO_FEATURES = {
    "Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "Flatten", "Unflatten", "Permute",
    "PixelShuffle", "PixelUnshuffle", "Upsample", "ZeroPad2d",
}  # fmt: skip


@dataclass(frozen=True)
class FeatureLayer:
    """A layer by its dotted name, the grid it gives, and why it was taken."""

    name: str
    grid: Grid
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.grid.size[0]} x {self.grid.size[1]}, {self.grid.channels} channels): {self.reason}"


@dataclass(eq=False)
class _Seen:
    """One call of one module in the trial run."""

    name: str
    module: nn.Module
    output: Tensor
    entered: int
    given: Tensor | None = None
    version: int = 0
    left: int = 0
    grid: Grid | None = None
    reached: float = 0.0
    unchanged: bool = True

    def passes_on(self) -> bool:
        """Its output is its input, unchanged: identity, dropout in evaluation, one of several tensors."""
        return self.unchanged and self.given is not None and _same_memory(self.given, self.output)


def first_tensor(output: Any) -> Tensor | None:
    """The tensor of a module's output: itself, or the first one in a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((v for v in values if isinstance(v, Tensor)), None)


def with_first(output: Any, value: Tensor) -> Any:
    """A module's output with another tensor in place of its `first_tensor`."""
    first = first_tensor(output)
    if isinstance(output, Tensor):
        return value
    if isinstance(output, dict):
        return {k: value if v is first else v for k, v in output.items()}
    parts = [value if part is first else part for part in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def find(net: nn.Module, frame: Tensor, run: Any) -> FeatureLayer:
    """The net's feature layer by the rule above. `run` maps ``(1, C, H, W)`` to scores ``(1, K)``.

    Raises InputError with candidates where the rule cannot decide.
    """
    size = (int(frame.shape[-2]), int(frame.shape[-1]))
    seen, scores = _trial(net, frame, run, size)
    grids = [s for s in seen if s.grid is not None]
    pooled = [s.output for s in grids if _is_no_feature(s) and not s.passes_on()]
    candidates = [
        s
        for s in grids
        if s.reached >= REACHED
        and not (_is_no_feature(s) or s.passes_on())
        and not _is_answer(s, scores)
        and not any(_same_memory(s.output, made) for made in pooled)
    ]
    if not candidates:
        raise InputError(_refusal(net, grids))
    last = max(candidates, key=lambda s: s.left)
    answers = {s.name for s in grids if _is_answer(s, scores)}  # they keep their places
    chosen, stepped = _step_out(last, candidates, [s for s in seen if s.name not in answers])
    return _named(chosen, candidates, stepped)


def resolve(net: nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of a layer given by name or as the module itself."""
    modules = dict(net.named_modules())
    if isinstance(layer, nn.Module):
        name: str | None = next((n for n, m in modules.items() if m is layer), None)
        if name is None:
            raise InputError(
                f"The layer {type(layer).__name__} is not a part of this net. Give one of its own modules."
            )
        return name
    if layer not in modules or layer == "":
        from .errors import no_such

        ends = [n for n in modules if n]
        raise no_such("layer", layer, ends, f"The net's parts: {', '.join(n for n, _ in net.named_children())}.")
    return layer


def describe(net: nn.Module, name: str, frame: Tensor, run: Any) -> FeatureLayer:
    """The grid of a layer the caller chose."""
    size = (int(frame.shape[-2]), int(frame.shape[-1]))
    seen, _ = _trial(net, frame, run, size)
    calls = [s for s in seen if s.name == name]
    if not calls:
        raise InputError(f"The layer '{name}' gives no tensor when the net runs. Name another one.")
    if len(calls) > 1:
        raise InputError(f"The layer '{name}' runs {len(calls)} times in one pass. Name a layer that runs once.")
    shape = tuple(calls[0].output.shape)
    grid = calls[0].grid
    if grid is None and len(shape) == 4 and min(shape[2:]) >= 1:
        grid = Grid("NCHW", (shape[2], shape[3]), shape[1])
    if grid is None:
        raise InputError(
            f"The layer '{name}' gives {shape}, which is no grid of cells over a {size[0]} x {size[1]} frame. "
            "Name another layer, or give reshape_transform (output -> (N, C, h, w))."
        )
    return FeatureLayer(name, grid, "chosen by the caller")


def _trial(net: nn.Module, frame: Tensor, run: Any, size: Size) -> tuple[list[_Seen], Tensor]:
    """One pass over one frame: all calls in order of leaving, with their grids and the gradient that reaches them."""
    seen: list[_Seen] = []
    open_calls: list[_Seen] = []
    clock = 0
    names = {module: name for name, module in net.named_modules() if name}

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal clock
        clock += 1
        given = first_tensor(args)
        open_calls.append(_Seen(names[module], module, frame, clock, given, 0 if given is None else given._version))

    def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
        nonlocal clock
        clock += 1
        call = open_calls.pop()
        call.left = clock
        value = first_tensor(output)
        if value is not None and value.is_floating_point():
            call.output = value
            call.unchanged = call.given is not None and call.given._version == call.version
            seen.append(call)

    with (
        as_found(net),
        torch.enable_grad(),
        hooked(dict.fromkeys(names, leave), before=dict.fromkeys(names, enter)),
    ):
        scores: Tensor = run(frame.detach().clone().requires_grad_().clone())
    patches: Size | None = None
    for call in seen:
        call.grid = infer(tuple(call.output.shape), size, patches) if call.output.shape[0] == 1 else None
        if call.grid is not None and call.grid.layout != "tokens":
            patches = call.grid.size
    _gradients(seen, scores)
    return seen, scores.detach()


def _gradients(seen: list[_Seen], scores: Tensor) -> None:
    """How large a share of each grid's cells the scores depend on, by one backward pass of a random mixture."""
    wanted = [s for s in seen if s.grid is not None and s.output.requires_grad]
    if not wanted or not scores.requires_grad:
        return
    with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
        mixture = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)).to(scores)
        gradients = torch.autograd.grad((scores * mixture).sum(), [s.output for s in wanted], allow_unused=True)
    for call, gradient in zip(wanted, gradients, strict=True):
        if gradient is not None and call.grid is not None:
            call.reached = float((call.grid(gradient) != 0).any(1).float().mean())


def _is_no_feature(call: _Seen) -> bool:
    kind = type(call.module).__name__
    return kind in _NO_FEATURES or "Pool" in kind or "DropPath" in kind


def _is_answer(call: _Seen, scores: Tensor) -> bool:
    """A grid with one channel per class: made by a classifier run on every cell, or with the answer as its mean."""
    if call.grid is None or scores.ndim != 2 or call.grid.channels != scores.shape[1]:
        return False
    mean = call.grid(call.output.detach()).mean((2, 3))
    return isinstance(call.module, nn.Linear | nn.Conv2d) or torch.allclose(mean, scores, rtol=1e-3, atol=1e-4)


def _step_out(last: _Seen, candidates: list[_Seen], seen: list[_Seen]) -> tuple[_Seen, str | None]:
    """Out of the innermost module around `last` that gives up places, unless a part of it does so by itself."""
    reached = {s.name for s in candidates}
    parents = [s for s in seen if last.name.startswith(s.name + ".") and s.name not in reached]
    if not parents:
        return last, None
    inner = max(parents, key=lambda s: s.entered)
    later = [s for s in seen if s.entered > last.left and s.left < inner.left and s.name.startswith(inner.name + ".")]
    if any(_mixes(s) for s in later):
        return last, None
    before = [s for s in candidates if s.left < inner.entered]
    return (max(before, key=lambda s: s.left), inner.name) if before else (last, None)


def _mixes(call: _Seen) -> bool:
    """A module with parts of its own, or attention: one that may give up places by itself."""
    return isinstance(call.module, nn.MultiheadAttention) or any(True for _ in call.module.children())


def _named(chosen: _Seen, candidates: list[_Seen], stepped: str | None) -> FeatureLayer:
    same = [s for s in candidates if _same_memory(s.output, chosen.output)]
    outer = min(same, key=lambda s: (s.name.count("."), -s.left))
    grid = outer.grid or chosen.grid
    if grid is None:
        raise InputError(f"The layer '{chosen.name}' gives no grid.")
    reason = f"last {grid.size[0]} x {grid.size[1]} grid whose cells all bear on the scores"
    if stepped:
        reason += f", before {stepped} gives up places"
    if grid.layout == "tokens" and grid.prefix:
        reason += f"; {grid.prefix} class or register token{'s' if grid.prefix > 1 else ''} dropped"
    return FeatureLayer(outer.name, replace(grid), reason)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.data_ptr() == b.data_ptr()


def _refusal(net: nn.Module, grids: list[_Seen]) -> str:
    listed = ", ".join(f"{s.name} {tuple(s.output.shape)}" for s in grids[-8:]) or "none"
    return (
        f"No feature layer could be found in {type(net).__name__}: no grid of cells bears on the scores as a whole. "
        f"Candidates: {listed}. Name one: layer='...', with reshape_transform where its output is no grid."
    )


def trial_scores(output: Any) -> Tensor:
    """Anything a net returns as one row of numbers, for asking what they depend on."""
    if hasattr(output, "logits"):
        output = output.logits
    value = first_tensor(output)
    held = [value] if value is not None else _all_tensors(output)
    if not held:
        raise InputError(
            f"The net returns {type(output).__name__}, in which no tensor of numbers can be found. "
            "Wrap it so that it returns its scores."
        )
    if value is not None:
        return value.flatten(1) if value.ndim > 1 else value[:, None]
    return torch.cat([tensor.flatten() for tensor in held])[None]


def _all_tensors(output: Any) -> list[Tensor]:
    """Every tensor of numbers in nested lists, tuples and mappings: what detectors return."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for value in values for tensor in _all_tensors(value)]


def awakened(net: nn.Module) -> dict[str, Tensor]:
    """Noise for weights that are zero throughout, such as a head that is yet untrained: where features stand is a
    question about the net's structure, and no gradient passes zeros."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(weight.shape, generator=generator).to(weight) * 0.02
        for name, weight in net.named_parameters()
        if weight.ndim > 1 and not bool(weight.any())
    }
