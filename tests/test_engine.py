"""The scoring engine against plain loops: same scores, each mask once, norms folded where they may be, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whylens import InputError, Model, Preprocess, Probe, fused, regions
from whylens.baseline import fill, search
from whylens.engine import default_rows
from whylens.folding import folds
from whylens.passes import Baseline, Passes
from whylens.testing import SmallNet, SmallTable


def frames(n: int = 3, side: int = 20, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(seed))


def awake(net: nn.Module) -> nn.Module:
    """Norms that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)):
                assert value is not None
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return net


def asked(model: Model, x: Tensor, target: list[int] | None = None, **options: Any) -> Probe:
    return Probe(Passes(model, x, **options), torch.tensor(target or [k % 3 for k in range(len(x))]))


def by_hand(model: Model, x: Tensor, kept: Tensor, fills: Tensor, target: list[int], *, score: bool = False) -> Tensor:
    """One masked frame after another through the net as it is."""
    found = []
    for n in range(len(x)):
        for own in kept[n if len(kept) > 1 else 0]:
            filled = fills[n if len(fills) > 1 else 0]
            frame = x[n] * own + filled * (1 - own)
            net = model.net.eval()
            with torch.no_grad():
                given = frame[None] if model.preprocess is None else model.preprocess.normalise(frame[None])
                out = net(given)
            found.append(out[0, target[n]] if score else out.softmax(1)[0, target[n]])
    return torch.stack(found).view(len(x), -1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "small": SmallNet,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=5),
    "mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "lite": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=5),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, patch_size=8),
}


@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize("kind", ["probability", "score"])
def test_masked_scores_are_those_of_a_plain_loop(name: str, kind: Any) -> None:
    torch.manual_seed(0)
    side = 32
    model = Model(awake(NETS[name]()), preprocess=Preprocess((side, side)))
    x = frames(2, side)
    units = regions.grid(x, 4)
    masks = (torch.rand((7, 16), generator=torch.Generator().manual_seed(2)) < 0.5).float()
    probe = asked(model, x, [1, 2])
    baseline = fill(probe, "blur")
    found = probe.masked_scores(masks, baseline, expand=units.expand, kind=kind)
    kept = units.expand(masks, torch.zeros(7, dtype=torch.long))[None]
    expected = by_hand(model, x, kept, baseline.frames, [1, 2], score=kind == "score")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_masks_of_each_image_and_shared_ones() -> None:
    model, x = Model(SmallNet()), frames()
    units = regions.grid(x, 5, smooth=True)
    own = torch.rand((3, 6, 25), generator=torch.Generator().manual_seed(3))
    baseline = Baseline("grey", torch.full_like(x[:1], 0.5))
    each = asked(model, x).masked_scores(own, baseline, expand=units.expand)
    for n in range(3):
        shared = asked(model, x).masked_scores(own[n], baseline, expand=units.expand)
        torch.testing.assert_close(shared[n], each[n])
        alone = asked(model, x[n : n + 1], [n % 3]).masked_scores(
            own[n], baseline, expand=regions.grid(x[:1], 5, smooth=True).expand
        )
        torch.testing.assert_close(alone[0], each[n], rtol=1e-5, atol=1e-6)


def test_each_distinct_mask_is_scored_once() -> None:
    model, x = Model(SmallNet()), frames()
    units = regions.grid(x, 2)
    masks = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
    probe = asked(model, x)
    before = probe.passes.forwards
    found = probe.masked_scores(masks, fill(probe, "black"), expand=units.expand)
    assert probe.passes.forwards - before == 3 * 3
    assert probe.cost.forwards == 3
    assert torch.equal(found[:, 0], found[:, 2])
    assert torch.equal(found[:, 1], found[:, 4])
    torch.testing.assert_close(found[:, 3], probe.probability, rtol=1e-4, atol=1e-6)  # everything kept: the image
    none = model.predict(torch.zeros_like(x)).gather(1, torch.tensor([[0], [1], [2]]))[:, 0]
    torch.testing.assert_close(found[:, 1], none, rtol=1e-4, atol=1e-6)


