"""Baseline: the frames that stand for nothing seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .errors import InputError
from .probe import Baseline, Probe

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
    ``max(0.01, 1.5 / K)``, K classes. Where none is enough, the one that leaves least stands; `Baseline.kept` says
    what each leaves. A target that is a function has no probability: it takes the widest blur.

    Source: Qi, Khorram, Li 2020 (I-GOS), section 3.3; our order of fallbacks.
    """
    frames = probe.frames
    if frames.ndim != 4:
        return fill(probe, "mean")
    candidates = [(f"blur {s}", blur(frames, s * frames.shape[2] / 224)) for s in SIGMAS]
    noise = torch.rand(frames.shape[1:], generator=torch.Generator().manual_seed(seed)).to(frames)
    if probe.index is None:
        return Baseline(*candidates[-1])
    candidates += [(name, fill(probe, name).frames.expand_as(frames)) for name in ("mean", "black")]
    candidates.append(("noise", noise.expand_as(frames)))
    best, names = candidates[0][1].clone(), [""] * len(frames)
    left = torch.full((len(frames),), torch.inf)
    enough = max(0.01, 1.5 / probe.classes)
    for name, filled in candidates:
        open_ = left > enough
        if not bool(open_.any()):
            break
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
    from torchvision.transforms.v2.functional import gaussian_blur

    reach = [min(int(2 * sigma + 0.5), side - 1) for side in frames.shape[2:]]
    blurred: Tensor = gaussian_blur(frames, [2 * reach[1] + 1, 2 * reach[0] + 1], [sigma, sigma])
    return blurred


def _is_bgr(probe: Probe) -> bool:
    return probe.model.preprocess is not None and probe.model.preprocess.order == "BGR"
