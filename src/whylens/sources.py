"""Sources of images: photos, folders, lists on disk, pictures in memory, datasets; all become `Images`."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from .decode import EXTENSIONS, measure
from .errors import ImageError, InputError, no_such
from .images import DatasetEntry, FileEntry, HeldEntry, Images, Photo, Row, check_array, plain_label, unique
from .masks import Label, attach, mask_file, mask_stem

LISTS = (".csv", ".tsv", ".parquet", ".pq")
_PATH_COLUMNS = ("path", "image", "file", "filename", "uri")
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_REMEDY = "Give a photo, a folder, a .csv or .parquet list, a list of images, a batch (N, C, H, W) or a dataset."


def load_images(source: Any, *, labels: Any = None, masks: Any = None, recursive: bool = True) -> Images:
    """Images from whatever holds them; nothing is decoded yet.

    source: a photo; a folder, of class folders or not; several of these; a .csv, .tsv or .parquet list with a column
        'path' and, if wanted, 'label', 'mask', 'id' and more; a list of PIL images, arrays (H, W, C) or tensors
        (C, H, W); a batch (N, C, H, W) or table (N, F); a dataset with len() and items.
    labels: one per image, or by id; instead of those found. `recursive`: look into the folders of a folder.
    masks: a folder of mask pictures, a VOC root, a COCO .json file, or one (H, W) mask per image.
        A palette picture holds VOC class numbers, 255 ignored; in a grey one all above 0 is inside.
    """
    images = _found(source, recursive, masks)
    if not len(images) and not isinstance(source, Images):
        raise InputError(
            f"load_images: there must be at least one image. Got an empty {type(source).__name__}. {_REMEDY}"
        )
    if labels is not None:
        images = replace(images, _labels=_relabelled(images, labels))
    if masks is not None:
        found = attach(masks, [row.name for row in images._rows], images.uris)
        images = replace(images, _rows=tuple(replace(r, mask=m) for r, m in zip(images._rows, found, strict=True)))
    return images if images is source else replace(images, origin=_origin(source, labels, masks, recursive))


def _origin(source: Any, labels: Any, masks: Any, recursive: bool) -> dict[str, Any] | None:
    """The arguments as plain values that work from any folder, where they are plain."""
    paths = list(source) if isinstance(source, tuple | list) else [source]
    if labels is not None or not all(isinstance(path, str | os.PathLike) for path in paths):
        return None
    if masks is not None and not isinstance(masks, str | os.PathLike):
        return None
    origin: dict[str, Any] = {"data": [os.path.abspath(path) for path in paths]}  # noqa: PTH100
    origin |= {} if masks is None else {"masks": os.path.abspath(masks)}  # noqa: PTH100
    return origin | ({} if recursive else {"recursive": False})


def _found(source: Any, recursive: bool, masks: Any) -> Images:
    if isinstance(source, Images):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _from_list(path) if path.suffix.lower() in LISTS else _from_paths([path], recursive, masks)
    if isinstance(source, Tensor | np.ndarray):
        return _from_batch(source)
    if isinstance(source, Image.Image | Photo):
        return _from_memory([source])
    if isinstance(source, tuple | list):
        paths = sum(isinstance(item, str | os.PathLike) for item in source)
        if paths not in (0, len(source)):
            raise InputError("load_images: a list must hold paths only or images only. Got both. Load them one by one.")
        return _from_paths([Path(item) for item in source], recursive, masks) if paths else _from_memory(source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, Mapping | bytes):
        return _from_dataset(source)
    raise InputError(f"load_images: a {type(source).__name__} is not a source of images. {_REMEDY}")


def _from_paths(paths: Sequence[Path], recursive: bool, masks: Any) -> Images:
    """Photos and folders; ids are relative to the one folder given, else to the folder that holds all that is given."""
    given = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links keep their own names
    base = given[0] if len(given) == 1 and given[0].is_dir() else _common([path.parent for path in given])
    skip = os.path.abspath(masks) if isinstance(masks, str | os.PathLike) else ""  # noqa: PTH100
    files = [
        file for path in given for file in (_in_folder(path, recursive, skip) if path.is_dir() else [_single(path)])
    ]
    names = [_relative(file, base) for file in files]
    rows = unique([Row(name, name, FileEntry(file), file) for name, file in zip(names, files, strict=True)])
    labels = _folder_labels(names) if all(path.is_dir() for path in given) else None
    return Images(rows, labels or (None,) * len(rows), tuple(sorted(set(labels))) if labels else None)


def _in_folder(folder: Path, recursive: bool, skip: str) -> list[str]:
    try:
        found = [(_relative(file, folder), file) for file in _walk(str(folder), recursive, skip)]
    except OSError as error:
        raise InputError(f"load_images: {error.filename} cannot be listed: {error.strerror}.") from error
    if skip == str(folder):  # masks beside the photos
        stems = {os.path.splitext(name)[0] for name, _ in found}  # noqa: PTH122
        found = [(name, file) for name, file in found if mask_stem(name) not in stems]
    if not found:
        deeper = "" if recursive else " The folders in it were not searched; recursive=True does."
        raise InputError(f"load_images: {folder} holds no images. Known are {', '.join(sorted(EXTENSIONS))}.{deeper}")
    return [file for _, file in sorted(found, key=lambda pair: _natural(pair[0]))]


def _walk(folder: str, recursive: bool, skip: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link back to a folder we are in
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if recursive and entry.path != skip:
                    yield from _walk(entry.path, recursive, skip, above | {real})
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122
                yield entry.path


def _single(path: Path) -> str:
    if not path.exists():
        raise InputError(f"load_images: {path} does not exist. {_REMEDY}")
    if path.suffix.lower() not in EXTENSIONS:
        try:
            measure(path)
        except ImageError as error:
            raise InputError(f"load_images: {path.name} is neither a photo nor a list. {_REMEDY}") from error
    return str(path)


def _common(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # several drives
        return Path()


def _relative(file: str, base: Path) -> str:
    """The id of a file: its path below `base` with `/`, composed letters, and no bytes that are not text."""
    start = os.path.join(base, "")  # noqa: PTH118 - as text: there may be a million of them
    text = (file[len(start) :] if file.startswith(start) else file).replace(os.sep, "/")
    if text.isascii():
        return text
    return normalize("NFC", text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _natural(name: str) -> tuple[list[list[tuple[int, str]]], str]:
    """Sorts img2 before img10, folder by folder."""
    parts = [[(int(p), "") if p.isdecimal() else (0, p) for p in re.split("([0-9]+)", n)] for n in name.split("/")]
    return parts, name


def _folder_labels(names: Sequence[str]) -> tuple[str, ...] | None:
    """The folder directly below the base, or below train, val and the like, of every image; None if some lie free."""
    folders = [name.split("/")[:-1] for name in names]
    depth = min(len(parts) for parts in folders)
    level = 1 if depth > 1 and all(parts[0].lower() in _SPLITS for parts in folders) else 0
    return tuple(parts[level] for parts in folders) if depth else None


def _from_list(path: Path) -> Images:
    if not path.is_file():
        raise InputError(f"load_images: {path} does not exist. {_REMEDY}")
    columns = _table(path)
    key = next((name for name in _PATH_COLUMNS if name in columns), None)
    if key is None:
        raise InputError(f"load_images: {path.name} must have a column 'path'. Got: {', '.join(columns) or 'nothing'}.")
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100
    files = [_listed(cell, folder, f"{path.name}, row {i}") for i, cell in enumerate(columns.pop(key), 1)]
    if files and not any(os.path.exists(file) for file in files):  # noqa: PTH110
        raise InputError(
            f"load_images: no file of {path.name} exists, for example {files[0]}. Paths start at {folder}."
        )
    inside = all(Path(file).is_relative_to(folder) for file in files)
    base = folder if inside else _common([Path(file).parent for file in files])
    names = [_relative(file, base) for file in files]
    ids = [normalize("NFC", str(cell)) for cell in columns.pop("id", names) if cell not in (None, "")]
    if len(ids) != len(names):
        raise InputError(f"load_images: every row of {path.name} must have an id. Got {len(names) - len(ids)} without.")
    masks = [
        cell and mask_file(Path(_listed(cell, folder, path.name))) for cell in columns.pop("mask", [None] * len(names))
    ]
    rows = [Row(i, n, FileEntry(f), f, m or None) for i, n, f, m in zip(ids, names, files, masks, strict=True)]
    labels = tuple(_told(cell, path.name) for cell in columns.pop("label", [None] * len(rows)))
    return Images(unique(rows), labels, None, {name: tuple(cells) for name, cells in columns.items()})


def _listed(cell: Any, folder: Path, where: str) -> str:
    """The absolute path of a cell: below the list's folder, as a `file:` address, or written with `\\`."""
    if not isinstance(cell, str) or not cell:
        raise InputError(f"load_images: {where}: a path must be text. Got {cell!r:.60}.")
    if cell.startswith("file:"):
        cell = url2pathname(urlsplit(cell).path)
    if "\\" in cell and not (folder / cell).exists():
        cell = cell.replace("\\", "/")
    return str(os.path.abspath(folder / cell))  # noqa: PTH100


