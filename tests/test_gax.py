"""GAX: the toy in closed form, eq. 6 through torch's own Adam, the CO score through the metric, and what stops it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whylens
from whylens import InputError, Model, Preprocess, testing
from whylens.scoring import margin
from whylens.testing import Case, SmallNet

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import ax_toy

PLAIN = Preprocess((20, 20), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def frames(count: int = 2, side: int = 20) -> Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(1))


def run(net: nn.Module | Model, x: Tensor, target: Any = None, **params: Any) -> whylens.Explanation:
    return whylens.explain(net, x, method="gax", target=target, params=params)


# ---- a second way to the same map ------------------------------------------------------------------------------------


def kappa(classes: int, target: int) -> Tensor:
    weights = torch.full((classes,), -1 / (classes - 1), dtype=torch.float64)
    weights[target] = 1
    return weights


def plainly(
    f: Callable[[Tensor], Tensor], base: Tensor, x: Tensor, target: int, steps: int, mode: str, bias: bool
) -> tuple[Tensor, list[float]]:
    """Eq. 6 by torch's own Adam and one graph, in float64; `base` is what the net gives for x."""
    x = x.double()
    w, b = torch.ones_like(x).requires_grad_(), torch.full_like(x, 0.01).requires_grad_()
    adam, curve = torch.optim.Adam([w, b] if bias else [w], lr=0.1), []
    for step in range(steps + 1):
        h = torch.tanh(w * x + b if bias else w * x)
        co = (f(x + h if mode == "add" else x * h) - base)[0] @ kappa(base.shape[1], target)
        curve.append(co.item())
        if step == steps:
            break
        adam.zero_grad()
        (-co + 100 / ((h - x + 1e-4) ** 2 / (x + 1e-4)).mean()).backward()
        adam.step()
    return h.detach(), curve


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mode", ["add", "multiply"])
@pytest.mark.parametrize("space", ["frame", "published"])
def test_it_is_equation_6_by_another_adam(mode: str, bias: bool, space: str) -> None:
    net, x = SmallNet(seed=3), frames(1)
    found = run(Model(net, preprocess=PLAIN), x, 2, mode=mode, bias=bias, space=space, steps=6, target_score=1e9)
    double = SmallNet(seed=3).double().eval()
    base = double(PLAIN.normalise(x.double())).detach()
    f = double if space == "published" else lambda g: double(PLAIN.normalise(g))
    h, curve = plainly(f, base, x, 2, 6, mode, bias)
    assert found.parts is not None
    torch.testing.assert_close(found.parts[0].double(), torch.tensor(curve).double(), rtol=2e-3, atol=2e-3)
    far = (found.maps[0].double() - h[0]).abs()  # Adam turns the sign of a slope that is all but 0 into a whole step
    assert float((far > 1e-3).double().mean()) < 0.01
    assert found.checks["steps_taken"].tolist() == [6]


# ---- the toy: the paper's section 2 ----------------------------------------------------------------------------------


class Flat(nn.Module):
    """f = W^-1 x - 3, the toy's classifier with a line for sigma; what is added to both outputs cancels."""

    def __init__(self, W: np.ndarray) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.from_numpy(np.linalg.inv(W)).float()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(x) - 3  # a1 and a2 themselves add up to 1, like probabilities
        return scores


VECTORS = [
    (0.95, 0.0, (0.95, 0.05), (2.033, 0.047), 1.986),
    (0.95, 0.25, (0.6364, 0.7071), (1.3237, 0.7071), 1.872),
    (0.95, 0.5, (-0.05, 0.95), (-0.047, 2.033), 1.986),
    (0.7, 0.125, (0.5319, 0.5450), (0.9755, 0.3521), 1.084),
]


