"""Figures: where colours land, what the scale says, and that nothing is cut, overlapped or changed."""

import base64
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from whylens.colour import Look, plane
from whylens.errors import InputError
from whylens.explanation import FLAGS, Explanation
from whylens.figure import as_html, figure, picture
from whylens.images import Photo
from whylens.placement import Placement
from whylens.preprocess import Preprocess
from whylens.sheet import WIDTH, Text, fit
from whylens.sources import load_images
from whylens.words import score_words, share


def explained(maps, *, ids=None, **changes):
    """An Explanation of these maps on frames of 40 x 40 that are the whole photo."""
    n = len(maps)
    values = {
        "maps": maps,
        "ids": ids or tuple(f"{i}.png" for i in range(n)),
        "targets": torch.arange(n),
        "target_names": tuple(f"class {i}" for i in range(n)),
        "scores": torch.arange(n) - 1.5,
        "probabilities": torch.linspace(0.2, 0.9, n),
        "predictions": torch.arange(n),
        "prediction_names": tuple(f"class {i}" for i in range(n)),
        "method": "grad_cam",
        "label": "grad_cam",
        "signed": False,
        "unit": "score",
        "frame": (3, 40, 40),
        "placements": (Placement.identity(40, 40),) * n,
    }
    return Explanation(**values | changes)


def ramp(*peaks, side=5):
    return torch.stack([p * torch.linspace(0, 1, side * side).view(1, side, side) for p in peaks])


def texts(made):
    return " ".join(t.get_text() for t in made.texts)


def colours(image):
    return np.asarray(image).astype(int)


# ---- where a map lands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2])
def test_a_corner_square_lands_in_the_corner_of_the_frame_on_a_3_to_1_photo(factor):
    pixels = torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1).repeat(1, 80, 240)
    frame, placement = Preprocess((40, 40), resize=40).frame(pixels)
    maps = torch.zeros(1, 1, *frame.shape[1:])
    maps[..., :10, :10] = 1
    drawn = colours(
        picture(explained(maps, placements=(placement,)), 0, Photo("0.png", pixels), size=(80 * factor, 240 * factor))
    )
    square = drawn[..., 0] - drawn[..., 2] > 110  # the red end of jet over an orange photo
    expected = np.zeros((80, 240), bool)
    expected[:20, 80:100] = True  # the frame is the middle third, one of its pixels two of the photo's
    expected = expected.repeat(factor, 0).repeat(factor, 1)
    assert np.count_nonzero(square != expected) <= 80 * factor  # bilinear at the two inner edges
    assert square[: 18 * factor, 80 * factor : 98 * factor].all()


def test_what_the_net_did_not_see_is_grey_and_dark_but_visible():
    pixels = torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1).repeat(1, 40, 120)
    pixels[:, :, 100:] = 0
    placement = Placement((40, 40), (40, 120), offset=(0, 40))
    drawn = colours(picture(explained(ramp(1.0), placements=(placement,)), 0, pixels))
    left, right = drawn[:, :40], drawn[:, 100:]
    assert (left == left[..., :1]).all()
    assert 50 < left.max() < 0.5 * 255 * 0.66
    assert right.max() == 0
    seen = drawn[:, 40:80]
    assert np.ptp(seen, axis=2).min() > 0


def test_large_photos_are_drawn_at_most_a_thousand_long_and_a_size_is_obeyed():
    said, pixels = explained(ramp(1.0), placements=(Placement.identity(1500, 3000),)), torch.rand(3, 1500, 3000)
    assert picture(said, 0, pixels).size == (1000, 500)
    assert picture(said, 0, pixels, size=(30, 60)).size == (60, 30)
    assert picture(said, 0).size == (40, 40)


