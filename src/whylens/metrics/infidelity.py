"""How far the map is from foretelling what perturbations do to the score."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .._check import Range
from ..baseline import Choice, choose
from ..contract import MetricFacts, Trial, Values
from ..removal import Scored


@MetricFacts(direction="lower", low=0.0, forwards="samples + 10")
def infidelity(
    trial: Trial,
    *,
    perturb: Literal["square", "noise"] = "square",
    size: Annotated[float, Range(0.01, 1)] = 0.2,
    samples: Annotated[int, Range(2)] = 100,
    scaled: bool = True,
    baseline: Choice = "mean",
    score: Scored = "explained",
    seed: int = 0,
) -> Values:
    """Mean squared difference between what the map foretells of a perturbation and what it does to the score.

    values: (N,), unit: that of the score, squared, range: >= 0.   cost: `samples` + 1 forwards, up to 9 to search.
    E (I . map - (f(x) - f(x - I)))^2 over random I. "square": a square whose side is the share `size` of the frame's
    shorter one gets the `baseline`; "noise": I is Gaussian with standard deviation `size`; the same draws for all
    images, by `seed`. The map is enlarged to the frame; one channel counts for all. `scaled` multiplies it with the
    number that fits best, as the paper's code does: units and sizes of maps then do not matter.
    checks: `scale`, that number; `spread`, what a map of zeros would get; `explained`, 1 - value / spread.
    fails: images of larger effects get larger values; a scale below 0 says that the map has the wrong sign.
    no value: never.

    Source: Yeh et al. 2019, arXiv:1901.09392, definition 2.1.  Differs: squares are drawn, of one size.
    """
    probe = trial.probe
    frames = probe.frames
    removed = frames - choose(probe, baseline, seed=seed).frames.to(frames)  # by a square over everything

    def change(draw: int, n: slice | int) -> Tensor:
        """I of a draw, for some of the images."""
        rng = torch.Generator().manual_seed(seed * 1_000_003 + draw)
        if perturb == "noise":
            return size * torch.randn(frames.shape[1:], generator=rng).to(frames)
        return removed[n] * _square(frames.shape[1:], size, rng).to(frames)

    def make(n: int, looks: slice) -> Tensor:
        return torch.stack([frames[n] - (change(k - 1, n) if k else 0) for k in range(samples + 1)[looks]])

    f = probe.looks(samples + 1, make, kind="score" if score == "explained" else "probability").double()
    maps = _over(trial.explanation.maps, frames)
    foretold = torch.stack([(change(k, slice(None)) * maps).flatten(1).sum(1).cpu() for k in range(samples)], 1)
    fell = f[:, :1] - f[:, 1:]
    power = foretold.square().mean(1)
    scale = (foretold * fell).mean(1) / power.masked_fill(power == 0, 1) if scaled else torch.ones(len(f))
    value, spread = (scale[:, None] * foretold - fell).square().mean(1), fell.square().mean(1)
    return Values(
        value,
        checks={
            "scale": scale,
            "spread": spread,
            "explained": (1 - value / spread).masked_fill(spread == 0, torch.nan),
        },
    )


def _square(shape: torch.Size, size: float, rng: torch.Generator) -> Tensor:
    """1 inside a square of random place ``(1, H, W)``, else 0; of a table's features so many in a row."""
    sides = [max(1, round(size * min(shape[1:]))) for _ in shape[1:]] or [max(1, round(size * shape[0]))]
    inside = torch.ones(())
    for length, side in zip(shape[1:] or shape, sides, strict=True):
        start = int(torch.randint(length - side + 1, (), generator=rng))
        at = torch.arange(length)
        inside = inside[..., None] * ((at >= start) & (at < start + side)).float()
    return inside if len(shape) == 1 else inside[None]


def _over(maps: Tensor, frames: Tensor) -> Tensor:
    """The map over the frame, float64 on the frames' device; its largest magnitude is kept as it is."""
    maps = maps.double()
    if maps.ndim == 4 and maps.shape[2:] != frames.shape[2:]:
        maps = F.interpolate(maps, size=frames.shape[2:], mode="bilinear", align_corners=False)
    return maps.to(frames.device)
