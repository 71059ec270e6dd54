"""Where the objects of an image are, from mask files, arrays, Pascal VOC and COCO annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .annotations import VOC_NAMES, CocoFile, CocoRecord, VocRecord, fill_box, read_voc
from .decode import guarded, upright
from .errors import ImageError, InputError, no_such
from .placement import Box

MASK_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp", ".gif")  # lossless only
Frame = tuple[int, int, int]  # height and width of the upright photo, its EXIF orientation
Label = str | int | None
_VOID = 255
_VOC, _COCO = "#voc=", "#coco="  # in addresses, between the file or folder and the image's name there


@dataclass(frozen=True)
class Mask:
    """Where the objects of one class are in one upright photo."""

    inside: Tensor  # (H, W) bool
    ignored: Tensor  # (H, W) bool: pixels that count neither way
    difficult: bool = False  # every object of the class is marked difficult


@dataclass(frozen=True)
class Annotated:
    """One annotated object of an upright photo; `inside` ``(H, W)`` bool is None where only its box is known."""

    name: str | None  # of its class; None where the annotation names none
    box: Box
    inside: Tensor | None = None


class MaskSource(Protocol):
    """What is known about one image; `of` is the class asked for, `own` the name of the image's own class."""

    @property
    def uri(self) -> str | None:
        """Where it is read from, for `reopen`; None for what is only in memory."""
        ...

    def read(self, frame: Frame, of: Label, own: str | None) -> Mask:
        """The mask in the frame of the upright photo."""
        ...

    def objects(self, frame: Frame) -> tuple[Annotated, ...]:
        """The objects one by one, crowds left out; a picture of one mask is one object."""
        ...


@dataclass(frozen=True)
class MaskFile:
    """One mask picture. A palette picture holds VOC class numbers, 255 ignored; in a grey one all above 0 is inside."""

    path: Path

    @property
    def uri(self) -> str:
        """The file."""
        return str(self.path)

    def read(self, frame: Frame, of: Label, own: str | None) -> Mask:
        """By class where the picture has classes."""
        numbers, by_class = guarded(self.path, _read_numbers)
        if not by_class:
            return _mask(numbers > 0, np.zeros_like(numbers, dtype=np.bool_), frame, self.path.name)
        return _class_mask(numbers, _voc_number(of, own), frame, self.path.name)

    def objects(self, frame: Frame) -> tuple[Annotated, ...]:
        """All of the picture as one object."""
        return _whole(None, self.read(frame, None, None).inside)


@dataclass(frozen=True)
class MaskArray:
    """A mask given in memory: all but 0 is inside."""

    inside: Tensor
    name: str
    uri = None

    def read(self, frame: Frame, of: Label, own: str | None) -> Mask:  # noqa: ARG002 - one object of any class
        """The mask as given, whatever the class."""
        inside = self.inside.numpy()
        return _mask(inside, np.zeros_like(inside), frame, self.name)

    def objects(self, frame: Frame) -> tuple[Annotated, ...]:
        """The mask as one object."""
        return _whole(None, self.read(frame, None, None).inside)