def test_a_grey_photo_a_byte_photo_and_a_stretched_one_are_drawn():
    said = explained(torch.zeros(1, 1, 4, 4))
    grey = torch.full((1, 40, 40), 0.5)
    as_bytes = (grey * 255).round().to(torch.uint8)
    first = colours(picture(said, 0, grey, alpha=0))
    assert abs(first - colours(picture(said, 0, as_bytes, alpha=0))).max() <= 1
    assert set(np.unique(first)) <= {127, 128}
    wild = torch.linspace(-2, 2, 1600).view(1, 40, 40).repeat(3, 1, 1)
    stretched = colours(picture(said, 0, wild, alpha=0))
    assert abs(stretched[:, :, 0].ravel() - np.linspace(0, 255, 1600)).max() <= 1


def test_a_pixel_fine_signed_map_is_opaque_where_it_is_strong_and_leaves_the_photo_grey_where_it_is_zero():
    maps = torch.zeros(1, 3, 40, 40)
    maps[0, 1, :20, :20] = 1.0
    maps[0, 1, 20:, 20:] = -1.0
    said = explained(maps, signed=True)
    drawn = colours(picture(said, 0, torch.rand(3, 40, 40)))
    assert (drawn[5, 5] == (255, 0, 0)).all()
    assert (drawn[35, 35] == (0, 0, 255)).all()
    assert np.ptp(drawn[5, 35]) == 0
    alone = colours(picture(said, 0, torch.rand(3, 40, 40), alpha=1))
    assert (alone[5, 35] == 255).all()


def test_a_pixel_fine_one_signed_map_covers_the_photo_evenly():
    orange = torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1).repeat(1, 40, 40)
    drawn = colours(picture(explained(torch.zeros(1, 1, 40, 40)), 0, orange, alpha=0.25, colours="viridis"))
    other = colours(picture(explained(torch.zeros(1, 1, 40, 40)), 0, alpha=1.0, colours="viridis"))
    assert abs(drawn - (0.75 * 255 * np.array([0.9, 0.6, 0.3]) + 0.25 * other)).max() <= 1


# ---- colours and scale -----------------------------------------------------------------------------------


def test_a_diverging_map_is_white_at_zero_and_symmetric():
    look = Look.of(explained(ramp(1.0) - 0.3, signed=True), [0])
    assert look.limits[0] == pytest.approx((-0.7, 0.7))
    assert (look.paint(torch.tensor([0.0]), 0) == 1).all()
    values = torch.tensor([0.05, 0.2, 0.5, 0.7])
    assert look.paint(-values, 0)[:, ::-1] == pytest.approx(look.paint(values, 0), abs=0.01)
    assert (look.paint(torch.tensor([0.7, -0.7]), 0) == [(1, 0, 0), (0, 0, 1)]).all()


def test_a_signed_map_in_a_colour_map_without_a_centre_keeps_its_negative_values_apart():
    look = Look.of(explained(ramp(2.0) - 1, signed=True), [0], colours="viridis")
    assert look.limits[0] == (-1, 1)
    lowest, lower, zero = look.paint(torch.tensor([-1.0, -0.5, 0.0]), 0)
    assert abs(lowest - lower).max() > 0.1
    assert abs(lower - zero).max() > 0.1


def test_a_map_declared_one_signed_that_has_negative_values_is_drawn_as_signed():
    look = Look.of(explained(ramp(2.0) - 1), [0])
    assert (look.colours, look.limits[0]) == ("bwr", (-1, 1))


def test_a_one_signed_map_in_a_diverging_colour_map_has_its_zero_at_the_centre():
    look = Look.of(explained(ramp(2.0)), [0], colours="bwr")
    assert look.words(0).startswith("0 … 2 ")
    assert (look.paint(torch.tensor([0.0, 2.0]), 0) == [(1, 1, 1), (1, 0, 0)]).all()
    assert (look.bar(0)[0] == 1).all()


def test_a_centre_stays_at_zero_for_a_one_signed_map_far_from_it():
    look = Look.of(explained(ramp(0.2) + 0.8), [0], colours="RdBu_r")
    assert look.words(0) == "0 … 1 (score), per image"


def test_auto_is_jet_for_one_signed_maps():
    assert Look.of(explained(ramp(1.0)), [0]).colours == "jet"