def test_a_target_function_and_a_table_and_a_black_box() -> None:
    x = frames()
    units = regions.grid(x, 2)
    masks = torch.eye(4)
    total = Probe(Passes(Model(SmallNet()), x), None, function=lambda output: output.sum(1))
    summed = total.masked_scores(masks, fill(total, "black"), expand=units.expand)
    scores = [
        asked(Model(SmallNet()), x, [k] * 3).masked_scores(
            masks, fill(total, "black"), expand=units.expand, kind="score"
        )
        for k in range(4)
    ]
    torch.testing.assert_close(summed, torch.stack(scores).sum(0), rtol=1e-4, atol=1e-4)
    rows = torch.rand(3, 7)
    table = asked(Model(SmallTable(), task="tabular"), rows)
    baseline = Baseline("zero", torch.zeros(1, 7))
    one_out = 1 - torch.eye(7)
    found = table.masked_scores(one_out, baseline, expand=lambda m, _i: m)
    for k in range(7):
        expected = table.model.predict(rows * one_out[k]).gather(1, torch.tensor([[0], [1], [2]]))[:, 0]
        torch.testing.assert_close(found[:, k], expected, rtol=1e-5, atol=1e-6)
    box = Model(SmallNet(), differentiable=False)
    open_ = asked(Model(SmallNet()), x).masked_scores(masks, baseline_of(x), expand=units.expand)
    torch.testing.assert_close(
        asked(box, x).masked_scores(masks, baseline_of(x), expand=units.expand), open_, rtol=1e-4, atol=1e-6
    )
    with pytest.raises(InputError, match="masks must be"):
        asked(box, x).masked_scores(torch.ones(2, 5, 4), baseline_of(x), expand=units.expand)


def baseline_of(x: Tensor) -> Baseline:
    return Baseline("black", torch.zeros_like(x[:1]))


def test_the_net_is_left_as_found_after_errors_too() -> None:
    net = SmallNet()
    net.train()
    model, x = Model(net), frames()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    asked(model, x).masked_scores(torch.eye(4), baseline_of(x), expand=regions.grid(x, 2).expand)

    def broken(_masks: Tensor, _images: Tensor) -> Tensor:
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        asked(model, x).masked_scores(torch.eye(4), baseline_of(x), expand=broken)
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


# ---- folding -----------------------------------------------------------------------------------------------------


def found(net: nn.Module, x: Tensor | None = None) -> int:
    net.eval()
    return len(folds(net, frames(1) if x is None else x, net).pairs)


@pytest.mark.parametrize(
    ("name", "pairs"), [("resnet18", 20), ("densenet121", 59), ("mobilenet", 34), ("lite", 49), ("vit", 0)]
)
def test_all_pairs_that_can_be_folded_are(name: str, pairs: int) -> None:
    """ResNet: every norm. DenseNet: those that follow a convolution (58 in its blocks, one in the stem)."""
    torch.manual_seed(0)
    net = awake(NETS[name]()).eval()
    x = frames(2, 32)
    known = folds(net, x[:1], net)
    assert len(known.pairs) == pairs
    with torch.no_grad():
        plain = net(x)
        with known.mode():
            folded = net(x)
    assert float((plain - folded).abs().max()) <= 1e-4 * float(plain.abs().max())


