"""Masks against hand-worked pixels, and against drawing by other tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from whylens.annotations import VOC_NAMES, fill_box, fill_polygon, fill_runs, read_voc, run_lengths
from whylens.errors import ImageError, InputError
from whylens.images import Images
from whylens.masks import Mask, reopen
from whylens.sources import load_images

HEIGHT, WIDTH = 6, 8


def photo(path: Path, orientation: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (9, 9, 9)).save(path, exif=exif)
    return path


def picture(path: Path, values: Any, mode: str = "L") -> Path:
    """A mask picture; mode P with a palette of many colours, as VOC has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.array(values)
    made = Image.fromarray(array.astype(np.uint8) if array.dtype.kind == "i" else array)
    if mode == "P":
        made.putpalette([k * 7 % 256 for k in range(768)])
    made.save(path)
    return path


def box(left: int, top: int, right: int, bottom: int, value: int = 1) -> np.ndarray[Any, Any]:
    values = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    values[top:bottom, left:right] = value
    return values


def mask(images: Images, i: int = 0, **options: Any) -> Mask:
    found = images.mask(i, **options)
    if found is None:
        raise AssertionError("no mask")
    if found.inside.dtype != torch.bool or found.ignored.dtype != torch.bool:
        raise AssertionError("masks are bool")
    return found


def same(got: torch.Tensor, want: Any) -> bool:
    return bool(np.array_equal(got.numpy(), np.asarray(want).astype(bool)))


# ---- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [box(1, 2, 4, 5), box(1, 2, 4, 5, 255), box(1, 2, 4, 5) > 0], ids=["1", "255", "bool"]
)
@pytest.mark.parametrize("ending", [".png", "_mask.png", ".mask.png", ".tif", "_mask.bmp"])
def test_grey_masks_are_inside_above_zero(tmp_path: Path, values: Any, ending: str) -> None:
    photo(tmp_path / "photos" / "cats" / "a b#ä.jpg")
    photo(tmp_path / "photos" / "cats" / "other.jpg")
    picture(tmp_path / "masks" / "cats" / f"a b#ä{ending}", values)
    images = load_images(tmp_path / "photos", masks=tmp_path / "masks")
    for of in (None, "cats", 7):
        found = mask(images, of=of)
        assert same(found.inside, box(1, 2, 4, 5))
        assert not found.ignored.any()
        assert not found.difficult
    assert images.mask(1) is None


def test_sixteen_bit_and_equal_channel_masks(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "a.png")
    picture(tmp_path / "m" / "a.png", (box(0, 0, 2, 1) * 256).astype(np.uint16))
    assert same(mask(load_images(tmp_path / "p", masks=tmp_path / "m")).inside, box(0, 0, 2, 1))
    picture(tmp_path / "m" / "a.png", np.repeat(box(0, 0, 2, 1, 255)[..., None], 3, axis=2))
    assert same(mask(load_images(tmp_path / "p", masks=tmp_path / "m")).inside, box(0, 0, 2, 1))
    picture(tmp_path / "m" / "a.png", np.repeat(box(0, 0, 2, 1, 255)[..., None], 3, axis=2) * [1, 0, 0])
    with pytest.raises(ImageError, match="colour picture"):
        load_images(tmp_path / "p", masks=tmp_path / "m").mask(0)


