"""Placement: frame and photo are joined exactly, through crop, padding, any aspect and every EXIF orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import whylens
from whylens.placement import Placement
from whylens.preprocess import Preprocess

CROP = Preprocess((32, 32), 40, "bilinear", (0.0,) * 3, (1.0,) * 3)
SQUASH = Preprocess((32, 48), None, "bilinear", (0.0,) * 3, (1.0,) * 3)
WHOLE = Preprocess((32, 32), 32, "bilinear", (0.5,) * 3, (1.0,) * 3, fit="longer")
PADDED = Preprocess((64, 64), 32, "bilinear", (0.0,) * 3, (1.0,) * 3)
ALL = {"crop": CROP, "squash": SQUASH, "whole": WHOLE, "padded": PADDED}


def square(rows: int, columns: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(rows, columns)
    mask[top : top + side, left : left + side] = 1
    return mask


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_corner_square_in_a_wide_photo_with_an_exif_rotation(tmp_path: Path, orientation: int) -> None:
    """A white square in the upright photo's corner: in the frame, back on the photo, and as the file stores it."""
    upright = np.zeros((120, 360, 3), np.uint8)
    upright[0:30, 0:30] = 255
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    picture = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = back
    stored = ImageOps.exif_transpose(_tagged(picture, exif))
    exif[0x0112] = orientation
    path = tmp_path / "wide photo.png"
    stored.save(path, exif=exif)

    photo = whylens.load_images(path)[0]
    assert photo.pixels.shape == (3, 120, 360)
    frame, placement = SQUASH.frame(photo.pixels, photo.orientation)
    assert placement.orientation == orientation
    on_photo = placement.to_photo(frame[:1])[0]
    assert on_photo.shape == (120, 360)
    white = on_photo > 0.5
    expected = square(120, 360, 0, 0, 30) > 0.5
    assert float((white ^ expected).float().sum()) / 900 < 0.15  # the blur of one frame cell along two edges
    as_stored = placement.as_stored(expected)
    assert as_stored.shape == (stored.height, stored.width)
    np.testing.assert_array_equal(as_stored.numpy(), np.asarray(stored)[..., 0] > 127)


def _tagged(picture: Image.Image, exif: Image.Exif) -> Image.Image:
    from io import BytesIO

    held = BytesIO()
    picture.save(held, "PNG", exif=exif)
    return Image.open(held)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(90, 270), (270, 90), (64, 64), (20, 31)])
def test_a_square_of_the_photo_lies_where_the_frame_shows_it(name: str, size: tuple[int, int]) -> None:
    """The mask taken through the Placement equals the photo's own pixels taken through the preprocessing."""
    preprocess, (rows, columns) = ALL[name], size
    side = min(size) // 3
    mask = square(rows, columns, rows // 2 - side // 2, columns // 2 - side // 2, side)
    frame, placement = preprocess.frame((mask[None].expand(3, -1, -1) * 255).byte())
    shown = frame[0] > (0.75 if name == "whole" else 0.5)  # its padding is grey
    through = placement.to_frame(mask)
    assert through.shape == preprocess.size
    assert float(((through > 0.5) ^ shown).float().mean()) < 0.03
    weight = through / through.sum()
    y, x = torch.meshgrid(torch.arange(preprocess.size[0]), torch.arange(preprocess.size[1]), indexing="ij")
    own = shown.float() / shown.sum()
    assert abs(float((weight * y).sum() - (own * y).sum())) < 0.5
    assert abs(float((weight * x).sum() - (own * x).sum())) < 0.5


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(5, 90),
    columns=st.integers(5, 90),
    name=st.sampled_from(sorted(ALL)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_go_there_and_back(rows: int, columns: int, name: str, box: tuple[float, float, float, float]) -> None:
    _, placement = ALL[name].frame(torch.zeros(3, rows, columns))
    given_box = (box[0] * columns, box[1] * rows, box[2] * columns, box[3] * rows)
    there = placement.box_to_frame(given_box)
    assert placement.box_to_photo(there) == pytest.approx(given_box, abs=1e-6)


def test_a_box_by_hand() -> None:
    """A 3:1 photo, shorter side 100 → 40, cropped to 32: 2.5 photo pixels per frame pixel, 110 columns cut left."""
    _, placement = CROP.frame(torch.zeros(3, 100, 300))
    assert placement == Placement((32, 32), (100, 300), (2.5, 2.5), (10.0, 110.0))
    assert placement.box_to_frame((110, 10, 190, 90)) == pytest.approx((0, 0, 32, 32))
    assert placement.covered().sum() == 80 * 80
    assert placement.covered()[10, 110]
    assert not placement.covered()[9, 110]


def test_a_coarse_map_lies_over_the_frame_only() -> None:
    _, placement = CROP.frame(torch.zeros(3, 100, 300))
    laid = placement.to_photo(torch.ones(2, 7, 7))
    assert laid.shape == (2, 100, 300)
    torch.testing.assert_close(laid[0], placement.covered().float())
    small = placement.to_photo(torch.ones(1, 7, 7), (50, 150))
    assert small.shape == (1, 50, 150)
    assert abs(float(small.mean() - laid.mean())) < 0.01


def test_a_map_is_bilinear_between_its_cells() -> None:
    placement = Placement.identity(8, 8)
    ramp = torch.arange(4.0).expand(4, 4)[None]
    found = placement.to_photo(ramp)[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(whylens.InputError, match=r"upright photo's size \(4, 6\). Got \(6, 4\)"):
        Placement.identity(4, 6).to_frame(torch.zeros(6, 4))