class Parts(nn.Module):
    """Convolution and norm, put together in the ways that must or must not fold."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.back = nn.Conv2d(4, 3, 1)
        awake(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        kind, norm = self.kind, self.norm
        if kind == "module":
            y = norm(y)
        elif kind == "function":
            assert norm.running_mean is not None
            y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        elif kind == "used twice":
            y = norm(y) + y
        elif kind == "two norms":
            y = norm(y) + self.other(y)
        elif kind == "conv twice":
            y = norm(y) + self.other(self.conv(self.back(y)))
        elif kind == "one norm for two":
            y = norm(y) + norm(self.conv(x * 0.5).relu())
        elif kind == "rectifier between":
            y = norm(y.relu())
        elif kind == "in place":
            y = norm(y.add_(1.0))
        elif kind == "batch statistics":
            y = F.batch_norm(y, None, None, norm.weight, norm.bias, training=True)
        out: Tensor = y.mean((2, 3))
        return out


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        ("module", 1),
        ("function", 1),
        ("used twice", 0),
        ("two norms", 0),
        ("conv twice", 0),
        ("one norm for two", 0),
        ("rectifier between", 0),
        ("in place", 0),
        ("batch statistics", 0),
    ],
)
def test_only_what_belongs_together_is_folded(kind: str, pairs: int) -> None:
    net = Parts(kind).eval()
    x = frames(2)
    known = folds(net, x[:1], net)
    assert len(known.pairs) == pairs
    with torch.no_grad(), known.mode():
        folded = net(x)
    with torch.no_grad():
        torch.testing.assert_close(folded, net(x), rtol=1e-4, atol=1e-5)


class Acting(nn.Module):
    """Convolution, norm or none, and an activation, put together in the ways that must or must not become one call."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.rectify = nn.ReLU(inplace="in place" in kind)
        awake(self)

    def forward(self, x: Tensor) -> Tensor:
        kind, act = self.kind, self.rectify
        y = 9.0 * self.conv(x) if kind == "scaled" else self.conv(x)
        y = y if kind.startswith("no norm") else self.norm(y)
        if kind in ("module", "in place", "no norm", "no norm in place", "scaled"):
            y = act(y)
        elif kind == "relu6":
            y = F.relu6(4.0 * y) + F.relu6(self.norm(self.conv(x)))  # the convolution is used twice
        elif kind == "relu6 alone":
            y = F.relu6(y)
        elif kind == "bounds":
            y = F.hardtanh(y, -0.2, 0.3)
        elif kind == "used twice" or kind == "in place, used twice":
            y = act(y) + y
        elif kind == "added first":
            y = act(y + x[:, :1])
        elif kind == "twice over":
            y = act(act(y) - 0.1)
        elif kind == "moved in place":
            y = act(y)
            y -= 0.1
            y = act(y)
        elif kind == "sigmoid":
            y = y.sigmoid()
        return y.mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("module", 0),
        ("in place", 0),
        ("no norm", 0),
        ("no norm in place", 0),
        ("scaled", 1),
        ("relu6", 2),
        ("relu6 alone", 0),
        ("bounds", 0),
        ("used twice", 1),
        ("in place, used twice", 0),
        ("added first", 1),
        ("twice over", 1),
        ("moved in place", 1),
        ("sigmoid", 0),
    ],
)
def test_an_activation_is_taken_into_its_convolution(kind: str, left: int) -> None:
    """`left` activations are still called: those that are no convolution's only future."""
    assert fused.available()
    net = Acting(kind).eval()
    x = frames(2)
    known = folds(net, x[:1], net)
    assert bool(known) == (kind != "relu6")
    acted = (F.relu, F.relu_, torch.relu, torch.relu_, F.hardtanh, F.relu6)
    with torch.no_grad(), Calls(acted) as calls, known.mode():
        found = net(x)
    assert calls.count == left
    with torch.no_grad():
        torch.testing.assert_close(found, net(x), rtol=1e-5, atol=1e-6)
    with torch.enable_grad(), known.mode():  # these calls have no gradient, so others are made
        assert net(x.requires_grad_()).requires_grad


class Calls(TorchFunctionMode):
    """Counts calls of some functions."""

    def __init__(self, of: tuple[Any, ...]) -> None:
        super().__init__()
        self.of, self.count = of, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.of
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs or {})


@pytest.mark.parametrize("what", ["weight in place", "weight replaced", "statistics"])
def test_a_weight_changed_between_two_calls_is_seen(what: str) -> None:
    net = awake(SmallNet())
    model, x = Model(net), frames()
    units = regions.grid(x, 2)
    masks = torch.eye(4)
    first = asked(model, x).masked_scores(masks, baseline_of(x), expand=units.expand)
    with torch.no_grad():
        if what == "weight in place":
            net.low.weight.mul_(1.5)
        elif what == "weight replaced":
            net.high.weight = nn.Parameter(net.high.weight * 1.5)
        else:
            assert net.norm.running_mean is not None
            net.norm.running_mean.add_(0.3)
    second = asked(model, x).masked_scores(masks, baseline_of(x), expand=units.expand)
    assert not torch.allclose(first, second, atol=1e-4)
    kept = units.expand(masks, torch.zeros(4, dtype=torch.long))[None]
    torch.testing.assert_close(second, by_hand(model, x, kept, torch.zeros_like(x), [0, 1, 2]), rtol=1e-4, atol=1e-5)


# ---- bfloat16 ------------------------------------------------------------------------------------------------------


def test_bfloat16_is_taken_only_where_scores_stay() -> None:
    x = frames(2)
    units = regions.grid(x, 4)
    masks = (torch.rand((100, 16), generator=torch.Generator().manual_seed(2)) < 0.5).float()

    def both(net: nn.Module) -> tuple[Tensor, Tensor]:
        model = Model(net)
        exact = asked(model, x).masked_scores(masks, baseline_of(x), expand=units.expand)
        auto = asked(model, x, precision="auto").masked_scores(masks, baseline_of(x), expand=units.expand)
        return exact, auto

    exact, auto = both(SmallNet())
    assert not torch.equal(exact, auto)  # taken
    assert float((exact - auto).abs().mean()) < 0.01
    steep = SmallNet()
    with torch.no_grad():
        steep.head.weight.mul_(3000.0)
        steep.head.bias.sub_(steep(x).mean(0))
    exact, auto = both(steep)
    assert torch.equal(exact, auto)  # refused: every score of it would move


