"""Metrics that remove or perturb: morf, lerf, road, infidelity, beside closed forms, plain loops and peers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam.metrics.road as peer
import torch
import torch.nn.functional as F
from captum.metrics import infidelity as captum_infidelity
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor

import whylens
from test_scoring import Weighed, drawn, linear, same, scored, shares, trial
from whylens import InputError, testing
from whylens.contract import Metric
from whylens.imputation import imputed
from whylens.testing import SmallNet

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the peer's, of tensors in numpy


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- region perturbation ---------------------------------------------------------------------------------------------


def test_a_linear_net_gives_partial_sums() -> None:
    weights, frames, maps = drawn(30, seed=1) / 30, drawn(3, 1, 5, 6, seed=2), normal(3, 1, 5, 6, seed=3)
    at = linear(weights, frames, maps)
    parts = (frames.flatten(1) * weights).double()
    for name, falling in (("morf", True), ("lerf", False)):
        gone = F.pad(parts.gather(1, maps.flatten(1).argsort(1, descending=falling)).cumsum(1), (1, 0))
        found = scored(name, at, side=1, baseline="black")
        same(found.curve, parts.sum(1, keepdim=True) - gone)
        same(found.values, gone.mean(1))
        same(found.checks["full"], parts.sum(1))
        same(found.checks["left"], [0.0] * 3)
        same(found.checks["removed"], [1.0] * 3)
        few = scored(name, at, side=1, baseline="black", steps=12)
        same(few.values, gone[:, :13].mean(1))
        same(few.checks["removed"], [0.4] * 3)


def test_least_first_is_most_first_of_the_other_sign() -> None:
    at, other = (trial(SmallNet(), drawn(3, 3, 20, 20), s * drawn(3, 1, 7, 7, seed=1)) for s in (1, -1))
    params: dict[str, Any] = {"side": 5, "baseline": "mean"}
    same(scored("morf", at, **params).curve, scored("lerf", other, **params).curve)
    difference = scored("morf", at, **params).values - scored("lerf", at, **params).values
    between = scored("lerf", at, **params).curve - scored("morf", at, **params).curve
    same(difference, between.mean(1))


@pytest.mark.parametrize("name", ["morf", "lerf"])
def test_an_independent_plain_loop_over_patches(name: str) -> None:
    """Patches cut by hand, two draws of noise, one image at a time."""
    frames, maps = drawn(3, 3, 12, 16, seed=1), normal(3, 2, 12, 16, seed=2)
    at = trial(SmallNet(), frames, maps, target=torch.tensor([0, 1, 2]))
    found = scored(name, at, side=4, steps=7, samples=2, seed=5)
    for n in range(3):
        tiles = [(slice(r, r + 4), slice(c, c + 4)) for r in (0, 4, 8) for c in (0, 4, 8, 12)]
        tiles.sort(key=lambda t: float(maps[n].sum(0)[t].mean()), reverse=name == "morf")
        curve = np.zeros(8)
        for draw in range(2):
            noise = torch.rand((3, 12, 16), generator=torch.Generator().manual_seed(5 * 1_000_003 + draw))
            x = frames[n].clone()
            for k in range(8):
                if k:
                    x[:, *tiles[k - 1]] = noise[:, *tiles[k - 1]]
                curve[k] += float(at.probe.model.predict(x[None])[0, n]) / 2
        same(found.curve[n], torch.tensor(curve), 1e-5)
        same(found.values[n], torch.tensor((curve[0] - curve).mean()), 1e-5)


def test_the_explained_score_instead_of_its_probability() -> None:
    frames, maps = drawn(2, 3, 12, 12), drawn(2, 1, 3, 3, seed=1)
    at = trial(SmallNet(), frames, maps, target=2)
    found = scored("morf", at, score="explained", baseline="mean", side=4)
    same(found.checks["full"], at.explanation.scores, 1e-5)
    assert not torch.allclose(found.values, scored("morf", at, baseline="mean", side=4).values, atol=1e-3)


def test_regions_of_odd_frames_hold_every_pixel_once() -> None:
    at = trial(SmallNet(), drawn(1, 3, 19, 23), drawn(1, 1, 5, 5))
    seen = []
    held = at.probe.masked_scores

    def watch(masks: Tensor, *given: Any, expand: Any, **more: Any) -> Tensor:
        seen.append(expand(masks, torch.zeros(len(masks), dtype=torch.long)))
        return held(masks, *given, expand=expand, **more)

    at.probe.masked_scores = watch  # type: ignore[method-assign,assignment]
    scored("morf", at, side=6, baseline="mean")
    sizes = (-seen[0].flatten(1).diff(dim=0)).sum(1)
    assert (seen[0][0].min(), seen[0][-1].max()) == (1, 0)
    assert sizes.sum() == 19 * 23
    assert set(sizes.tolist()) <= {a * b for a in (6, 7) for b in (5, 6)}
    assert len(sizes) == 12
    flat = trial(SmallNet(), drawn(1, 3, 19, 23), torch.full((1, 1, 5, 5), 0.1))
    assert scored("morf", flat, side=6, baseline="mean").checks["tied"].tolist() == [1.0]  # of whatever size


def test_rows_of_a_table_lose_feature_after_feature() -> None:
    rows, maps = drawn(2, 5), drawn(2, 5, seed=1)
    at = trial(shares(torch.full((5,), 0.2)), rows, maps, output="probabilities", task="tabular")
    parts = (rows * 0.2).gather(1, maps.argsort(1, descending=True))
    for baseline in ("noise", "mean"):
        gone = F.pad(parts.cumsum(1), (1, 0))
        same(scored("morf", at, baseline=baseline).curve, parts.sum(1, keepdim=True) - gone)


# ---- noisy linear imputation -----------------------------------------------------------------------------------------


def test_imputed_by_hand() -> None:
    line = torch.tensor([[[0.0, 9, 9, 9, 1]]])
    gone = torch.tensor([[False, True, True, True, False]])
    same(imputed(line, gone), [[[0, 0.25, 0.5, 0.75, 1]]])
    cross = torch.tensor([[[0.0, 1, 0], [1, 9, 1], [0, 1, 0]]])  # four beside it, four at its corners
    same(imputed(cross, torch.eye(9)[4].view(3, 3) > 0)[0, 1, 1], 4 / 6)
    corner = torch.tensor([[[9.0, 1], [0, 1]]])
    same(imputed(corner, torch.tensor([[True, False], [False, False]]))[0, 0, 0], (1 / 6 + 1 / 12) / (5 / 12))
    assert imputed(cross, torch.zeros(3, 3, dtype=torch.bool)) is cross


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_imputed_is_what_the_authors_code_gives(share: float) -> None:
    frame = drawn(3, 14, 19)
    gone = drawn(14, 19, seed=1) < share
    same(imputed(frame, gone), peer.NoisyLinearImputer(noise=0)(frame, (~gone).float()), 1e-5)


def test_road_is_twice_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise; on 180 pixels both remove exactly 18, 36, ... 162 of them."""
    monkeypatch.setattr(peer.NoisyLinearImputer.__init__, "__defaults__", (0.0, peer.neighbors_weights))
    net, frames, maps = SmallNet(), drawn(3, 3, 12, 15), drawn(3, 1, 12, 15, seed=1)
    at = trial(net, frames, maps, target=torch.tensor([0, 1, 3]))
    found = scored("road", at, noise=0)
    net.eval()
    targets = [ClassifierOutputSoftmaxTarget(k) for k in (0, 1, 3)]
    theirs = peer.ROADCombined()(frames, maps[:, 0].numpy(), targets, net)
    same(found.values, 2 * torch.from_numpy(theirs), 1e-5)
    same(found.values, found.checks["lerf"] - found.checks["morf"])
    same(found.values, found.curve.mean(1))