def test_palette_masks_are_voc_classes(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "a.png")
    values = box(0, 0, 3, 3, 8) + box(5, 1, 7, 4, 12) + box(3, 0, 4, 6, 255)
    picture(tmp_path / "m" / "a.png", values, "P")
    images = load_images(tmp_path / "p", masks=tmp_path / "m")
    assert same(mask(images, of="cat").inside, values == 8)
    assert same(mask(images, of=12).inside, values == 12)
    assert same(mask(images).inside, (values == 8) | (values == 12))
    assert same(mask(images).ignored, values == 255)
    assert not mask(images, of="bird").inside.any()
    own = load_images(images, labels=["dog"])
    assert same(mask(own).inside, values == 12)
    with pytest.raises(InputError, match=r"No class 'catt'. Did you mean 'cat'"):
        images.mask(0, of="catt")
    with pytest.raises(InputError, match=r"must lie in \[1, 254\]. Got 255"):
        images.mask(0, of=255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_stored_photo_is_turned_with_it(tmp_path: Path, orientation: int) -> None:
    photo(tmp_path / "p" / "a.jpg", orientation)
    stored = box(0, 0, 3, 1, 255)
    picture(tmp_path / "m" / "a.png", stored)
    images = load_images(tmp_path / "p", masks=tmp_path / "m")
    found = mask(images)
    assert found.inside.shape == images[0].pixels.shape[1:]
    exif = Image.Exif()
    exif[0x0112] = orientation
    tagged = Image.fromarray(stored.astype(np.uint8))
    tagged.getexif()[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(tagged)) > 0
    assert same(found.inside, turned if orientation >= 5 else stored)  # equal sizes: taken as upright
    picture(tmp_path / "m" / "a.png", turned * 255)
    assert same(mask(load_images(tmp_path / "p", masks=tmp_path / "m")).inside, turned)


def test_another_size_is_refused_with_both(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "a.jpg")
    picture(tmp_path / "m" / "a.png", np.zeros((3, 5), np.uint8))
    with pytest.raises(ImageError, match=r"The mask of a.png is 5 x 3 pixels, its photo 8 x 6"):
        load_images(tmp_path / "p", masks=tmp_path / "m").mask(0)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "a.jpg")
    picture(tmp_path / "m" / "b.png", box(0, 0, 1, 1))
    with pytest.raises(InputError, match=r"no mask for any image, for example a.jpg: the masks must have"):
        load_images(tmp_path / "p", masks=tmp_path / "m")
    with pytest.raises(InputError, match="must be an existing folder or file"):
        load_images(tmp_path / "p", masks=tmp_path / "none")
    with pytest.raises(InputError, match="a folder or a COCO"):
        load_images(tmp_path / "p", masks=tmp_path / "p" / "a.jpg")
    with pytest.raises(InputError, match="Got int"):
        load_images(tmp_path / "p", masks=3)
    picture(tmp_path / "m" / "a.png", box(0, 0, 1, 1))
    picture(tmp_path / "m" / "a.tif", box(0, 0, 1, 1))
    with pytest.raises(InputError, match=r"two masks for one image: a.png and a.tif"):
        load_images(tmp_path / "p", masks=tmp_path / "m")


def test_masks_beside_the_photos_are_not_photos(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b_mask.jpg")  # no b: a photo of a mask
    picture(tmp_path / "a_mask.png", box(0, 0, 1, 1))
    images = load_images(tmp_path, masks=tmp_path)
    assert images.ids == ("a.jpg", "b_mask.jpg")
    assert same(mask(images).inside, box(0, 0, 1, 1))
    assert len(load_images(tmp_path)) == 3
    photo(tmp_path / "c.jpg")
    photo(tmp_path / "c.png")  # a photo too, not the mask of the other
    assert load_images(tmp_path, masks=tmp_path).mask(2) is None
    picture(tmp_path / "masks" / "a.png", box(1, 1, 2, 2))
    assert load_images(tmp_path, masks=tmp_path / "masks").ids == (
        "a.jpg",
        "a_mask.png",
        "b_mask.jpg",
        "c.jpg",
        "c.png",
    )


def test_a_damaged_mask_is_an_image_error(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "a.jpg")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"^a.png is not an image in a known format.$"):
        load_images(tmp_path / "p", masks=tmp_path / "m").mask(0)


