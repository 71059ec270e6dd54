"""Gradients collected on the way from many references to the frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor

from .. import regions, surrogate
from .._check import Range
from ..baseline import SIGMAS, blur
from ..contract import Maps, MethodFacts
from ..errors import InputError
from ..images import Images
from ..passes import Baseline
from ..probe import Probe
from ..sources import load_images

Kind = Literal["varied", "colours", "noise", "blurs"]


@MethodFacts(needs=("input gradient",), unit="score", signed=True, forwards="2 * samples + 1", backwards="samples")
def expected_gradients(
    probe: Probe,
    *,
    samples: Annotated[int, Range(1)] = 60,
    baseline: Kind = "varied",
    references: str | Tensor | Images | None = None,
    seed: int = 0,
) -> Maps:
    """Mean gradient at random points between the frame and references, times their difference.

    maps: (N, C, H, W), unit: score, sign: both; on average they add up to the score's difference from the mean score
    of the references.   cost: `samples` forwards and backwards, as many forwards for the references' own scores.
    `references` are photos (a folder, a list, frames), best of the training set; without them they are drawn: plain
    colours, noise, blurs of the image, or each in turn. Checks: `difference`, `residual`, `incomplete`.
    fails: with few samples: what is missing is mostly chance.

    Source: Erion et al. 2021, arXiv:1906.10670, eq. 5.   Differs: places on the path are stratified; all images of a
    batch meet the same draws, and none is another's reference.
    """
    frames = probe.frames
    count, reference = _drawn(probe, baseline, seed) if references is None else _given(probe, references, seed)
    count = min(count or samples, samples)
    moves = [torch.rand((), generator=_rng(seed, k)).item() for k in range(samples)]
    whole = regions.grid(frames, 1)
    maps, expected = torch.zeros_like(frames, dtype=torch.float32), torch.zeros(len(frames))
    for r in range(count):
        start, draws = reference(r).to(frames), range(r, samples, count)
        difference, places = frames - start, [(k + moves[k]) / samples for k in draws]
        gradient = probe.path_gradient(_path(start, difference, places), [1 / samples] * len(draws))
        maps += difference * gradient
        score = probe.masked_scores(torch.zeros(1, 1), Baseline("", start), expand=whole.expand, kind="score")
        expected += score[:, 0] * len(draws) / samples
    checks = surrogate.adds_up(maps.flatten(1).cpu(), probe.score.cpu() - expected)
    name = f"{count} references ({baseline if references is None else 'given'})"
    return Maps(maps, checks=checks, extra={"baseline": name})


def _path(start: Tensor, difference: Tensor, places: list[float]) -> Callable[[int], Tensor]:
    return lambda k: start + places[k] * difference


def _drawn(probe: Probe, kind: Kind, seed: int) -> tuple[int, Callable[[int], Tensor]]:
    """References without end (0), by number: ``(1, C, H, W)`` for all images, or a blur of each."""
    frames = probe.frames
    kinds = ("colours", "noise", "blurs") if kind == "varied" else (kind,)

    def reference(k: int) -> Tensor:
        rng, own = _rng(seed, k, 1), kinds[k % len(kinds)]
        if own == "blurs":
            low, high = SIGMAS[0], SIGMAS[2]
            sigma = low * (high / low) ** torch.rand((), generator=rng).item()
            return blur(frames, sigma * frames.shape[2] / 224)
        shape = frames.shape[1:2] if own == "colours" else frames.shape[1:]
        values = torch.rand(shape, generator=rng)
        return (values[:, None, None] if own == "colours" else values).expand(frames.shape[1:])[None]

    return 0, reference


def _given(probe: Probe, references: str | Tensor | Images, seed: int) -> tuple[int, Callable[[int], Tensor]]:
    """How many photos there are and each as the model takes it, in an order drawn by the seed."""
    images = references if isinstance(references, Images) else load_images(references)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()

    def reference(k: int) -> Tensor:
        photo = images[order[k]]
        frame, _ = probe.model.prepare(photo.pixels, photo.orientation)
        if frame.shape != probe.frames.shape[1:]:
            came, want = tuple(frame.shape), tuple(probe.frames.shape[1:])
            raise InputError(f"expected_gradients: references must have the frames' shape {want}. Got {came}.")
        return frame[None]

    return len(images), reference


def _rng(seed: int, draw: int, stream: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + draw) * 2 + stream)