def test_what_bfloat16_does_to_all_scores_alike_is_taken_back() -> None:
    class Shifted(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return scores + 0.7 * torch.is_autocast_enabled("cpu")

    x = frames(2)
    units = regions.grid(x, 4)
    masks = (torch.rand((100, 16), generator=torch.Generator().manual_seed(2)) < 0.5).float()
    exact, auto = (
        asked(Model(Shifted()), x, precision=precision).masked_scores(
            masks, baseline_of(x), expand=units.expand, kind="score"
        )
        for precision in ("float32", "auto")
    )
    assert not torch.equal(exact, auto)
    assert float((exact - auto).abs().max()) < 0.1


def test_rows_of_a_pass() -> None:
    assert default_rows(torch.zeros(1, 3, 224, 224)) == 6
    assert default_rows(torch.zeros(1, 3, 224, 224), half=True) == 12
    assert default_rows(torch.zeros(1, 3, 448, 448)) == 6
    assert default_rows(torch.zeros(1, 3, 64, 64)) == 73
    assert default_rows(torch.zeros(1, 3, 16, 16)) == 256


# ---- units and baselines -----------------------------------------------------------------------------------------


def test_regions_are_laid_out_and_painted_back() -> None:
    x = frames(2, 23)
    own = torch.tensor([[[5, 5, 9], [5, 7, 9], [7, 7, 9]], [[1, 1, 1], [1, 1, 1], [1, 1, 2]]])
    for units in (
        regions.grid(x, (3, 5)),
        regions.find(x, "slic", count=12),
        regions.find(x, "quickshift"),
        regions.segments(own),
    ):
        values = torch.rand((2, units.count), generator=torch.Generator().manual_seed(0))
        laid = units.expand(values, torch.tensor([0, 1]))
        assert torch.equal(laid, units.paint(values))
        for n in range(2):
            names = units.labels[n].unique()
            assert names.tolist() == list(range(int(units.counts[n])))
        area = units.area()
        torch.testing.assert_close(area.sum(1), torch.ones(2))
        torch.testing.assert_close((area * values).sum(1), laid.mean((1, 2, 3)))
    assert regions.segments(own).counts.tolist() == [3, 2]
    with pytest.raises(InputError, match="does not fit"):
        regions.grid(x, 40)


def test_a_blur_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur

    from whylens.baseline import blur

    x = torch.rand(2, 3, 24, 31)
    for sigma in (0.1, 1.5, 4.0):
        reach = int(2 * sigma + 0.5)
        expected = gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2) if reach else x
        torch.testing.assert_close(blur(x, sigma), expected, rtol=1e-4, atol=1e-5)
    assert blur(x, 80.0).shape == x.shape  # wider than the frame


class Steps(nn.Module):
    """A logit for class 1 that is large while the frame has edges; `classes` in all."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        edges = 60 * (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.cat([edges[:, None], torch.zeros(len(x), self.classes - 1)], 1)


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_the_search_ends_at_a_guess_whatever_the_number_of_classes(classes: int) -> None:
    x = frames(2, 32)
    probe = Probe(Passes(Model(Steps(classes)), x), torch.zeros(2, dtype=torch.long))
    found = search(probe)
    assert found.kept is not None
    assert bool((found.kept <= max(0.01, 1 / classes) + 1e-6).all())
    first = probe.probability_of(found.frames).cpu()
    torch.testing.assert_close(first, found.kept, rtol=1e-4, atol=1e-5)


class Bright(nn.Module):
    """Class 1 for bright images, class 0 for dark ones."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 40 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-bright, bright, torch.full_like(bright, -50.0)], 1)


def test_the_baseline_search_takes_the_gentlest_that_removes() -> None:
    """Blurring keeps the mean brightness, so only black removes 'bright', and nothing removes a dark image's 'dark'."""
    x = torch.stack([torch.rand(3, 32, 32) * 0.2 + 0.75, torch.rand(3, 32, 32) * 0.2])
    probe = Probe(Passes(Model(Bright(), preprocess=Preprocess((32, 32), mean=(0.7,) * 3)), x), torch.tensor([1, 0]))
    # the net sees (x - 0.7) / 0.225: both images stay on their sides of it
    found = search(probe)
    assert found.kept is not None
    assert found.names[0] in ("mean", "black")
    assert float(found.kept[0]) <= 0.5
    assert float(found.kept[1]) == pytest.approx(
        min(float(probe.probability_of(c)[1]) for c in (found.frames, x)), abs=1e-4
    )
    alone = search(Probe(Passes(probe.model, x[1:]), torch.tensor([0])))
    assert torch.equal(alone.frames[0], found.frames[1])