@pytest.mark.parametrize(("a1", "turn", "x", "h", "gain"), VECTORS)
def test_the_toy_in_closed_form(a1: float, turn: float, x: Any, h: Any, gain: float) -> None:
    W = ax_toy.rotation(turn * np.pi)
    found = ax_toy.toy(a1, W)
    np.testing.assert_allclose(found.x, x, atol=1e-4)
    np.testing.assert_allclose(found.h, h, atol=1e-3)
    assert found.gain == pytest.approx(gain, abs=1e-3)
    net = Flat(W)
    point = torch.from_numpy(found.x).float()[None]
    w = torch.ones(1, 2, requires_grad=True)
    margin(net(w * point), torch.tensor([0])).sum().backward()  # A - B of h = w x: f is linear
    np.testing.assert_allclose(w.grad[0].numpy(), ax_toy.slope(W, found.x), atol=1e-6)  # type: ignore[index]
    added = torch.from_numpy(found.h).float()[None]
    co = whylens.scoring.co(net(point).detach(), net(point + added).detach(), torch.tensor([0]))
    assert float(co[0]) == pytest.approx(found.gain, abs=1e-6)


def test_the_toy_as_the_published_script_draws_it() -> None:
    found = ax_toy.toy(0.95, ax_toy.rotation(0.0), ax_toy.PUBLISHED)
    np.testing.assert_allclose(found.h, (2.2496, 0.0464), atol=1e-4)
    assert found.gain == pytest.approx(2.2032, abs=1e-4)


def on_the_toy() -> None:
    """Adam's first step is `rate` up the sign of eq. 3's slope, whatever its size; CO is A - B of what comes out."""
    for a1, turn, *_ in VECTORS:
        W = ax_toy.rotation(turn * np.pi)
        point = ax_toy.toy(a1, W).x
        model = Model(Flat(W), task="tabular")
        found = run(model, torch.from_numpy(point).float()[None], 0, steps=1, rate=0.2, similarity=0)
        slope = ax_toy.slope(W, point)
        h = np.tanh((1 + 0.2 * np.sign(np.where(abs(slope) > 1e-6, slope, 0))) * point)
        steady = abs(slope) > 1e-6
        np.testing.assert_allclose(found.maps[0].numpy()[steady], h[steady], atol=1e-5)
        A, B = np.linalg.inv(W) @ found.maps[0].numpy()
        np.testing.assert_allclose(found.checks["co"].numpy(), A - B, atol=1e-5)


# ---- what it promises ------------------------------------------------------------------------------------------------


def by_hand(model: Model, x: Tensor, h: Tensor, target: Tensor, mode: str) -> Tensor:
    with torch.no_grad():
        net = model.net.eval()
        change = net(PLAIN.normalise(x + h if mode == "add" else x * h)) - net(PLAIN.normalise(x))
    return torch.stack([change[n].double() @ kappa(change.shape[1], int(t)) for n, t in enumerate(target)])


@pytest.mark.parametrize(("mode", "goal"), [("add", 1.0), ("multiply", 4.5)])
def test_it_reaches_its_target_and_says_so(mode: str, goal: float) -> None:
    """The check is the CO score of the map that came out, and the curve leads there."""
    model, x = Model(SmallNet(), preprocess=PLAIN), frames(3)
    found = run(model, x, 0, mode=mode, target_score=goal, steps=200)
    assert found.parts is not None
    assert not found.checks["score_not_reached"].any()
    assert (found.checks["co"] >= goal).all()
    torch.testing.assert_close(
        by_hand(model, x, found.maps, found.targets, mode), found.checks["co"].double(), rtol=1e-4, atol=1e-4
    )
    for n, curve in enumerate(found.parts):
        taken = int(found.checks["steps_taken"][n])
        assert curve[: taken + 1].isfinite().all()
        assert curve[taken + 1 :].isnan().all()
        assert taken >= 2
        assert (curve[:taken] < goal).all()
        assert float(curve[0]) == float(found.checks["co_start"][n])
        assert (curve[1 : taken + 1] > curve[:taken]).float().mean() > 0.7
    too_much = run(model, x[:1], 0, mode=mode, target_score=1e6, steps=3)
    assert too_much.flags(0) == ("score_not_reached",)
    assert too_much.checks["steps_taken"].tolist() == [3]


