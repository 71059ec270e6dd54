"""A class's probability handed down to the features that excited it."""

from __future__ import annotations

from typing import Literal

import torch

from ..contract import Maps, MethodFacts
from ..excitation import Excitation, Skip
from ..probe import Probe

LEAK = 0.5
"""Share of the start by which what arrives may differ from all of it."""


@MethodFacts(needs=("layer",), unit="probability", signed=False, forwards="2", backwards="2")
def excitation_backprop(
    probe: Probe, *, mode: Literal["marginal", "contrastive"] = "marginal", skip: Skip = "split"
) -> Maps:
    """Probability that a cell of the feature layer is what excited the target, by winner-take-all layer by layer.

    maps: (N, 1, h, w), unit: probability, sign: >= 0; marginal maps add up to at most 1, summed over channels.
    cost: 2 forwards, 1 backward above the layer, or 2 with mode="contrastive".
    A linear layer hands shares on in proportion to its positive products, a sum of two branches to their positive
    parts; with skip="ignore" the longer branch takes all. "contrastive" subtracts what the negated classifier gives
    at the classifier's input, hands the difference down, and keeps what is positive: better at telling classes apart.
    Checks: `conserved`, the share of the start that arrived at the layer (the lesser of both); `leaking`, far from 1;
    `rule_share`, calls that the rule knows of all that it met (the rest, as elementwise, is in `extra`).
    fails: inputs below 0 and biases excite nothing: SiLU, GELU and layer norm are handled coarsely, and depthwise nets
    lose much below their last block. What goes around the layer or to a class token is lost: give a ViT skip="ignore".
    Products of features (linear attention) are refused.

    Source: Zhang et al. 2016, arXiv:1608.00507, sec. 3.2 and 3.3.   Differs: batch norm hands on as it is; attention
    is fixed weights; the contrast is taken at the last learned layer's input. Patents: the page of methods says more.
    """
    rule = Excitation(skip)
    contrasts = (False, True) if mode == "contrastive" else (False,)
    shares = [found.sum(1, keepdim=True) for found in probe.handed_down(rule, contrasts)]
    arrived = [found.sum((1, 2, 3)) for found in shares]
    conserved = torch.stack(arrived).amin(0)
    calls = rule.followed + len(rule.guessed)
    checks = {
        "conserved": conserved,
        "leaking": (conserved - 1).abs() > LEAK,
        "rule_share": conserved.new_full((len(probe),), rule.followed / calls if calls else 1.0),
    }
    maps = shares[0] - shares[1] if len(shares) > 1 else shares[0]
    return Maps(maps.clamp(min=0), checks=checks, extra={"taken for elementwise": sorted(set(rule.guessed))})
