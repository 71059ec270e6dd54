"""Gradients collected on the way from a baseline to the frame."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from .._check import Range
from ..baseline import Fill, fill
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import completeness


@MethodFacts(needs=("input gradient",), unit="score", signed=True, tables=True, forwards="steps + 2", backwards="steps")
def integrated_gradients(probe: Probe, *, steps: Annotated[int, Range(1)] = 50, baseline: Fill = "mean") -> Maps:
    """Mean gradient on the straight path from a baseline to the frame, times their difference.

    maps: (N, C, H, W), unit: score, sign: both; they add up to the score's difference from the baseline, and what is
    missing is the check `residual`.   cost: `steps` forwards and backwards, in micro-batches.
    fails: on values equal to the baseline; too few steps leave a residual.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, eq. 1.  Differs: Gauss-Legendre points instead of a Riemann
    sum, exact for paths on which the gradient is a polynomial of degree below 2 * steps.
    """
    start = fill(probe, baseline)
    difference = probe.frames - start.frames
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    fractions = (nodes + 1) / 2
    gradient = probe.path_gradient(
        lambda k: start.frames + float(fractions[k]) * difference, [float(w) / 2 for w in weights]
    )
    return completeness(probe, difference * gradient, start)