def test_the_noise_of_road_is_one_for_all_images_and_on_missing_pixels_alone() -> None:
    frames, maps = drawn(1, 3, 30, 40).expand(2, -1, -1, -1).clone(), drawn(1, 1, 30, 40).expand(2, -1, -1, -1)
    at = trial(SmallNet(), frames, maps)
    rows: list[Tensor] = []
    held = at.probe.looks

    def watch(count: int, make: Any, **more: Any) -> Tensor:
        rows.extend(make(n, slice(0, count)) for n in range(2))
        return held(count, make, **more)

    at.probe.looks = watch  # type: ignore[method-assign,assignment]
    scored("road", at, noise=0.2, steps=4, seed=3)
    assert torch.equal(rows[0], rows[1])
    changed = (rows[0] != frames[0]).any(1).flatten(1).sum(1)
    assert changed.tolist() == [240, 480, 720, 960] * 2
    plain = [imputed(frames[0], (row != frames[0]).any(0)) for row in rows[0]]
    added = torch.stack([row - p for row, p in zip(rows[0], plain, strict=True)])
    assert float(added[3][added[3] != 0].std()) == pytest.approx(0.2, rel=0.05)
    assert not torch.equal(added[0], added[4])


def test_road_counts_decisions() -> None:
    weights = torch.zeros(2, 100)
    weights[0, :50], weights[1, :50] = 1.0, -1.0  # the upper half is bright: class 0; filled in from below: class 1
    frames = torch.cat([torch.ones(1, 1, 5, 10), torch.zeros(1, 1, 5, 10)], 2)
    maps = torch.linspace(1, 0, 100).view(1, 1, 10, 10)
    at = trial(Weighed(weights, torch.tensor([-10.0, 10.0])), frames, maps, target=0)
    found = scored("road", at, score="decision", steps=9, noise=0)
    assert set(found.curve.flatten().tolist()) <= {0.0, 1.0}
    same(found.checks["lerf"], [1.0])
    assert 0.5 <= float(found.values) < 1
    probabilities = scored("road", at, steps=9, noise=0)
    decided = (1 - found.curve) > 0.5  # with the lowest removed it always is
    assert torch.equal(decided, (probabilities.checks["lerf"][:, None] - probabilities.curve).float() > 0.5)


