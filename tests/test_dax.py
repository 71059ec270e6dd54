"""DAX: planted evidence, a black box that gives no gradient, students that fail, what the mask's price does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whylens
from whylens import Model, regions, student, surrogate, testing
from whylens.demo import shapes
from whylens.explanation import FLAGS
from whylens.probe import Baseline
from whylens.student import Price
from whylens.testing import Case


def textured(count: int, side: int = 24, *, seed: int = 0) -> Tensor:
    """Frames of coloured tiles with a little noise: segments that are easily told apart."""
    rng = torch.Generator().manual_seed(seed)
    tiles = torch.rand((count, 3, 4, 4), generator=rng)
    return nn.functional.interpolate(tiles, size=(side, side)) * 0.8 + 0.2 * torch.rand(
        (count, 3, side, side), generator=rng
    )


class Patch(nn.Module):
    """The probability of class 1 rises with the brightness of one patch (rows 6 to 12, columns 12 to 18) alone."""

    def forward(self, x: Tensor) -> Tensor:
        value = 6 * x[:, :, 6:12, 12:18].mean((1, 2, 3)) - 1
        return torch.stack([-value, value], 1)


class Tagged(nn.Module):
    """The probability of class 1 rises with how many pixels have the tag's yellow or its magenta."""

    def forward(self, x: Tensor) -> Tensor:
        yellow, magenta = (self.near(x, colour) for colour in ((255, 240, 0), (255, 0, 200)))
        value = (yellow + magenta).sum((1, 2)) / 20 - 2
        return torch.stack([-value, value], 1)

    @staticmethod
    def near(x: Tensor, colour: tuple[int, int, int]) -> Tensor:
        goal = torch.tensor(colour).view(3, 1, 1) / 255
        return ((x - goal).abs().amax(1) < 0.1).float()


class Told(nn.Module):
    """Its score is a random function of which of 16 cells are shown: no part of the picture tells it."""

    def forward(self, x: Tensor) -> Tensor:
        shown = (nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1) > 0.02).float()
        value = ((shown @ torch.arange(1.0, 17.0).pow(2)) * 12.9898).sin() * 2
        return torch.stack([-value, value], 1)


class Shut(nn.Module):
    """A net that must not be differentiated: any forward with gradients on, and any backward, raises."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.requires_grad:
            raise RuntimeError("a gradient of the black box was asked for")
        value: Tensor = self.net(x)
        return value


def run(net: nn.Module | Model, frames: Tensor, target: Any = 1, **params: Any) -> whylens.Explanation:
    return whylens.explain(net, frames, method="dax", target=target, params=params or None)


def inside(maps: Tensor, box: tuple[slice, slice]) -> Tensor:
    """Share of each map's mass in a box ``(N,)``."""
    return maps[:, 0][:, box[0], box[1]].sum((1, 2)) / maps.sum((1, 2, 3))


def planted_patch() -> None:
    """The patch is a sixteenth of the frame; the mask has most of its mass there, and the student follows."""
    found = run(Patch(), textured(2, seed=5), units="grid", count=16, samples=300, steps=150)
    assert float(inside(found.maps, (slice(6, 12), slice(12, 18))).min()) > 0.6
    assert float(found.checks["student_r_squared"].min()) > 0.8
    assert not found.checks["student_fails"].any()


CASES_DAX = [Case("dax", {"samples": 40, "steps": 12, "units": "grid", "count": 9}, (planted_patch,))]

OWN_UNITS = [Case("dax", {"samples": 40, "steps": 12, "count": 60, "baseline": "blur", "value": "score"})]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_DAX + OWN_UNITS, ids=lambda c: str(c.params.get("units")))
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


# ---- what the masks say ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagged() -> tuple[Tensor, Tensor]:
    """Two planted pictures (2, 3, 64, 64) with the tag, and where it is (2, 64, 64)."""
    frames, truth = [], []
    for number in (31, 32):
        rng = np.random.default_rng([7, number])
        scene = shapes.draw("square", rng)
        left, top, right, bottom = shapes.tag_place(scene.mask, rng)
        pixels = shapes.stamp(scene.pixels, (left, top, right, bottom))
        frames.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        truth.append(torch.zeros(64, 64, dtype=torch.bool))
        truth[-1][top:bottom, left:right] = True
    return torch.stack(frames), torch.stack(truth)


def test_no_gradient_of_the_black_box_is_asked_for() -> None:
    params: dict[str, Any] = {"units": "grid", "count": 16, "samples": 40, "steps": 4}
    found = run(Shut(Patch()), textured(2), **params)
    assert found.cost["run_backwards"] == 0
    assert torch.equal(found.maps, run(Patch(), textured(2), **params).maps)


