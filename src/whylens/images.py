"""Sources of images: files, folders, lists, arrays and datasets, behind one sequence that decodes when asked."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .decode import decode, from_pil, measure
from .errors import ImageError, InputError, MissingExtra, no_such
from .masks import Annotated, Frame, Label, Mask, MaskSource
from .pixels import to_pixels


@dataclass(frozen=True)
class Photo:
    """One decoded image."""

    id: str
    pixels: Tensor  # (C, H, W), C = 1 or 3, uint8 or float32 in [0, 1], upright; a tensor the caller gave: as it is
    label: Label = None
    orientation: int = 1  # EXIF orientation that was applied
    uri: str | None = None  # where it was read from


@dataclass(frozen=True)
class Unreadable:
    """One image that could not be decoded, and why."""

    id: str
    reason: str
    label: Label = None
    uri: str | None = None


class Entry(Protocol):
    """Where the pixels of one image come from."""

    def read(self, name: str) -> tuple[Tensor, int, Label]:
        """Pixels, orientation, and the label if the image brings its own."""
        ...


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file on disk."""

    path: str

    def read(self, name: str) -> tuple[Tensor, int, Label]:  # noqa: ARG002 - a file is named by its own name
        """Pixels, orientation, and the label if the image brings its own."""
        return (*decode(self.path), None)


@dataclass(frozen=True, slots=True)
class HeldEntry:
    """A picture in memory."""

    picture: Any

    def read(self, name: str) -> tuple[Tensor, int, Label]:
        """Pixels, orientation, and the label if the image brings its own."""
        return (*pixels_of(self.picture, name), None)


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """An item of a torch dataset."""

    dataset: Any
    index: int

    def read(self, name: str) -> tuple[Tensor, int, Label]:
        """Pixels, orientation, and the label if the image brings its own."""
        picture, label = self.item()
        return (*pixels_of(picture, name), label)

    def item(self) -> tuple[Any, Label]:
        """The item's picture and label; what the dataset's own code raises becomes the reason."""
        try:
            item = self.dataset[self.index]
        except Exception as error:  # the dataset is the caller's code
            text = " ".join(str(error).split())
            raise ImageError(f"Item {self.index} of the dataset raised {type(error).__name__}: {text}") from error
        if isinstance(item, Mapping):
            names = [key for key in ("image", "pixel_values", "img") if key in item]
            if not names:
                raise ImageError(
                    f"Item {self.index} of the dataset has no 'image'. It has: {', '.join(map(str, item))}."
                )
            return item[names[0]], plain_label(item.get("label", item.get("labels")))
        if isinstance(item, tuple | list) and item:
            return item[0], plain_label(item[1]) if len(item) > 1 else None
        return item, None


