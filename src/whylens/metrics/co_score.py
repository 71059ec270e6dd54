"""Whether adding the map to the image speaks for the true class."""

from __future__ import annotations

from typing import Literal

import torch

from ..augmentation import Mode, Space, augmented, refuse_single, relative, truth
from ..contract import MetricFacts, Trial, Values
from ..scoring import co, outputs_of, refuse_saturated


@MetricFacts(direction="higher", forwards="2")
def co_score(
    trial: Trial,
    *,
    mode: Mode = "add",
    score: Literal["logit", "probability"] = "logit",
    unlabelled: Literal["skip", "target"] = "skip",
    space: Space = "frame",
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
    refuse_single("co_score", probe, K)
    h, no_mass = relative(trial)
    after = outputs_of(probe, augmented(probe, h, mode, space))
    true, unknown = truth(trial, K, otherwise_target=unlabelled == "target")
    correct = (before.argmax(1) == true).float()
    if score == "probability":
        before, after = probe.model.probabilities(before), probe.model.probabilities(after)
    return Values(
        co(before, after, true).masked_fill(unknown | no_mass, torch.nan),
        checks={
            "correct": correct.masked_fill(unknown, torch.nan),
            "no_label": unknown,
            "no_mass": no_mass & ~unknown,
        },
    )