@pytest.mark.slow
def test_the_mask_lies_on_the_tag(tagged: tuple[Tensor, Tensor]) -> None:
    """Half of the largest value as threshold; the tag is a fiftieth of the picture."""
    frames, truth = tagged
    found = run(Shut(Tagged()), frames, samples=300)
    assert found.maps.shape == (2, 1, 64, 64)
    chosen = found.maps[:, 0] > 0.5 * found.maps.amax((2, 3), keepdim=True)[:, 0]
    iou = (chosen & truth).sum((1, 2)) / (chosen | truth).sum((1, 2))
    energy = (found.maps[:, 0] * truth).sum((1, 2)) / found.maps.sum((1, 2, 3))
    assert float(iou.mean()) >= 0.5
    assert float(energy.mean()) > 0.5
    assert float(energy.min()) > 10 * float(truth.float().mean((1, 2)).max())
    assert float(found.checks["student_r_squared"].min()) > 0.8


def lesson_of(net: nn.Module, *, seed: int = 5, samples: int = 300) -> student.Lesson:
    frames = textured(1, seed=seed)
    found, filled = regions.grid(frames, 4), Baseline("black", torch.zeros_like(frames))
    masks = torch.cat([surrogate.draws(k, 16, seed=0) for k in range(samples // 100)])
    with torch.no_grad():
        shown = found.expand(masks, torch.zeros(samples, dtype=torch.long)) * frames
        scores = net(shown).softmax(1)[:, 1]
    return student.lesson(frames, filled, found, 0, masks, scores, surrogate.nearness(masks, 0.25))


def test_only_its_price_closes_the_mask() -> None:
    """Without a price half of the frame stays shown, without one for area no less than a third; with it, the patch."""
    given, box = lesson_of(Patch()), (slice(6, 12), slice(12, 18))
    bare, free, priced = (
        student.learn(given, Price(*price), steps=150, seed=0) for price in ((0, 0, 0), (0, 0, 0.1), (0.5, 0.1, 0.1))
    )
    assert min(float(bare.mask.mean()), float(free.mask.mean())) > 0.3
    assert float(priced.mask.mean()) < 0.1
    assert float(inside(priced.mask[None, None], box)) > 0.8 > 0.3 > float(inside(free.mask[None, None], box))
    assert min(bare.r_squared, free.r_squared, priced.r_squared) > 0.9


def test_a_student_that_fails_is_flagged() -> None:
    found = run(Told(), textured(1).clamp(min=0.1), units="grid", count=16, baseline="black", samples=200, steps=40)
    assert float(found.checks["student_r_squared"][0]) < 0.5
    assert "student_fails" in found.flags(0)
    assert "student" in FLAGS["student_fails"]


def test_the_last_digit_of_a_score_changes_nothing() -> None:
    given = lesson_of(Patch(), samples=100)
    noise = torch.randint(-1, 2, given.scores.shape, generator=torch.Generator().manual_seed(0)) * 1e-7
    masks = [
        student.learn(replace(given, scores=scores), Price(1, 0.1, 0.1), steps=40, seed=0).mask
        for scores in (given.scores, given.scores * (1 + noise))
    ]
    assert not torch.equal(given.scores, given.scores * (1 + noise))
    assert torch.equal(*masks)


def test_copies_are_those_that_the_black_box_saw() -> None:
    """Area-pooled copies put together from pooled units are the pooled copies, of an odd frame of one channel too."""
    frames = torch.rand((2, 1, 71, 130), generator=torch.Generator().manual_seed(0))
    found, filled = regions.find(frames, "slic", count=20), Baseline("fill", torch.full((1, 1, 71, 130), 0.3))
    masks = surrogate.draws(0, found.count, seed=0)[:6, : int(found.counts[1])]
    given = student.lesson(frames, filled, found, 1, masks, torch.rand(6), torch.ones(6))
    assert given.picture.shape == (1, 24, 44)
    kept = found.expand(nn.functional.pad(masks, (0, found.count - masks.shape[1])), torch.ones(6, dtype=torch.long))
    expected = nn.functional.adaptive_avg_pool2d(kept * (frames[1] - 0.3), (24, 44))
    ours = student._copies(given, torch.arange(6), torch.tensor(1.0))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_mask_that_chose_nothing_is_flat() -> None:
    """Without a price and after one step it is open everywhere, up to what the drawn weights make of it."""
    found = run(Patch(), torch.full((1, 3, 24, 24), 0.6), units="grid", count=16, samples=100, steps=1, area=0.0)
    assert "flat" in found.flags(0)
    assert 0 < float(found.checks["mask_area"][0]) < 1


def test_the_callers_gradient_mode_does_not_matter() -> None:
    frames = textured(1)
    params: dict[str, Any] = {"units": "grid", "count": 16, "samples": 40, "steps": 4}
    expected = run(Patch(), frames, **params).maps
    with torch.no_grad():
        assert torch.equal(run(Patch(), frames, **params).maps, expected)


def test_function_targets_and_probabilities() -> None:
    """A function has no probability of its own; its value is what the student answers for."""
    found = run(Patch(), textured(1), target=lambda output: output[:, 1], units="grid", count=16, samples=40, steps=4)
    assert bool(found.maps.isfinite().all())
    assert not found.flags(0) or found.flags(0) == ("student_fails",)