def test_masks_in_memory() -> None:
    frames = torch.zeros(3, 3, HEIGHT, WIDTH)
    given_masks = [box(0, 0, 2, 2), torch.from_numpy(box(1, 1, 3, 3))[None], None]
    images = load_images(frames, masks=given_masks)
    assert same(mask(images, 0, of="any").inside, box(0, 0, 2, 2))
    assert same(mask(images, 1).inside, box(1, 1, 3, 3))
    assert images.mask(2) is None
    assert same(mask(images.subset([1]), 0).inside, box(1, 1, 3, 3))
    assert same(mask(load_images(frames, masks=torch.ones(3, HEIGHT, WIDTH)), 2).inside, np.ones((HEIGHT, WIDTH)))
    with pytest.raises(InputError, match=r"one mask per image, 3. Got 2"):
        load_images(frames, masks=given_masks[:2])
    with pytest.raises(InputError, match=r"must have shape \(H, W\). Got \(2, 6, 8\)"):
        load_images(frames, masks=[np.zeros((2, HEIGHT, WIDTH))] * 3)
    with pytest.raises(InputError, match="no height and width"):
        load_images(torch.zeros(1, 4), masks=[np.zeros((2, 2))]).mask(0)


# ---- Pascal VOC -------------------------------------------------------------------------------------------------


def voc_object(name: str, edges: tuple[Any, Any, Any, Any], difficult: int = 0) -> str:
    left, top, right, bottom = edges
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><part><name>head</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
        f"<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
    )