def test_the_metric_gives_the_same_co_score() -> None:
    """co_score adds the map over its largest magnitude, to a net that counts changes in that unit."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SmallNet()

        def forward(self, y: Tensor) -> Tensor:
            scores: Tensor = self.net(x + (y - x) * largest)
            return scores

    x = frames(1)
    found = run(SmallNet(), x, 1, steps=20)
    largest = found.maps.abs().max()
    judged = whylens.measure(Model(Scaled()), x, found, metric="co_score:unlabelled=target")
    assert float(judged.values[0]) == pytest.approx(float(found.checks["co"][0]), rel=1e-4)


def test_one_sign_step_as_large_beside_it() -> None:
    x, target = frames(2), torch.tensor([0, 3])
    model = Model(SmallNet(), preprocess=PLAIN)
    found = run(model, x, target, steps=10)
    leaf = x.clone().requires_grad_()
    margin(model.net.eval()(PLAIN.normalise(leaf)), target).sum().backward()
    size = found.maps.abs().flatten(1)
    for name, of, said in (("", size.amax(1), "linf"), ("_mean", size.mean(1), "mean_change")):
        torch.testing.assert_close(found.checks[said], of)
        step = of.view(-1, 1, 1, 1) * leaf.grad.sign()  # type: ignore[union-attr]
        torch.testing.assert_close(
            found.checks["co_sign_step" + name].double(), by_hand(model, x, step, target, "add"), rtol=1e-3, atol=1e-3
        )


def test_the_published_space_leaves_out_the_normalisation() -> None:
    x, model = frames(1), Model(SmallNet(), preprocess=PLAIN)
    found = run(model, x, 1, steps=5, space="published", target_score=1e9)
    with torch.no_grad():
        net = model.net.eval()
        change = (net(x + found.maps) - net(PLAIN.normalise(x)))[0].double() @ kappa(4, 1)
    assert float(found.checks["co"][0]) == pytest.approx(float(change), rel=1e-4)
    assert float(run(model, x, 1, steps=5, target_score=1e9).checks["co"][0]) != pytest.approx(float(change), rel=0.01)


def test_each_image_stops_by_itself() -> None:
    model, x = Model(SmallNet(), preprocess=PLAIN), frames(4)
    params = {"target_score": 1.0, "steps": 60, "states": 5}
    found = run(model, x, 0, **params)
    alone = [run(model, x[n : n + 1], 0, **params) for n in range(4)]
    assert len(set(found.checks["steps_taken"].tolist())) > 1
    for n, one in enumerate(alone):
        for name in ("maps", "parts"):
            torch.testing.assert_close(getattr(found, name)[n], getattr(one, name)[0], rtol=0, atol=0, equal_nan=True)
        assert found.history is not None
        assert one.history is not None
        assert torch.equal(found.history[:, n], one.history[:, 0])
        assert {k: float(v[n]) for k, v in found.checks.items()} == {k: float(v[0]) for k, v in one.checks.items()}
    looked = sum(int(s) + 1 for s in found.checks["steps_taken"].tolist())
    assert found.cost["run_forwards"] == pytest.approx((looked + 4 * (1 + 2 + 1)) / 4)  # rest, two sign steps, trace


# ---- its history -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "steps"), [(16, 7), (5, 7), (2, 9), (4, 1), (1, 4), (3, 12)])
def test_the_history_holds_the_states_it_says(keep: int, steps: int) -> None:
    x, net = frames(1), SmallNet()
    found = run(net, x, 1, steps=steps, states=keep, target_score=1e9)
    assert found.history is not None
    assert found.history.shape == (keep, 1, 3, 20, 20)
    assert found.history.dtype == torch.float16
    stride = int(found.checks["stride"][0])
    assert -(-steps // stride) <= max(keep - 1, steps * (keep == 1))
    assert keep == 1 or stride == 1 or -(-steps // (stride // 2)) > keep - 1  # no coarser than it must be
    for i in range(keep):
        step = min(i * stride, steps) if keep > 1 else steps
        state = x.tanh() if step == 0 else run(net, x, 1, steps=step, states=0, target_score=1e9).maps
        torch.testing.assert_close(found.history[i].float(), state, rtol=0, atol=6e-4)


def test_the_history_is_saved_and_loaded(tmp_path: Path) -> None:
    found = run(SmallNet(), frames(2), 1, steps=6, states=4)
    read = whylens.Explanation.load(found.save(tmp_path / "gax"))
    for name in ("maps", "history", "parts"):
        torch.testing.assert_close(getattr(read, name), getattr(found, name), rtol=0, atol=0, equal_nan=True)
    assert read.history is not None
    assert read.history.dtype == torch.float16
    assert read[1].history is not None
    assert torch.equal(read[1].history, found.history[:, 1:])  # type: ignore[index]
    assert run(SmallNet(), frames(1), 1, steps=2, states=0).history is None


# ---- what has no CO score --------------------------------------------------------------------------------------------


def test_probabilities_are_refused() -> None:
    model = Model(nn.Sequential(SmallNet(), nn.Softmax(1)), output="probabilities")
    with pytest.raises(InputError, match=r"gax needs raw logits, and Sequential gives probabilities.+its softmax\.$"):
        run(model, frames(1))
    found = whylens.explain(model, frames(1), method="gax:steps=2", target=lambda output: output[:, 0])
    assert found.checks["co"].isfinite().all()


def test_one_output_and_a_function_are_raised_by_themselves() -> None:
    x, net = frames(1), SmallNet(classes=1)
    found = run(net, x, steps=3)
    with torch.no_grad():
        gain = net.eval()(x + found.maps) - net(x)
    assert float(found.checks["co"][0]) == pytest.approx(float(gain[0, 0]), rel=1e-4)
    function = run(net, x, lambda output: output[:, 0], steps=3)
    torch.testing.assert_close(function.maps, found.maps, rtol=0, atol=1e-5)


def test_nothing_to_gain_is_no_map() -> None:
    """A score that stands still, and a black frame that w cannot move; with a bias it can."""
    for net, x in ((SmallNet(constant=True), frames(1)), (SmallNet(), torch.zeros(1, 3, 20, 20))):
        for mode in ("add", "multiply"):
            found = run(net, x, 1, mode=mode, steps=5)
            assert not found.maps.any()
            assert found.flags(0) == ("score_not_reached", "flat")
            assert found.checks["steps_taken"].tolist() == [0]
            assert found.checks["linf"].tolist() == [0]
    moved = run(SmallNet(), torch.zeros(1, 3, 20, 20), 1, bias=True, steps=5)
    assert moved.checks["steps_taken"].tolist() == [5]
    assert moved.maps.any()


@pytest.mark.parametrize("value", [-2.0, -1e-4, 0.0669833180630886, 3.0])
def test_frames_that_are_no_photo_stay_finite(value: float) -> None:
    """The third is where tanh(x) is x less epsilon: the similarity term, held, does not stop the search for good."""
    x = torch.full((1, 3, 20, 20), value) + (0 if abs(value) < 1 else 0.1) * frames(1)
    found = run(SmallNet(), x, 1, steps=8)
    assert found.checks["co"].isfinite().all()
    assert not found.checks["not_finite"].any()
    assert float((found.maps - x.tanh()).abs().max()) > 0.01 * min(1.0, abs(value))


# ---- the contract ----------------------------------------------------------------------------------------------------

CASES_GAX = [Case("gax", {"steps": 4, "states": 3}, closed_forms=(on_the_toy,))]
TABLES_GAX = [Case("gax", {"steps": 4}, table=True)]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_GAX + TABLES_GAX, ids=("images", "tables"))
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
