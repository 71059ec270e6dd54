"""The verb measure: rows and ids, masks, reasons, ranges, explaining again, and the summary."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import whylens
from whylens import InputError, MetricFacts, Range, Trial, Values, WhylensError
from whylens.contract import Metric
from whylens.measure import measure
from whylens.model import Model
from whylens.preprocess import Preprocess
from whylens.scores import Scores, Summary
from whylens.testing import SmallNet, SmallTable
from whylens.trial import score_batch, trial_of

FRAMES = torch.rand((5, 3, 24, 24), generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(5, 24, 24, dtype=torch.bool)
for _k in range(5):
    MASKS[_k, 2 * _k : 2 * _k + 9, 3 * _k : 3 * _k + 8] = True
NAMES = ["oak", "ash", "elm", "yew"]


def model(**options: Any) -> Model:
    return Model(SmallNet(), **{"layer": "high", "classes": NAMES, **options})


def photos(**options: Any) -> whylens.Images:
    return whylens.load_images(FRAMES, **{"masks": MASKS, **options})


class Counted(SmallNet):
    """Counts its forwards."""

    images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return super().forward(x)


@MetricFacts(direction="none", forwards="0")
def brightness(trial: Trial) -> Tensor:
    """A number that tells the images apart."""
    return trial.images.mean((1, 2, 3))


@MetricFacts(direction="none")
def own_score(trial: Trial) -> Tensor:
    return trial.probe.score


# ---- rows and images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["energy_inside", "pointing_game:tolerance=2", "sparseness", brightness, own_score])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_rows_find_their_images_by_id(metric: Any, size: int) -> None:
    images = photos()
    explanation = whylens.explain(model(), images, target=1)
    whole = measure(model(), images, explanation, metric=metric)
    assert whole.ids == explanation.ids == images.ids
    shuffled = images.subset([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        measure(model(), shuffled, explanation, metric=metric, batch_size=size).values, whole.values
    )
    turned = measure(model(), shuffled, explanation[::-1], metric=metric, batch_size=size)
    torch.testing.assert_close(turned.values.flip(0), whole.values)
    some = measure(model(), shuffled, explanation[1:3], metric=metric)
    torch.testing.assert_close(some.values, whole.values[1:3])
    assert some.ids == explanation.ids[1:3]


def test_an_image_with_several_targets_has_a_row_for_each() -> None:
    images = photos()
    explanation = whylens.explain(model(), images, target="top3")
    found = measure(model(), images, explanation, metric=own_score, batch_size=2)
    torch.testing.assert_close(found.values, explanation.scores)
    mixed = explanation._take([0, 4, 1, 8, 2])  # rows of one image need not be neighbours
    found = measure(model(), images, mixed, metric=own_score, batch_size=2)
    torch.testing.assert_close(found.values, explanation.scores[[0, 4, 1, 8, 2]])
    bright = measure(model(), images, mixed, metric=brightness).values
    torch.testing.assert_close(bright, FRAMES.mean((1, 2, 3))[[0, 1, 0, 2, 0]])


def test_an_explained_image_that_is_missing() -> None:
    explanation = whylens.explain(model(), FRAMES)
    with pytest.raises(InputError, match=r"'3' is not among the 2 images given. Give the images that"):
        measure(model(), photos().subset([0, 1]), explanation[3], metric="sparseness")


def test_another_preprocess_or_photo_is_refused() -> None:
    frames = Preprocess((16, 16), 20, mean=(0.0,) * 3, std=(1.0,) * 3)
    explanation = whylens.explain(model(), photos())
    with pytest.raises(InputError, match=r"0 enters this model otherwise than when it was explained"):
        measure(model(preprocess=frames), photos(), explanation, metric="sparseness")


def test_an_image_that_is_lost_has_a_reason(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (24, 24), (90, 20, 20)).save(tmp_path / f"{name}.png")
    images = whylens.load_images(tmp_path)
    explanation = whylens.explain(model(), images)
    (tmp_path / "a.png").write_bytes(b"no picture")
    found = measure(model(), images, explanation, metric="sparseness")
    assert found.values.isnan().tolist() == [True, False]
    assert list(found.reasons) == ["a.png"]
    assert "a.png" in found.reasons["a.png"]
    assert found.checks["no_mass"].tolist() == [False, False]


def test_a_table_has_no_masks_and_is_measured_all_the_same() -> None:
    table = Model(SmallTable(), task="tabular")
    rows = torch.rand((4, 7), generator=torch.Generator().manual_seed(1))
    explanation = whylens.explain(table, rows, method="saliency")
    found = measure(table, rows, explanation, metric="sparseness").values
    v = explanation.maps.abs()
    expected = (v[:, :, None] - v[:, None]).abs().mean((1, 2)) / (2 * v.mean(1))
    torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="needs masks, and none of the 4 images"):
        measure(table, rows, explanation, metric="pointing_game")


# ---- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["energy_inside", "pointing_game"])
def test_masks_that_are_not_there(metric: str, tmp_path: Path) -> None:
    Image.new("L", (5, 5), 255).save(tmp_path / "small.png")
    masks = [MASKS[0], None, tmp_path / "small.png", MASKS[3], torch.zeros(24, 24)]
    images = photos(masks=masks)
    explanation = whylens.explain(model(), images, target=1)
    found = measure(model(), images, explanation, metric=metric, batch_size=2)
    assert found.values.isnan().tolist() == [False, True, True, False, True]
    assert found.reasons["1"] == "no mask"
    assert "small.png is 5 x 5 pixels, its photo 24 x 24" in found.reasons["2"]
    assert found.reasons["4"] == "no object"
    assert sorted(found.reasons) == ["1", "2", "4"]
    summary = found.summary()
    assert (summary.n, summary.missing) == (2, 3)
    whole = measure(model(), photos(), explanation, metric=metric)
    assert found.values[[0, 3]].tolist() == whole.values[[0, 3]].tolist()
    name = found.metric
    with pytest.raises(InputError, match=rf"{name} needs masks, and none of the 5 images has one. Give them: load_im"):
        measure(model(), FRAMES, explanation, metric=metric)


def test_the_engine_room_bears_rows_without_a_mask(tmp_path: Path) -> None:
    Image.new("L", (5, 5), 255).save(tmp_path / "small.png")
    images = photos(masks=[MASKS[0], None, tmp_path / "small.png", MASKS[3], MASKS[4]])
    explanation = whylens.explain(model(), images, target=1)
    for name in ("energy_inside", "pointing_game"):
        found = score_batch(Metric(name), trial_of(model(), images, explanation, FRAMES), seed=0)
        assert found.values.isnan().tolist() == [False, True, True, False, False]
        verb = measure(model(), images, explanation, metric=name).values
        torch.testing.assert_close(found.values, verb, equal_nan=True)
    bare = replace(trial_of(model(), images, explanation, FRAMES), masks=())
    assert score_batch(Metric("energy_inside"), bare, seed=0).values.isnan().all()

    @MetricFacts(direction="none", needs_masks=True)
    def careless(trial: Trial) -> Tensor:
        return torch.zeros(len(trial.images))

    found = score_batch(Metric(careless), trial_of(model(), images, explanation, FRAMES), seed=0)
    assert found.values.isnan().tolist() == [False, True, True, False, False]
    with pytest.raises(InputError, match=r"one mask, or None, per row, 5. Got 2"):
        score_batch(Metric("energy_inside"), replace(bare, masks=(None, None)), seed=0)


def test_a_metric_that_needs_no_masks_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    @MetricFacts(direction="none")
    def looks(trial: Trial) -> Tensor:
        seen.append(trial.masks)
        return torch.zeros(len(trial.masks))

    explanation = whylens.explain(model(), photos())
    monkeypatch.setattr(whylens.Images, "mask", lambda *_: 1 / 0)
    measure(model(), photos(), explanation, metric=looks)
    assert seen == [(None,) * 5]


def test_a_flat_map_says_so() -> None:
    explanation = whylens.explain(Model(SmallNet(constant=True), layer="high"), photos(), target=1)
    found = measure(model(), photos(), explanation, metric="energy_inside")
    assert found.values.isnan().all()
    assert found.reasons["0"].startswith("no positive mass; the map is the same everywhere")


def test_labels_are_outputs() -> None:
    seen: list[Any] = []

    @MetricFacts(direction="none")
    def looks(trial: Trial) -> Tensor:
        seen.append(None if trial.labels is None else trial.labels.tolist())
        return torch.zeros(len(trial.images))

    explanation = whylens.explain(model(), FRAMES)
    for labels in (["yew", "oak", "nettle", "Ash", None], [3, 0, 7, 1, 2], None):
        images = photos(labels=labels)
        measure(model(), images, explanation, metric=looks)
        score_batch(Metric(looks), trial_of(model(), images, explanation, FRAMES), seed=0)
    assert seen == [[3, 0, -1, 1, -1]] * 2 + [[3, 0, 7, 1, 2]] * 2 + [None] * 2


# ---- passes and explaining again -------------------------------------------------------------------------------------


def test_what_is_not_asked_is_not_run() -> None:
    net = Counted()
    counted = Model(net, layer="high")
    explanation = whylens.explain(counted, photos())
    net.images = 0
    for metric in ("energy_inside", "sparseness", brightness):
        measure(counted, photos(), explanation, metric=metric)
    assert net.images == 0
    measure(counted, photos(), explanation, metric=own_score)
    assert net.images == 5


@MetricFacts(direction="none", forwards="0")
def once_more(trial: Trial) -> Values:
    """How far the maps of the same frames, of mirrored frames, and of another net are from these."""
    again = again_of(trial)
    maps, net = trial.explanation.maps, copy.deepcopy(trial.probe.model.net)
    same = again(model=copy.deepcopy(net))
    with torch.no_grad():
        net.head.weight.neg_()
    mirrored = again(images=trial.images.flip(-1)).flip(-1)
    other = again(model=net)
    checks = {"same": (same - maps).abs().amax((1, 2, 3))}
    checks |= {"mirrored": (mirrored - maps).abs().amax((1, 2, 3)), "other": (other - maps).abs().amax((1, 2, 3))}
    return Values((again() - maps).abs().amax((1, 2, 3)), checks=checks)


def again_of(trial: Trial) -> Callable[..., Tensor]:
    if trial.again is None:
        raise AssertionError("a trial can explain again")
    return trial.again


@pytest.mark.parametrize("method", ["grad_cam:layer=low", "saliency", "smooth_grad:samples=3,noise=0.3"])
def test_again(method: str) -> None:
    frames = Preprocess((16, 20), 18, mean=(0.4,) * 3, std=(0.3,) * 3)
    images, own = photos(), model(preprocess=frames)
    explanation = whylens.explain(own, images, method=method, target=[0, 1, 2, 3, 0], score="log_odds", seed=4)
    found = measure(own, images, explanation, metric=once_more, batch_size=2)
    assert float(found.values.max()) <= 1e-6 * float(explanation.maps.abs().max())
    assert float(found.checks["same"].max()) <= 1e-6 * float(explanation.maps.abs().max())
    assert float(found.checks["mirrored"].min()) > 0
    assert float(found.checks["other"].min()) > 0


def test_again_is_what_explain_gives() -> None:
    images = photos()
    explanation = whylens.explain(model(), images, method="input_x_gradient", target=2)
    trial = trial_of(model(), images, explanation, FRAMES)
    moved = (FRAMES + 0.3).clamp(max=1.2)
    again = again_of(trial)
    expected = whylens.explain(model(), moved, method="input_x_gradient", target=2).maps
    torch.testing.assert_close(again(images=moved), expected)
    other = Model(SmallNet(seed=5), layer="high", classes=NAMES)
    expected = whylens.explain(other, FRAMES, method="input_x_gradient", target=2).maps
    torch.testing.assert_close(again(model=other), expected)
    torch.testing.assert_close(again(model=other.net), expected)
    for wrong, came in ((FRAMES[:2], r"\(2, 3, 24, 24\)"), (FRAMES[0], r"\(3, 24, 24\)"), ("a", "str")):
        with pytest.raises(InputError, match=rf"again: images must be frames like \(5, 3, 24, 24\). Got {came}"):
            again(images=wrong)


def test_again_of_a_method_of_your_own() -> None:
    @whylens.MethodFacts(needs=("input gradient",), unit="score", signed=True)
    def mine(probe: whylens.Probe) -> Tensor:
        return 2 * probe.input_gradient()

    images = photos()
    explanation = whylens.explain(model(), images, method=mine, target=1)
    with pytest.raises(InputError, match=r"'mine' is none of whylens. Use a metric that does not explain again"):
        measure(model(), images, explanation, metric=once_more)
    trial = trial_of(model(), images, explanation, FRAMES, method=whylens.Method(mine))
    torch.testing.assert_close(again_of(trial)(), explanation.maps)


def test_again_keeps_the_seed_and_runs_no_more_than_it_must() -> None:
    net = Counted()
    counted, images = Model(net, layer="high"), photos()
    drawn = whylens.Method("smooth_grad", params={"samples": 2})
    explanation = whylens.explain(counted, images, method=drawn, target=1, seed=4)
    trial = trial_of(counted, images, explanation, FRAMES, method=drawn)
    torch.testing.assert_close(again_of(trial)(), explanation.maps)
    explanation = whylens.explain(counted, images, method="guided_grad_cam", target=1)
    net.images = 0
    again_of(trial_of(counted, images, explanation, FRAMES))()
    assert net.images == 5


def test_precision_auto_scores_many_masks_in_bfloat16() -> None:
    e = whylens.explain(model(), photos(), method="saliency")
    exact, auto = (
        measure(model(), photos(), e, metric="insertion", params={"steps": 100}, precision=p).values  # type: ignore[arg-type]
        for p in ("float32", "auto")
    )
    assert not torch.equal(exact, auto)
    assert float((exact - auto).abs().max()) < 0.01
    with pytest.raises(InputError, match="precision must be"):
        measure(model(), photos(), e, metric="insertion", precision="half")  # type: ignore[arg-type]


def test_a_target_function_is_not_kept() -> None:
    explanation = whylens.explain(model(), photos(), target=lambda output: output[:, 0])
    assert len(measure(model(), photos(), explanation, metric="energy_inside")) == 5
    for metric in (own_score, once_more):
        with pytest.raises(InputError, match="target is a function, '<lambda>', and an explanation does not keep it"):
            measure(model(), photos(), explanation, metric=metric)


def test_memory_that_runs_out_halves_the_batch() -> None:
    sizes: list[int] = []

    @MetricFacts(direction="none")
    def large(trial: Trial) -> Tensor:
        sizes.append(len(trial.images))
        if len(trial.images) > 2:
            raise torch.OutOfMemoryError("planned")
        return trial.images.mean((1, 2, 3))

    explanation = whylens.explain(model(), photos())
    torch.testing.assert_close(measure(model(), photos(), explanation, metric=large).values, FRAMES.mean((1, 2, 3)))
    assert sizes == [5, 2, 3, 1, 2]

    @MetricFacts(direction="none")
    def fails(trial: Trial) -> Tensor:
        sizes.append(-len(trial.images))
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        measure(model(), photos(), explanation, metric=fails)
    assert sizes[5:] == [-5]


# ---- metrics of your own ---------------------------------------------------------------------------------------------


@MetricFacts(direction="lower", low=-1.0, high=2.0)
def chosen(trial: Trial, *, level: Annotated[float, Range(-9.0, 9.0)] = 0.0, row: int = 0, seed: int = 0) -> Values:
    values = torch.zeros(len(trial.images), dtype=torch.float64, requires_grad=True) + seed / 100
    moved = torch.where(torch.arange(len(values)) == row, level, values)
    return Values(moved, curve=torch.stack([moved, moved + 1], 1), checks={"odd": moved > 1, "twice": 2 * moved})


def test_values_are_plain_and_in_range() -> None:
    explanation = whylens.explain(model(), photos())
    found = measure(model(), photos(), explanation, metric=chosen, params={"level": 2}, seed=7)
    assert found.values.tolist() == pytest.approx([2, 0.07, 0.07, 0.07, 0.07])
    assert found.values.dtype == torch.float32
    assert not found.values.requires_grad
    assert found.curve is not None
    assert (found.curve.shape, found.curve.dtype) == ((5, 2), torch.float32)
    assert found.checks["odd"].tolist() == [True, False, False, False, False]
    assert found.checks["twice"].dtype == torch.float32
    assert (found.metric, found.label, found.direction) == ("chosen", "chosen:level=2", "lower")
    assert dict(found.params) == {"level": 2.0, "row": 0, "seed": 7}
    near = measure(model(), photos(), explanation, metric=chosen, params={"level": 2 + 1e-6})
    assert float(near.values[0]) == 2.0  # rounding, put right
    for level, said in ((2.1, r"chosen:level=2.1: values must be in \[-1, 2\].*Got 2.1 for image '0'"), (-1.1, "-1.1")):
        with pytest.raises(InputError, match=said):
            measure(model(), photos(), explanation, metric=chosen, params={"level": level})
    with pytest.raises(InputError, match=r"chosen: level must be a number in \[-9, 9\]"):
        measure(model(), photos(), explanation, metric=chosen, params={"level": 10})


def test_a_curve_over_several_batches_and_missing_rows() -> None:
    @MetricFacts(direction="none", needs_masks=True)
    def steps(trial: Trial) -> Values:
        values = trial.images.mean((1, 2, 3))
        return Values(values, curve=values[:, None] * torch.arange(3))

    images = photos(masks=[MASKS[0], MASKS[1], MASKS[2], None, MASKS[4]])
    explanation = whylens.explain(model(), images)
    found = measure(model(), images, explanation, metric=steps, batch_size=2)
    assert found.curve is not None
    expected = FRAMES.mean((1, 2, 3))[:, None] * torch.arange(3)
    torch.testing.assert_close(found.curve[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])
    assert found.curve[3].isnan().all()

    @MetricFacts(direction="none")
    def uneven(trial: Trial) -> Values:
        return Values(torch.zeros(len(trial.images)), curve=torch.zeros(len(trial.images), len(trial.images)))

    with pytest.raises(InputError, match=r"uneven: the curves of all images must have one length. Got \[\(1,\), \(2,"):
        measure(model(), images, explanation, metric=uneven, batch_size=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3), r"wrong: the values of a metric must be a tensor \(5,\), one entry per row. Got \(3,\)"),
        (torch.zeros(5, 1), r"Got \(5, 1\)"),
        (0.5, "Got float"),
        (None, "Got NoneType"),
        (torch.tensor([0, 1, torch.inf, 0, 0]), "the values must be finite, or NaN.*for image '2'"),
        (Values(torch.zeros(5), curve=torch.zeros(5)), r"the curve of a metric must be a tensor \(5, T\)"),
        (Values(torch.zeros(5), curve=torch.full((5, 2), -torch.inf)), "the curve must be finite"),
        (Values(torch.zeros(5), checks={"odd": torch.zeros(1)}), r"the check 'odd' of a metric.*Got \(1,\)"),
        (Values(torch.zeros(5), checks={"odd": torch.full((5,), torch.inf)}), "the check 'odd' must be finite"),
    ],
)
def test_what_a_metric_may_not_give(given: Any, said: str) -> None:
    @MetricFacts(direction="none")
    def wrong(trial: Trial) -> Any:
        return given

    with pytest.raises(InputError, match=said) as refused:
        measure(model(), photos(), whylens.explain(model(), photos()), metric=wrong)
    assert str(refused.value).startswith("wrong: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "pointing_gane"}, "No metric 'pointing_gane'. Did you mean 'pointing_game'"),
        ({"metric": "pointing_game:15"}, "Metric 'pointing_game:15': write parameters as name=value. Got '15'"),
        ({"metric": "pointing_game:tolerance=-1"}, r"pointing_game: tolerance must be an integer in \[0, 1000\]"),
        ({"metric": "sparseness", "params": {"tolerance": 1}}, "No parameter 'tolerance'. sparseness takes: none"),
        ({"metric": 3}, "A metric is a name, a Metric or a function. Got int"),
        ({"batch_size": 0}, "batch_size must be 'auto' or an integer >= 1. Got 0"),
        ({"batch_size": True}, "batch_size must be 'auto' or an integer >= 1. Got True"),
        ({"seed": -1}, "seed must be an integer >= 0. Got -1"),
        ({"model": "resnet18"}, r"Open it: whylens.load_model\('resnet18'\)"),
        ({"explanation": {"grad_cam": 1}}, "explanation must be one Explanation. Got dict"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], said: str) -> None:
    asked = {"model": model(), "explanation": whylens.explain(model(), photos()), "metric": "sparseness", **options}
    with pytest.raises(InputError, match=said):
        measure(asked.pop("model"), photos(), asked.pop("explanation"), **asked)


def test_a_metric_without_facts() -> None:
    explanation = whylens.explain(model(), photos())

    def plain(trial: Trial) -> Tensor:
        return trial.images

    with pytest.raises(WhylensError, match=r"The metric plain declares no facts. Put @MetricFacts\(direction=...\)"):
        measure(model(), photos(), explanation, metric=plain)


def test_requests() -> None:
    read = Metric.read("pointing-game:tolerance=3")
    assert (read.plain_name, read.key, read.checked_params(0)) == (
        "pointing_game", "pointing_game:tolerance=3", {"tolerance": 3}
    )  # fmt: skip
    assert Metric.read(read) is read
    assert read.facts.needs_masks
    assert read.facts.passes({}) == 0
    own = Metric(chosen, params={"level": 1}, label="mine")
    assert (own.key, own.checked_params(3)) == ("mine", {"level": 1.0, "row": 0, "seed": 3})
    found = measure(model(), photos(), whylens.explain(model(), photos()), metric=own, params={"row": 2})
    assert (found.label, found.values.tolist()) == ("mine", [0, 0, 1, 0, 0])
    bare = measure(nn.Sequential(*[SmallNet()]), photos(), whylens.explain(model(), photos()), metric="sparseness")
    assert repr(bare).startswith("Scores('sparseness', 5 rows, mean 0.")


# ---- summary ---------------------------------------------------------------------------------------------------------


def scores(values: list[float]) -> Scores:
    held = torch.tensor(values)
    return Scores(held, tuple(map(str, range(len(held)))), metric="m", label="m")


def test_summary_by_hand() -> None:
    found = scores([4, 1, float("nan"), 2, 9]).summary()
    assert (found.mean, found.median, found.n, found.missing) == (4.0, 3.0, 4, 1)
    assert scores([1, 9, 2]).summary().median == 2
    assert repr(scores([1, float("nan")])) == "Scores('m', 2 rows, mean 1, 1 without a value)"
    assert str(Summary(0.5, 0.25, 0.75, 0.5, 8, 2)) == "mean 0.5 [0.25, 0.75], median 0.5, n 8, 2 without a value"
    with pytest.raises(FrozenInstanceError):
        found.mean = 1.0  # type: ignore[misc]


def test_summary_of_few_rows() -> None:
    one, none = scores([0.5, float("nan")]).summary(), scores([float("nan")] * 3).summary()
    assert (one.mean, one.median, one.n, one.missing) == (0.5, 0.5, 1, 1)
    assert one.low != one.low
    assert (none.n, none.missing) == (0, 3)
    assert none.mean != none.mean
    assert none.median != none.median


def test_interval_is_the_binomial_one() -> None:
    """Of 0 and 1 the bootstrap mean is a binomial share: its 2.5 and 97.5 % points are known."""
    found = scores([1.0] * 30 + [0.0] * 70).summary()
    spread = 1.96 * (0.3 * 0.7 / 100) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.015)
    uneven = scores(torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist())
    assert uneven.summary() == uneven.summary(seed=0) != uneven.summary(seed=1)


def test_interval_covers() -> None:
    """Of 200 samples of 40 values the interval holds the true mean about 19 times in 20."""
    rng = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        found = scores((torch.rand(40, generator=rng) ** 2).tolist()).summary()
        held += found.low <= 1 / 3 <= found.high
    assert 176 <= held <= 198


def test_interval_of_many_rows() -> None:
    """Drawn in several goes: 1.96 standard errors of a uniform value on both sides."""
    found = scores(torch.rand(9_000, generator=torch.Generator().manual_seed(0)).tolist()).summary()
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * (1 / 12 / 9_000) ** 0.5, rel=0.1)