def voc(root: Path, stem: str, *objects: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    path = root / "Annotations" / f"{stem}.xml"
    path.write_text(f"<annotation>{head}{''.join(objects)}</annotation>")
    return path


def test_voc_boxes_are_one_based_and_inclusive(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    photo(tmp_path / "JPEGImages" / "b.jpg")
    voc(tmp_path, "a", voc_object("cat", (1, 1, 2, 3)), voc_object("dog", (WIDTH, HEIGHT, WIDTH, HEIGHT)))
    images = load_images(tmp_path / "JPEGImages", masks=tmp_path)
    assert same(mask(images, of="cat").inside, box(0, 0, 2, 3))
    assert same(mask(images, of="dog").inside, box(WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT))
    assert same(mask(images, of=VOC_NAMES.index("dog") + 1).inside, box(WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT))
    assert mask(images).inside.sum() == 7
    assert not mask(images, of="cow").inside.any()
    assert images.mask(1) is None


def test_voc_takes_the_images_own_label(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    voc(tmp_path, "a", voc_object("cat", (1, 1, 2, 3)), voc_object("dog", (5, 5, 6, 6)))
    images = load_images(tmp_path / "JPEGImages", masks=tmp_path)
    assert mask(load_images(images, labels=["dog"])).inside.sum() == 4
    assert mask(load_images(images, labels=["tabby"])).inside.sum() == 10  # not known here: any object
    assert mask(load_images(images, labels=[8])).inside.sum() == 10  # a number of whose list?


def test_voc_takes_the_name_of_a_datasets_class(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    voc(tmp_path, "a", voc_object("cat", (1, 1, 2, 3)), voc_object("dog", (5, 5, 6, 6)))

    class Pets(torch.utils.data.Dataset[Any]):
        classes = ("bird", "dog")
        samples = [(str(tmp_path / "JPEGImages" / "a.jpg"), 1)]  # noqa: RUF012

        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Any:
            return torch.zeros(3, HEIGHT, WIDTH), 1

    assert mask(load_images(Pets(), masks=tmp_path)).inside.sum() == 4
    assert mask(load_images(Pets(), masks=tmp_path, labels=[5])).inside.sum() == 10  # no such class: any object


def test_voc_difficult_is_all_of_the_class(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    boxes = [("cat", (1, 1, 2, 3), 1), ("cat", (4, 4, 5, 5), 0), ("dog", (5, 5, 6, 6), 1)]
    voc(tmp_path, "a", *(voc_object(*entry) for entry in boxes))
    images = load_images(tmp_path / "JPEGImages", masks=tmp_path)
    assert [mask(images, of=of).difficult for of in ("cat", "dog", "cow", None)] == [False, True, False, False]
    assert mask(images, of="cat").inside.sum() == 10


def test_voc_pixels_are_preferred_to_boxes(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    voc(tmp_path, "a", voc_object("cat", (1, 1, 8, 6), 1), voc_object("drone", (2, 2, 3, 3)))
    values = box(1, 1, 3, 3, 8) + box(3, 1, 4, 3, 255) + box(6, 0, 7, 1, 12)
    picture(tmp_path / "SegmentationClass" / "a.png", values, "P")
    images = load_images(tmp_path / "JPEGImages", masks=tmp_path)
    cat = mask(images, of="cat")
    assert same(cat.inside, values == 8)
    assert same(cat.ignored, values == 255)
    assert cat.difficult
    assert same(mask(images, of="drone").inside, box(1, 1, 3, 3))  # a class pixels know nothing of: its box
    picture(tmp_path / "SegmentationClass" / "a.png", values)  # grey, as some copies are: numbers all the same
    assert same(mask(load_images(images, masks=tmp_path), of="cat").inside, values == 8)


def test_voc_with_classes_of_its_own(tmp_path: Path) -> None:
    for stem in "ab":
        photo(tmp_path / "JPEGImages" / f"{stem}.jpg")
    voc(tmp_path, "a", voc_object("helmet", (1, 1, 1, 1)))
    voc(tmp_path, "b", voc_object("vest", (1, 1, 1, 1)))
    images = load_images(tmp_path / "JPEGImages", masks=tmp_path)
    assert mask(images, 0, of="helmet").inside.sum() == 1
    assert mask(images, 1, of="helmet").inside.sum() == 0
    with pytest.raises(InputError, match=r"No class 'helmt'. Did you mean 'helmet'"):
        images.mask(0, of="helmt")
    with pytest.raises(InputError, match=r"must lie in \[1, 20\]. Got 21"):
        images.mask(0, of=21)


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH), (0, 0)])
def test_voc_of_a_turned_photo(tmp_path: Path, size: tuple[int, int]) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg", orientation=6)  # stored 8 x 6, upright 6 x 8
    voc(tmp_path, "a", voc_object("cat", (1, 1, 3, 1)), size=size)
    found = mask(load_images(tmp_path / "JPEGImages", masks=tmp_path)).inside
    assert found.shape == (WIDTH, HEIGHT)
    if size == (WIDTH, HEIGHT):  # drawn on the stored photo: the top left corner comes to the top right
        assert found[:3, -1].all()
    else:
        assert found[0, :3].all()
    assert found.sum() == 3


def test_voc_fractions_and_edges(tmp_path: Path) -> None:
    path = voc(tmp_path, "a", voc_object("cat", ("45.70", "1", "46.2", "99")), voc_object("cat", (0, 0, 2, 2)))
    record = read_voc(path)
    assert [entry.box for entry in record.objects] == [(45, 0, 46, 99), (0, 0, 2, 2)]
    assert record.size == (HEIGHT, WIDTH)


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize("text", [BOMB, BOMB.encode("utf-16"), "<annotation>", "", voc_object("cat", (1, 1, 1, "x"))])
def test_voc_files_that_are_refused(tmp_path: Path, text: str | bytes) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    path = voc(tmp_path, "a")
    if text == voc_object("cat", (1, 1, 1, "x")):
        text = f"<annotation>{text}</annotation>"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImageError, match=r"^a.xml is not a VOC annotation that can be read: "):
        load_images(tmp_path / "JPEGImages", masks=tmp_path).mask(0)
    if text in (BOMB, BOMB.encode("utf-16")):
        with pytest.raises(ImageError, match="document type"):
            read_voc(path)


# ---- COCO -------------------------------------------------------------------------------------------------------


def coco(path: Path, annotations: list[dict[str, Any]], **image: Any) -> Path:
    images = [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH} | image]
    images += [{"id": 8, "file_name": "empty.jpg", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": 3, "name": "cat"}, {"id": 90, "name": "toothbrush"}]
    entries = [{"id": i, "image_id": 7, "iscrowd": 0, "category_id": 3} | entry for i, entry in enumerate(annotations)]
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    return path


def test_run_lengths_by_hand() -> None:
    # 3 rows, 4 columns, counted down the columns: 2 out, 3 in, 1 out, 4 in, 2 out
    want = [[0, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0]]
    assert fill_runs({"size": [3, 4], "counts": [2, 3, 1, 4, 2]}, (3, 4)).astype(int).tolist() == want
    # letters are 48 + five bits; from the fourth count on the difference to the count two before: 4 - 3, 2 - 1
    assert run_lengths("23111") == [2, 3, 1, 4, 2]
    # 100 = 0b11_00100: low five bits 4 with the go-on bit 32 -> chr(84) 'T', then 3 -> '3'; -1 is all ones -> 'O'
    assert run_lengths("T311O0") == [100, 1, 1, 0, 1]


def compressed(counts: list[int]) -> str:
    """The encoder of the COCO tools, written from their C text."""
    letters = []
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            code = value & 31
            value >>= 5
            more = value != -1 if code & 16 else value != 0
            letters.append(chr((code | 32 if more else code) + 48))
    return "".join(letters)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12))
def test_run_lengths_there_and_back(counts: list[int]) -> None:
    assert run_lengths(compressed(counts)) == counts


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_length_masks_of_odd_sizes(height: int, width: int, random: Any) -> None:
    want = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    flat, counts, value = want.T.reshape(-1).tolist(), [0], False
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    for form in (counts, compressed(counts)):
        assert np.array_equal(fill_runs({"size": [height, width], "counts": form}, (height, width)), want)


def test_polygons_fill_the_pixels_whose_centre_is_inside() -> None:
    assert np.array_equal(fill_polygon([1, 2, 4, 2, 4, 5, 1, 5], (HEIGHT, WIDTH)), box(1, 2, 4, 5) > 0)
    triangle = [3.2, 4.1, 57.7, 9.3, 30.6, 49.8]
    rows, columns = np.mgrid[:60, :60] + 0.5
    corners = np.array(triangle).reshape(3, 2)
    side = [
        (b[0] - a[0]) * (rows - a[1]) - (b[1] - a[1]) * (columns - a[0])
        for a, b in zip(corners, corners[[1, 2, 0]], strict=True)
    ]
    assert np.array_equal(fill_polygon(triangle, (60, 60)), np.all(np.array(side) > 0, axis=0))
    other = np.zeros((60, 60), np.uint8)
    cv2.fillPoly(other, [np.round((corners - 0.5) * 256).astype(np.int32)], 1, shift=8)
    assert (fill_polygon(triangle, (60, 60)) != other).sum() < 120  # the other tool paints the outline too
    assert np.array_equal(fill_box((1, 2, 4, 5), (HEIGHT, WIDTH)), box(1, 2, 4, 5) > 0)
    assert fill_box((-3, -3, 99, 99), (HEIGHT, WIDTH)).all()


def test_coco_shapes_classes_and_crowds(tmp_path: Path) -> None:
    for name in ("a.jpg", "empty.jpg", "unknown.jpg"):
        photo(tmp_path / "photos" / name)
    crowd = box(0, 0, WIDTH, 2)
    runs = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *np.flatnonzero(np.diff(crowd.T.ravel())) + 1, 48]).tolist()}
    runs["counts"] = [0, *runs["counts"]]
    path = coco(
        tmp_path / "instances.json",
        [
            {"segmentation": [[1, 1, 3, 1, 3, 4, 1, 4], [6, 5, 8, 5, 8, 6, 6, 6]]},
            {"segmentation": runs, "iscrowd": 1},
            {"category_id": 90, "bbox": [4, 4, 1, 2], "segmentation": []},
        ],
    )
    images = load_images(tmp_path / "photos", masks=path)
    two = box(1, 1, 3, 4) + box(6, 5, 8, 6)
    cat = mask(images, of="cat")
    assert same(cat.inside, two)
    assert same(cat.ignored, crowd * (1 - two))
    assert same(mask(images, of=90).inside, box(4, 4, 5, 6))
    assert not mask(images, of=90).ignored.any()
    assert same(mask(images).inside, two + box(4, 4, 5, 6))
    assert same(mask(load_images(images, labels={"a.jpg": "toothbrush"})).inside, box(4, 4, 5, 6))
    assert not mask(images, 1, of="cat").inside.any()
    assert images.mask(2) is None
    with pytest.raises(InputError, match=r"No class 'cta'. Did you mean 'cat'"):
        images.mask(0, of="cta")
    with pytest.raises(InputError, match=r"No class '4'. The annotation knows: cat \(3\), toothbrush \(90\)"):
        images.mask(0, of=4)