def _table(path: Path) -> dict[str, list[Any]]:
    """The columns of a list; the ones load_images knows by their lower-case name."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = _csv(path) if path.suffix.lower() in (".csv", ".tsv") else parquet.read_table(path)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"load_images: {path.name} cannot be read as a list: {reason}") from error
    names = [_column_name(name) for name in table.column_names]
    return {name: column.to_pylist() for name, column in zip(names, table.columns, strict=True)}


def _column_name(name: str) -> str:
    known = (*_PATH_COLUMNS, "label", "mask", "id")
    return name.strip().lower() if name.strip().lower() in known else name.strip()


def _csv(path: Path) -> Any:
    """Numbers stay numbers, paths and ids text. The delimiter is the one that finds a path column, or most columns."""
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

    data = path.read_bytes()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").lstrip("\r\n")
    if not text.strip():
        raise csv.Error("it is empty.")
    heads = {mark: next(csv.reader([text.splitlines()[0]], delimiter=mark)) for mark in ",;\t"}
    mark = max(heads, key=lambda m: (any(_column_name(n) in _PATH_COLUMNS for n in heads[m]), len(heads[m])))
    fixed = {n: pa.string() for n in heads[mark] if _column_name(n) in (*_PATH_COLUMNS, "mask", "id")}
    parse = ParseOptions(delimiter=mark, newlines_in_values=True)
    return read_csv(
        pa.BufferReader(text.encode()), parse_options=parse, convert_options=ConvertOptions(column_types=fixed)
    )


def _from_batch(batch: Any) -> Images:
    shape = tuple(batch.shape)
    if isinstance(batch, Tensor):
        if len(shape) not in (2, 4):
            remedy = "Add a batch axis: images[None]." if len(shape) == 3 else "Or (N, F) for a table."
            raise InputError(f"load_images: images must have shape (N, C, H, W). Got {shape}. {remedy}")
    elif len(shape) != 4 or shape[3] not in (1, 3, 4):
        first = len(shape) == 4 and shape[1] in (1, 3, 4)
        remedy = "Move the channels: images.transpose(0, 2, 3, 1)." if first else "Put one image in a list: [image]."
        raise InputError(
            f"load_images: an array of images must have shape (N, H, W, C), C 1, 3 or 4. Got {shape}. {remedy}"
        )
    return _from_memory(list(batch))


def _from_memory(pictures: Sequence[Any]) -> Images:
    for i, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            check_array(picture, f"load_images: image {i}")
        elif not isinstance(picture, Image.Image | Tensor | Photo):
            raise InputError(
                f"load_images: image {i} is a {type(picture).__name__}. Give PIL images, arrays or tensors."
            )
    photos = [picture for picture in pictures if isinstance(picture, Photo)]
    if photos and len(photos) == len(pictures):
        return Images(unique([Row(p.id, p.id, HeldEntry(p), p.uri) for p in photos]), tuple(p.label for p in photos))
    rows = tuple(Row(i, i, HeldEntry(p)) for i, p in zip(_numbered(len(pictures)), pictures, strict=True))
    return Images(rows, (None,) * len(rows))


def _numbered(n: int) -> list[str]:
    width = len(str(n - 1))
    return [f"{i:0{width}d}" for i in range(n)]


def _from_dataset(dataset: Any) -> Images:
    n = len(dataset)
    paths, labels, classes = _told_by(dataset, n)
    base = _common([Path(file).parent for file in paths]) if paths else Path()
    root = getattr(dataset, "root", None)
    if paths and isinstance(root, str | os.PathLike) and base.is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        base = Path(os.path.abspath(root))  # noqa: PTH100
    names = [_relative(file, base) for file in paths] if paths else _numbered(n)
    ids = names if len(set(names)) == n else _numbered(n)
    rows = tuple(Row(ids[i], names[i], DatasetEntry(dataset, i), paths[i] if paths else None) for i in range(n))
    return Images(rows, labels, classes)


def _told_by(dataset: Any, n: int) -> tuple[list[str] | None, tuple[Label, ...] | None, tuple[str, ...] | None]:
    """What a dataset says about its items without reading them: their paths, labels, class names."""
    if isinstance(dataset, Subset):
        paths, labels, classes = _told_by(dataset.dataset, len(cast(Any, dataset.dataset)))
        picked = [paths[i] for i in dataset.indices] if paths else None
        return picked, tuple(labels[i] for i in dataset.indices) if labels else None, classes
    samples, targets = getattr(dataset, "samples", ()), getattr(dataset, "targets", None)
    known = (
        isinstance(samples, list) and len(samples) == n and all(isinstance(s[0], str | os.PathLike) for s in samples)
    )
    paths = [os.path.abspath(s[0]) for s in samples] if known else None  # noqa: PTH100
    changed = getattr(dataset, "target_transform", None) is not None
    targets = targets if not changed and isinstance(targets, Sized) and len(targets) == n else None
    named: Any = getattr(dataset, "classes", None)
    named = named if isinstance(named, list | tuple) else ()
    words = tuple(c if isinstance(c, str) else str(c[0]) for c in named)  # ImageNet gives synonyms
    return (
        paths,
        None if targets is None else tuple(plain_label(target) for target in cast(Any, targets)),
        words or None,
    )


def _told(value: Any, where: str) -> Label:
    label = plain_label(value)
    if label is None and value is not None and value != "" and value == value:  # an empty cell may be NaN
        raise InputError(f"load_images: {where}: a label must be a class name or number. Got {value!r:.60}.")
    return label


def _relabelled(images: Images, labels: Any) -> tuple[Label, ...]:
    if isinstance(labels, Mapping):
        unknown = next((key for key in labels if key not in images._positions), None)
        if unknown is not None:
            raise no_such("image", str(unknown), list(images.ids[:10_000]), "labels must be given by image id.")
        return tuple(_told(labels.get(row.id, images._own_label(i)), "labels") for i, row in enumerate(images._rows))
    if isinstance(labels, str) or not hasattr(labels, "__len__"):
        raise InputError(f"load_images: labels must be one per image, or by id. Got a {type(labels).__name__}.")
    if len(labels) != len(images):
        raise InputError(f"load_images: labels must be one per image, {len(images)}. Got {len(labels)}.")
    return tuple(_told(label, "labels") for label in labels)
