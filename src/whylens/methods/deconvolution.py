"""Backward pass that keeps only positive evidence at every rectifier."""

from __future__ import annotations

from ..contract import Maps, MethodFacts
from ..probe import Probe
from ..residual import rule_reach


@MethodFacts(needs=("input gradient",), unit="score per frame value", signed=True)
def deconvolution(probe: Probe) -> Maps:
    """Backward pass in which rectifiers pass on positive gradients only, whatever their input was.

    maps: (N, C, H, W), unit: score per frame value, sign: both.   cost: 1 forward, 1 backward.
    fails: hardly depends on the class on deep ReLU nets (Adebayo et al. 2018); nets without rectifiers are flagged.

    Source: Zeiler & Fergus 2013, arXiv:1311.2901, sec. 2.1.
    """
    return Maps(probe.input_gradient("deconv"), checks=rule_reach(probe))
