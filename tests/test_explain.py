"""The verb explain: targets, labels, batches, failures, memory; the methods have their own file."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import whylens
from whylens import Maps, Method, MethodFacts
from whylens.testing import SmallNet

FRAMES = torch.rand((5, 3, 12, 12), generator=torch.Generator().manual_seed(0))
NAMES = ["oak", "ash", "elm, wych elm", "yew"]


def model(**options: Any) -> whylens.Model:
    return whylens.Model(SmallNet(), **{"layer": "high", "classes": NAMES, **options})


def test_every_spelling_of_a_target() -> None:
    expected = whylens.explain(model(), FRAMES, target=2).maps
    for target in ("elm, wych elm", "Wych Elm", "2", [2] * 5, torch.full((5,), 2), np.full(5, 2), ("elm",) * 5):
        assert torch.equal(whylens.explain(model(), FRAMES, target=target).maps, expected)
    logit = whylens.explain(model(), FRAMES, target=lambda output: output[:, 2])
    torch.testing.assert_close(logit.maps, expected)
    assert (logit.score_kind, logit.targets.tolist()) == ("function", [-1] * 5)
    predicted = whylens.explain(model(), FRAMES)
    assert torch.equal(predicted.targets, predicted.predictions)


def test_a_target_per_image_survives_batching() -> None:
    target = [3, 1, 0, 2, 1]
    whole = whylens.explain(model(), FRAMES, target=target)
    halves = whylens.explain(model(), FRAMES, target=target, batch_size=2)
    assert whole.targets.tolist() == target == halves.targets.tolist()
    torch.testing.assert_close(whole.maps, halves.maps)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ([1, 2], "5 images need 5 targets, or one for all. Got 2"),
        (4, "the net has 4 outputs, 0 to 3. Got 4"),
        (-1, "less than their number. Got -1"),
        ("oka", "No class 'oka'. Did you mean 'oak'"),
        (1.5, "must be an int, a class name"),
        ([1.5] * 5, "whole numbers or class names"),
        (True, "must be an int, a class name"),
        (lambda output: output, "one score per image"),
    ],
)
def test_targets_that_cannot_be(target: Any, said: str) -> None:
    with pytest.raises(whylens.InputError) as refused:
        whylens.explain(model(), FRAMES, target=target)
    assert said in str(refused.value)


def test_a_name_of_two_classes_is_refused_with_their_numbers() -> None:
    with pytest.raises(whylens.InputError, match=r"'crane' is the name of outputs \[0, 2\]"):
        whylens.explain(model(classes=["crane", "ash", "crane", "yew"]), FRAMES, target="crane")


def test_one_method_at_two_layers_and_two_targets() -> None:
    methods = [
        "grad_cam",
        Method("grad_cam", layer="norm"),
        Method("grad_cam", target="yew"),
        Method("grad_cam", params={"relu": False}, label="raw"),
        "grad-cam:layer=low,relu=false",
    ]
    many = whylens.explain_many(model(), FRAMES, methods=methods, target=0)
    assert list(many) == [
        "grad_cam",
        "grad_cam:layer=norm",
        "grad_cam:target=yew",
        "raw",
        "grad_cam:layer=low,relu=false",
    ]
    assert many["grad_cam:layer=norm"].layer == "norm"
    assert many["grad_cam:target=yew"].targets.tolist() == [3] * 5
    torch.testing.assert_close(many["raw"].maps.clamp(min=0), many["grad_cam"].maps)
    with pytest.raises(whylens.InputError, match="'grad_cam' is asked twice"):
        whylens.explain_many(model(), FRAMES, methods=["grad_cam", "grad_cam"])
    with pytest.raises(whylens.InputError, match="at least one method"):
        whylens.explain_many(model(), FRAMES, methods=[])


def test_a_broken_file_among_good_ones_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    preprocess = {"size": (12, 12)}
    found = whylens.explain(model(preprocess=preprocess), tmp_path, batch_size=2)
    assert found.ids == ("a.png", "b.png", "d.png")
    assert list(found.failures) == ["c.png"]
    assert "c.png" in found.failures["c.png"]
    per_image = whylens.explain(model(preprocess=preprocess), tmp_path, target=[0, 1, 2, 3], batch_size=2)
    assert per_image.targets.tolist() == [0, 1, 3]
    for name in ("a", "b", "d"):
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(whylens.InputError, match="None of the 1 images could be read"):
        whylens.explain(model(preprocess=preprocess), tmp_path)


def test_photos_of_two_sizes_without_preprocess() -> None:
    photos = [torch.rand(3, 12, 12), torch.rand(3, 20, 12)]
    with pytest.raises(whylens.InputError, match="different sizes"):
        whylens.explain(model(), photos)
    assert len(whylens.explain(model(preprocess={"size": (12, 12)}), photos)) == 2


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing() -> None:
    class Tight(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("planned")
            return super().forward(x)

    tight = whylens.Model(Tight(), layer="high")
    methods = ["grad_cam", "saliency"]
    many = whylens.explain_many(tight, FRAMES, methods=methods, target=1)
    roomy = whylens.explain_many(model(), FRAMES, methods=methods, target=1)
    for name in methods:
        assert many[name].ids == roomy[name].ids
        torch.testing.assert_close(many[name].maps, roomy[name].maps)


def test_nets_that_return_more_than_scores() -> None:
    class Wraps(nn.Module):
        def __init__(self, wrap: Any) -> None:
            super().__init__()
            self.net, self.wrap = SmallNet(), wrap

        def forward(self, x: Tensor) -> Any:
            return self.wrap(self.net(x))

    class Logits:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    expected = whylens.explain(model(), FRAMES, target=1).maps
    for wrap in (
        lambda s: (s, 1), lambda s: {"logits": s}, lambda s: OrderedDict(out=s), lambda s: [s], Logits
    ):  # fmt: skip
        found = whylens.explain(whylens.Model(Wraps(wrap), layer="net.high"), FRAMES, target=1)
        torch.testing.assert_close(found.maps, expected)
    with pytest.raises(whylens.InputError, match="can be found"):
        whylens.explain(whylens.Model(Wraps(lambda s: None), layer="net.high"), FRAMES)
    with pytest.raises(whylens.InputError, match="give a target function"):
        whylens.explain(whylens.Model(Wraps(lambda s: s[:, :, None, None]), layer="net.high"), FRAMES)


def test_a_segmentation_net_is_explained_by_a_function_of_its_output() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.high(self.low(x).relu())}

    segments = whylens.Model(Segments(), layer="low", task="segmentation")
    found = whylens.explain(segments, FRAMES, target=lambda output: output["out"][:, 1, :4, :4].mean((1, 2)))
    assert found.maps.shape == (5, 1, 12, 12)
    assert not found.maps[:, :, 8:, 8:].isnan().any()
    with pytest.raises(whylens.InputError, match="needs a target function"):
        whylens.explain(whylens.Model(Segments(), layer="low", task="detection"), FRAMES, target=1)


@MethodFacts(needs=("input gradient",), unit="score", signed=True)
def my_method(probe: whylens.Probe, *, power: float = 1.0) -> Maps:
    """Gradient to a power."""
    return Maps(probe.input_gradient() ** power, extra={"note": "mine"})


def test_a_method_of_ones_own() -> None:
    found = whylens.explain(model(), FRAMES, method=my_method, params={"power": 2})
    assert (found.method, found.label, found.extra["note"]) == ("my_method", "my_method:power=2", "mine")
    plain = whylens.explain(model(), FRAMES, method="saliency")
    torch.testing.assert_close(found.maps, plain.maps**2)

    def undeclared(probe: whylens.Probe) -> Tensor:
        return probe.input_gradient()

    with pytest.raises(whylens.WhylensError, match="declares no facts"):
        whylens.explain(model(), FRAMES, method=undeclared)

    @MethodFacts(needs=("input gradient",), unit="score", signed=True)
    def misshapen(probe: whylens.Probe) -> Tensor:
        return probe.input_gradient().sum()

    with pytest.raises(whylens.InputError, match="must return maps"):
        whylens.explain(model(), FRAMES, method=misshapen)


def test_values_that_are_no_numbers_are_set_to_zero_and_flagged() -> None:
    @MethodFacts(needs=("input gradient",), unit="score", signed=True)
    def broken(probe: whylens.Probe) -> Tensor:
        maps = probe.input_gradient().clone()
        maps[1, 0, 0, 0] = torch.nan
        return maps

    found = whylens.explain(model(), FRAMES, method=broken)
    assert [found.flags(i) for i in range(5)] == [(), ("not_finite",), (), (), ()]
    assert float(found.maps[1, 0, 0, 0]) == 0


def test_a_baseline_that_keeps_the_target_is_flagged() -> None:
    class Dark(nn.Module):
        """Sure of class 0 when it sees nothing."""

        def forward(self, x: Tensor) -> Tensor:
            light = x.flatten(1).mean(1)
            return torch.stack([4 - light, light], 1)

    found = whylens.explain(Dark(), FRAMES, target=0, method="integrated_gradients")
    assert "baseline_keeps_target" in found.flags(0)
    assert float(found.checks["baseline_probability"][0]) > 0.9
    assert float(found.checks["residual"].max()) < 1e-4


def test_deep_lift_flags_products_it_cannot_hand_back() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x.flatten(1).sum(1)
            return torch.stack([value * value, -value], 1)

    found = whylens.explain(Gate(), FRAMES, target=0, method="deep_lift")
    assert "incomplete" in found.flags(0)
    assert float(found.checks["residual"][0]) == pytest.approx(1, abs=1e-3)


def test_tables_take_only_methods_that_do() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    table = whylens.Model(net, task="tabular")
    assert whylens.explain(table, torch.rand(6, 4), method="deep_lift").maps.shape == (6, 4)
    with pytest.raises(whylens.InputError, match="explains images, not tables"):
        whylens.explain(table, torch.rand(6, 4), method="grad_cam")


def test_layers_given_as_modules_are_told_apart_by_name() -> None:
    held = model()
    methods = [Method("grad_cam", layer=held.net.low), Method("grad_cam", layer=held.net.high)]
    assert list(whylens.explain_many(held, FRAMES, methods=methods)) == ["grad_cam:layer=low", "grad_cam:layer=high"]
    assert whylens.explain(held, FRAMES, layer=held.net.low).label == "grad_cam:layer=low"
    with pytest.raises(whylens.InputError, match="not a part of this net"):
        whylens.explain(held, FRAMES, layer=nn.ReLU())


def test_a_model_by_name_is_opened_first() -> None:
    with pytest.raises(whylens.InputError, match=r"Open it: whylens\.load_model\('efficientnet-lite0'\)"):
        whylens.explain("efficientnet-lite0", FRAMES)  # type: ignore[arg-type]