def test_coco_files_are_matched_by_path_then_by_name(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "val" / "a.jpg")
    shapes = [{"bbox": [0, 0, 1, 1]}]
    for name in ("a.jpg", "val/a.jpg", "elsewhere/a.jpg"):
        images = load_images(tmp_path / "photos", masks=coco(tmp_path / "i.json", shapes, file_name=name))
        assert mask(images).inside.sum() == 1
    with pytest.raises(InputError, match="no mask for any image"):
        load_images(tmp_path / "photos", masks=coco(tmp_path / "i.json", shapes, file_name="b.jpg"))
    path = coco(tmp_path / "i.json", shapes, file_name="x/a.jpg")
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "y/a.jpg"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"'val/a.jpg' fits several images of the annotation: x/a.jpg, y/a.jpg"):
        load_images(tmp_path / "photos", masks=path)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [HEIGHT, WIDTH], "counts": [1, 2]},
        {"size": [HEIGHT, WIDTH], "counts": "zz"},
        {"size": [WIDTH, HEIGHT], "counts": [1, 47]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [HEIGHT, WIDTH]},
        [[1, 2, 3, 4, 5, "x"]],
    ],
)
def test_coco_shapes_that_are_refused(tmp_path: Path, shape: Any) -> None:
    photo(tmp_path / "a.jpg")
    images = load_images(tmp_path / "a.jpg", masks=coco(tmp_path / "i.json", [{"segmentation": shape}]))
    with pytest.raises(ImageError, match=r"^a.jpg: an annotated shape cannot be read: "):
        images.mask(0)