def test_a_decision_needs_no_majority() -> None:
    """A constant net decides for the class that has most, be it less than one half."""
    net = SmallNet(constant=True)
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([0.0, 0.2, 0.1, 0.0]))
    for target, decided in ((1, 1.0), (2, 0.0)):
        found = scored("road", trial(net, drawn(1, 3, 9, 9), drawn(1, 1, 3, 3), target=target), score="decision")
        assert (float(found.checks["morf"]), float(found.checks["lerf"])) == (decided, decided)


def test_road_needs_neighbours() -> None:
    at = trial(shares(torch.full((5,), 0.2)), drawn(2, 5), drawn(2, 5), output="probabilities", task="tabular")
    with pytest.raises(InputError, match=r"rows of a table have none\. Use insertion"):
        scored("road", at)


# ---- infidelity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturb", ["square", "noise"])
def test_a_linear_net_is_foretold_by_its_weights(perturb: str) -> None:
    weights, frames = normal(2, 48, seed=1), drawn(2, 3, 4, 4)
    at = partial(trial, Weighed(weights, torch.full((2,), 3.0)), frames, target=torch.tensor([0, 1]))
    true = weights.view(2, 3, 4, 4)
    params: dict[str, Any] = {"perturb": perturb, "size": 0.5, "samples": 40}
    same(scored("infidelity", at(true), **params, scaled=False).values, [0.0, 0.0])
    double = scored("infidelity", at(-2 * true), **params)
    same(double.values, [0.0, 0.0])
    same(double.checks["scale"], [-0.5, -0.5])
    same(double.checks["explained"], [1.0, 1.0])
    off = scored("infidelity", at(2 * true), **params, scaled=False)
    same(off.values / off.checks["spread"], [1.0, 1.0], 1e-5)  # (2 I.w - I.w)^2
    nothing = scored("infidelity", at(0 * true), **params)
    same(nothing.values, nothing.checks["spread"])
    same(nothing.checks["scale"], [0.0, 0.0])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("perturb", ["square", "noise"])
def test_infidelity_is_captums_on_the_same_draws(perturb: str, scaled: bool) -> None:
    net, frames, maps = SmallNet(), drawn(3, 3, 10, 14), normal(3, 3, 10, 14, seed=1)
    target, draws = torch.tensor([0, 1, 3]), 12
    at = trial(net, frames, maps, target=target)
    found = scored("infidelity", at, perturb=perturb, size=0.3, samples=draws, scaled=scaled, baseline="black", seed=2)
    net.eval()

    def perturbed(x: Tensor) -> tuple[Tensor, Tensor]:
        changes = []
        for k in range(len(x)):
            rng = torch.Generator().manual_seed(2 * 1_000_003 + k % draws)
            if perturb == "noise":
                changes.append(0.3 * torch.randn((3, 10, 14), generator=rng))
                continue
            top, left = (int(torch.randint(n - 3 + 1, (), generator=rng)) for n in (10, 14))
            changes.append(torch.zeros_like(x[k]))
            changes[-1][:, top : top + 3, left : left + 3] = x[k][:, top : top + 3, left : left + 3]
        return torch.stack(changes), x - torch.stack(changes)

    theirs = captum_infidelity(
        net, perturbed, frames, maps, target=target, n_perturb_samples=draws, normalize=scaled
    ).detach()
    torch.testing.assert_close(found.values.double(), theirs.double(), rtol=1e-3, atol=1e-6)