@dataclass(frozen=True)
class VocImage:
    """One image of a VOC folder: its pixel classes where they exist, else its boxes."""

    folder: VocFolder
    stem: str

    @property
    def uri(self) -> str:
        """The folder and the image's name in it."""
        return f"{self.folder.root}{_VOC}{self.stem}"

    def read(self, frame: Frame, of: Label, own: str | None) -> Mask:
        """Pixels of `SegmentationClass` where they know the class, else filled boxes."""
        record = self.folder.record(self.stem)
        name = self.folder.chosen(of, own, record)
        objects = [entry for entry in record.objects if name in (None, entry.name)]
        difficult = bool(objects) and all(entry.difficult for entry in objects)
        picture = self.folder.pictures.get(self.stem)
        if picture is not None and (name is None or name in VOC_NAMES):
            numbers, _ = guarded(picture, _read_numbers)
            number = None if name is None else VOC_NAMES.index(name) + 1
            return _class_mask(numbers, number, frame, picture.name, difficult)
        size = record.size or frame[:2]
        _check_size(size, frame, f"{self.stem}.xml")
        inside = np.zeros(size, dtype=np.bool_)
        for entry in objects:
            inside |= fill_box(entry.box, size)
        return _mask(inside, np.zeros_like(inside), frame, f"{self.stem}.xml", difficult)

    def objects(self, frame: Frame) -> tuple[Annotated, ...]:
        """The boxes of the XML, upright; `SegmentationClass` does not tell objects apart."""
        record = self.folder.record(self.stem)
        size = record.size or frame[:2]
        found = []
        for entry in record.objects:
            mask = _mask(fill_box(entry.box, size), np.zeros(size, np.bool_), frame, f"{self.stem}.xml")
            found += [Annotated(one.name, one.box) for one in _whole(entry.name, mask.inside)]
        return tuple(found)


class VocFolder:
    """A VOC root: `Annotations/*.xml` and `SegmentationClass/*.png`, either of them may be missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures = {path.stem: path for path in sorted(root.glob("SegmentationClass/*.png"))}
        self._records = {path.stem: path for path in sorted(root.glob("Annotations/*.xml"))}

    def find(self, name: str) -> VocImage | None:
        """What the folder knows about the image of this file name, if anything."""
        stem = PurePosixPath(name).stem
        return VocImage(self, stem) if stem in self.pictures or stem in self._records else None

    def record(self, stem: str) -> VocRecord:
        """The objects of one image, none where it has no XML."""
        path = self._records.get(stem)
        return VocRecord((), None) if path is None else read_voc(path)

    def chosen(self, of: Label, own: str | None, record: VocRecord) -> str | None:
        """The class name meant, None for any object."""
        near = {*VOC_NAMES, *(entry.name for entry in record.objects)}
        if of is None:
            return own if own is not None and (own in near or own in self._names) else None
        if isinstance(of, int):
            return VOC_NAMES[_voc_index(of) - 1]
        if of not in near and of not in self._names:
            raise _no_class(of, sorted(near | self._names))
        return of

    @cached_property
    def _names(self) -> frozenset[str]:
        """Every class of every file; read only when a name is asked for that is not one of the twenty."""
        return frozenset(entry.name for path in self._records.values() for entry in read_voc(path).objects)


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file; crowds are ignored, not inside."""

    file: CocoFile
    record: CocoRecord
    name: str

    @property
    def uri(self) -> str:
        """The file and the image's name in it."""
        return f"{self.file.path}{_COCO}{self.name}"

    def read(self, frame: Frame, of: Label, own: str | None) -> Mask:
        """The union of the objects of the class; an image without any has an empty mask."""
        wanted = self._wanted(of, own)
        size = self.record.size or frame[:2]
        _check_size(size, frame, self.name)
        inside, crowd = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
        for entry in self.record.objects:
            if entry.category not in wanted:
                continue
            try:
                pixels = entry.pixels(size)
                np.logical_or(crowd if entry.crowd else inside, pixels, out=crowd if entry.crowd else inside)
            except (ValueError, LookupError, TypeError, ArithmeticError) as error:
                raise ImageError(f"{self.name}: an annotated shape cannot be read: {error}.") from error
        return _mask(inside, crowd & ~inside, frame, self.name)

    def objects(self, frame: Frame) -> tuple[Annotated, ...]:
        """Every annotated object but crowds; one without a shape has its box alone."""
        size = self.record.size or frame[:2]
        _check_size(size, frame, self.name)
        found = []
        for entry in self.record.objects:
            if entry.crowd:
                continue
            try:
                mask = _mask(entry.pixels(size), np.zeros(size, np.bool_), frame, self.name)
            except (ValueError, LookupError, TypeError, ArithmeticError) as error:
                raise ImageError(f"{self.name}: an annotated shape cannot be read: {error}.") from error
            name = self.file.categories.get(entry.category)
            found += [one if entry.shape else Annotated(one.name, one.box) for one in _whole(name, mask.inside)]
        return tuple(found)

    def _wanted(self, of: Label, own: str | None) -> set[int]:
        known = self.file.categories
        if of is None:
            return {number for number, name in known.items() if name == own} or set(known)
        found = {number for number, name in known.items() if of in (name, number)}
        if not found:
            raise _no_class(
                of, [f"{name} ({number})" if isinstance(of, int) else name for number, name in known.items()]
            )
        return found