def test_coco_of_another_size_or_no_coco(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    huge = coco(tmp_path / "i.json", [{"bbox": [0, 0, 1, 1]}], height=10**9, width=10**9)
    with pytest.raises(ImageError, match="1000000000 x 1000000000 pixels, its photo 8 x 6"):
        load_images(tmp_path / "a.jpg", masks=huge).mask(0)
    for text in ("{}", "no json", "[]"):
        (tmp_path / "i.json").write_text(text)
        with pytest.raises(InputError, match="is not a COCO instances file"):
            load_images(tmp_path / "a.jpg", masks=tmp_path / "i.json")


def test_a_mask_is_found_again_by_its_address(tmp_path: Path) -> None:
    """Pictures, VOC and COCO: what `reopen` gives reads the same mask; a mask in memory has no address."""
    root = tmp_path / "a #1"
    photo(root / "photos" / "a.jpg")
    picture(root / "masks" / "a.png", box(1, 2, 5, 4))
    voc(root, "a", voc_object("cat", (2, 3, 5, 4)))
    shapes = coco(root / "i.json", [{"segmentation": [[1, 2, 5, 2, 5, 4, 1, 4]]}])
    for masks in (root / "masks", root, shapes):
        images = load_images(root / "photos", masks=masks)
        (address,) = images.mask_uris
        assert address is not None
        again = replace(images, _rows=(replace(images._rows[0], mask=reopen(address)),))
        assert same(mask(again).inside, mask(images).inside.int().numpy())
        assert mask(again).inside.any()
        assert images.reopen
    held = load_images([np.zeros((4, 4, 3), np.uint8)], masks=[np.ones((4, 4), np.uint8)])
    assert held.mask_uris == (None,)
    assert not held.reopen
