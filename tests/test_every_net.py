"""Every method on a ViT, a Swin and a net of functional, in-place and reused calls: finite maps, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import timm
import torch
from torch import nn

import whylens
from test_methods import CASES, ELSEWHERE
from whylens import InputError, Model
from whylens.testing import Case, SmallNet


def of_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=5, **options).eval()

    return make


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (of_timm("vit_tiny_patch16_224", img_size=32, patch_size=8), 32),
    "swin": (of_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 2, 1)), 64),
    "functional": (SmallNet, 32),
}
BATCH_TOLERANCE = 1e-5


def one_sentence(said: str) -> None:
    assert said.endswith(".")
    assert "\n" not in said
    assert "defect" not in said


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("case", [*CASES, *ELSEWHERE], ids=lambda c: str(c.method))
def test_a_finite_map_or_one_sentence(case: Case, net: str) -> None:
    make, side = NETS[net]
    frames = torch.rand((3, 3, side, side), generator=torch.Generator().manual_seed(1))
    model, target = Model(make()), torch.tensor([0, 1, 2])
    options = {"method": case.method, "params": dict(case.params) or None, "seed": 3}
    try:
        found = whylens.explain(model, frames, target=target, **options)
    except InputError as error:
        one_sentence(str(error))
        return
    assert not found.checks["not_finite"].any()
    assert not found.checks["flat"].all()
    alone = whylens.explain(model, frames[1:2], target=1, **options)
    largest = float(found.maps[1].abs().max().clamp(min=1e-12))
    assert float((alone.maps[0] - found.maps[1]).abs().max()) <= BATCH_TOLERANCE * largest


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("case", [*CASES, *ELSEWHERE], ids=lambda c: str(c.method))
def test_a_caller_without_gradients_gets_the_same_map(
    case: Case, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    model = Model(SmallNet(), layer="high")
    expected = whylens.explain(model, inside(), method=case.method, params=dict(case.params) or None)
    with mode():
        found = whylens.explain(model, inside(), method=case.method, params=dict(case.params) or None)
    assert torch.equal(expected.maps, found.maps)


def inside() -> torch.Tensor:
    """Frames made where it is called."""
    return torch.rand((2, 3, 20, 20), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", [*CASES, *ELSEWHERE], ids=lambda c: str(c.method))
def test_a_net_in_another_type_is_explained_in_its_own(case: Case, dtype: torch.dtype) -> None:
    model = Model(SmallNet().to(dtype), layer="high")
    found = whylens.explain(model, inside(), method=case.method, params=dict(case.params) or None)
    assert found.maps.dtype == torch.float32
    assert not found.checks["not_finite"].any()