@dataclass(frozen=True, slots=True)
class Row:
    """One image of an `Images`: its names, where its pixels and its mask come from."""

    id: str
    name: str  # relative path; what mask files are matched by
    entry: Entry
    uri: str | None = None
    mask: MaskSource | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A sequence of images that are decoded when asked for; made by `load_images` and never changed."""

    _rows: tuple[Row, ...]
    _labels: tuple[Label, ...] | None = None  # None: only the items themselves know
    classes: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    origin: Mapping[str, Any] | None = None  # arguments with which `load_images` finds these images again

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The name of every image, unique."""
        return tuple(row.id for row in self._rows)

    @cached_property
    def uris(self) -> tuple[str | None, ...]:
        """The absolute path of every image that is a file."""
        return tuple(row.uri for row in self._rows)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The true class of every image; a dataset that does not list its labels is read once for them."""
        return tuple(self._own_label(i) for i in range(len(self))) if self._labels is None else self._labels

    @cached_property
    def mask_uris(self) -> tuple[str | None, ...]:
        """Where the mask of every image is read from, for `masks.reopen`."""
        return tuple(None if row.mask is None else row.mask.uri for row in self._rows)

    @property
    def reopen(self) -> bool:
        """Whether all pixels and masks are read from files, so that another process can read them too."""
        return all(
            isinstance(row.entry, FileEntry) and (row.mask is None or row.mask.uri is not None) for row in self._rows
        )

    def fingerprint(self, i: int) -> str | None:
        """What tells the content of image `i` from another under its name: a file's size, pixels in memory hashed."""
        entry = self._rows[i].entry
        if isinstance(entry, FileEntry):
            with suppress(OSError):
                return str(os.stat(entry.path).st_size)  # noqa: PTH116 - as text: there may be a million of them
        if isinstance(entry, HeldEntry):
            pixels, orientation, _ = entry.read(self._rows[i].id)
            return f"{sha256(pixels.contiguous().numpy().tobytes()).hexdigest()[:32]}-{orientation}"
        return None

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shown = ", ".join(self.ids[:3]) + (", ..." if len(self) > 3 else "")
        return f"Images({len(self)}: {shown})"

    def __iter__(self) -> Iterator[Photo]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Photo:
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"There are {len(self)} images. Got number {i}.")
        row = self._rows[i]
        pixels, orientation, label = row.entry.read(row.id)
        return Photo(row.id, pixels, label if self._labels is None else self._labels[i], orientation, row.uri)

    def subset(self, keys: Sequence[int] | Sequence[str] | slice) -> Images:
        """The images at these positions or of these ids, in the order asked."""
        chosen = range(len(self))[keys] if isinstance(keys, slice) else [self._position(key) for key in keys]
        labels = None if self._labels is None else tuple(self._labels[i] for i in chosen)
        columns = {name: tuple(values[i] for i in chosen) for name, values in self.columns.items()}
        return Images(unique([self._rows[i] for i in chosen]), labels, self.classes, columns)

    def stream(self, *, workers: int | None = None, ahead: int = 32) -> Iterator[Photo | Unreadable]:
        """All images in order, decoded by threads, at most `ahead` before they are asked for.

        Closing the iterator stops the threads. A dataset is read by one thread: its code need not bear more.
        """
        if ahead < 1 or (workers is not None and workers < 1):
            raise InputError(f"stream: workers and ahead must be >= 1. Got {workers} and {ahead}.")
        if any(isinstance(row.entry, DatasetEntry) for row in self._rows):
            workers = 1
        return self._streamed(workers or min(8, os.cpu_count() or 1), ahead)

    def decoded(self, failures: dict[str, str]) -> Images:
        """The same images with their photos in memory; those that cannot be read become `failures` and are left out."""
        photos = {}
        for photo in self.stream():
            if isinstance(photo, Unreadable):
                failures[photo.id] = photo.reason
            else:
                photos[photo.id] = photo
        kept = self.subset(list(photos))
        rows = tuple(replace(row, entry=HeldEntry(photos[row.id])) for row in kept._rows)
        return replace(kept, _rows=rows, _labels=tuple(photo.label for photo in photos.values()))

    def mask(self, i: int, *, of: Label = None) -> Mask | None:
        """Where class `of` is in image `i`; None where nothing is annotated.

        Without `of`: the image's own class where the annotation knows its name, else any object.
        """
        source = self._rows[i].mask
        return None if source is None else source.read(self._frame(i), of, self._own_name(i))

    def objects(self, i: int) -> tuple[Annotated, ...] | None:
        """The annotated objects of image `i`, one by one; None where nothing is annotated."""
        source = self._rows[i].mask
        return None if source is None else source.objects(self._frame(i))

    def _streamed(self, workers: int, ahead: int) -> Iterator[Photo | Unreadable]:
        waiting: deque[Future[Photo | Unreadable]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="whylens-decode")
        try:
            for i in range(len(self)):
                waiting.append(pool.submit(self._settled, i))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _settled(self, i: int) -> Photo | Unreadable:
        try:
            return self[i]
        except (ImageError, MissingExtra) as error:
            row = self._rows[i]
            return Unreadable(row.id, str(error), None if self._labels is None else self._labels[i], row.uri)

    def _position(self, key: int | str) -> int:
        if isinstance(key, str):
            if key not in self._positions:
                raise no_such("image", key, list(self.ids[:10_000]), f"There are {len(self)} images.")
            return self._positions[key]
        i = operator.index(key)
        if not -len(self) <= i < len(self):
            raise InputError(f"subset: positions must lie in [0, {len(self) - 1}]. Got {i}.")
        return i % len(self)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {row.id: i for i, row in enumerate(self._rows)}

    def _own_label(self, i: int) -> Label:
        if self._labels is not None:
            return self._labels[i]
        entry = self._rows[i].entry
        try:
            return entry.item()[1] if isinstance(entry, DatasetEntry) else None
        except ImageError:
            return None  # `stream` and `images[i]` give the reason

    def _own_name(self, i: int) -> str | None:
        label = self._own_label(i)
        if isinstance(label, int):
            return self.classes[label] if self.classes and 0 <= label < len(self.classes) else None
        return label

    def _frame(self, i: int) -> Frame:
        row = self._rows[i]
        if isinstance(row.entry, FileEntry):
            return measure(row.entry.path)
        pixels, orientation, _ = row.entry.read(row.id)
        if pixels.ndim < 2:
            raise InputError(f"mask: image '{row.id}' has shape {tuple(pixels.shape)}, no height and width.")
        return pixels.shape[-2], pixels.shape[-1], orientation


def unique(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, if no id stands twice."""
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(
                f"load_images: ids must be unique. Got '{row.id}' twice. A list can name them in a column 'id'."
            )
        seen.add(row.id)
    return tuple(rows)


def check_array(array: np.ndarray[Any, Any], name: str) -> None:
    """Refuse an array that is no picture (H, W) or (H, W, C)."""
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        remedy = " Move the channels: image.transpose(1, 2, 0)." if first else ""
        raise ImageError(f"{name} must have shape (H, W) or (H, W, C), C 1, 3 or 4. Got {array.shape}.{remedy}")


def pixels_of(picture: Any, name: str) -> tuple[Tensor, int]:
    """Pixels and orientation of a picture in memory: PIL, array, tensor or Photo."""
    if isinstance(picture, Photo):
        return picture.pixels, picture.orientation
    if isinstance(picture, Tensor):
        picture = picture.detach()
        return (picture if picture.dtype == torch.uint8 else picture.float()), 1
    if isinstance(picture, Image.Image):
        return from_pil(picture, f"Image '{name}'")
    if isinstance(picture, np.ndarray):
        check_array(picture, f"Image '{name}'")
        return to_pixels(picture, f"Image '{name}'"), 1
    if isinstance(picture, str | os.PathLike):
        return decode(picture)
    raise ImageError(f"Image '{name}' is a {type(picture).__name__}, not a PIL image, array or tensor.")


def plain_label(value: Any) -> Label:
    """A class name or number, from plain values, arrays or tensors of one; None for anything else."""
    value = value.item() if isinstance(value, Tensor | np.generic | np.ndarray) and value.ndim == 0 else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return value or None
    return int(value) if isinstance(value, int) else None