def test_a_map_far_from_zero_starts_at_its_smallest_value():
    look = Look.of(explained(ramp(0.2) + 0.8), [0])
    assert look.limits[0] == pytest.approx((0.8, 1.0))
    assert look.words(0) == "0.8 … 1 (score), per image"


@pytest.mark.parametrize(
    ("scale", "limits", "words"),
    [
        ("image", [1, 4], ["0 … 1 (score), per image", "0 … 4 (score), per image"]),
        ("shared", [4, 4], ["0 … 4 (score), same for all rows"] * 2),
    ],
)
def test_the_scale_is_per_image_or_shared_and_says_so(scale, limits, words):
    said = explained(ramp(1.0, 4.0))
    look = Look.of(said, [0, 1], scale=scale)
    assert [look.limits[i][1] for i in (0, 1)] == limits
    assert [look.words(i) for i in (0, 1)] == words
    top = colours(picture(said, 0, scale=scale))[-1, -1]
    assert (top == colours(picture(said, 1, scale="image"))[-1, -1]).all() == (scale == "image")


def test_single_pixels_do_not_swallow_a_pixel_fine_map_and_the_legend_says_so():
    maps = torch.full((1, 1, 40, 40), 0.5)
    maps[0, 0, 3, 3] = -50.0
    look = Look.of(explained(maps, signed=True, unit="score per frame value"), [0])
    assert look.limits[0] == (-0.5, 0.5)
    assert look.words(0) == "±0.5 (score per frame value), 99.5 % of each image"
    coarse = Look.of(explained(maps, signed=True, frame=(3, 224, 224)), [0])
    assert coarse.limits[0] == (-50, 50)


def test_a_sparse_map_is_not_scaled_to_nothing_and_an_empty_one_says_zero():
    maps = torch.zeros(2, 1, 40, 40)
    maps[0, 0, 3, 3] = 2.0
    look = Look.of(explained(maps), [0, 1])
    assert look.limits[0] == (0, 2)
    assert look.words(1) == "0 everywhere (score)"
    assert (look.bar(1) == look.bar(0)[0]).all()
    signed = explained(maps, signed=True)
    assert (colours(picture(signed, 1)) == 255).all()


def test_channels_of_contributions_are_summed_and_of_gradients_the_strongest_is_shown():
    maps = torch.tensor([1.0, -3.0, 0.5]).view(1, 3, 1, 1)
    assert plane(maps, "score").item() == -1.5
    assert plane(maps, "score per frame value").item() == -3.0


# ---- the figure ------------------------------------------------------------------------------------------


def test_one_row_states_target_score_scale_and_layer_and_gives_the_first_maps_axes():
    said = explained(ramp(0.031), layer="layer4", probabilities=torch.tensor([0.83]))
    made, axes = figure({"grad_cam": said}, [Photo("0.png", torch.rand(3, 40, 40), label="cat")])
    assert axes.figure is made
    assert axes.get_images()[0].get_array().shape == (40, 40, 3)
    for word in (
        "grad_cam",
        "layer4",
        "class 0",
        "probability 0.83",
        "logit −1.5",
        "label cat",
        "0 … 0.031 (score), per image",
    ):
        assert word in texts(made)


def test_the_default_is_the_first_eight_rows_and_rows_choose_others():
    said = explained(ramp(*[1.0] * 10))
    for rows, count in ((None, 8), ([9, "2.png"], 2), (3, 1), ("4.png", 1), (range(10), 10)):
        made, _ = figure({"a": said}, rows=rows)
        assert len(made.axes) == count * 3  # photo, map, colour bar
    assert "1 of 10 rows" in texts(figure({"a": said}, rows=-1)[0])


def test_methods_with_other_targets_share_the_lines_of_their_image():
    one = explained(ramp(1.0, 1.0), ids=("x", "y"))
    three = explained(ramp(1.0, 1.0, 1.0), ids=("x", "x", "y"))
    made, _ = figure({"one": one, "three": three})
    assert len(made.axes) == 3 + 2 * 2 + 3 * 2