def attach(masks: Any, names: Sequence[str], photos: Sequence[str | None]) -> tuple[MaskSource | None, ...]:
    """For every image, by its relative path, what the `masks` argument of `load_images` says about it."""
    if isinstance(masks, str | os.PathLike):
        return _attach_path(Path(masks), names, photos)
    if not isinstance(masks, Sequence | Tensor | np.ndarray):
        raise InputError(
            f"load_images: masks must be a folder, a COCO .json file or one mask per image. Got {type(masks).__name__}."
        )
    if len(masks) != len(names):
        raise InputError(f"load_images: masks must hold one mask per image, {len(names)}. Got {len(masks)}.")
    return tuple(_given(mask, name) for mask, name in zip(masks, names, strict=True))


def reopen(uri: str) -> MaskSource:
    """The source of masks with this `uri`."""
    if _COCO in uri:
        path, _, name = uri.rpartition(_COCO)
        file = _coco_file(Path(path))
        record = file.find(name)
        if record is None:
            raise InputError(f"{path} no longer holds the image '{name}'.")
        return CocoImage(file, record, name)
    if _VOC in uri:
        root, _, stem = uri.rpartition(_VOC)
        return VocImage(_voc_folder(Path(root)), stem)
    return MaskFile(Path(uri))


_coco_file, _voc_folder = lru_cache(maxsize=4)(CocoFile), lru_cache(maxsize=4)(VocFolder)


def mask_stem(name: str) -> str | None:
    """'a/cat' of 'a/cat_mask.png' and 'a/cat.mask.png', None for any other name."""
    key = str(PurePosixPath(name).with_suffix(""))
    return key[:-5] if key.endswith(("_mask", ".mask")) else None


def _attach_path(path: Path, names: Sequence[str], photos: Sequence[str | None]) -> tuple[MaskSource | None, ...]:
    if not path.exists():
        raise InputError(f"load_images: masks must be an existing folder or file. Got {path}.")
    found: tuple[MaskSource | None, ...]
    if path.suffix.lower() == ".json":
        coco = CocoFile(path)
        records = [coco.find(name) for name in names]
        found = tuple(CocoImage(coco, r, name) if r else None for r, name in zip(records, names, strict=True))
        expected = "its 'file_name' entries must be the images' relative paths or file names"
    elif (path / "Annotations").is_dir() or (path / "SegmentationClass").is_dir():
        voc = VocFolder(path)
        found = tuple(voc.find(name) for name in names)
        expected = "the files of Annotations and SegmentationClass must have the images' names"
    elif path.is_dir():
        found = _attach_folder(path, names, photos)
        expected = f"the masks must have the images' relative paths and end in {', '.join(MASK_EXTENSIONS)}"
    else:
        raise InputError(f"load_images: masks must be a folder or a COCO .json file. Got {path.name}.")
    if not any(found):
        raise InputError(f"load_images: {path} holds no mask for any image, for example {names[0]}: {expected}.")
    return found


def _attach_folder(path: Path, names: Sequence[str], photos: Sequence[str | None]) -> tuple[MaskFile | None, ...]:
    taken = set(photos)
    files: dict[str, Path] = {}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() not in MASK_EXTENSIONS or os.path.abspath(file) in taken:  # noqa: PTH100 - no links followed
            continue
        key = file.relative_to(path).with_suffix("").as_posix()
        if key in files:
            raise InputError(
                f"load_images: two masks for one image: {files[key].name} and {file.name} in {file.parent}."
            )
        files[key] = file
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    chosen = [next((files[s + end] for end in ("", "_mask", ".mask") if s + end in files), None) for s in stems]
    return tuple(MaskFile(file) if file else None for file in chosen)