def test_a_searched_baseline_is_its_own_targets() -> None:
    """Two targets in one call whose searches end at the same names and other frames."""
    x = frames(3, 32)
    first, second = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    passes = Passes(Model(Two()), x)
    found = []
    for target in (first, second):
        probe = Probe(passes, target)
        baseline = search(probe)
        found.append((baseline, probe.at_baseline(baseline)[1]))
        alone = Probe(Passes(Model(Two()), x), target)
        torch.testing.assert_close(found[-1][1], alone.at_baseline(search(alone))[1])
    assert found[0][0].name == found[1][0].name


class Two(nn.Module):
    """Class 0 for edges, class 1 for their absence."""

    def forward(self, x: Tensor) -> Tensor:
        edges = 6 * (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) - 1
        return torch.stack([edges, -edges], 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_segments_of_any_channels(channels: int) -> None:
    assert regions.find(torch.rand(1, channels, 20, 20), "quickshift").count >= 1
    assert regions.find(torch.rand(1, channels, 20, 20), "slic", count=9).count >= 1


# ---- looks: rows made on the fly, and their gradients ------------------------------------------------------------


@pytest.mark.parametrize("name", list(NETS))
def test_looks_and_their_gradients_are_those_of_a_plain_loop(name: str) -> None:
    torch.manual_seed(0)
    model = Model(awake(NETS[name]()), preprocess=Preprocess((32, 32)))
    x, target, count = frames(2, 32, 1), [1, 2], 5
    probe, shown = asked(model, x, target), torch.tensor([0.2, 0.5, 0.7, 0.9, 1.0]).view(-1, 1, 1, 1)
    gradients = torch.zeros(2, count, 3, 32, 32)
    scores = probe.looks(
        count, lambda n, part: x[n] * shown[part], take=lambda n, part, gradient: gradients[n, part].copy_(gradient)
    )
    leaf = (x[:, None] * shown).requires_grad_()
    net, given = model.net.eval(), model.preprocess.normalise(leaf.flatten(0, 1))
    plain = net(given).softmax(1).view(2, count, -1)[torch.arange(2), :, torch.tensor(target)]
    (expected,) = torch.autograd.grad(plain.sum(), leaf)  # of frames that put no rectifier on its edge
    torch.testing.assert_close(scores, plain.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert (probe.passes.forwards, probe.passes.backwards) == (2 * count, 2 * count)
    assert (probe.cost.forwards, probe.cost.backwards) == (count, count)


def test_looks_are_the_same_to_the_bit_in_any_batch() -> None:
    model, x = Model(awake(torchvision.models.resnet18(num_classes=5))), frames(3, 32)

    def look(rows: Tensor, target: list[int], asked_for: list[int] | None = None) -> Tensor:
        found = torch.zeros(len(rows), 20, 3, 32, 32)
        asked(model, rows, target).looks(
            20,
            lambda n, part: torch.stack([rows[n] * (k + 1) / 20 for k in range(20)[part]]),
            take=lambda n, part, gradient: found[n, part].copy_(gradient),
            images=None if asked_for is None else torch.tensor(asked_for),
        )
        return found

    together = look(x, [0, 1, 2])
    assert torch.equal(look(x[2:], [2])[0], together[2])
    some = look(x, [0, 1, 2], [2, 0])
    assert torch.equal(some[[0, 2]], together[[0, 2]])
    assert not some[1].any()


def test_looks_read_what_they_are_asked_for() -> None:
    model, x = Model(SmallNet()), frames()
    probe = asked(model, x)
    margin = probe.looks(1, lambda n, _: x[n : n + 1], kind=lambda output, images: output[:, 0] - output[:, 1])
    with torch.no_grad():
        output = model.net.eval()(x)
    torch.testing.assert_close(margin[:, 0], output[:, 0] - output[:, 1])
    score = probe.looks(1, lambda n, _: x[n : n + 1], kind="score")
    torch.testing.assert_close(score[:, 0], output[torch.arange(3), torch.tensor([0, 1, 2])])


def test_looks_refuse_a_net_that_cuts_its_gradient() -> None:
    class Cut(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    x = frames()
    with pytest.raises(InputError, match="cuts the gradient"):
        asked(Model(Cut()), x).looks(1, lambda n, _: x[n : n + 1], take=lambda *_: None)
