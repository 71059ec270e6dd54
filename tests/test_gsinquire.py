"""GSInquire: conductance by algebra, stages, critical sets of planted patches, and the planted set's tag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import InputError, Model, baseline, regions, testing
from whylens.conductance import Conducted, conductance
from whylens.demo import planted as demo
from whylens.inquiry import Inquiry
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.testing import Case


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def probe_of(net: nn.Module, frames: Tensor, target: int = 1, layer: str | None = None) -> Probe:
    return Probe(Passes(Model(net), frames), torch.full((len(frames),), target), layer=layer)


def conducted(probe: Probe, steps: int, layers: int = 4) -> tuple[Conducted, ...]:
    stages = probe.model.stages(probe.layer, tuple(probe.frames.shape[1:]), layers)
    return conductance(probe, baseline.fill(probe, "black"), stages, steps=steps)


# ---- conductance and stages ------------------------------------------------------------------------------------------


class PooledLinear(nn.Module):
    """conv -> relu -> mean -> linear: the conductance of the rectifier's output is w (a(x) - a(0)) / cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Linear(5, 2)
        with torch.no_grad():
            for k, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=k))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


class Stages(nn.Module):
    """Three resolutions, a shortcut in the middle one; smooth bends, so that steps count."""

    def __init__(self, bend: nn.Module | None = None) -> None:
        super().__init__()
        self.bend = nn.ReLU() if bend is None else bend
        self.low, self.middle, self.beside = (
            nn.Conv2d(3, 6, 3, 1, 1),
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
        )
        self.high, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 3)
        with torch.no_grad():
            for k, parameter in enumerate(self.parameters()):
                parameter.copy_(random(*parameter.shape, seed=k) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(F.relu(self.low(x)))
        x = x + self.beside(F.relu(x))
        return self.head(F.relu(self.high(F.relu(x))).mean((2, 3)))


def pooled_by_algebra() -> None:
    net, frames = PooledLinear(), random(3, 3, 6, 6, seed=9).abs()
    for target, steps in ((0, 1), (1, 5)):
        (found,) = conducted(probe_of(net, frames, target, "relu"), steps, layers=1)
        a = net.relu(net.conv(frames)) - net.relu(net.conv(torch.zeros(1, 3, 6, 6)))
        expected = (net.head.weight[target].view(1, 5, 1, 1) * a / 36).sum(1, keepdim=True).detach()
        torch.testing.assert_close(found.cells, expected, rtol=1e-4, atol=1e-6)


def test_conductance_at_a_linear_layer_is_gradient_times_change() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 2))
    frames = random(2, 3, 6, 6, seed=3)
    probe = probe_of(net, frames)
    layers = tuple(probe.model.layer(name, (3, 6, 6)) for name in ("0", "1"))
    first, second = conductance(probe, baseline.fill(probe, "black"), layers, steps=3)
    weight = net[3].weight[1].view(1, 4, 6, 6)
    moved = [(net[0](frames) - net[0](0 * frames)), (net[:2](frames) - net[:2](0 * frames))]
    torch.testing.assert_close(second.cells, (weight * moved[1]).sum(1, keepdim=True).detach(), rtol=1e-4, atol=1e-5)
    back = F.conv_transpose2d(weight, net[1].weight, padding=1)
    torch.testing.assert_close(first.cells, (back * moved[0]).sum(1, keepdim=True).detach(), rtol=1e-4, atol=1e-5)


def test_one_step_is_exact_on_a_quadratic_score() -> None:
    class Squares(PooledLinear):
        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.conv(x) ** 2).mean((2, 3)))

    net, frames = Squares(), random(2, 3, 6, 6, seed=4)
    (found,) = conducted(probe_of(net, frames, layer="conv"), 1, layers=1)
    moved = (net.conv(frames) ** 2 - net.conv(0 * frames) ** 2).detach() / 36
    expected = (net.head.weight[1].detach().view(1, 5, 1, 1) * moved).sum(1, keepdim=True)
    torch.testing.assert_close(found.cells, expected, rtol=1e-4, atol=1e-5)