def _given(mask: Any, name: str) -> MaskSource | None:
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        return mask_file(Path(mask))
    inside = torch.as_tensor(np.asarray(mask) if not isinstance(mask, Tensor) else mask.detach().cpu()) != 0
    inside = inside[0] if inside.ndim == 3 and inside.shape[0] == 1 else inside
    if inside.ndim != 2:
        raise InputError(f"load_images: masks must have shape (H, W). Got {tuple(inside.shape)} for image '{name}'.")
    return MaskArray(inside, name)


def mask_file(path: Path) -> MaskFile:
    """A mask of a lossless format; compression that loses would turn its zeros into small numbers."""
    if path.suffix.lower() not in MASK_EXTENSIONS:
        raise InputError(f"load_images: a mask must end in {', '.join(MASK_EXTENSIONS)}. Got {path.name}.")
    return MaskFile(path)


def _read_numbers(stream: BinaryIO, name: str) -> tuple[np.ndarray[Any, Any], bool]:
    """The values (H, W) of a mask picture, and whether they are class numbers (palette) or just inside and outside."""
    with Image.open(stream, formats=["PNG", "TIFF", "BMP", "GIF"]) as picture:
        if picture.mode == "P":
            return np.array(picture), True
        if picture.mode in ("LA", "RGB", "RGBA", "PA"):
            colour = np.array(picture.convert("RGB"))
            if (colour != colour[..., :1]).any():
                raise ImageError(f"{name} is a colour picture. A mask must be grey (above 0: inside) or palette.")
            return colour[..., 0], False
        return np.array(picture), False


def _whole(name: str | None, inside: Tensor) -> tuple[Annotated, ...]:
    """An object by its pixels, with the box around them; none where it has no pixel."""
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    if not len(rows):
        return ()
    box = (float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1)
    return (Annotated(name, box, inside),)


def _class_mask(
    numbers: np.ndarray[Any, Any], number: int | None, frame: Frame, name: str, difficult: bool = False
) -> Mask:
    ignored = numbers == _VOID
    return _mask(numbers == number if number else (numbers > 0) & ~ignored, ignored, frame, name, difficult)


def _mask(inside: Any, ignored: Any, frame: Frame, name: str, difficult: bool = False) -> Mask:
    _check_size(inside.shape, frame, name)
    layers = torch.from_numpy(np.stack([inside, ignored]))
    if layers.shape[1:] != frame[:2]:
        layers = upright(layers, frame[2])
    return Mask(layers[0], layers[1], difficult)


def _check_size(size: tuple[int, ...], frame: Frame, name: str) -> None:
    """A mask must fit the photo upright or, where that is another size, as it is stored."""
    height, width, orientation = frame
    if size != (height, width) and not (orientation >= 5 and size == (width, height)):
        raise ImageError(
            f"The mask of {name} is {size[1]} x {size[0]} pixels, its photo {width} x {height}. They must be equal."
        )


def _voc_number(of: Label, own: str | None) -> int | None:
    """The number of a class in a palette picture, None for any object."""
    if of is None:
        return VOC_NAMES.index(own) + 1 if own in VOC_NAMES else None
    if isinstance(of, int):
        return _voc_index(of, 254)
    if of not in VOC_NAMES:
        raise _no_class(of, list(VOC_NAMES))
    return VOC_NAMES.index(of) + 1


def _voc_index(of: int, most: int = len(VOC_NAMES)) -> int:
    if not 1 <= of <= most:
        raise InputError(f"mask: a class number must lie in [1, {most}]. Got {of}.")
    return of


def _no_class(of: str | int, known: list[str]) -> InputError:
    shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    return no_such("class", str(of), known, f"The annotation knows: {shown}.")
