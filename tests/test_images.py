"""Every kind of source, its ids, labels and order; the stream; what cannot be loaded, in one sentence."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from torch.utils.data import Dataset, Subset, TensorDataset

from whylens import images as images_module
from whylens import sources as sources_module
from whylens.errors import ImageError, InputError, MissingExtra
from whylens.images import Images, Photo, Unreadable
from whylens.sources import load_images


def photo(path: Path, value: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, value, value)).save(path)
    return path


def values(images: Images) -> list[int]:
    return [int(item.pixels.flatten()[0]) for item in images]


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load_images(source, **options)
    text = str(error.value)
    assert text.startswith("load_images: ")
    assert "\n" not in text
    return text


# ---- files and folders ------------------------------------------------------------------------------------------


def test_one_photo(tmp_path: Path) -> None:
    path = photo(tmp_path / "a b#ü.png", 7)
    for source in (path, str(path), [path]):
        images = load_images(source)
        assert (images.ids, images.labels, images.classes) == (("a b#ü.png",), (None,), None)
        assert images.uris == (str(path),)
        item = images[0]
        assert (item.id, item.uri, item.orientation, item.label) == ("a b#ü.png", str(path), 1, None)
        assert torch.equal(item.pixels, torch.full((3, 3, 4), 7, dtype=torch.uint8))


def test_a_photo_without_an_ending_is_tried(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png").rename(tmp_path / "a")
    assert load_images(path)[0].pixels.shape == (3, 3, 4)
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt is neither a photo nor a list" in refused(tmp_path / "notes.txt")


def test_a_folder_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    for i, name in enumerate(["img10.png", "img2.PNG", "sub/img1.jpg", "B.bmp", "a.png"]):
        photo(tmp_path / name, i)
    photo(tmp_path / ".hidden.png")
    photo(tmp_path / ".thumbs" / "x.png")
    (tmp_path / "notes.txt").write_text("hello")
    images = load_images(tmp_path)
    assert images.ids == ("B.bmp", "a.png", "img2.PNG", "img10.png", "sub/img1.jpg")
    assert values(images) == [3, 4, 1, 0, 2]
    assert images.labels == (None,) * 5
    assert load_images(tmp_path, recursive=False).ids == images.ids[:-1]


def test_class_folders(tmp_path: Path) -> None:
    for name in ("n02/x10.png", "n02/x9.png", "n01/deep/y.png", "n10/z.png"):
        photo(tmp_path / name)
    (tmp_path / "n00").mkdir()
    images = load_images(tmp_path)
    assert images.ids == ("n01/deep/y.png", "n02/x9.png", "n02/x10.png", "n10/z.png")
    assert images.labels == ("n01", "n02", "n02", "n10")
    assert images.classes == ("n01", "n02", "n10")
    assert images[1].label == "n02"
    given_folders = load_images([tmp_path / "n10", tmp_path / "n02"])  # as a shell writes data/*
    assert (given_folders.labels, given_folders.classes) == (("n10", "n02", "n02"), ("n02", "n10"))
    assert given_folders.ids == ("n10/z.png", "n02/x9.png", "n02/x10.png")
    photo(tmp_path / "free.png")
    assert set(load_images(tmp_path).labels) == {None}


def test_splits_are_not_classes(tmp_path: Path) -> None:
    for name in ("train/n0144/a.png", "train/n0145/a.png", "val/n0144/b.png"):
        photo(tmp_path / name)
    assert load_images(tmp_path).classes == ("n0144", "n0145")
    assert load_images(tmp_path).ids[0] == "train/n0144/a.png"
    assert load_images(tmp_path / "train").labels == ("n0144", "n0145")
    assert load_images(tmp_path / "train" / "n0144").labels == (None,)


def test_several_paths(tmp_path: Path) -> None:
    first, second = photo(tmp_path / "x" / "b.png", 1), photo(tmp_path / "y" / "z" / "a.png", 2)
    photo(tmp_path / "w" / "c.png", 3)
    images = load_images([second, str(first), tmp_path / "w"])
    assert images.ids == ("y/z/a.png", "x/b.png", "w/c.png")
    assert values(images) == [2, 1, 3]
    assert set(images.labels) == {None}
    assert load_images((second, second.parent / ".." / ".." / "x" / "b.png")).ids == ("y/z/a.png", "x/b.png")
    assert "ids must be unique. Got 'x/b.png' twice" in refused([first, first.parent, second])


def test_unreadable_files_are_rows(tmp_path: Path) -> None:
    photo(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "b.jpg").write_bytes(b"")
    (tmp_path / "cat" / "c.tif").write_text("no image")
    (tmp_path / "cat" / "d.png").write_bytes((tmp_path / "cat" / "a.png").read_bytes()[:45])
    images = load_images(tmp_path)
    rows = list(images.stream())
    assert [type(row) for row in rows] == [Photo, Unreadable, Unreadable, Unreadable]
    assert rows[1] == Unreadable("cat/b.jpg", "b.jpg is empty (0 bytes).", "cat", str(tmp_path / "cat" / "b.jpg"))
    assert [row.reason for row in rows[2:] if isinstance(row, Unreadable)] == [
        "c.tif is not an image in a known format.",
        "d.png is damaged or cut short.",
    ]
    with pytest.raises(ImageError, match=r"^b.jpg is empty"):
        images[1]
    with pytest.raises(ImageError):
        list(images)


def test_a_missing_extra_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scan.dcm").write_bytes(b"scan")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    images = load_images(tmp_path)
    (row,) = images.stream()
    assert isinstance(row, Unreadable)
    assert "pip install 'whylens[dicom]'" in row.reason
    with pytest.raises(MissingExtra):
        images[0]


def test_ids_are_composed_unicode(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "größe.png")
    path = photo(tmp_path / name)
    images = load_images(tmp_path)
    assert images.ids == (unicodedata.normalize("NFC", name),)
    assert images.uris[0] in (str(path), str(tmp_path / images.ids[0]))
    assert images[0].pixels.shape == (3, 3, 4)
    photo(tmp_path / unicodedata.normalize("NFC", name))
    if len(list(tmp_path.iterdir())) == 2:  # some systems see one name
        assert "ids must be unique" in refused(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux only")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    photo(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    images = load_images(tmp_path)
    assert images.ids == ("caf\\xe9.png",)
    assert images[0].pixels.shape == (3, 3, 4)
    images.ids[0].encode()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    photo(tmp_path / "real" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "data")
    assert load_images(tmp_path / "data").ids == ("linked/a.png",)
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "gone")
    row = next(load_images(tmp_path / "data").stream())
    assert isinstance(row, Unreadable)
    assert row.reason == "b.png does not exist."


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "deep" / "x" / "a.png")
    assert "holds no images. Known are .apng, .avif" in refused(tmp_path / "empty")
    assert "recursive=True" in refused(tmp_path / "deep", recursive=False)
    assert "gone does not exist. Give a photo" in refused(tmp_path / "gone")
    assert "gone.csv does not exist" in refused(tmp_path / "gone.csv")
    assert "must be at least one image. Got an empty list" in refused([])
    assert "must be at least one image. Got an empty Tensor" in refused(torch.zeros(0, 3, 4, 4))
    assert "a NoneType is not a source" in refused(None)
    assert "a dict is not a source" in refused({"a": 1})
    assert "a bytes is not a source" in refused(b"123")
    assert "paths only or images only" in refused([tmp_path, Image.new("L", (2, 2))])
    assert "image 1 is a int" in refused([Image.new("L", (2, 2)), 3])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab/0123456789é٣", min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_natural_order_is_total(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=sources_module._natural) == sorted(backwards, key=sources_module._natural)


# ---- lists ------------------------------------------------------------------------------------------------------

MARKS = [",", ";", "\t"]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_lists(tmp_path: Path, mark: str, encoding: str) -> None:
    for i, name in enumerate(["b ü.png", "x/a.png", "c.png"]):
        photo(tmp_path / "data" / name, i + 1)
    rows = [["id", "Path", "label", "age", "site", "w"], ["007", "b ü.png", "cat", "3", "north", "0.5"]]
    rows += [
        ["010", "x/a.png", "", "", f'"a{mark} b"', "1"],
        ["1", str(tmp_path / "data" / "c.png"), "NA", "5", "NA", "2"],
    ]
    path = tmp_path / "data" / "list.csv"
    path.write_bytes(("\r\n".join(mark.join(row) for row in rows) + "\r\n").encode(encoding))
    images = load_images(path)
    assert images.ids == ("007", "010", "1")
    assert images.labels == ("cat", None, "NA")
    assert images.uris[0] == str(tmp_path / "data" / "b ü.png")
    assert dict(images.columns) == {"age": (3, None, 5), "site": ("north", f"a{mark} b", "NA"), "w": (0.5, 1.0, 2.0)}
    assert values(images) == [1, 2, 3]
    part = images.subset(["1", "007"])
    assert (part.labels, part.columns["age"], values(part)) == (("NA", "cat"), (5, 3), [3, 1])


@pytest.mark.parametrize("name", ["path", "IMAGE", " file", "filename", "uri"])
def test_names_of_the_path_column(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text(f"x;y{';' * 1}{name}\n1;2;a.png\n")
    assert load_images(tmp_path / "l.csv").ids == ("a.png",)
    (tmp_path / "one.csv").write_text(f"{name}\na.png\n")
    assert load_images(tmp_path / "one.csv").ids == ("a.png",)


def test_parquet_lists_keep_types(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    Image.fromarray(np.eye(3, 4, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    columns = {"path": ["a.png", "b.png"], "label": [1.0, None], "mask": ["m.png", None], "tags": [["x"], []]}
    parquet.write_table(pa.table(columns | {"image": ["kept", "too"]}), tmp_path / "l.parquet")
    images = load_images(tmp_path / "l.parquet")
    assert images.labels == (1, None)
    assert type(images.labels[0]) is int
    assert dict(images.columns) == {"tags": (["x"], []), "image": ("kept", "too")}
    found = images.mask(0)
    assert found is not None
    assert torch.equal(found.inside, torch.eye(3, 4, dtype=torch.bool))
    assert images.mask(1) is None


def test_list_paths_elsewhere(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "x" / "a.png")
    photo(tmp_path / "photos" / "b c.png")
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "l.csv"
    path.write_text("path\n../photos/x/a.png\n" + (tmp_path / "photos" / "b c.png").as_uri() + "\n")
    images = load_images(path)
    assert images.ids == ("x/a.png", "b c.png")
    assert values(images) == [9, 9]


@pytest.mark.skipif(os.name == "nt", reason="there it is the separator")
def test_a_list_written_on_windows(tmp_path: Path) -> None:
    photo(tmp_path / "x" / "a.png")
    (tmp_path / "l.csv").write_text("path\nx\\a.png\n")
    assert load_images(tmp_path / "l.csv").ids == ("x/a.png",)


def test_a_missing_file_of_a_list_is_a_row(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text("path,label\na.png,1\ngone.png,2\n")
    rows = list(load_images(tmp_path / "l.csv").stream())
    assert isinstance(rows[0], Photo)
    assert rows[1] == Unreadable("gone.png", "gone.png does not exist.", 2, str(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na.png,1\n", "l.csv must have a column 'path'. Got: name, label."),
        ("path\na.png\na.png\n", "ids must be unique. Got 'a.png' twice."),
        ("path,id\na.png,x\nb.png,x\n", "ids must be unique. Got 'x' twice."),
        ("path,id\na.png,x\nb.png,\n", "every row of l.csv must have an id. Got 1 without."),
        ("path,label\na.png,1\n,2\n", "l.csv, row 2: a path must be text. Got ''."),
        ("path,label\na.png,0.5\n", "l.csv: a label must be a class name or number. Got 0.5."),
        ("path,mask\na.png,m.jpg\n", "a mask must end in .png"),
        ("path\ngone.png\n", "no file of l.csv exists, for example "),
        ("path,label\na.png,1,2\n", "l.csv cannot be read as a list: CSV parse error: Expected 2 columns, got 3"),
        ("", "l.csv cannot be read as a list: it is empty."),
        ("path\n", "there must be at least one image. Got an empty"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    (tmp_path / "l.csv").write_text(text)
    assert said in refused(tmp_path / "l.csv")


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "l.parquet").write_bytes(b"PAR1 it is not")
    assert "l.parquet cannot be read as a list: " in refused(tmp_path / "l.parquet")
    (tmp_path / "l.csv").write_bytes("path\nä.png\n".encode("latin-1"))
    assert "l.csv cannot be read as a list: " in refused(tmp_path / "l.csv")
    parquet.write_table(pa.table({"image": [{"bytes": b"1"}]}), tmp_path / "l.parquet")
    assert "row 1: a path must be text. Got {'bytes': b'1'}" in refused(tmp_path / "l.parquet")


# ---- in memory --------------------------------------------------------------------------------------------------


def test_lists_in_memory() -> None:
    generator = np.random.default_rng(0)
    eight = generator.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    deep = generator.integers(0, 65536, (3, 5), dtype=np.uint16)
    tensor = torch.randn(3, 2, 7, requires_grad=True)
    many: list[Any] = [
        eight,
        deep,
        eight[..., :1],
        deep / 65535,
        eight > 9,
        Image.fromarray(eight),
        tensor,
        tensor.half(),
    ]
    many += [torch.zeros(1, 2, 2, dtype=torch.uint8), np.concatenate([eight, eight[..., :1]], axis=2), eight[..., 0]]
    images = load_images(many)
    assert images.ids == tuple(f"{i:02d}" for i in range(11))
    assert images.uris == (None,) * 11
    shapes = [tuple(item.pixels.shape) for item in images]
    assert shapes[:4] == [(3, 3, 5), (1, 3, 5), (1, 3, 5), (1, 3, 5)]
    assert shapes[4:] == [(3, 3, 5), (3, 3, 5), (3, 2, 7), (3, 2, 7), (1, 2, 2), (3, 3, 5), (1, 3, 5)]
    assert np.array_equal(images[0].pixels.permute(1, 2, 0), eight)
    assert np.array_equal(images[5].pixels, images[0].pixels)
    assert np.array_equal(images[1].pixels[0], (deep / 65535).astype(np.float32))
    assert np.array_equal(images[3].pixels, images[1].pixels)
    assert set(images[4].pixels.unique().tolist()) == {0, 255}
    assert torch.equal(images[6].pixels, tensor.detach())
    assert not images[6].pixels.requires_grad
    assert images[7].pixels.dtype == torch.float32
    assert images[8].pixels.dtype == torch.uint8
    alpha = eight[..., :1] / 255
    assert np.abs(images[9].pixels.permute(1, 2, 0).numpy() - (eight * alpha + 255 * (1 - alpha))).max() <= 0.5 + 1e-9


def test_arrays_with_values_of_no_known_range_are_rows() -> None:
    rows = list(load_images([np.full((2, 2), 200.0), np.zeros((2, 2), int), np.zeros((0, 2), np.uint8)]).stream())
    assert [row.reason for row in rows if isinstance(row, Unreadable)] == [
        "Image '0': float values must lie in [0, 1]. Got 200 to 200. Scale it, or save it as uint8.",
        "Image '1' has int64 values, which have no fixed range. Save it as uint8, uint16 or float in [0, 1].",
        "Image '2' has no pixels: its size is 2 x 0.",
    ]


def test_batches() -> None:
    batch = torch.rand(12, 3, 4, 5)
    images = load_images(batch)
    assert images.ids[:2] == ("00", "01")
    assert torch.equal(torch.stack([item.pixels for item in images]), batch)
    table = torch.randn(3, 7)
    assert torch.equal(torch.stack([item.pixels for item in load_images(table)]), table)
    array = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    assert np.array_equal(load_images(array)[1].pixels, array[1].transpose(2, 0, 1))
    assert load_images(Image.new("L", (5, 4))).ids == ("0",)


def test_shapes_that_are_no_batch() -> None:
    assert refused(torch.zeros(3, 224, 224)) == (
        "load_images: images must have shape (N, C, H, W). Got (3, 224, 224). Add a batch axis: images[None]."
    )
    assert "Got (3,)" in refused(torch.zeros(3))
    assert "Put one image in a list: [image]" in refused(np.zeros((224, 224, 3)))
    assert "images.transpose(0, 2, 3, 1)" in refused(np.zeros((8, 3, 24, 24)))
    assert "image 1 must have shape (H, W) or (H, W, C)" in refused([np.zeros((8, 8)), np.zeros((3, 8, 8))])
    assert "Got (8, 8, 2)." in refused([np.zeros((8, 8, 2))])


def test_photos_are_a_source(tmp_path: Path) -> None:
    photo(tmp_path / "cat" / "a.png")
    first = load_images(tmp_path)[0]
    for source in (first, [first]):
        images = load_images(source)
        assert (images.ids, images.labels, images.uris) == (("cat/a.png",), ("cat",), (first.uri,))
        assert torch.equal(images[0].pixels, first.pixels)


# ---- datasets ---------------------------------------------------------------------------------------------------


class Made(Dataset[Any]):
    """Items of any form; it counts how often each was read."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.read = items, [0] * len(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        self.read[i] += 1
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def test_a_dataset_of_any_item() -> None:
    frame = torch.rand(3, 4, 4)
    items: list[Any] = [(frame, 2), {"image": Image.new("L", (2, 2)), "label": "x"}, frame, [frame, torch.tensor(1)]]
    items += [{"pixel_values": frame}, (frame, np.int64(4)), (frame, {"boxes": []}), (frame, torch.zeros(5))]
    items += [OSError("disk\n  gone"), {"pixels": frame}]
    dataset = Made(items)
    images = load_images(dataset)
    assert sum(dataset.read) == 0
    assert images.ids == tuple("0123456789")
    assert images.classes is None
    rows = list(images.stream())
    assert dataset.read == [1] * 10
    assert [row.label for row in rows] == [2, "x", None, 1, None, 4, None, None, None, None]
    assert [row.reason for row in rows if isinstance(row, Unreadable)] == [
        "Item 8 of the dataset raised OSError: disk gone",
        "Item 9 of the dataset has no 'image'. It has: pixels.",
    ]
    assert images.labels == (2, "x", None, 1, None, 4, None, None, None, None)
    assert images.labels is images.labels
    assert images.subset([3, 0]).labels == (1, 2)
    assert all(type(label) is int for label in images.labels if not isinstance(label, str | None))