def test_a_flagged_row_and_a_failed_image_are_seen():
    flat = {"flat": torch.tensor([False, True])}
    said = explained(ramp(1.0, 0.0), checks=flat, failures={"broken.jpg": "no image"})
    made, _ = figure({"a": said})
    assert texts(made).count("⚠ flat") == 2  # under its map, and once in words
    assert FLAGS["flat"] in texts(made)
    assert "Not explained: broken.jpg: no image" in texts(made)
    assert "⚠" not in texts(figure({"a": said}, rows=0)[0])


def test_nothing_overlaps_and_nothing_is_cut():
    placements = (Placement.identity(40, 120), Placement.identity(120, 40))
    ids = ("a $very$ long/path_to/some-photo " * 4, "ünïcode_" * 12)
    checks = {"flat": torch.tensor([True, False]), "incomplete": torch.tensor([True, True])}
    kind = {"ids": ids, "placements": placements, "checks": checks, "target_names": ("Egyptian cat " * 9, "x")}
    fine = explained(torch.randn(2, 3, 40, 40), signed=True, unit="score per frame value", **kind)
    many = {
        "grad_cam": explained(ramp(1.0, 2.0), layer="features.stage4.block11.conv_project_out.bn", **kind),
        "integrated_gradients:steps=50,baseline=blur,layer=None,target=Egyptian cat": fine,
    }
    photos = [Photo(ids[0], torch.rand(3, 40, 120)), Photo(ids[1], torch.rand(3, 120, 40))]
    made, _ = figure(many, photos)
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in made.texts] + [a.bbox for a in made.axes]
    page = made.bbox
    assert not any(t.get_parse_math() for t in made.texts)
    for i, box in enumerate(boxes):
        assert box.x0 >= page.x0
        assert box.y0 >= page.y0
        assert box.x1 <= page.x1 + 1
        assert box.y1 <= page.y1 + 1
        for other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, down) < 1.5, (box, other)


def test_long_texts_lose_their_middle_only():
    whole = "photos/train/" + "x" * 400 + "/end.png"
    lines = fit(Text(whole, most=2), WIDTH)
    assert len(lines) == 2
    assert lines[0].startswith("photos/train/")
    assert "".join(lines).endswith("/end.png")
    assert "…" in "".join(lines)
    assert "".join(fit(Text(whole, most=99))) == whole


def test_photos_come_from_the_argument_the_explanation_or_the_file_and_else_a_note_says_so(tmp_path):
    file = tmp_path / "0.png"
    Image.new("RGB", (40, 40), (10, 200, 30)).save(file)
    said = explained(ramp(1.0))
    for images, own in (
        (str(file), said),
        (None, replace(said, images=load_images(str(file)))),
        (None, replace(said, uris=(str(file),))),
    ):
        made, _ = figure({"a": own}, images)
        assert (made.axes[0].get_images()[0].get_array() == (10, 200, 30)).all()
    made, _ = figure({"a": replace(said, uris=(str(tmp_path / "gone.png"),))})
    assert "photo not at hand" in texts(made)
    file.write_bytes(b"no image")
    assert "no photo: " in texts(figure({"a": replace(said, uris=(str(file),))})[0])


def test_a_photo_of_another_shape_is_not_drawn_over():
    said = explained(ramp(1.0))
    made, axes = figure({"a": said}, [Photo("0.png", torch.rand(3, 40, 90))])
    assert "the photo must have the shape of the one explained, 40 x 40. Got 40 x 90." in texts(made)
    assert axes.get_images()[0].get_array().shape == (40, 40, 3)


def test_without_overlay_every_map_stands_alone():
    said = explained(ramp(1.0))
    photo = Photo("0.png", torch.rand(3, 40, 40))
    _, over = figure({"a": said}, [photo])
    assert (over.get_images()[0].get_array() == colours(picture(said, 0, photo))).all()
    made, axes = figure({"a": said}, [photo], overlay=False)
    assert made.axes[0].get_images()
    assert (axes.get_images()[0].get_array() == colours(picture(said, 0))).all()


