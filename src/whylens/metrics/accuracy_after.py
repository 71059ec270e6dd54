"""Whether the net is right once the map is added to the image."""

from __future__ import annotations

import torch

from ..augmentation import Mode, Space, augmented, refuse_single, relative, truth
from ..contract import MetricFacts, Trial, Values
from ..scoring import outputs_of


@MetricFacts(direction="higher", low=0.0, high=1.0, forwards="2")
def accuracy_after(trial: Trial, *, mode: Mode = "add", space: Space = "frame") -> Values:
    """1 where the net predicts the true class once the map is added to the image, else 0: the mean is the accuracy.

    values: (N,), unit: share of right predictions, range: [0, 1].   cost: 2 forwards.
    With h the enlarged map over its largest magnitude the net sees x + h, or in `mode` "multiply" x * h; `space` as in
    `co_score`. Ask for maps of the predicted class: those of the true one would tell the net the answer.
    checks: `before`, 1 where the net is right without the map (their mean is the baseline accuracy); `changed`, 1 where
    another class is predicted than before.
    fails: x + h is no photo, and most maps make a net worse; says nothing about why.
    no value: `no_label` (none known, or none of the outputs), `no_mass` (the map is zero everywhere).

    Source: Tjoa et al. 2021, arXiv:2201.00009, table 2.  Differs: added in the frame; the paper's code: "normalised".
    """
    probe = trial.probe
    before = outputs_of(probe, probe.frames)
    K = before.shape[1]
    refuse_single("accuracy_after", probe, K)
    h, no_mass = relative(trial)
    after = outputs_of(probe, augmented(probe, h, mode, space))
    true, unknown = truth(trial, K)
    was, now = before.argmax(1), after.argmax(1)
    return Values(
        (now == true).double().masked_fill(unknown | no_mass, torch.nan),
        checks={
            "before": (was == true).double().masked_fill(unknown, torch.nan),
            "changed": (now != was).double(),
            "no_label": unknown,
            "no_mass": no_mass & ~unknown,
        },
    )