def test_squares_lie_anywhere_and_one_channel_counts_for_all() -> None:
    """A map of one cell foretells the squares that hold it: of 3 x 3 places of a 2 x 2 square on 4 x 4, four do."""
    weights = torch.zeros(2, 48)
    weights[0].view(3, 4, 4)[:, 1, 1] = 1.0
    frames, maps = torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = 1.0
    at = trial(Weighed(weights, torch.full((2,), 3.0)), frames, maps, target=0)
    found = scored("infidelity", at, size=0.5, samples=900, baseline="black", scaled=False)
    same(found.values, [0.0])
    assert float(found.checks["spread"]) == pytest.approx(9 * 4 / 9, rel=0.1)


def test_infidelity_of_a_table() -> None:
    weights, rows = normal(2, 7, seed=1), drawn(2, 7)
    at = trial(Weighed(weights, torch.full((2,), 3.0)), rows, weights[:1].expand(2, -1), target=0, task="tabular")
    for perturb in ("square", "noise"):
        same(scored("infidelity", at, perturb=perturb, scaled=False).values, [0.0, 0.0])


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["morf", "lerf", "road", "infidelity"])
def test_planted_beats_random_beats_inverted(name: str) -> None:
    """A net that sees one patch, and nothing else."""
    patch = torch.zeros(12, 12)
    patch[2:5, 6:10] = 1.0
    net = Weighed(torch.stack([patch.flatten() * 2, -patch.flatten() * 2]), torch.tensor([-6.0, 6.0]))
    frames = 0.9 * patch + 0.1 * drawn(12, 1, 12, 12)
    maps = [patch.expand(12, 1, 12, 12), drawn(12, 1, 12, 12, seed=1), 1 - patch.expand(12, 1, 12, 12)]
    params: dict[str, Any] = {"side": 2, "steps": 18, "baseline": "black"} if name in ("morf", "lerf") else {}
    planted, random, inverted = (float(scored(name, trial(net, frames, m), **params).values.mean()) for m in maps)
    sign = 1 if Metric(name).facts.direction == "higher" else -1
    assert sign * planted > sign * random + 0.02 * abs(planted - inverted)
    assert sign * random > sign * inverted + 0.02 * abs(planted - inverted)


@pytest.mark.parametrize("name", ["morf", "lerf", "road", "infidelity"])
def test_a_constant_net_loses_nothing(name: str) -> None:
    found = scored(name, trial(SmallNet(constant=True), drawn(2, 3, 14, 14), drawn(2, 1, 7, 7)))
    same(found.values, [0.0, 0.0])
    for check in found.checks.values():
        assert not check.isinf().any()


@pytest.mark.parametrize(
    "request_",
    ["morf:side=20,samples=2,steps=3", "lerf:baseline=auto,score=explained,steps=4", "road:steps=3,score=decision",
     "infidelity:perturb=noise,samples=9,scaled=false,score=probability", "infidelity:baseline=auto,samples=5"],
)  # fmt: skip
def test_contract_with_other_parameters(request_: str) -> None:
    testing.check_metric(request_)


def test_passes_are_those_of_the_batch() -> None:
    at = trial(SmallNet(), drawn(4, 3, 20, 20), drawn(4, 1, 7, 7))
    for name, params, each in (
        ("morf", {"side": 5, "steps": 6, "samples": 2}, 14),
        ("road", {"steps": 3}, 6),
        ("infidelity", {"samples": 8}, 9),
    ):
        before = at.probe.passes.forwards
        scored(name, at, **params)
        assert at.probe.passes.forwards - before == 4 * each, name


def test_other_seeds_draw_otherwise() -> None:
    at = trial(SmallNet(), drawn(2, 3, 20, 20), drawn(2, 1, 7, 7))
    for name in ("morf", "lerf", "road", "infidelity"):
        one, again, other = (scored(name, at, seed=s).values for s in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
    assert whylens.Metric("road").checked_params(7)["seed"] == 7