def test_tables_are_bars_of_the_largest_features():
    names = tuple(f"f{i}" for i in range(12))
    said = explained(torch.arange(12.0)[None] * -0.1, frame=(12,), placements=(), names=names, signed=True)
    made, axes = figure({"a": said})
    assert [bar.get_width() for bar in axes.patches][:2] == pytest.approx([-1.1, -1.0])
    assert [t.get_text() for t in axes.texts][:2] == ["f11", "f10"]
    assert "10 of 12 features" in texts(made)
    assert "<table>" in as_html(said)


def test_nothing_that_was_given_is_changed():
    maps, pixels = torch.randn(2, 3, 40, 40), torch.rand(2, 3, 40, 40)
    before = maps.clone(), pixels.clone()
    said = explained(maps, signed=True, unit="score per frame value")
    figure({"a": said}, [Photo(f"{i}.png", p) for i, p in enumerate(pixels)], scale="shared")
    picture(said, 1, pixels[1], colours="turbo")
    as_html(said)
    assert torch.equal(maps, before[0])
    assert torch.equal(pixels, before[1])


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.12345, "0.123"), (0.99, "0.99"), (0.9999, "> 0.999"), (1e-6, "< 0.001"), (1.0, "1"), (0.0, "0")],
)
def test_a_probability_is_not_rounded_to_certainty(probability, words):
    assert share(probability) == words


def test_a_target_function_has_a_score_and_no_probability():
    said = explained(ramp(1.0), score_kind="function", probabilities=torch.tensor([torch.nan]))
    assert score_words(said, 0) == "score −1.5"
    assert (
        score_words(replace(said, score_kind="probability", probabilities=torch.tensor([0.5])), 0) == "probability 0.5"
    )


def test_a_notebook_sees_one_picture_and_a_table_of_the_rows():
    said = explained(ramp(1.0, 2.0), label="<b>", ids=("<i>.png", "y"), cost={"forwards": 1, "seconds": 2.0})
    html = as_html(said)
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(data) == 1
    assert base64.b64decode(data[0]).startswith(b"\x89PNG")
    assert "&lt;i&gt;.png" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 3
    assert "1 forward per image, 2 s in all" in html
    assert "0 failed" in as_html(said[:0])


def test_matplotlib_is_loaded_by_the_first_picture_and_pyplot_never():
    code = """if True:
        import sys, torch, whylens.figure, whylens.view.page
        print("matplotlib" in sys.modules)
        from whylens.explanation import Explanation
        one, index = torch.ones(1), torch.ones(1).long()
        e = Explanation(torch.rand(1, 1, 4, 4), ("a",), index, ("t",), one, one, index, ("t",), "m", "m")
        e.figure()[0].savefig(__import__("io").BytesIO())
        print("matplotlib.pyplot" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: picture(e, 0, colours="virids"), "Did you mean 'viridis'?"),
        (lambda e: picture(e, 0, scale="images"), "scale must be 'image' or 'shared'. Got 'images'."),
        (lambda e: picture(e, 0, alpha=1.2), r"alpha must lie in \[0, 1\]. Got 1.2."),
        (lambda e: picture(e, 0, size=(0, 3)), "size must be"),
        (lambda e: picture(e, 1), "row must be below 1, the rows explained. Got 1."),
        (lambda e: picture(e, 0, torch.rand(3, 40, 90)), "Got 40 x 90."),
        (lambda e: picture(e, 0, torch.rand(40, 40)), r"pixels must have shape \(C, rows, columns\)"),
        (lambda e: picture(replace(e, placements=()), 0, torch.rand(3, 50, 50)), "Leave the photo out."),
        (lambda e: picture(replace(e, maps=torch.rand(1, 9)), 0), r"only maps \(N, C, h, w\)"),
        (lambda e: figure(e), "For one of them: explanation.figure()"),
        (lambda e: figure({}), "at least one explained image"),
        (lambda e: figure({"a": e}, rows="0.pgn"), "Did you mean '0.png'?"),
        (lambda e: figure({"a": e}, rows=[7]), "positions below 1. Got 7."),
        (lambda e: figure({"a": e}, rows=[]), "at least one row"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_remedy(call, message):
    with pytest.raises(InputError, match=message):
        call(explained(ramp(1.0)))
