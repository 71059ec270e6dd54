"""Outlines of segments: where lines land, which segments they are of, and how several targets are shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import whylens
from test_figure import explained, texts
from whylens import InputError, testing
from whylens.explanation import Explanation
from whylens.images import Photo
from whylens.outlines import AGAINST, FOR, READING, Segment, gives_segments, leading, outlines, spoken
from whylens.preprocess import Preprocess
from whylens.sources import load_images

BARE: dict[str, Any] = {"fill": 0, "dim": 0, "ranks": False}
"""Lines alone: every pixel that is not on one is the photo's."""


def cells(count: int, side: int = 40, seed: int = 0) -> Tensor:
    """Each pixel's nearest of `count` points ``(side, side)``: segments with slanted edges."""
    points = torch.rand((count, 2), generator=torch.Generator().manual_seed(seed)) * side
    at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).float()
    return (at[:, :, None] - points).norm(dim=-1).argmin(-1)


def segmented(labels: Tensor, *values: list[float], errors: list[float] | None = None, **changes: Any) -> Explanation:
    """An explanation, one row per list of values, whose maps carry each segment's value at its pixels."""
    maps = torch.stack([torch.tensor(v)[labels][None] for v in values])
    held = [labels.float()] + ([] if errors is None else [torch.tensor(errors)[labels]])
    parts = torch.stack(held)[None].repeat(len(values), 1, 1, 1)
    kind = {"parts": parts, "signed": True, "unit": "probability", "method": "lime", "label": "lime"}
    found: Explanation = explained(maps, **{**kind, **changes})
    return found


def edges(inside: NDArray[np.bool_], *, corners: bool) -> NDArray[np.bool_]:
    """Pixels inside with a neighbour outside, by a plain loop; beyond the picture is outside."""
    rows, columns = inside.shape
    found = np.zeros_like(inside)
    for y, x in np.argwhere(inside):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = 0 <= y + dy < rows and 0 <= x + dx < columns and inside[y + dy, x + dx]
                found[y, x] |= not near and (corners or dy == 0 or dx == 0)
    return found


def drawn_in(image: Image.Image, colour: tuple[float, float, float]) -> NDArray[np.bool_]:
    return (np.abs(np.asarray(image).astype(int) - np.round(np.array(colour) * 255)) <= 1).all(-1)


GREY = torch.full((3, 40, 40), 128 / 255)
VALUES = [0.1, -0.4, 0.3, 0.02, -0.05, 0.0, 0.2, -0.1, 0.05, -0.3]
LABELS = cells(10)


# ---- where lines land --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "against"), [(2, 2), (1, 0), (0, 3), (5, 5)])
def test_lines_run_along_the_borders_of_the_right_segments_and_nowhere_else(top: int, against: int) -> None:
    image = outlines(segmented(LABELS, VALUES), 0, GREY, top=top, against=against, **BARE)
    order = sorted(range(10), key=lambda k: -VALUES[k])
    sides = ([k for k in order if VALUES[k] > 0][:top], [k for k in order[::-1] if VALUES[k] < 0][:against])
    allowed = np.zeros((40, 40), bool)
    for colour, numbers in zip((FOR, AGAINST), sides, strict=True):
        must = np.zeros((40, 40), bool)
        for k in numbers:
            inside = (k == LABELS).numpy()
            must |= edges(inside, corners=False)
            allowed |= edges(inside, corners=True)
        assert (drawn_in(image, colour) == must).all()
    changed = (np.asarray(image) != 128).any(-1)
    assert changed[~allowed].sum() == 0
    assert changed.any()