def test_a_dataset_that_lists_its_labels_is_not_read_for_them() -> None:
    dataset = Made([(torch.zeros(1, 2, 2), k) for k in range(3)])
    dataset.targets = torch.tensor([0, 1, 2])  # type: ignore[attr-defined]
    dataset.classes = [("tench", "Tinca tinca"), "goldfish", "shark"]  # type: ignore[attr-defined]
    images = load_images(dataset)
    assert images.labels == (0, 1, 2)
    assert images.classes == ("tench", "goldfish", "shark")
    assert load_images(Subset(dataset, [2, 0])).labels == (2, 0)
    assert load_images(Subset(dataset, [2, 0])).classes == images.classes
    assert sum(dataset.read) == 0
    dataset.target_transform = lambda k: k + 5  # type: ignore[attr-defined]
    assert load_images(dataset).labels == (0, 1, 2)  # now as the items say, which this dataset does not change
    assert sum(dataset.read) == 3
    assert load_images(TensorDataset(torch.zeros(2, 1, 2, 2), torch.tensor([4, 3]))).labels == (4, 3)


def test_an_image_folder_keeps_its_paths(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    for name in ("cat/a.png", "dog/b.png", "dog/c.png"):
        photo(tmp_path / name, 51)
    dataset = ImageFolder(str(tmp_path), transform=ToTensor())
    images = load_images(dataset)
    assert images.ids == ("cat/a.png", "dog/b.png", "dog/c.png")
    assert images.uris[0] == str(tmp_path / "cat" / "a.png")
    assert (images.labels, images.classes) == ((0, 1, 1), ("cat", "dog"))
    assert images[1].pixels.max() == pytest.approx(0.2)
    part = load_images(Subset(dataset, [2, 0]))
    assert part.ids == ("dog/c.png", "cat/a.png")
    assert load_images(Subset(dataset, [2, 2])).ids == ("0", "1")
    masks = [np.zeros((3, 4)), np.ones((3, 4)), None]
    found = load_images(dataset, masks=masks).mask(1)
    assert found is not None
    assert found.inside.all()


def test_a_dataset_without_length_is_refused() -> None:
    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    assert "a Endless is not a source of images" in refused(Endless())


def test_a_dataset_is_read_by_one_thread() -> None:
    class Watching(Made):
        threads: frozenset[int] = frozenset()
        order: tuple[int, ...] = ()

        def __getitem__(self, i: int) -> Any:
            self.threads |= {threading.get_ident()}
            self.order += (i,)
            return super().__getitem__(i)

    dataset = Watching([torch.zeros(1, 2, 2)] * 20)
    assert len(list(load_images(dataset).stream(workers=8))) == 20
    assert len(dataset.threads) == 1
    assert dataset.order == tuple(range(20))


# ---- the sequence -----------------------------------------------------------------------------------------------


def test_subsets() -> None:
    images = load_images(torch.arange(5.0)[:, None, None, None].expand(5, 1, 2, 2), labels=list("abcde"))
    assert images.subset(slice(1, 4)).labels == ("b", "c", "d")
    assert images.subset([-1, 0]).labels == ("e", "a")
    assert images.subset(["3", "1"]).labels == ("d", "b")
    assert images.subset(np.array([2, 4])).labels == ("c", "e")  # type: ignore[arg-type]
    assert values(images.subset([3]).subset([0])) == [3]
    assert len(images.subset([])) == 0
    assert images[-1].label == "e"
    assert images[np.int64(2)].label == "c"  # type: ignore[index]
    for wrong, said in (([5], "Got 5"), ([-6], "Got -6"), (["9"], "No image '9'"), ([1, 1], "'1' twice")):
        with pytest.raises(InputError, match=said):
            images.subset(wrong)
    with pytest.raises(IndexError, match=r"There are 5 images. Got number 5"):
        images[5]
    with pytest.raises(AttributeError):
        images.classes = ("a",)  # type: ignore[misc]


def test_labels_given() -> None:
    batch = torch.zeros(3, 1, 2, 2)
    assert load_images(batch, labels=[1, "x", None]).labels == (1, "x", None)
    assert load_images(batch, labels=torch.tensor([2, 1, 0])).labels == (2, 1, 0)
    assert load_images(batch, labels=np.array([2.0, np.nan, 0])).labels == (2, None, 0)
    named = load_images(batch, labels=list("abc"))
    changed = load_images(named, labels={"1": "z"})
    assert changed.labels == ("a", "z", "c")
    assert named.labels == ("a", "b", "c")
    assert load_images(named) is named
    assert "one per image, 3. Got 2" in refused(batch, labels=[1, 2])
    assert "Got a str" in refused(batch, labels="abc")
    assert "must be a class name or number. Got 0.5" in refused(batch, labels=[0.5, 1, 1])
    with pytest.raises(InputError, match="No image '7'"):
        load_images(batch, labels={"7": 1})


def test_what_it_shows_and_that_it_travels(tmp_path: Path) -> None:
    for i in range(5):
        photo(tmp_path / "c" / f"{i}.png", i)
    images = load_images(tmp_path)
    assert repr(images) == "Images(5: c/0.png, c/1.png, c/2.png, ...)"
    again = pickle.loads(pickle.dumps(images))
    assert again.ids == images.ids
    assert values(again) == [0, 1, 2, 3, 4]


# ---- the stream -------------------------------------------------------------------------------------------------


class Slow:
    """Replaces `decode`: takes a while, longer for some; counts what was started."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, path: str) -> tuple[torch.Tensor, int]:
        with self.lock:
            self.started.append(path)
        number = int(Path(path).stem)
        time.sleep(0.002 * (7 - number % 7))
        if number % 10 == 9:
            raise ImageError(f"{number} is broken.")
        return torch.full((1, 1, 1), number, dtype=torch.uint8), 1


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    made = Slow()
    monkeypatch.setattr(images_module, "decode", made)
    return made


@pytest.fixture
def forty(tmp_path: Path) -> Images:
    for i in range(40):
        (tmp_path / f"{i}.png").touch()
    return load_images(tmp_path)


def workers() -> int:
    return sum(thread.name.startswith("whylens-decode") for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 4, None])
def test_the_stream_is_in_order(forty: Images, slow: Slow, threads: int | None) -> None:
    rows = list(forty.stream(workers=threads))
    assert [row.id for row in rows] == list(forty.ids)
    for i, row in enumerate(rows):
        if i % 10 == 9:
            assert row == Unreadable(f"{i}.png", f"{i} is broken.", None, forty.uris[i])
        else:
            assert isinstance(row, Photo)
            assert int(row.pixels) == i
    assert workers() == 0


@pytest.mark.parametrize("ahead", [1, 5])
def test_the_stream_is_lazy(forty: Images, slow: Slow, ahead: int) -> None:
    stream = forty.stream(workers=3, ahead=ahead)
    assert slow.started == []
    for taken in range(1, 12):
        next(stream)
        reached = time.monotonic() + 5
        while len(slow.started) < taken + ahead and time.monotonic() < reached:
            time.sleep(0.001)
        time.sleep(0.02)  # whoever would run further ahead has the time to
        assert len(slow.started) == taken + ahead
    stream.close()  # type: ignore[attr-defined]


def test_a_closed_stream_stops_its_threads(forty: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    started, gate = [], threading.Event()

    def held(path: str) -> tuple[torch.Tensor, int]:
        started.append(path)
        if not path.endswith("0.png"):
            gate.wait(5)
        return torch.zeros(1, 1, 1), 1

    monkeypatch.setattr(images_module, "decode", held)
    stream = forty.stream(workers=2, ahead=30)
    next(stream)
    assert workers() == 2
    threading.Timer(0.1, gate.set).start()
    stream.close()  # type: ignore[attr-defined]
    assert workers() == 0
    assert len(started) <= 4  # the first, two under way, and one that may have slipped in


def test_a_forgotten_stream_stops_its_threads(forty: Images, slow: Slow) -> None:
    stream = forty.stream(workers=2, ahead=30)
    next(stream)
    del stream
    gc.collect()
    assert workers() == 0


def test_streams_decode_at_the_same_time(forty: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(3, timeout=5)

    def together(path: str) -> tuple[torch.Tensor, int]:
        barrier.wait()
        return torch.zeros(1, 1, 1), 1

    monkeypatch.setattr(images_module, "decode", together)
    assert len(list(forty.subset(slice(30)).stream(workers=3))) == 30


@pytest.mark.parametrize("options", [{"workers": 0}, {"ahead": 0}])
def test_bounds_of_the_stream(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="workers and ahead must be >= 1"):
        load_images(torch.zeros(1, 1, 2, 2)).stream(**options)


def test_the_import_is_light() -> None:
    late = ("pyarrow", "skimage", "tifffile", "pydicom")
    code = f"import sys, whylens.sources; print([m for m in {late} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_images_know_where_they_came_from(tmp_path: Path) -> None:
    """What a run needs to find them again: arguments of load_images, or None where words cannot say it."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    images = load_images(tmp_path)
    assert images.origin == {"data": [str(tmp_path)]}
    assert images.reopen
    assert load_images(tmp_path, recursive=False).origin == {"data": [str(tmp_path)], "recursive": False}
    assert load_images(images).origin == images.origin
    assert load_images(tmp_path, labels=["x"]).origin is None
    assert images.subset([0]).origin is None
    held = load_images([np.zeros((4, 4, 3), np.uint8)])
    assert held.origin is None
    assert not held.reopen
    assert held.fingerprint(0) != load_images([np.ones((4, 4, 3), np.uint8)]).fingerprint(0)
    assert images.fingerprint(0) == str((tmp_path / "a.png").stat().st_size)