def test_conductance_adds_up_at_every_layer() -> None:
    frames = torch.rand((5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    net = Stages()
    probe = probe_of(net, frames)
    difference = (net(frames) - net(0 * frames))[:, 1].detach()
    for steps, bar in ((16, 0.02), (400, 1e-3)):
        found = conducted(probe, steps)
        assert [one.layer.name for one in found] == ["low", "middle", "high"]
        for one in found:
            torch.testing.assert_close(one.total, difference, rtol=bar, atol=bar * float(difference.abs().max()))
            torch.testing.assert_close(one.total, one.cells.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_conductance_does_not_depend_on_micro_batches() -> None:
    frames = torch.rand((5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    whole = conducted(probe_of(Stages(), frames), 7)
    for n in range(5):  # 3 points together for five images, all 8 for one
        for one, alone in zip(whole, conducted(probe_of(Stages(), frames[n : n + 1]), 7), strict=True):
            torch.testing.assert_close(alone.cells[0], one.cells[n], rtol=1e-4, atol=1e-6)


def test_conductance_counts_its_passes_and_builds_no_graph_below() -> None:
    frames, below = torch.rand(2, 3, 16, 16), []
    probe = probe_of(Stages(), frames)
    stages = probe.model.stages(probe.layer, (3, 16, 16), 2)
    probe.model.net.low.register_forward_hook(lambda *args: below.append(args[2].requires_grad))
    before = probe.passes.forwards
    conductance(probe, baseline.fill(probe, "black"), stages, steps=9)
    assert (probe.cost.forwards, probe.cost.backwards) == (10, 10)
    assert (probe.passes.forwards - before, probe.passes.backwards) == (20, 20)
    assert below == [False, False]


def test_a_cut_gradient_is_refused() -> None:
    class Cut(Stages):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    probe = probe_of(Cut(), torch.rand(1, 3, 16, 16))
    high = probe.model.layer("high", (3, 16, 16))
    with pytest.raises(InputError, match="cuts the gradient"):
        conductance(probe, baseline.fill(probe, "black"), (high,), steps=2)


def test_stages_are_where_all_passes() -> None:
    """The branch beside the shortcut is no stage; of blocks of one size evenly spaced ones are taken."""
    model = Model(Stages())
    last = model.layer(shape=(3, 16, 16))
    assert [s.name for s in model.stages(last, (3, 16, 16), 4)] == ["low", "middle", "high"]
    assert [s.name for s in model.stages(last, (3, 16, 16), 2)] == ["middle", "high"]
    assert model.stages(last, (3, 16, 16), 1) == (last,)
    alone = Model(PooledLinear(), layer="conv")
    assert [s.name for s in alone.stages(alone.layer(shape=(3, 6, 6)), (3, 6, 6), 4)] == ["conv"]
    timm = pytest.importorskip("timm")
    vit = Model(timm.create_model("vit_tiny_patch16_224", depth=6, img_size=64).eval())
    found = [s.name for s in vit.stages(vit.layer(shape=(3, 64, 64)), (3, 64, 64), 4)]
    assert found[:3] == ["blocks.0", "blocks.2", "blocks.4"]


# ---- critical sets ---------------------------------------------------------------------------------------------------


class Patches(nn.Module):
    """Class 1 needs bright patches of a 4 x 4 grid, by weights; seen through one convolution of patches."""

    def __init__(self, weights: dict[int, float], offset: float, floor: float | None = None) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 4, 4, bias=False)
        self.weights, self.offset, self.floor = torch.zeros(16), offset, floor
        for k, weight in weights.items():
            self.weights[k] = weight
        with torch.no_grad():
            self.cells.weight.fill_(1 / 48)

    def forward(self, x: Tensor) -> Tensor:
        value = self.cells(x).flatten(1) @ self.weights - self.offset
        value = value if self.floor is None else F.softplus(value) + self.floor
        return torch.stack([-value, value], 1)


WHITE = torch.ones(2, 3, 16, 16) * torch.tensor([1.0, 0.97]).view(2, 1, 1, 1)
GRID: dict[str, Any] = {"units": "grid", "count": 16, "baseline": "black"}


def critical_cells(found: whylens.Explanation) -> list[list[int]]:
    assert found.parts is not None
    return [own.flatten().nonzero().flatten().tolist() for own in found.parts]


def run(net: nn.Module, frames: Tensor = WHITE, **params: Any) -> whylens.Explanation:
    return whylens.explain(net, frames, method="gsinquire", target=1, layer="cells", params={**GRID, **params})


def planted_exactly() -> None:
    """One patch decides; two of which the larger is enough; two of which both must go."""
    cases: list[tuple[dict[int, float], float, list[int]]] = [
        ({6: 8.0}, 4.0, [6]),
        ({6: 8.0, 9: 1.0, 3: -1.0}, 4.0, [6]),
        ({5: 4.0, 10: 4.0}, 2.0, [5, 10]),
    ]
    for weights, offset, expected in cases:
        found = run(Patches(weights, offset))
        assert critical_cells(found) == [expected, expected]
        assert not found.checks["not_critical"].any()
        inside = torch.zeros(16, dtype=torch.bool)
        inside[expected] = True
        maps = found.maps.flatten(1)
        assert not maps[:, ~inside].any()
        assert (maps[:, inside] > 0).all()
        torch.testing.assert_close(maps.amax(1), torch.ones(2))
        torch.testing.assert_close(found.checks["critical_area"], torch.full((2,), len(expected) / 16))


def prefix_minimal() -> None:
    """Without its last region the set does not suffice; with it, it does. The check `left` says how far."""
    net = Patches({k: 3.0 - 0.15 * k for k in range(16)}, 14.0)
    found = run(net, rounds=0)
    ranked = found.maps.flatten(1).argsort(1, descending=True)
    for n, cells in enumerate(critical_cells(found)):
        assert len(cells) > 2
        left = []
        for count in (len(cells) - 1, len(cells)):
            keep = torch.ones(16)
            keep[ranked[n, :count]] = 0
            shown = WHITE[n] * F.interpolate(keep.view(1, 1, 4, 4), size=16)
            left.append(float(net(shown).detach().softmax(1)[0, 1]))
        whole = float(net(WHITE[n : n + 1]).detach().softmax(1)[0, 1])
        assert left[0] > 0.5 * whole
        assert left[1] <= 0.5 * whole or left[1] < 0.5
        assert float(found.checks["left"][n]) == pytest.approx(left[1] / whole, rel=1e-4)


def test_a_label_that_changes_is_enough() -> None:
    """Three classes: the target goes from 0.38 to 0.33, far from the half, but another is predicted then."""

    class Third(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.Conv2d(3, 1, 4, 4, bias=False)
            with torch.no_grad():
                self.cells.weight.fill_(1 / 48)

        def forward(self, x: Tensor) -> Tensor:
            own = 0.3 * self.cells(x).flatten(1)[:, 6]
            return torch.stack([0 * own + 0.1, own, 0 * own + 0.05], 1)

    found = run(Third())
    assert critical_cells(found) == [[6], [6]]
    assert (found.checks["left"] > 0.7).all()
    assert not found.checks["not_critical"].any()
    other = whylens.explain(Third(), WHITE, method="gsinquire", target=2, layer="cells", params=GRID)
    assert other.checks["not_critical"].all()  # it was not predicted, so only its probability counts


def test_a_score_that_cannot_fall_is_flagged() -> None:
    found = run(Patches({6: 8.0}, 4.0, floor=3.0))
    assert found.checks["not_critical"].all()
    assert "not_critical" in found.flags(0)
    assert (found.checks["left"] > 0.9).all()
    assert (found.checks["critical_area"] <= 0.5 + 1e-6).all()
    assert critical_cells(found)[0][:1] == [6]
    little = run(Patches(dict.fromkeys(range(16), 1.0), 1.0), area=0.2)
    assert little.checks["not_critical"].all()
    assert (little.checks["critical_area"] <= 0.2).all()
    assert "not_critical" in whylens.explanation.FLAGS


def test_rounding_is_no_map() -> None:
    for size, flat in ((1e-7, True), (1e-2, False)):
        found = run(Patches({6: size}, 0.0))
        assert bool(found.maps.any()) is not flat
        assert ("flat" in found.flags(0)) is flat
        assert "not_critical" in found.flags(0)


def test_target_function() -> None:
    """Its difference from the baseline's value takes the place of the probability."""
    net = Patches({6: 8.0, 9: 2.0}, 4.0)
    target: Callable[[Any], Tensor] = lambda output: output[:, 1] - 50  # noqa: E731 - negative throughout
    found = whylens.explain(net, WHITE, method="gsinquire", target=target, layer="cells", params=GRID)
    assert critical_cells(found) == [[6], [6]]
    torch.testing.assert_close(found.checks["left"], torch.full((2,), 0.2), rtol=1e-3, atol=1e-3)


def test_credits_are_shapley_values_over_the_turned_orders() -> None:
    """Both of two needed: half each. Walks written out by hand."""
    net = Patches({1: 6.0, 2: 6.0, 7: 0.5}, 8.0)
    probe = probe_of(net, WHITE, layer="cells")
    found = regions.grid(WHITE, 4)
    asked = Inquiry(probe, found, baseline.fill(probe, "black"))
    top = torch.tensor([[1, 2, 7, 0]]).expand(2, -1)
    credits, _ = asked.credits(top, 4)

    def share(n: int, kept: list[int]) -> float:
        keep = torch.zeros(16)
        keep[kept] = 1
        shown = WHITE[n] * F.interpolate(keep.view(1, 1, 4, 4), size=16)
        whole, seen = (net(frames).detach().softmax(1)[0, 1] for frames in (WHITE[n : n + 1], shown))
        return float(seen / whole)

    for n in range(2):
        expected = dict.fromkeys((1, 2, 7, 0), 0.0)
        for walk in ((1, 2, 7, 0), (2, 7, 0, 1), (7, 0, 1, 2), (0, 1, 2, 7)):
            for i, region in enumerate(walk):
                gone, more = (share(n, [k for k in range(16) if k not in walk[:j]]) for j in (i, i + 1))
                rise = share(n, list(walk[: i + 1])) - share(n, list(walk[:i]))
                expected[region] += (gone - more + rise) / 8
        torch.testing.assert_close(credits[n], torch.tensor(list(expected.values())), rtol=1e-3, atol=1e-4)


def test_images_with_fewer_regions_do_not_depend_on_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    tiles = [F.interpolate(torch.rand((1, 3, k, k), generator=generator), size=(24, 24)) for k in (2, 3, 6)]
    frames, net = torch.cat(tiles), testing.SmallNet()
    params = {"count": 36, "steps": 4, "rounds": 2, "top": 12}
    asks: dict[str, Any] = {"method": "gsinquire", "target": 1, "layer": "high", "params": params}
    whole = whylens.explain(net, frames, **asks)
    assert len({int(c) for c in regions.find(frames, "slic", count=36).counts}) > 1
    for n in range(3):
        alone = whylens.explain(net, frames[n : n + 1], **asks)
        torch.testing.assert_close(alone.maps[0], whole.maps[n], rtol=0, atol=1e-5)


# ---- the contract ----------------------------------------------------------------------------------------------------

CHEAP = {"steps": 3, "rounds": 2, "top": 3, "count": 16}

CASES_GSINQUIRE = [
    Case("gsinquire", {**CHEAP, "units": "grid"}, (pooled_by_algebra, planted_exactly, prefix_minimal)),
]
OTHERS = [Case("gsinquire", {**CHEAP, "count": 40, "baseline": "mean"}), Case("gsinquire", {**CHEAP, "top": 40})]


@pytest.mark.parametrize("check", testing.method_checks(), ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", CASES_GSINQUIRE + OTHERS, ids=["grid", "slic", "more than there are"])
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


# ---- the planted tag -------------------------------------------------------------------------------------------------


def test_the_tag_is_the_critical_region(tmp_path: Path) -> None:
    """A net that takes the tag for the class: the critical set is the tag, and random sets of its size are not."""
    planted = demo.plant(tmp_path / "planted", train=1200, test=320, swapped=8)
    model = demo.fit(planted)  # trained to the end: half way there it does not lean on the tag alone
    tagged = planted.test.subset([i for i, tag in enumerate(planted.test.columns["tag"]) if tag])
    found = whylens.explain(model, tagged, method="gsinquire", target=planted.tagged)
    target, frames = model.class_index(planted.tagged), torch.stack([model.prepare(p.pixels)[0] for p in tagged])
    tags = planted.tag_mask(tagged)
    inside = torch.stack([tags.mask(i).inside for i in range(len(tagged))])  # type: ignore[union-attr]
    before = model.predict(frames)
    assert found.parts is not None
    chosen, label = found.parts[:, 0] > 0, before.argmax(1) == target
    assert label.sum() >= 6

    def share_undone(removed: Tensor) -> float:
        """Removed means the mean colour, which is not what the method filled with."""
        after = model.predict(torch.where(removed[:, None], torch.full_like(frames, 0.5), frames))
        undone = (after.argmax(1) != target) | (after[:, target] <= 0.5 * before[:, target])
        return float(undone[label].double().mean())

    overlap = (chosen & inside).sum((1, 2)) / (chosen | inside).sum((1, 2))
    assert share_undone(inside) == 1
    assert float(overlap[label].mean()) >= 0.5
    assert not found.checks["not_critical"][label].any()
    assert share_undone(chosen) >= 0.8
    assert share_undone(chosen.roll((32, 32), (1, 2))) <= 0.3  # the same shape elsewhere