def test_a_larger_picture_has_thicker_lines_within_the_segment() -> None:
    said = segmented(LABELS, VALUES)
    image = outlines(said, 0, GREY, top=1, against=0, size=(800, 800), **BARE)
    inside = (VALUES.index(max(VALUES)) == LABELS).numpy().repeat(20, 0).repeat(20, 1)
    changed = (np.asarray(image) != 128).any(-1)
    from scipy.ndimage import distance_transform_edt

    off = np.maximum(distance_transform_edt(~inside), distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1])
    assert off[changed].max() < 20  # less than a pixel of the frame away from the border
    assert drawn_in(image, FOR).sum() > 3 * 4 * np.sqrt(inside.sum())


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_square_is_outlined_where_it_lies_on_a_3_to_1_photo_that_is_stored_turned(
    orientation: int, tmp_path: Path
) -> None:
    upright = Image.new("RGB", (240, 80), (128, 128, 128))
    stored = {1: upright, 6: upright.rotate(90, expand=True), 8: upright.rotate(-90, expand=True)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    photo = load_images(tmp_path / "photo.png")[0]
    assert photo.orientation == orientation
    _, placement = Preprocess((40, 40), resize=40).frame(photo.pixels, photo.orientation)
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[4:12, 20:40] = 1
    said = segmented(labels, [0.0, 1.0], placements=(placement,))
    image = outlines(said, 0, photo, **BARE)
    assert image.size == (240, 80)
    inside = np.zeros((80, 240), bool)
    inside[8:24, 120:160] = True  # the frame is the middle third, one of its pixels two of the photo's
    found = drawn_in(image, FOR)
    assert (found == edges(inside, corners=False)).mean() > 0.999  # rounded at the corners
    assert not found[~inside].any()
    pixels = np.asarray(image).astype(int)
    assert (pixels[:, :80] == round(0.4 * 128)).all()
    assert (pixels[:, 160:] == round(0.4 * 128)).all()


def test_without_a_photo_the_frame_is_plain() -> None:
    image = outlines(segmented(LABELS, VALUES), 0, top=1, against=0, **BARE)
    assert image.size == (40, 40)
    assert (drawn_in(image, FOR) == edges((LABELS == 2).numpy(), corners=False)).all()


def test_the_rest_is_paler_and_a_segment_tinted_by_its_value() -> None:
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[:10, :], labels[30:, :] = 1, 2
    pixels = np.asarray(outlines(segmented(labels, [0.0, 1.0, -0.5]), 0, GREY, fill=0.4, dim=0.5, ranks=False))
    rest, largest, half = (pixels[y, 20] / 255 for y in (20, 5, 35))
    assert rest == pytest.approx([0.75] * 3, abs=0.01)
    assert largest == pytest.approx(0.6 * 0.5 + 0.4 * np.array(FOR), abs=0.01)
    assert half == pytest.approx(0.8 * 0.5 + 0.2 * np.array(AGAINST), abs=0.01)


def test_ranks_are_written_inside_their_segments() -> None:
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[:, 20:] = 1
    kind: dict[str, Any] = {"size": (400, 400), "fill": 0, "dim": 0}
    said = segmented(labels, [0.0, 1.0])
    numbered, bare = (np.asarray(outlines(said, 0, GREY, ranks=r, **kind)) for r in (True, False))
    at = np.argwhere((numbered != bare).any(-1))
    assert len(at)
    assert at.mean(0) == pytest.approx([200, 300], abs=100)
    assert at[:, 1].min() > 200


def test_a_segment_in_pieces_is_numbered_on_each_but_the_specks() -> None:
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[2:18, 2:18] = labels[24:36, 24:36] = labels[30, 5] = 1
    kind: dict[str, Any] = {"size": (400, 400), "fill": 0, "dim": 0}
    said = segmented(labels, [0.0, 1.0])
    numbered, bare = (np.asarray(outlines(said, 0, GREY, ranks=r, **kind)) for r in (True, False))
    written = (numbered != bare).any(-1)
    assert written[80:120, 80:120].any()
    assert written[280:320, 280:320].any()
    assert not written[:, :200][200:].any()


# ---- which segments ----------------------------------------------------------------------------------------


def test_a_top_larger_than_the_segments_outlines_them_all_but_those_of_value_zero() -> None:
    said = segmented(LABELS, VALUES)
    speaking, other = leading(said, 0, top=99, against=99)
    assert sorted([s.number for s in (*speaking, *other)]) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert [s.number for s in speaking] == [2, 6, 0, 8, 3]
    assert [s.number for s in other] == [1, 9, 7, 4]
    outlines(said, 0, GREY, top=99, against=99)


def test_a_map_of_zeros_has_no_outlines() -> None:
    image = outlines(segmented(LABELS, [0.0] * 10), 0, GREY, **BARE)
    assert (np.asarray(image) == 128).all()


def test_values_spread_over_pixels_are_added_up_and_others_taken_as_they_are() -> None:
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[:2, :2], labels[20:] = 1, 2
    own = segmented(labels, [0.0, 0.5, 0.25])
    assert [(s.number, s.value) for s in leading(own, 0)[0]] == [(1, 0.5), (2, 0.25)]
    spread = replace(own, checks={"difference": torch.zeros(1)})
    assert [(s.number, s.value) for s in leading(spread, 0)[0]] == [(2, 200.0), (1, 2.0)]


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "partition_shap"])
def test_the_values_are_those_that_the_methods_found(method: str) -> None:
    """Frames in two halves of which the net sees the mean of the left: its segment alone has a value, and is sure."""

    class Left(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[..., :8].mean((1, 2, 3))
            return torch.stack([-seen, seen], 1)

    params = {"units": "grid", "count": 4, "value": "score", "baseline": "black"}
    params |= {"ridge": 0.0} if method == "lime" else {}
    said = whylens.explain(Left(), torch.ones(2, 3, 16, 16), method=method, target=1, params=params)
    assert gives_segments(said)
    speaking, other = leading(said, 1)
    assert [s.value for s in speaking if s.value > 1e-4] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert {s.number for s in speaking[:2]} == {0, 2}
    assert all(s.sure for s in speaking[:2])
    assert all(s.value > -1e-4 for s in other)


def test_a_value_within_its_error_is_dashed_and_in_brackets() -> None:
    sure, unsure = (segmented(LABELS, VALUES, errors=[e] * 10) for e in (0.01, 0.35))
    assert spoken(leading(sure, 0)[0]) == "0.3, 0.2, 0.1, 0.05, 0.02"
    assert spoken(leading(unsure, 0)[1]) == "−0.4, (−0.3), (−0.1), (−0.05)"
    whole, dashed = (drawn_in(outlines(e, 0, GREY, top=1, against=0, **BARE), FOR) for e in (sure, unsure))
    assert 0.3 < dashed.sum() / whole.sum() < 0.7
    assert whole[dashed].all()
    least, most = leading(unsure, 0, top=0, against=4)[1][-1], leading(unsure, 0, against=1)[1][0]
    assert (least.sure, most.sure) == (False, True)
    assert Segment(0, 0.1, float("nan")).sure


def test_a_saved_explanation_has_its_outlines(tmp_path: Path) -> None:
    said = segmented(LABELS, VALUES, errors=[0.07] * 10)
    said.save(tmp_path)
    again = Explanation.load(tmp_path)
    assert (np.asarray(outlines(again, 0, GREY)) == np.asarray(outlines(said, 0, GREY))).all()


def test_nothing_that_was_given_is_changed() -> None:
    said, pixels = segmented(LABELS, VALUES), GREY.clone()
    before = said.maps.clone()
    outlines(said, 0, pixels)
    assert torch.equal(said.maps, before)
    assert torch.equal(pixels, GREY)


# ---- several targets ---------------------------------------------------------------------------------------


def several() -> tuple[Explanation, list[Photo]]:
    ids = ("x", "x", "x", "y", "y")
    said = segmented(LABELS, *([v * (-1) ** k for v in VALUES] for k in range(5)), ids=ids)
    return said, [Photo(name, GREY, label=None) for name in "xy"]


def test_the_targets_of_an_image_stand_side_by_side_each_with_name_and_probability() -> None:
    said, photos = several()
    made, axes = said.figure(photos, style="outlines", top=2, against=1)
    assert len(made.axes) == 2 + 5
    tops = {round(a.get_position().y1, 4) for a in made.axes}
    assert len(tops) == 2
    for row in range(5):
        assert f"class {row}" in texts(made)
        assert f"probability {float(said.probabilities[row]):.3g}" in texts(made)
    assert "for: 0.3, 0.2 (probability) against: −0.4" in texts(made)
    assert "for: 0.4, 0.3 (probability) against: −0.3" in texts(made)
    assert re.sub(r"\s+", " ", READING) in texts(made)
    shown = axes.get_images()[0].get_array()
    assert (shown == np.asarray(outlines(said, 0, photos[0], top=2, against=1))).all()


def test_beside_a_method_without_segments_the_figure_keeps_its_columns() -> None:
    said, photos = several()
    other = replace(said, parts=None, label="occlusion")
    made, _ = whylens.figure({"lime": said, "occlusion": other}, photos, style="outlines")
    assert len(made.axes) == 5 * (2 + 2)  # photo, outlines, map, colour bar
    assert READING in texts(made)
    assert "Red speaks for the target" in texts(made)


def test_the_default_is_maps() -> None:
    said, photos = several()
    assert READING not in texts(said.figure(photos)[0])


# ---- on the command line -----------------------------------------------------------------------------------


def test_the_command_line_writes_outlines_beside_the_maps(
    place: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    spec = f"{place / 'nets.py'}:model"
    asked = ["--method", "lime:samples=20,units=grid,count=9", "--method", "grad_cam", "--target", "top2"]
    said = command("explain", place / "föto 1.png", "--model", spec, *asked, "--out", tmp_path)
    assert said.code == 0, said.err
    written = {p.relative_to(tmp_path / "pictures").as_posix() for p in (tmp_path / "pictures").rglob("*.png")}
    assert sum("/outlines/" in name for name in written) == 2
    assert all("lime" in name for name in written if "/outlines/" in name)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count('alt="Largest segments of lime') == 2
    assert READING in page


# ---- what is refused ---------------------------------------------------------------------------------------

PLAIN = explained(torch.rand(1, 1, 40, 40))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: outlines(PLAIN, 0, GREY), "outlines: grad_cam gives no segments to outline."),
        (lambda: PLAIN.figure(style="outlines"), "figure: outlines need a method of segments"),
        (lambda: PLAIN.figure(style="contours"), "figure: style must be 'maps' or 'outlines'. Got 'contours'."),
        (lambda: outlines(segmented(LABELS, VALUES), 1, GREY), "row must be below 1"),
        (lambda: outlines(segmented(LABELS, VALUES), 0, GREY[0]), "pixels must have shape"),
        (lambda: outlines(segmented(LABELS, VALUES), 0, GREY, top=-1), "must be >= 0"),
        (lambda: outlines(segmented(LABELS, VALUES), 0, GREY, top=0, against=0), "one of them >= 1. Got 0 and 0."),
        (lambda: outlines(segmented(LABELS, VALUES), 0, GREY, fill=2), r"fill must lie in \[0, 1\]. Got 2."),
        (lambda: outlines(segmented(LABELS, VALUES), 0, GREY, size=(0, 4)), "size must be"),
        (lambda: outlines(segmented(LABELS, VALUES), 0, torch.rand(3, 40, 90)), "Got 40 x 90."),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert len(str(error.value).splitlines()) == 1


def test_parts_of_another_kind_are_no_segments() -> None:
    said = segmented(LABELS, VALUES)
    assert gives_segments(said)
    reasons = torch.rand(1, 2, 40, 40)
    for parts, weights in (
        (reasons, None),
        (said.parts, torch.ones(1, 1)),
        (torch.ones(1, 1, 5, 5), None),
        (None, None),
    ):
        assert not gives_segments(replace(said, parts=parts, weights=weights))
    assert not gives_segments(explained(torch.rand(1, 9), frame=(9,), placements=()))


def test_a_frame_whose_place_is_known_by_its_size_alone() -> None:
    said = segmented(LABELS, VALUES, placements=())
    assert outlines(said, 0, GREY).size == (40, 40)


def test_a_critical_set_is_no_segment() -> None:
    params = {"units": "grid", "count": 16, "steps": 2, "rounds": 1, "top": 2}
    frames = torch.rand((1, 3, 20, 20), generator=torch.Generator().manual_seed(0))
    found = whylens.explain(whylens.Model(testing.SmallNet(), layer="high"), frames, method="gsinquire", params=params)
    assert found.parts is not None
    assert not gives_segments(found)
