"""Baseline: the frames that stand for nothing seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .errors import InputError
from .passes import Baseline
from .probe import Probe

Fill = Literal["mean", "black", "white", "blur"]
Choice = Literal["auto", "mean", "black", "white", "blur"]

SIGMAS = (5, 10, 20, 40, 80)
"""Standard deviations of the blurs that the search tries, in pixels of a frame of 224 rows."""


def choose(probe: Probe, name: Choice, *, seed: int = 0) -> Baseline:
    """The baseline of that name; "auto" searches one that removes the target."""
    return search(probe, seed=seed) if name == "auto" else fill(probe, name)


def search(probe: Probe, *, seed: int = 0) -> Baseline:
    """For each image the gentlest fill under which the target is gone: ``(N, C, H, W)``.

    Blurs of rising width are tried, then the mean colour, black, and uniform noise. Gone is a probability of at most
    that of a guess, and of 0.01 where there are more than a hundred classes. Where none is enough, the one that leaves
    least stands; `Baseline.kept` says what each leaves. A target that is a function has no probability: it takes the
    widest blur.

    Source: Qi, Khorram, Li 2020 (I-GOS), section 3.3; our order of fallbacks.
    """
    frames = probe.frames
    if frames.ndim != 4:
        return fill(probe, "mean")
    candidates: list[tuple[str, Callable[[], Tensor]]] = [
        (f"blur {sigma}", partial(blur, frames, sigma * frames.shape[2] / 224)) for sigma in SIGMAS
    ]
    if probe.index is None:
        name, make = candidates[-1]
        return Baseline(name, make())
    noise = torch.rand(frames.shape[1:], generator=torch.Generator().manual_seed(seed)).to(frames)
    candidates += [
        ("mean", lambda: fill(probe, "mean").frames.expand_as(frames)),
        ("black", lambda: fill(probe, "black").frames.expand_as(frames)),
        ("noise", lambda: noise.expand_as(frames)),
    ]
    best, names = torch.zeros_like(frames), [""] * len(frames)
    left = torch.full((len(frames),), torch.inf)
    enough = max(0.01, 1 / max(2, probe.classes))
    for name, make in candidates:
        open_ = left > enough
        if not bool(open_.any()):
            break
        filled = make()
        kept = probe.probability_of(filled).cpu()
        better = open_ & (kept < left)
        best[better.to(best.device)] = filled[better.to(best.device)]
        left = torch.where(better, kept, left)
        names = [name if b else old for b, old in zip(better.tolist(), names, strict=True)]
    return Baseline("searched: " + ", ".join(dict.fromkeys(names)), best, tuple(names), left)


def fill(probe: Probe, name: Fill) -> Baseline:
    """The baseline of that name for the probe's frames.

    "mean" is what the net's own normalisation takes to 0: its mean colour, or zeros where tensors enter as they are
    (what "baseline zero" means in the literature, where attribution starts behind the normalisation). "black" and
    "white" are 0 and 1. "blur" is the frame itself under a Gaussian of a tenth of its shorter side.
    """
    frames, preprocess = probe.frames, probe.model.preprocess
    one = torch.zeros_like(frames[:1])
    if name == "mean":
        mean = None if preprocess is None else frames.new_tensor(preprocess.mean).view(1, -1, 1, 1)
        return Baseline(name, one if mean is None else one + (mean.flip(1) if _is_bgr(probe) else mean))
    if name in ("black", "white"):
        return Baseline(name, one if name == "black" else one + 1)
    if frames.ndim != 4:
        raise InputError(f"baseline: only images can be blurred. Got frames {tuple(frames.shape)}. Use 'mean'.")
    return Baseline(name, blur(frames, min(frames.shape[2:]) / 10))


def blur(frames: Tensor, sigma: float) -> Tensor:
    """Frames ``(N, C, H, W)`` under a Gaussian of that standard deviation in pixels, mirrored at the border."""
    C = frames.shape[1]
    for axis in (2, 3):
        reach = min(int(2 * sigma + 0.5), frames.shape[axis] - 1)
        if reach < 1:
            continue
        at = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (at / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(frames)
        shape, border = ((-1, 1), (0, 0, reach, reach)) if axis == 2 else ((1, -1), (reach, reach, 0, 0))
        padded = F.pad(frames, border, mode="reflect")
        frames = F.conv2d(padded, kernel.view(1, 1, *shape).expand(C, -1, -1, -1), groups=C)
    return frames


def _is_bgr(probe: Probe) -> bool:
    return probe.model.preprocess is not None and probe.model.preprocess.order == "BGR"
