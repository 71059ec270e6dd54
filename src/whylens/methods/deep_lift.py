"""Differences from a baseline, handed back through secants."""

from __future__ import annotations

from ..baseline import Fill, fill
from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import completeness


@MethodFacts(needs=("input gradient",), unit="score", signed=True, tables=True, forwards="2")
def deep_lift(probe: Probe, *, baseline: Fill = "mean") -> Maps:
    """Share of every value in the score's difference from a baseline, by the rescale rule.

    maps: (N, C, H, W), unit: score, sign: both; they add up to the score's difference from the baseline, and what is
    missing is the check `residual`.   cost: 1 forward of the frames, 1 of the baseline, 1 backward.
    fails: where two signals multiply (attention, gates, layer norm): the residual tells.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, sec. 3.5.2.  Differs: every elementwise nonlinearity is rescaled,
    called as a module or as a function; in max pooling the winner on each side takes its own part.
    """
    start = fill(probe, baseline)
    return completeness(probe, (probe.frames - start.frames) * probe.input_gradient("rescale", start), start)
