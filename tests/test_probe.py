"""Probe: every pass once, the cheapest graph that serves, the world left as found."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import whylens
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.testing import SmallNet

FRAMES = torch.rand((3, 3, 12, 12), generator=torch.Generator().manual_seed(0))
FIRST = ["saliency", "input_x_gradient", "grad_cam", "deconvolution", "guided_backprop", "deep_lift"]


class Counted(SmallNet):
    """Counts what enters its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return super().forward(x)


def probe(net: nn.Module, **options: object) -> Probe:
    return Probe(Passes(whylens.Model(net, layer="high"), FRAMES, **options), torch.tensor([0, 1, 2]))  # type: ignore[arg-type]


def test_six_methods_are_one_forward_one_baseline_and_five_backwards() -> None:
    net = Counted()
    model = whylens.Model(net, layer="high")
    model.layer(shape=(3, 12, 12))
    net.rows = 0
    many = whylens.explain_many(model, FRAMES, methods=FIRST)
    assert net.rows == 3 + 1
    assert sum(e.cost["run_forwards"] for e in many.values()) == pytest.approx(4 / 3, abs=0.01)
    assert sum(e.cost["run_backwards"] for e in many.values()) == 5
    assert [e.cost["backwards"] for e in many.values()] == [1] * 6
    alone = whylens.explain(model, FRAMES, method="input_x_gradient")
    assert (alone.cost["forwards"], alone.cost["backwards"]) == (1, 1)


@pytest.mark.parametrize("method", FIRST)
def test_a_map_is_the_same_alone_and_beside_others(method: str) -> None:
    model = whylens.Model(SmallNet(), layer="high")
    beside = whylens.explain_many(model, FRAMES, methods=list(reversed(FIRST)))[method].maps
    alone = whylens.explain(model, FRAMES, method=method).maps
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-6)


def test_class_activation_alone_builds_no_graph_below_its_layer() -> None:
    seen: list[bool] = []
    net = SmallNet()
    net.norm.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    net.head.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    probe(net).activation_gradient()
    assert seen[-2:] == [False, True]


def test_what_was_not_planned_costs_one_more_forward_and_is_right() -> None:
    late = probe(SmallNet())
    gradient = late.activation_gradient()
    assert late.passes.forwards == 3
    late.input_gradient()
    assert late.passes.forwards == 6
    planned = probe(SmallNet(), layers=["high"], to_input=True)
    torch.testing.assert_close(planned.activation_gradient(), gradient)
    torch.testing.assert_close(planned.input_gradient(), late.input_gradient())
    assert planned.passes.forwards == 3


def test_a_layer_whose_output_is_changed_in_place_is_seen_as_it_was() -> None:
    """`low` is rectified in place right after it ran: its activation is what it gave, negative values and all."""
    net = SmallNet()
    bent = copy.deepcopy(net)
    bent.relu = nn.ReLU(inplace=True)
    found = Probe(Passes(whylens.Model(net, layer="norm"), FRAMES), torch.zeros(3, dtype=torch.long))
    with torch.no_grad():
        net.eval()
        expected = net.norm(net.low(FRAMES))
    torch.testing.assert_close(found.activation(), expected)
    assert float(found.activation().min()) < 0


def test_a_changed_weight_changes_the_map() -> None:
    model = whylens.Model(SmallNet(), layer="high")
    before = whylens.explain(model, FRAMES, target=0).maps
    with torch.no_grad():
        model.net.head.weight[0] *= -1
    assert not torch.equal(before, whylens.explain(model, FRAMES, target=0).maps)


def test_half_precision_and_no_grad_and_inference_mode_and_autocast_callers() -> None:
    model = whylens.Model(SmallNet(), layer="high")
    expected = whylens.explain(model, FRAMES, target=0, method="saliency").maps
    for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with mode:
            found = whylens.explain(model, FRAMES, target=0, method="saliency").maps
        torch.testing.assert_close(found, expected)
    half = whylens.Model(SmallNet().to(torch.bfloat16), layer="high")
    found = whylens.explain(half, FRAMES, target=0, method="grad_cam").maps
    assert found.dtype == torch.float32


def test_a_net_that_writes_into_its_input_leaves_the_callers_frames() -> None:
    class Writes(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return super().forward(x)

    kept = FRAMES.clone()
    whylens.explain_many(whylens.Model(Writes(), layer="high"), FRAMES, methods=FIRST)
    assert torch.equal(FRAMES, kept)


def test_scores_in_three_units() -> None:
    net = SmallNet()
    model = whylens.Model(net, layer="high")
    logits = net.eval()(FRAMES).detach()
    p = logits.softmax(1)[:, 1]
    for kind, expected in (("logit", logits[:, 1]), ("probability", p), ("log_odds", torch.logit(p))):
        found = whylens.explain(model, FRAMES, target=1, score=kind)  # type: ignore[arg-type]
        torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.probabilities, p)
        assert found.score_kind == kind


def test_one_output_and_multilabel_are_sigmoids() -> None:
    net = SmallNet(classes=1)
    found = whylens.explain(whylens.Model(net, layer="high"), FRAMES)
    torch.testing.assert_close(found.probabilities, net.eval()(FRAMES).sigmoid()[:, 0])
    net = SmallNet()
    found = whylens.explain(whylens.Model(net, layer="high", task="multilabel"), FRAMES, target=2, score="log_odds")
    torch.testing.assert_close(found.probabilities, net.eval()(FRAMES).sigmoid()[:, 2])
    torch.testing.assert_close(found.scores, net(FRAMES)[:, 2])


def test_a_gradient_that_the_net_cuts_is_said_and_a_constant_score_is_not_confused_with_it() -> None:
    class Cuts(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(whylens.InputError, match="cuts the gradient"):
        whylens.explain(whylens.Model(Cuts(), layer="high"), FRAMES, method="saliency")

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.scores.expand(len(x), -1)

    found = whylens.explain(Fixed(), FRAMES, method="saliency")
    assert not found.maps.any()
    assert found.flags(0) == ("flat",)
