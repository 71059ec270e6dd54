"""Every metric, one line each: values worked by hand, then the contract of `whylens.testing`; then real photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

import whylens
from whylens import MetricFacts, Trial, Values, _plugins, testing
from whylens.contract import Metric
from whylens.masks import Mask
from whylens.measure import measure
from whylens.placement import Placement
from whylens.preprocess import Preprocess
from whylens.testing import ContractError, SmallNet
from whylens.trial import score_batch, trial_of

NONE = float("nan")
MODEL = whylens.Model(SmallNet(), layer="high")


def at(size: tuple[int, int], *pixels: tuple[Any, Any]) -> Tensor:
    """A mask of this size with these pixels, or slices, inside."""
    mask = torch.zeros(size, dtype=torch.bool)
    for pixel in pixels:
        mask[pixel] = True
    return mask


def trial(
    maps: Any, mask: Mask | None = None, frame: tuple[int, int] = (4, 4), place: Placement | None = None
) -> Trial:
    """The trial of one row with this map ``(h, w)`` or ``(C, h, w)`` over a frame that is the photo."""
    maps = torch.as_tensor(maps, dtype=torch.float32)
    frames = torch.rand((1, 3, *frame), generator=torch.Generator().manual_seed(0))
    images = whylens.load_images(frames)
    explanation = whylens.explain(MODEL, images, method="saliency", target=1)
    explanation = replace(explanation, maps=maps[None] if maps.ndim == 3 else maps[None, None])
    if place is not None:
        explanation = replace(explanation, placements=(place,))
    return trial_of(MODEL, images, explanation, frames, masks=[mask])


@dataclass(frozen=True)
class Worked:
    """A value known by hand, and checks that come with it."""

    value: float
    maps: Any
    inside: Tensor | None = None
    ignored: Tensor | None = None
    difficult: bool = False
    checks: dict[str, float] | None = None
    params: dict[str, Any] | None = None
    frame: tuple[int, int] = (4, 4)

    def hold(self, metric: str) -> None:
        mask = None
        if self.inside is not None:
            ignored = torch.zeros_like(self.inside) if self.ignored is None else self.ignored
            mask = Mask(self.inside, ignored, self.difficult)
        found = score_batch(Metric(metric, params=self.params), trial(self.maps, mask, self.frame), seed=0)
        torch.testing.assert_close(
            found.values, torch.tensor([float(self.value)]), equal_nan=True, rtol=1e-6, atol=1e-7
        )
        for name, value in (self.checks or {}).items():
            assert float(found.checks[name]) == pytest.approx(value, nan_ok=True), name


@dataclass(frozen=True)
class Summed:
    """A value known by hand over a white 2 x 2 frame: net 0 gives `weights` of its four pixels, net 1 the rest to 1."""

    value: float
    maps: Any
    curve: tuple[float, ...] | None = None
    checks: dict[str, float] | None = None
    params: dict[str, Any] | None = None
    label: int | None = None
    weights: tuple[tuple[float, ...], ...] = ((0.4, 0.3, 0.2, 0.1), (-0.4, -0.3, -0.2, -0.1))
    bias: tuple[float, ...] = (0.0, 1.0)
    output: Any = "probabilities"

    def hold(self, metric: str) -> None:
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, len(self.weights)))
        net[1].weight.data, net[1].bias.data = torch.tensor(self.weights), torch.tensor(self.bias)
        model, frames = whylens.Model(net, output=self.output), torch.ones(1, 1, 2, 2)
        images = whylens.load_images(frames, labels=[self.label])
        explanation = whylens.explain(model, images, method="saliency", target=0)
        maps = torch.tensor(self.maps, dtype=torch.float32)
        seen = trial_of(model, images, replace(explanation, maps=maps.view(1, -1, 2, 2)), frames)
        found = score_batch(Metric(metric, params=self.params), seen, seed=0)
        torch.testing.assert_close(found.values, torch.tensor([float(self.value)]), equal_nan=True)
        if self.curve is not None:
            torch.testing.assert_close(found.curve, torch.tensor([self.curve]).float())
        for name, value in (self.checks or {}).items():
            assert float(found.checks[name]) == pytest.approx(value, nan_ok=True, abs=1e-6), name


LEFT, FIRST, MIDDLE = at((4, 4), np.s_[:, :2]), at((3, 3), np.s_[:, 0]), at((3, 3), np.s_[:, 1])
PEAK = torch.zeros(40, 40).index_put((torch.tensor(10), torch.tensor(10)), torch.tensor(2.0))
TWO = PEAK.index_put((torch.tensor(30), torch.tensor(30)), torch.tensor(2.0))
WIDE, RIGHT = (40, 40), at((40, 40), np.s_[:, 30:])
CORNER = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
EMPTY = torch.zeros(4, 4, dtype=torch.bool)

BEST, WORST = [[4, 3], [2, 1]], [[1, 2], [3, 4]]  # of Summed's weights
BLACK = {"baseline": "black"}
CELLS, PUBLISHED = {**BLACK, "mode": "igospp"}, {**BLACK, "mode": "igospp_published"}
GAINS = ((1.0, 0, 0, 0), (0.0, 1, 0, 0), (0.0, 0, 1, 1))  # of three logits
LOGITS = {"weights": GAINS, "bias": (0.0, 0.0, 0.0), "output": "logits"}

CASES: dict[str, tuple[Worked | Summed, ...]] = {
    "accuracy_after": (
        Summed(1, [[2, 0], [0, 1]], label=2, checks={"before": 1, "changed": 0, "no_label": 0, "no_mass": 0}, **LOGITS),
        Summed(1, [[4, 0], [0, -4]], label=0, checks={"before": 0, "changed": 1}, **LOGITS),  # logits 2, 1 and 1
        Summed(0, [[4, 0], [0, -4]], label=2, checks={"before": 1, "changed": 1}, **LOGITS),
        Summed(1, [[2, 0], [0, 1]], label=0, params={"mode": "multiply"}, **LOGITS),  # 1, 0 and 0.5
        Summed(NONE, [[2, 0], [0, 1]], checks={"before": NONE, "no_label": 1}, **LOGITS),
        Summed(NONE, [[2, 0], [0, 1]], label=3, checks={"no_label": 1}, **LOGITS),
        Summed(NONE, [[0, 0], [0, 0]], label=2, checks={"before": 1, "no_mass": 1}, **LOGITS),
        Summed(1, [[2, 0], [0, 1]], label=0, checks={"before": 1}),  # probabilities will do
    ),
    "completeness": (
        Summed(9, BEST, checks={"sum": 10, "difference": 1, "no_difference": 0}),
        Summed(0, [[0.4, 0.3], [0.2, 0.1]]),
        Summed(0.25, [[0.4, 0.3], [0, 0.05]]),
        Summed(1.25, [[[-0.5, 0], [0, 0]], [[0, 0], [0, 0.25]]]),  # channels add up
        Summed(NONE, BEST, checks={"difference": 0, "no_difference": 1}, params={"baseline": "white"}),
    ),
    "co_score": (
        Summed(0.75, [[2, 0], [0, 1]], label=0, checks={"correct": 0, "no_label": 0, "no_mass": 0}, **LOGITS),
        Summed(-0.75, [[2, 0], [0, 1]], label=1, **LOGITS),  # gains are 1, 0 and 0.5
        Summed(0.0, [[2, 0], [0, 1]], label=2, checks={"correct": 1}, **LOGITS),
        Summed(-0.75, [[-2, 0], [0, -1]], label=0, **LOGITS),
        Summed(1.5, [[4, 0], [0, -4]], label=0, checks={"correct": 0}, **LOGITS),  # right only with the map
        Summed(1.25, [[2, 0], [0, 1]], label=0, params={"mode": "multiply"}, **LOGITS),  # gains are 0, -1 and -1.5
        Summed(NONE, [[2, 0], [0, 1]], checks={"correct": NONE, "no_label": 1}, **LOGITS),
        Summed(0.75, [[2, 0], [0, 1]], params={"unlabelled": "target"}, **LOGITS),
        Summed(NONE, [[2, 0], [0, 1]], label=3, checks={"no_label": 1}, **LOGITS),
        Summed(NONE, [[0, 0], [0, 0]], label=0, checks={"no_label": 0, "no_mass": 1}, **LOGITS),
        Summed(0.9, [[2, 0], [0, 1]], label=0, params={"score": "probability"}),  # 0.4 + 0.05, lost by the other
    ),
    "deletion": (
        Summed(0.375, BEST, (1, 0.6, 0.3, 0.1, 0), {"full": 1, "baseline": 0, "step": 0.25, "tied": 0}, BLACK),
        Summed(0.625, WORST, (1, 0.9, 0.7, 0.4, 0), {"normalised": 0.625}, BLACK),
        Summed(0.4, BEST, (1, 0.3, 0), {"step": 0.5}, {**BLACK, "steps": 2}),
        Summed(0.5, BEST, (1, 0), {"step": 1}, {**BLACK, "steps": 1}),
        Summed(0.375, [[[4, 9], [1, 0]], [[0, -6], [1, 1]]], (1, 0.6, 0.3, 0.1, 0), None, BLACK),  # channels add up
        Summed(0.25, BEST, (1, 0.6, 0.3, 0.1, 0), {"normalised": 0.25}, CELLS),
        Summed(0.5, BEST, (1, 0.6, 0.3, 0.1, 0), {"normalised": 0.25}, PUBLISHED),  # 1 / 4 more
        Summed(1.0, BEST, (1, 1, 1, 1, 1), {"normalised": NONE}, {"baseline": "white"}),
        Summed(0.375, BEST, None, {"baseline": 0}),  # zeros where tensors enter as they are
    ),
    "impact_score": (
        Summed(0, BEST, checks={"area": 0.25, "left": 0.6, "flipped": 0}, params={**BLACK, "area": 0.25}),
        Summed(1, BEST, checks={"area": 0.25, "flipped": 0}, params={**BLACK, "area": 0.25, "tau": 0.7}),
        Summed(0, BEST, params={**BLACK, "area": 0.25, "tau": 0.7, "strict": True}),
        Summed(1, BEST, checks={"area": 0.5, "left": 0.3, "flipped": 1}, params={**BLACK, "area": 0.5, "strict": True}),
        Summed(0, WORST, checks={"area": 0.5, "left": 0.7}, params={**BLACK, "area": 0.5}),
        Summed(0, BEST, checks={"area": 0, "left": 1}),  # a tenth of four pixels
        Summed(1, WORST, checks={"area": 1, "left": 0}, params={"area": 1.0}),
    ),
    "impact_coverage": (  # by hand: tests/test_metrics_again.py
        Summed(NONE, BEST, checks={"not_changed": 1, "steps": 0, "chance": 1 / 7}),  # white stays white
    ),
    "infidelity": (
        Summed(81, BEST, checks={"spread": 1, "scale": 1}, params={"size": 1.0, "scaled": False}),  # 10 for 1
        Summed(0, BEST, checks={"spread": 1, "scale": 0.1, "explained": 1}, params={"size": 1.0}),
        Summed(0, [[-40, -30], [-20, -10]], checks={"scale": -0.01}, params={"size": 0.5}),  # the weights' own
        Summed(1, [[0, 0], [0, 0]], checks={"scale": 0, "explained": 0}, params={"size": 1.0}),
        Summed(0, [[0.4, 0.3], [0.2, 0.1]], params={"perturb": "noise", "scaled": False}),
        Summed(0, BEST, checks={"spread": 0, "explained": NONE}, params={"baseline": "white"}),
    ),
    "insertion": (
        Summed(0.625, BEST, (0, 0.4, 0.7, 0.9, 1), {"full": 1, "baseline": 0, "step": 0.25, "tied": 0}, BLACK),
        Summed(0.375, WORST, (0, 0.1, 0.3, 0.6, 1), {"normalised": 0.375}, BLACK),
        Summed(0.6, BEST, (0, 0.7, 1), {"step": 0.5}, {**BLACK, "steps": 2}),
        Summed(0.75, BEST, (0, 0.4, 0.7, 0.9, 1), {"normalised": 0.75}, CELLS),
        Summed(0.75, BEST, (0, 0.4, 0.7, 0.9, 1), None, PUBLISHED),  # the last value is 1 anyway
        Summed(0.375, BEST, (0, 0.2, 0.35, 0.45, 0.5), {"full": 0.5}, CELLS, weights=((0.2, 0.15, 0.1, 0.05),) * 2),
        Summed(0.5, BEST, None, {"normalised": 0.75}, PUBLISHED, weights=((0.2, 0.15, 0.1, 0.05),) * 2),
    ),
    "iou": (
        Worked(0.5, [[4, 3, 2, 1]] * 4, LEFT, checks={"best": 1, "best_threshold": 0.55, "area": 0.5, "correct": NONE}),
        Worked(1, [[4, 3, 2, 1]] * 4, LEFT, params={"threshold": 0.7}),
        Worked(0.5, [[4, 3, 2, 1]] * 4, LEFT, params={"threshold": 0.9}),
        Worked(1, [[4, 3, 2, 1]] * 4, LEFT, params={"threshold": None}),
        Worked(1, [[4, 3, 0, -1]] * 4, LEFT, params={"threshold": 0.0}),  # 0 is not above 0
        Worked(2 / 3, [[1, 0]], LEFT),  # enlarged to 1, 3/4, 1/4 and 0
        Worked(1 / 3, torch.ones(4, 4), LEFT, at((4, 4), np.s_[:, 0]), checks={"area": 1 / 3}),  # 4 of 12 that count
        Worked(1, [[[4, 3, -9, 1]], [[0, 0, 0, -5]]], LEFT),  # channels add up; above 0 counts
        Worked(0, [[1, -1]], at((4, 4), np.s_[:, 3]), checks={"best": 0, "no_object": 0}),
        Worked(NONE, -torch.ones(4, 4), LEFT, checks={"no_positive_mass": 1, "best": NONE}),
        Worked(NONE, CORNER, EMPTY, checks={"no_object": 1, "no_positive_mass": 0}),
        Worked(NONE, CORNER),
    ),
    "lerf": (
        Summed(0.4, BEST, (1, 0.9, 0.7, 0.4, 0), {"full": 1, "left": 0, "tied": 0}, {**BLACK, "side": 1}),
        Summed(0.6, WORST, (1, 0.6, 0.3, 0.1, 0), None, {**BLACK, "side": 1}),
        Summed(0.5, BEST, (1, 0), {"removed": 1}, BLACK),  # one square of 9
        Summed(0, BEST, None, {"left": 1}, {"baseline": "white"}),
    ),
    "max_sensitivity": (
        Summed(0, [[0.4, 0.3], [0.2, 0.1]], checks={"mean": 0, "no_mass": 0}),  # the slope wherever one looks
        Summed(0.5, [[0.8, 0.6], [0.4, 0.2]], checks={"mean": 0.5}),
        Summed(2, [[-0.4, -0.3], [-0.2, -0.1]]),
        Summed(NONE, [[0, 0], [0, 0]], checks={"no_mass": 1}),
    ),
    "model_randomisation": (  # by hand: tests/test_metrics_again.py
        Summed(NONE, [[2, 2], [2, 2]], checks={"flat_map": 1}),
    ),
    "morf": (
        Summed(0.6, BEST, (1, 0.6, 0.3, 0.1, 0), {"full": 1, "left": 0, "tied": 0}, {**BLACK, "side": 1}),
        Summed(0.4, WORST, (1, 0.9, 0.7, 0.4, 0), None, {**BLACK, "side": 1}),
        Summed(1.1 / 3, BEST, (1, 0.6, 0.3), {"left": 0.3, "removed": 0.5}, {**BLACK, "side": 1, "steps": 2}),
        Summed(0.6, BEST, None, None, {**BLACK, "side": 1, "score": "explained"}),
        Summed(0.5, BEST, (1, 0), {"removed": 1}, BLACK),
        Summed(0, BEST, None, {"left": 1}, {"baseline": "white"}),
    ),
    "energy_inside": (
        Worked(0.75, [[3, 1], [0, -5]], LEFT, checks={"area": 0.5, "no_object": 0, "no_positive_mass": 0}),
        Worked(0.375, [[3, 1], [0, -5]], at((4, 4), np.s_[:, 0]), checks={"area": 0.25}),  # half of a cell
        Worked(0.75, [[[4, 0]], [[-1, 1]]], LEFT),  # channels first add up to 3 and 1
        Worked(1 / 6, [[2, 6]], FIRST, frame=(3, 3)),  # two thirds of a cell that covers 1.5 columns, of 8
        Worked(1 / 3, [[2, 6]], MIDDLE, frame=(3, 3)),  # a third of each cell
        Worked(0.5, torch.ones(8, 8), LEFT, checks={"area": 0.5}),  # cells smaller than pixels
        Worked(1 / 3, torch.ones(4, 4), at((4, 4), 0), at((4, 4), 1), checks={"area": 1 / 3}),  # 4 of 12 that count
        Worked(1.0, CORNER, at((4, 4), np.s_[:, 1]), at((4, 4), np.s_[:, 0]), checks={"area": 1 / 3}),
        Worked(0.75, 1e-30 * torch.tensor([[3.0, 1.0]]), LEFT),
        Worked(1 / 3, torch.ones(2, 2), LEFT, at((4, 4), np.s_[:, 0])),  # ignored before inside
        Worked(0.5, torch.full((2, 2, 2), 3e38), LEFT),
        Worked(NONE, torch.zeros(2, 2), EMPTY, checks={"no_object": 1, "no_positive_mass": 0}),
        Worked(NONE, torch.zeros(2, 2), LEFT, checks={"area": 0.5, "no_positive_mass": 1}),
        Worked(NONE, CORNER, at((4, 4), 3), LEFT, checks={"no_positive_mass": 1}),  # all of it on ignored pixels
        Worked(NONE, CORNER, EMPTY, checks={"area": 0, "no_object": 1, "no_positive_mass": 0}),
        Worked(NONE, CORNER),
    ),
    "pointing_game": (
        Worked(1, PEAK, at(WIDE, (10, 24)), frame=WIDE, checks={"maxima": 1, "difficult": 0}),  # 14 pixels away
        Worked(0, PEAK, at(WIDE, (10, 25)), frame=WIDE, difficult=True, checks={"difficult": 1}),  # 15
        Worked(1, PEAK, at(WIDE, (10, 25)), frame=WIDE, params={"tolerance": 16}),
        Worked(1, PEAK, at(WIDE, (19, 21)), frame=WIDE),  # 81 + 121 < 225
        Worked(0, PEAK, at(WIDE, (20, 22)), frame=WIDE),  # 100 + 144 > 225
        Worked(1, PEAK, at(WIDE, (10, 10)), frame=WIDE, params={"tolerance": 0}),
        Worked(0, PEAK, at(WIDE, (10, 11)), frame=WIDE, params={"tolerance": 1}),
        Worked(0.5, TWO, RIGHT, frame=WIDE, params={"tolerance": 0}, checks={"maxima": 2}),
        Worked(1, TWO, RIGHT, at(WIDE, (10, 10)), frame=WIDE, params={"tolerance": 0}),  # the miss does not count
        Worked(1, PEAK, at(WIDE, (10, 12)), at(WIDE, (10, 10)), frame=WIDE),  # near the object all the same
        Worked(NONE, PEAK, RIGHT | (PEAK > 0), PEAK > 0, frame=WIDE, checks={"on_ignored": 1}),  # before inside
        Worked(NONE, PEAK, RIGHT, at(WIDE, (10, 10)), frame=WIDE, checks={"on_ignored": 1, "no_object": 0}),
        Worked(1, CORNER, at((4, 4), (1, 1)), params={"tolerance": 0}),  # the cell's centre touches four pixels
        Worked(0, CORNER, at((4, 4), (2, 2)), params={"tolerance": 2}),  # 2.12 from its centre
        Worked(1, CORNER, at((4, 4), (2, 2)), params={"tolerance": 3}),
        Worked(1, [[[0.0, 0]], [[-9, 1]]], at((4, 4), np.s_[:, 3]), params={"tolerance": 1}),  # channels add up
        Worked(1, [[[3e38, 2e38]], [[3e38, 2e38]]], LEFT, params={"tolerance": 0}, checks={"maxima": 1}),
        Worked(0.25, torch.zeros(4, 4), at((4, 4), 2), params={"tolerance": 1}, checks={"maxima": 16}),  # flat: chance
        Worked(0.25, torch.ones(4, 4), at((4, 4), (0, 0)), params={"tolerance": 2}),  # four are near a corner
        Worked(NONE, CORNER, EMPTY, checks={"no_object": 1, "on_ignored": 0}),
        Worked(NONE, CORNER),
    ),
    "road": (  # more by hand: tests/test_metrics_removal.py
        Summed(0, BEST, (0,) * 9, {"morf": 1, "lerf": 1, "tied": 0}, {"noise": 0.0}),  # white is filled in with white
    ),
    "sparseness": (
        Worked(0.75, [[0, 0], [0, 5]], checks={"no_mass": 0}),  # 1 - 1 / n
        Worked(0.25, [[1, 2], [3, 4]]),  # (-3 - 2 + 3 + 12) / (4 * 10)
        Worked(0.25, [[-3, 2], [-1, 4]]),
        Worked(0.25, 8e37 * torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
        Worked(0.25, [[[1, 5]], [[-2, -2]]]),  # channels add up to -1 and 3: 2 / (2 * 4)
        Worked(0.0, torch.full((3, 3), -0.1)),
        Worked(NONE, torch.zeros(2, 2), checks={"no_mass": 1}),
    ),
}  # fmt: skip


def test_every_metric_has_its_line() -> None:
    assert sorted(CASES) == sorted(_plugins.names("metrics"))


@pytest.mark.parametrize(("name", "worked"), [(n, w) for n, all_ in CASES.items() for w in all_])
def test_by_hand(name: str, worked: Worked | Summed) -> None:
    worked.hold(name)


@pytest.mark.parametrize("check", testing.metric_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name: str, check: Callable[[Metric], None]) -> None:
    check(Metric(name))


@pytest.mark.parametrize("name", CASES)
def test_says_what_it_is(name: str) -> None:
    metric, file = Metric(name), Path(_plugins.__file__).parent / "metrics" / f"{name}.py"
    for word in ("values:", "unit:", "range:", "cost:", "fails:", "no value:", "Source:"):
        assert word in (metric.function.__doc__ or ""), word
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert f"def {name}(" in text
    assert "from ." in text
    assert "metrics." not in text
    assert "from . import" not in text


# ---- second formulas -------------------------------------------------------------------------------------------------


def test_energy_is_that_of_the_enlarged_map() -> None:
    """Where cells are whole pixels, spreading a cell evenly is repeating it."""
    maps = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    inside = torch.rand(20, 21, generator=torch.Generator().manual_seed(1)) < 0.3
    ignored = (torch.rand(20, 21, generator=torch.Generator().manual_seed(2)) < 0.2) & ~inside
    large = maps.clamp(min=0).repeat_interleave(4, 0).repeat_interleave(7, 1)
    found = score_batch(Metric("energy_inside"), trial(maps, Mask(inside, ignored), (20, 21)), seed=0)
    torch.testing.assert_close(found.values[0], large[inside].sum() / large[~ignored].sum())
    torch.testing.assert_close(found.checks["area"][0], inside.sum() / (~ignored).sum())


@pytest.mark.parametrize("offset", [(3.0, 2.0), (-9.0, -8.0)], ids=["crop", "padded"])
def test_pointing_is_a_disc_around_every_maximum(offset: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """By brute force over all pixels, for many maps with ties, on a photo that is not the frame."""
    monkeypatch.setattr("whylens.metrics.pointing_game.TOGETHER", 400)  # several goes
    place = Placement((12, 16), (30, 44), (2.0, 2.5), offset)
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        maps = torch.randint(0, 4, (6, 8), generator=rng)
        inside = torch.rand(30, 44, generator=rng) < 0.01
        inside[(0, 10), (0, 10)] = True
        y, x = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(44) + 0.5, indexing="ij")
        hits = []
        for row, column in (maps == maps.max()).nonzero().tolist():
            v, u = (row + 0.5) * 2 * 2.0 + offset[0], (column + 0.5) * 2 * 2.5 + offset[1]
            near = (y - v) ** 2 + (x - u) ** 2 < 25
            near |= ((y - v).abs() <= 0.5) & ((x - u).abs() <= 0.5)
            hits.append(bool((near & inside).any()))
        moved = trial(maps, Mask(inside, torch.zeros_like(inside)), (12, 16), place=place)
        found = score_batch(Metric("pointing_game", params={"tolerance": 5}), moved, seed=0)
        assert float(found.values) == pytest.approx(sum(hits) / len(hits))


def test_gini_is_half_the_mean_difference_over_the_mean() -> None:
    maps = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    v = maps.abs().flatten()
    expected = (v[:, None] - v).abs().mean() / (2 * v.mean())
    torch.testing.assert_close(score_batch(Metric("sparseness"), trial(maps), seed=0).values[0], expected)


def test_scale_does_not_matter_and_mirroring_neither() -> None:
    rng = torch.Generator().manual_seed(3)
    maps, inside = torch.randn(6, 6, generator=rng), torch.rand(15, 21, generator=rng) < 0.2
    blind = [n for n in CASES if Metric(n).facts.forwards == Metric(n).facts.explanations == "0"]
    assert "sparseness" in blind
    for name in blind:  # others see the frame, which is not mirrored
        request = Metric(name, params={"tolerance": 2} if name == "pointing_game" else None)
        plain = score_batch(request, trial(maps, Mask(inside, ~inside & False), (15, 21)), seed=0)
        turned = Mask(inside.flip(0, 1), ~inside & False)
        other = score_batch(request, trial(1e6 * maps.flip(0, 1), turned, (15, 21)), seed=0)
        torch.testing.assert_close(plain.values, other.values)


# ---- through photos --------------------------------------------------------------------------------------------------


def prepared(preprocess: Preprocess, path: Path, mask: Tensor) -> tuple[Any, ...]:
    """A model, one photo with its mask, and an explanation whose map is the frame's own red."""
    model = whylens.Model(SmallNet(), preprocess=preprocess, layer="high")
    images = whylens.load_images([path], masks=[mask])
    explanation = whylens.explain(model, images, target=0)
    frame, _ = model.prepare(images[0].pixels)
    return model, images, replace(explanation, maps=frame[None, :1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotation(tmp_path: Path, orientation: int) -> None:
    """A white square in the upright photo's corner, its mask upright too: the frame's own whiteness lies on it."""
    upright = np.zeros((60, 180, 3), np.uint8)
    upright[:15, :30] = 255
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    picture = Image.fromarray(upright)
    picture.getexif()[0x0112] = back
    stored = ImageOps.exif_transpose(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    inside = torch.from_numpy(upright[..., 0] > 0)
    setting = prepared(Preprocess((32, 48), mean=(0.0,) * 3, std=(1.0,) * 3), tmp_path / "a.png", inside)
    energy = measure(*setting, metric="energy_inside")
    assert float(energy.values) > 0.9
    assert float(energy.checks["area"]) == pytest.approx(15 * 30 / (60 * 180), abs=1e-3)
    assert measure(*setting, metric="pointing_game:tolerance=0").values.tolist() == [1.0]


def test_a_crop_counts_what_the_net_saw(tmp_path: Path) -> None:
    """A 3:1 photo of which the net sees columns 110 to 190 and rows 10 to 90."""
    Image.new("RGB", (300, 100), (200, 200, 200)).save(tmp_path / "a.png")
    crop = Preprocess((32, 32), 40, mean=(0.0,) * 3, std=(1.0,) * 3)
    half = at((100, 300), np.s_[:, 50:150])
    model, images, explanation = prepared(crop, tmp_path / "a.png", half)
    flat = replace(explanation, maps=torch.ones(1, 1, 7, 7))
    energy = measure(model, images, flat, metric="energy_inside")
    assert (float(energy.values), float(energy.checks["area"])) == pytest.approx((0.5, 0.5))
    for column, hit in ((0, 1.0), (15, 1.0), (16, 0.0), (31, 0.0)):  # column 15 of the frame ends at 150
        maps = torch.zeros(1, 1, 32, 32)
        maps[..., 20, column] = 1
        point = measure(model, images, replace(explanation, maps=maps), metric="pointing_game:tolerance=1")
        assert point.values.tolist() == [hit], column
    outside = whylens.load_images([tmp_path / "a.png"], masks=[at((100, 300), np.s_[:, :109])])
    for name in ("energy_inside", "pointing_game"):
        scores = measure(model, outside, flat, metric=name)
        assert scores.values.isnan().all()
        assert scores.reasons["a.png"].startswith("no object")


# ---- the suite can fail ----------------------------------------------------------------------------------------------


@MetricFacts(direction="higher", low=0.0, high=10.0, needs_masks=True, forwards="0")
def sound(trial: Trial, *, power: int = 1) -> Tensor:
    inside = torch.stack([torch.zeros(48, 48) if m is None else m.inside.float() for m in trial.masks])
    return (trial.explanation.at((48, 48))[:, 0].clamp(min=0) * inside).mean((1, 2)) ** power


def broken(**facts: Any) -> Callable[[Any], Any]:
    return MetricFacts(**{"direction": "none", "forwards": "0", **facts})


@broken()
def mixes_the_batch(trial: Trial) -> Tensor:
    sizes = trial.explanation.maps.abs().mean((1, 2, 3))
    return sizes / sizes.max()


@broken()
def depends_on_order(trial: Trial) -> Tensor:
    return torch.arange(len(trial.images)).float()


@broken()
def drops_one(trial: Trial) -> Tensor:
    values = trial.explanation.maps.mean((1, 2, 3))
    return values.masked_fill(values == values.max(), NONE) if len(values) > 1 else values


@broken()
def writes_into_the_maps(trial: Trial) -> Tensor:
    trial.explanation.maps.mul_(2)
    return torch.zeros(len(trial.images))


@broken()
def writes_into_the_frames(trial: Trial) -> Tensor:
    trial.images.mul_(2)
    return torch.zeros(len(trial.images))


@broken()
def trains(trial: Trial) -> Tensor:
    trial.probe.model.net.eval()
    return torch.zeros(len(trial.images))


@broken(high=1.0)
def leaves_its_range(trial: Trial) -> Tensor:
    return trial.explanation.maps.abs().mean((1, 2, 3)) + 2


@broken(forwards="0")
def runs_too_often(trial: Trial) -> Tensor:
    return trial.probe.score * 0


@broken()
def explains_too_often(trial: Trial) -> Tensor:
    return trial.again().mean((1, 2, 3))  # type: ignore[misc]


@broken()
def fails_on_a_flat_map(trial: Trial) -> Tensor:
    return 1 / trial.explanation.maps.abs().amax((1, 2, 3))


@broken(needs_masks=True, direction="lower")
def has_its_direction_wrong(trial: Trial) -> Tensor:
    return sound(trial)


@pytest.mark.parametrize(
    ("metric", "check", "said"),
    [
        (mixes_the_batch, testing.metrics.values_are_each_images_own, "a batch of 1"),
        (depends_on_order, testing.metrics.values_are_each_images_own, "the order of images matters"),
        (drops_one, testing.metrics.values_are_each_images_own, "other rows have a value"),
        (leaves_its_range, testing.metrics.values_are_each_images_own, "values must be <= 1"),
        (writes_into_the_maps, testing.metrics.leaves_the_world_as_found, "maps were changed"),
        (writes_into_the_frames, testing.metrics.leaves_the_world_as_found, "frames were changed"),
        (trains, testing.metrics.leaves_the_world_as_found, "modes changed"),
        (runs_too_often, testing.metrics.stays_within_its_passes, "1 forwards run per image, declared 0"),
        (
            explains_too_often,
            testing.metrics.stays_within_its_passes,
            "1 explanations were asked for, declared 0",
        ),
        (fails_on_a_flat_map, testing.metrics.bears_a_flat_map, "must be finite"),
        (has_its_direction_wrong, testing.metrics.ranks_planted_maps, "planted maps give"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_each_check_catches_what_breaks_it(metric: Any, check: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        check(Metric(metric))


def test_a_sound_metric_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_metric(sound)
    testing.check_metric(Metric(sound), params={"power": 2})
    with pytest.raises(ContractError, match="declares no facts"):
        testing.check_metric(lambda trial: Values(trial.images))
    monkeypatch.setattr(whylens.Range, "__contains__", lambda _self, _value: True)
    with pytest.raises(ContractError, match="tolerance=-1 was accepted"):
        testing.metrics.refuses_values_out_of_bounds(Metric("pointing_game"))
