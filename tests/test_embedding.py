"""Eq. 1: exact cases, the maps' own defects, and a second formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whylens import InputError
from whylens.embedding import embed


def features(n: int = 2, k: int = 5, h: int = 4, w: int = 6) -> torch.Tensor:
    return torch.randn((n, k, h, w), generator=torch.Generator().manual_seed(0))


def test_constant_weights_are_average_pooling() -> None:
    z = features()
    for size in ((4, 6), (8, 12), (1, 1), (7, 5)):
        found = embed(z, torch.full((2, 1, *size), 0.3))
        torch.testing.assert_close(found.vectors, z.mean((2, 3)))
        assert not found.empty.any()
        assert not found.negative.any()


def test_one_hot_weights_pick_the_cell() -> None:
    z, maps = features(), torch.zeros(2, 1, 4, 6)
    maps[0, 0, 1, 5] = maps[1, 0, 3, 0] = 1e-30
    found = embed(z, maps)
    assert torch.equal(found.vectors, torch.stack([z[0, :, 1, 5], z[1, :, 3, 0]]))


def test_scale_does_not_matter_from_denormal_to_huge() -> None:
    z, maps = features(), torch.rand(2, 3, 8, 12)
    expected = embed(z, maps).vectors
    for scale in (1e-38, 1e-6, 1e6, 1e34):
        torch.testing.assert_close(embed(z, maps * scale).vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_fine_map_keeps_the_mass_of_a_thin_line() -> None:
    """One pixel column of 48 lies in the features' third column: area pooling finds it, bilinear sampling would not."""
    z, maps = features(1), torch.zeros(1, 1, 32, 48)
    maps[..., 17] = 1.0
    torch.testing.assert_close(embed(z, maps).vectors, z[:, :, :, 2].mean(2))


def test_negative_and_empty_maps_are_said() -> None:
    z, maps = features(3), torch.ones(3, 1, 4, 6)
    maps[0, 0, :, :3] = -1
    maps[1] = -2
    maps[2] = 0
    found = embed(z, maps)
    torch.testing.assert_close(found.vectors[0], z[0, :, :, 3:].mean((1, 2)))
    assert found.negative.tolist() == [0.5, 1.0, 0.0]
    assert found.empty.tolist() == [False, True, True]
    assert not found.vectors[1:].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
def test_equals_the_formula_written_out(h: int, w: int, c: int, factor: int) -> None:
    generator = torch.Generator().manual_seed(h * 100 + w)
    z = torch.randn((2, 3, h, w), generator=generator).double()
    maps = torch.randn((2, c, h * factor, w * factor), generator=generator).double()
    alpha = maps.sum(1).clamp(min=0).reshape(2, h, factor, w, factor).mean((2, 4))
    total = alpha.sum((1, 2))
    known = total > 0
    expected = torch.einsum("nkhw,nhw->nk", z, alpha)[known] / total[known, None]
    torch.testing.assert_close(embed(z, maps).vectors[known], expected.float(), rtol=1e-4, atol=1e-4)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="of the same N"):
        embed(features(), torch.rand(3, 1, 4, 4))
