"""Scores: why rows have no value, and two of them side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

import whylens
from whylens import InputError
from whylens.scores import Scores, Summary
from whylens.testing import SmallNet

NONE = float("nan")


def scores(values: list[float], ids: str | list[str] = "", **more: Any) -> Scores:
    names = tuple(ids or [str(k) for k in range(len(values))])
    return Scores(torch.tensor(values), names, **{"metric": "m", "label": "m", **more})


# ---- failures --------------------------------------------------------------------------------------------------------


def test_failures_are_counted_by_reason() -> None:
    lost = scores([1, NONE, NONE, NONE, 2], "abcde", reasons={"b": "no mask", "c": "no object", "d": "no mask"})
    found = lost.summary()
    assert dict(found.failures) == {"no mask": 2, "no object": 1}
    assert list(found.failures) == ["no mask", "no object"]
    assert str(found).endswith("n 2, 3 without a value (no mask 2; no object 1)")
    assert scores([1, 2]).summary().failures == {}
    assert scores([1, NONE]).summary().failures == {"no reason given": 1}
    many = Summary(1, 1, 1, 1, 1, 9, {str(k): 9 - k for k in range(5)})
    assert str(many).endswith("9 without a value (0 9; 1 8; 2 7; ...)")


def test_every_row_of_an_image_counts() -> None:
    lost = scores([NONE, NONE, 3], ["a", "a", "b"], reasons={"a": "no mask"})
    assert dict(lost.summary().failures) == {"no mask": 2}


def test_reasons_come_from_measuring() -> None:
    frames, masks = torch.rand(4, 3, 12, 12), [None, torch.zeros(12, 12), torch.ones(12, 12), None]
    model, images = whylens.Model(SmallNet(), layer="high"), whylens.load_images(frames, masks=masks)
    found = whylens.measure(model, images, whylens.explain(model, images), metric="energy_inside").summary()
    assert (found.n, found.missing) == (1, 3)
    assert dict(found.failures) == {"no mask": 2, "no object": 1}


# ---- side by side ----------------------------------------------------------------------------------------------------


def test_a_comparison_by_hand() -> None:
    found = scores([4, 1, 3, 5], "abcd").compare(scores([1, 1, 4, 1], "abcd"))
    assert found.difference == 1.5  # of 3, 0, -1, 4
    assert found.effect == pytest.approx(1.5 / np.std([3, 0, -1, 4], ddof=1))
    assert (found.n, found.above, found.equal, found.below, found.missing) == (4, 2, 1, 1, 0)
    assert found.low < found.difference < found.high
    back = scores([1, 1, 4, 1], "abcd").compare(scores([4, 1, 3, 5], "abcd"))
    assert (back.difference, back.effect, back.above) == (-1.5, -found.effect, 1)
    assert str(found).startswith("difference +1.5 [")
    assert str(found).endswith(f"effect {found.effect:+.3g}, above on 2, below on 1 of 4")


def test_rows_are_matched_by_id() -> None:
    one, other = scores([1, 2, 3, 9], "abcd"), scores([30, 10, 20, NONE, 7], "cabdx")
    found = one.compare(other)
    assert found.difference == -18.0
    assert (found.n, found.missing) == (3, 2)  # d has no value, x no partner
    assert str(found).endswith("of 3, 2 without a partner")
    several = scores([1, 2, 5], ["a", "a", "b"]).compare(scores([0, 0, 4], ["b", "a", "a"]))
    assert (several.difference, several.n, several.missing) == ((1 - 0 + 2 - 4 + 5 - 0) / 3, 3, 0)
    fewer = scores([1, 2], ["a", "a"]).compare(scores([0], ["a"]))
    assert (fewer.difference, fewer.n, fewer.missing) == (1.0, 1, 1)


def test_the_interval_is_narrower_than_that_of_each_side() -> None:
    rng = np.random.default_rng(0)
    images, gain = rng.normal(0, 1, 200), rng.normal(0.1, 0.1, 200)
    one, other = scores((images + gain).tolist()), scores(images.tolist())
    found = one.compare(other)
    assert 0 < found.low < 0.1 < found.high < 0.13
    alone = one.summary()
    assert alone.high - alone.low > 5 * (found.high - found.low)
    t = ttest_rel((images + gain).astype(np.float32), images.astype(np.float32)).statistic
    assert found.effect == pytest.approx(t / 200**0.5, rel=1e-4)
    assert one.compare(other) == found != one.compare(other, seed=1)


def test_what_does_not_vary_has_no_effect_size() -> None:
    for found in (scores([2, 3]).compare(scores([1, 2])), scores([2]).compare(scores([1]))):
        assert found.difference == 1.0
        assert found.effect != found.effect
    none = scores([NONE, 1]).compare(scores([1, NONE]))
    assert (none.n, none.missing) == (0, 2)
    assert none.difference != none.difference


def test_what_cannot_be_compared_is_one_sentence() -> None:
    one = scores([1, 2], "ab")
    for other, said in (
        (scores([1, 2], "cd"), "have no image in common. Measure both on the same images."),
        (replace(one, metric="n"), "must be values of one metric. Got m and n. Measure both alike."),
        ([1, 2], "other must be Scores, as measure gives them. Got list."),
    ):
        with pytest.raises(InputError, match=r"^compare: ") as refused:
            one.compare(other)  # type: ignore[arg-type]
        assert said in str(refused.value)


def test_two_methods_of_one_model() -> None:
    frames = torch.rand((12, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    model = whylens.Model(SmallNet(), layer="high")
    many = whylens.explain_many(model, frames, methods=["grad_cam", "saliency"], target=1)
    cam, slope = (whylens.measure(model, frames, e, metric="insertion") for e in many.values())
    found = cam.compare(slope)
    assert found.n == 12
    assert found.difference == pytest.approx(float((cam.values - slope.values).mean()), abs=1e-6)
