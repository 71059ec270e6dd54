"""The feature-layer rule: what it takes, refuses and says; benchmarks/layer_rule.py runs the whole list."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whylens
from whylens import grid

TRUTH = Path(__file__).parent.parent / "benchmarks" / "layer_truth.csv"

# Quick ones of every kind from the hand-written list; the rest runs in the benchmark.
SOME = [
    "torchvision:resnet18", "torchvision:densenet121", "torchvision:vgg11", "torchvision:alexnet",
    "torchvision:squeezenet1_1", "torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5", "torchvision:efficientnet_b0",
    "torchvision:regnet_x_400mf", "torchvision:googlenet", "torchvision:convnext_tiny", "torchvision:swin_t",
    "torchvision:vit_b_32", "timm:tf_efficientnet_lite0", "timm:vit_tiny_patch16_224",
    "timm:deit_tiny_distilled_patch16_224", "timm:swin_tiny_patch4_window7_224", "timm:convnext_atto",
    "timm:mobilevit_xxs", "timm:resnet10t", "timm:eva02_tiny_patch14_224", "timm:pvt_v2_b0", "timm:efficientformer_l1",
    "timm:levit_128s", "timm:mixer_s32_224", "timm:xcit_nano_12_p8_224", "timm:ghostnet_050", "timm:edgenext_xx_small",
    "timm:maxvit_rmlp_pico_rw_256",
]  # fmt: skip


def truth() -> dict[str, dict[str, str]]:
    with TRUTH.open(newline="", encoding="utf-8") as file:
        return {row["architecture"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SOME if n in truth()])
def test_against_the_hand_written_list(name: str) -> None:
    row = truth()[name]
    torch.manual_seed(0)
    model = whylens.load_model(name, weights="none", device="cpu")
    shape = (3, int(row["input"]), int(row["input"]))
    layer = model.layer(shape=shape)
    assert layer.name in row["accepted"].split("|")
    assert "x".join(map(str, layer.grid.size)) in row["grid"].split("|")
    frames = torch.rand((1, *shape), generator=torch.Generator().manual_seed(1))
    raw = whylens.Model(model.net, layer=layer.name)
    with torch.no_grad():  # some heads start at zero, and no gradient passes zeros
        for weight in model.net.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.normal_(std=0.02)
    maps = whylens.explain(raw, frames, method="grad_cam", target=0, params={"relu": False}).maps
    assert maps.shape[2:] == layer.grid.size
    assert bool(maps.isfinite().all())
    assert float(maps.abs().max()) > 0


def test_thirty_kinds_are_in_the_quick_list() -> None:
    assert len([n for n in SOME if n in truth()]) >= 30


class Tokens(nn.Module):
    """A one-block transformer with a class token; `pooled` averages the patches instead."""

    def __init__(self, *, pooled: bool = False, registers: int = 0) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, stride=8)
        self.prefix = nn.Parameter(torch.randn(1, 1 + registers, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 4)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), patches], 1)
        given = self.norm1(x)
        x = x + self.attention(given, given, given, need_weights=False)[0]
        x = self.norm2(x + self.mlp(x))
        return self.head(x[:, self.prefix.shape[1] :].mean(1) if self.pooled else x[:, 0])


@pytest.mark.parametrize("registers", [0, 4])
def test_class_token_and_pooled_tokens(registers: int) -> None:
    layer = whylens.Model(Tokens(registers=registers)).layer(shape=(3, 32, 48))
    assert layer.name == "norm1"
    assert (layer.grid.size, layer.grid.prefix) == ((4, 6), 1 + registers)
    assert "dropped" in layer.reason
    assert whylens.Model(Tokens(pooled=True)).layer(shape=(3, 32, 32)).name == "norm2"


def test_tokens_are_laid_out_row_by_row() -> None:
    """The grid of the patch embedding, flattened by the net and laid out again, is the embedding's own output."""
    net = Tokens()
    model = whylens.Model(net, layer="norm1")
    frames = torch.rand(2, 3, 32, 48)
    layout = model.layer(shape=(3, 32, 48)).grid
    patches = net.embed(frames)
    x = torch.cat([net.prefix.expand(2, -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(layout(x), patches)


def test_channels_last_maps() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 10, 4, stride=4), nn.LayerNorm(10), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))

    layer = whylens.Model(Last()).layer(shape=(3, 32, 32))
    assert (layer.name, layer.grid.layout, layer.grid.size, layer.grid.channels) == ("norm", "NHWC", (8, 8), 10)


