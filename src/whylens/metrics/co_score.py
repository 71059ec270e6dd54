"""Whether adding the map to the image speaks for the true class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ..baseline import fill
from ..contract import MetricFacts, Trial, Values
from ..errors import InputError
from ..probe import Probe
from ..scoring import co, outputs_of, refuse_saturated


@MetricFacts(direction="higher", forwards="2")
def co_score(
    trial: Trial,
    *,
    mode: Literal["add", "multiply"] = "add",
    score: Literal["logit", "probability"] = "logit",
    unlabelled: Literal["skip", "target"] = "skip",
    space: Literal["frame", "normalised"] = "frame",
) -> Values:
    """Gain of the true class over the mean of the others when the map is added to the image.

    values: (N,), unit: logit or probability, range: any.   cost: 2 forwards.
    With h the enlarged map over its largest magnitude: kappa . (f(x + h) - f(x)), f the raw logits, kappa 1 for the
    true class and -1 / (K - 1) for the others; `mode` "multiply" takes x * h, `score` "probability" probabilities on
    both sides. The truth is the label; `unlabelled` "target" takes the explained class where there is none. h is added
    to the frame, or in `space` "normalised" behind the net's normalisation, where it weighs less by the factor std.
    checks: `correct`, 1 where the net predicts the truth before the map is added.
    fails: x + h is no photo; logits of two nets do not compare; a map of another class than the true one scores low.
    no value: `no_label` (none known, or none of the outputs), `no_mass` (the map is zero everywhere).

    Source: Tjoa et al. 2021, arXiv:2201.00009, eq. 5.  Differs: added in the frame; the paper's code: "normalised".
    """
    probe = trial.probe
    if score == "logit":
        refuse_saturated(probe.model, "co_score", ", or ask for co_score:score=probability")
    before = outputs_of(probe, probe.frames)
    K = before.shape[1]
    if K == 1:
        raise InputError(
            f"co_score compares the true class with the others, and {probe.model.name} has one output. "
            "Use insertion or deletion."
        )
    h, no_mass = _relative(trial)
    after = outputs_of(probe, _augmented(probe, h, mode, space))
    truth = _truth(trial, unlabelled)
    unknown = (truth < 0) | (truth >= K)
    truth = truth.masked_fill(unknown, 0)
    correct = (before.argmax(1) == truth).float()
    if score == "probability":
        before, after = probe.model.probabilities(before), probe.model.probabilities(after)
    return Values(
        co(before, after, truth).masked_fill(unknown | no_mass, torch.nan),
        checks={
            "correct": correct.masked_fill(unknown, torch.nan),
            "no_label": unknown,
            "no_mass": no_mass & ~unknown,
        },
    )


def _relative(trial: Trial) -> tuple[Tensor, Tensor]:
    """The map over the frame ``(N, C, H, W)``, its largest magnitude 1, and where it is zero everywhere ``(N,)``."""
    maps, frames = trial.explanation.maps.double(), trial.probe.frames
    if maps.ndim == 4 and maps.shape[2:] != frames.shape[2:]:
        maps = F.interpolate(maps, size=frames.shape[2:], mode="bilinear", align_corners=False)
    largest = maps.flatten(1).abs().amax(1)
    relative = maps / largest.masked_fill(largest == 0, 1).view(-1, *[1] * (maps.ndim - 1))
    return relative.to(frames), largest == 0


def _augmented(probe: Probe, h: Tensor, mode: str, space: str) -> Tensor:
    x, preprocess = probe.frames, probe.model.preprocess
    if space == "frame" or preprocess is None:
        return x + h if mode == "add" else x * h
    if mode == "multiply":
        mean = fill(probe, "mean").frames
        return mean + (x - mean) * h
    std = x.new_tensor(preprocess.std).view(-1, 1, 1)
    return x + h * (std.flip(0) if preprocess.order == "BGR" else std)


def _truth(trial: Trial, unlabelled: str) -> Tensor:
    """The output that counts as true ``(N,)``, -1 where none is known."""
    truth = torch.full((len(trial.probe),), -1) if trial.labels is None else trial.labels.cpu()
    if unlabelled == "target" and trial.probe.index is not None:
        truth = torch.where(truth < 0, trial.probe.index.cpu(), truth)
    return truth