def test_pooling_and_class_maps_are_no_features() -> None:
    pooled = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 49, 2)
    )
    assert whylens.Model(pooled).layer(shape=(3, 16, 16)).name == "1"
    features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    mapped = nn.Sequential(features, nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert whylens.Model(mapped).layer(shape=(3, 16, 16)).name == "0"


def test_an_untrained_head_of_zeros_hides_nothing_and_stays_zero() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    )
    nn.init.zeros_(net[3].weight)
    assert whylens.Model(net).layer(shape=(3, 16, 16)).name == "0"
    assert not net[3].weight.any()


def test_where_no_grid_bears_on_the_scores_it_refuses_with_candidates() -> None:
    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x)[:, :, 0, 0])

    with pytest.raises(whylens.InputError, match=r"Candidates: conv \(1, 4, 14, 14\)") as refused:
        whylens.Model(Corner()).layer(shape=(3, 16, 16))
    assert "layer=" in str(refused.value)


def test_a_layer_by_module_or_name_and_its_refusals() -> None:
    net = Tokens()
    model = whylens.Model(net)
    shape = (3, 32, 32)
    assert model.layer(net.mlp, shape).name == "mlp"
    assert whylens.Model(net, layer=net.norm2).layer(shape=shape).name == "norm2"
    with pytest.raises(whylens.InputError, match=r"No layer 'nrom1'\. Did you mean 'norm1'"):
        model.layer("nrom1", shape)
    with pytest.raises(whylens.InputError, match="not a part of this net"):
        model.layer(nn.ReLU(), shape)
    with pytest.raises(whylens.InputError, match=r"gives \(1, 4\), which is no grid"):
        model.layer("head", shape)


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.relu(self.conv(self.relu(self.conv(x)))).mean((2, 3)))

    with pytest.raises(whylens.InputError, match="'conv' runs 2 times"):
        whylens.Model(Twice()).layer("conv", (3, 8, 8))


def test_reshape_transform_lays_out_what_cannot_be_inferred() -> None:
    class Odd(nn.Module):
        """Keeps its places in a single vector."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.flat, self.head = nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.flat(self.conv(x))))

    model = whylens.Model(Odd(), layer="flat", reshape_transform=lambda t: t.view(-1, 4, 4, 4))
    found = whylens.explain(model, torch.rand(2, 3, 16, 16), method="grad_cam", params={"relu": False}, target=0)
    assert found.maps.shape == (2, 1, 4, 4)
    assert found.maps.any()
    wrong = whylens.Model(Odd(), layer="flat", reshape_transform=lambda t: t)
    with pytest.raises(whylens.InputError, match="reshape_transform must give"):
        whylens.explain(wrong, torch.rand(2, 3, 16, 16), method="grad_cam")


@pytest.mark.parametrize(
    ("shape", "frame", "expected"),
    [
        ((1, 64, 7, 7), (224, 224), ("NCHW", (7, 7), 0)),
        ((1, 7, 7, 64), (224, 224), ("NHWC", (7, 7), 0)),
        ((1, 64, 7, 10), (224, 320), ("NCHW", (7, 10), 0)),
        ((1, 197, 64), (224, 224), ("tokens", (14, 14), 1)),
        ((1, 196, 64), (224, 224), ("tokens", (14, 14), 0)),
        ((1, 201, 64), (224, 224), ("tokens", (14, 14), 5)),
        ((1, 141, 64), (224, 160), ("tokens", (14, 10), 1)),
        ((1, 64, 1, 1), (224, 224), None),
        ((1, 1000), (224, 224), None),
        ((1, 64, 197), (224, 224), ("tokens", (8, 8), 0)),
    ],
)
def test_grids_by_shape(
    shape: tuple[int, ...], frame: tuple[int, int], expected: tuple[str, tuple[int, int], int]
) -> None:
    found = grid.infer(shape, frame)
    assert (None if found is None else (found.layout, found.size, found.prefix)) == expected


def test_a_detector_is_explained_at_a_named_layer_by_a_function_of_its_output() -> None:
    class Detects(nn.Module):
        """Returns what torchvision's detectors do: a list of mappings, one per image."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            scores = self.head(F.relu(self.features(x)).mean((2, 3))).sigmoid()
            return [{"labels": torch.tensor([1]), "scores": s} for s in scores]

    model = whylens.Model(Detects(), layer="features", task="detection")
    frames = torch.rand(2, 3, 8, 8)
    best = lambda output: torch.stack([found["scores"][0] for found in output])  # noqa: E731
    found = whylens.explain(model, frames, target=best, params={"relu": False})
    assert found.maps.shape == (2, 1, 8, 8)
    assert found.maps.any()
    assert whylens.Model(Detects()).layer(shape=(3, 8, 8)).name == "features"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_layer_is_found_in_whatever_mode_the_caller_is(mode: type) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with mode():
        assert whylens.Model(net).layer(shape=(3, 16, 16)).name == "1"
