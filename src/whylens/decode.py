"""Reading one photo file: every bit depth, upright, alpha over white. A damaged file is one sentence, no traceback."""

from __future__ import annotations

import logging
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .dicom import read_dicom
from .errors import ImageError, MissingExtra
from .pixels import Array, check_area, to_pixels, too_large, unit

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
EXTENSIONS = DICOM_EXTENSIONS | {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".gif", ".ppm"),
    *(".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".tga", ".avif", ".heic", ".heif"),
}
_FLIPS = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}
_ORIENTATION, _BITS, _PHOTOMETRIC, _PLANAR = 0x0112, 258, 262, 284  # TIFF and EXIF tags
_DEEP = frozenset(f"{kind};16{order}" for kind in ("RGB", "RGBA", "RGBX") for order in "BLN") | {"LA;16B"}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_READERS = re.compile(r"(PIL|tifffile|pydicom)(\.|$)")

T = TypeVar("T")
Source = str | os.PathLike[str] | bytes


def decode(source: Source) -> tuple[Tensor, int]:
    """The upright pixels of one photo and the EXIF orientation that was applied.

    pixels: (C, H, W), C = 1 (grey) or 3; uint8 for 8-bit files, else float32 in [0, 1] (16 bit: value / 65535).
    Alpha is composed over white, CMYK becomes RGB, of several frames the first is taken; colour profiles are ignored.
    """
    return guarded(source, _read)


def measure(source: Source) -> tuple[int, int, int]:
    """Height and width of the upright photo and its orientation, from the header alone where the format allows."""
    return guarded(source, _measure)


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Stored pixels (..., H, W) turned as the EXIF orientation 1 to 8 asks."""
    if orientation >= 5:
        pixels = pixels.transpose(-2, -1)
    return pixels.flip(_FLIPS[orientation]).contiguous() if orientation in _FLIPS else pixels.contiguous()


def from_pil(picture: Image.Image, name: str) -> tuple[Tensor, int]:
    """Upright pixels and orientation of a PIL image the caller holds."""
    try:
        with _quiet:
            return _from_pil(picture, name)
    except ImageError:
        raise
    except Exception as error:  # it may still have to be read from its file
        raise ImageError(_reason(name, error)) from error


def _from_pil(picture: Image.Image, name: str) -> tuple[Tensor, int]:
    if picture.mode == "LAB":
        raise ImageError(f"{name} has Lab colours, which are not supported. Convert it to RGB.")
    keep = picture.format == "TIFF"  # pillow turns these itself while loading
    orientation = _orientation(picture)
    stored = to_pixels(_values(picture), name)
    return (stored if keep else upright(stored, orientation)), orientation


class _Quiet:
    """Silences the readers' own warnings while any thread decodes; `catch_warnings` is not made for threads."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._entry: Any = None
        self._lists: list[list[Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._entry = ("ignore", None, Warning, _READERS, 0)
                self._lists = [cast(list[Any], warnings.filters)]
                self._lists[0].insert(0, self._entry)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for filters in (*self._lists, cast(list[Any], warnings.filters)):
                    if self._entry in filters:
                        filters.remove(self._entry)


_quiet = _Quiet()
for _reader in ("PIL", "tifffile"):  # else what they log about a damaged file is also printed
    logging.getLogger(_reader).addHandler(logging.NullHandler())


def guarded(source: Source, read: Callable[[BinaryIO, str], T]) -> T:
    """What `read(stream, name)` makes of a file; whatever goes wrong is an `ImageError` of one sentence."""
    name = "image" if isinstance(source, bytes) else os.path.basename(os.fspath(source))  # noqa: PTH119 - keeps odd names
    try:
        with _quiet, _open(source, name) as stream:
            return read(stream, name)
    except (ImageError, MissingExtra):
        raise
    except Exception as error:  # what is in the file is not ours: a damaged one can make a reader raise anything
        raise ImageError(_reason(name, error)) from error


def _open(source: Source, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        size, stream = len(source), cast(BinaryIO, BytesIO(source))
    else:
        status = Path(source).stat()
        if not S_ISREG(status.st_mode):
            raise ImageError(f"{name} is {'a folder' if S_ISDIR(status.st_mode) else 'not a regular file'}.")
        size, stream = status.st_size, cast(BinaryIO, Path(source).open("rb"))  # noqa: SIM115 - the caller closes it
    if size == 0:
        stream.close()
        raise ImageError(f"{name} is empty (0 bytes).")
    return stream


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist."
    if isinstance(error, PermissionError):
        return f"{name} may not be read: permission denied."
    if isinstance(error, MemoryError):
        return f"{name} needs more memory than there is."
    if isinstance(error, Image.DecompressionBombError):
        return too_large(name)
    if isinstance(error, UnidentifiedImageError):
        heic = " HEIC photos must be converted to JPEG first." if name.lower().endswith((".heic", ".heif")) else ""
        return f"{name} is not an image in a known format.{heic}"
    return f"{name} is damaged or cut short."


def _read(stream: BinaryIO, name: str) -> tuple[Tensor, int]:
    head = stream.read(132)
    stream.seek(0)
    if _is_dicom(head, name):
        return to_pixels(read_dicom(stream, name), name), 1
    if head[:4] in _TIFF:
        return _tiff(stream, name)
    with Image.open(stream, formats=_formats()) as picture:
        if picture.format == "PNG" and _raw_mode(picture) in _DEEP:
            return upright(to_pixels(_deep_colour(stream, picture), name), _orientation(picture)), _orientation(picture)
        return _from_pil(picture, name)


def _measure(stream: BinaryIO, name: str) -> tuple[int, int, int]:
    head = stream.read(132)
    stream.seek(0)
    if _is_dicom(head, name) or head[:4] in _TIFF:
        pixels, orientation = _read(stream, name)
        return pixels.shape[-2], pixels.shape[-1], orientation
    with Image.open(stream, formats=_formats()) as picture:
        orientation, (width, height) = _orientation(picture), picture.size
        return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def _is_dicom(head: bytes, name: str) -> bool:
    return head[128:] == b"DICM" or Path(name).suffix.lower() in DICOM_EXTENSIONS


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]  # EPS would start another program on an unknown file


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error, OverflowError):
        return 1  # a damaged EXIF block says nothing; the picture itself may be whole
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _values(picture: Image.Image) -> Array:
    """The stored values of a PIL image as (H, W) or (H, W, c)."""
    if picture.mode == "F":
        return np.array(picture)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _deep_grey(np.array(picture), picture.info.get("transparency"))
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        return np.array(picture.convert("LA" if grey else "RGBA"))
    return np.array(picture.convert("L" if grey else "RGB"))


def _deep_grey(values: Array, clear: object) -> Array:
    if values.dtype.kind == "i" and not (values.min() >= 0 and values.max() <= 65535):
        return values
    values = values.astype(np.uint16)
    return _with_clear(values[..., None], clear) if isinstance(clear, int) else values


def _with_clear(values: Array, clear: object) -> Array:
    """16-bit values with an alpha channel that is zero where all channels have the colour declared transparent."""
    alpha = np.where((values == clear).all(axis=-1, keepdims=True), 0, 65535)
    return np.concatenate([values, alpha.astype(np.uint16)], axis=-1)


def _raw_mode(picture: Image.Image) -> str:
    tiles = getattr(picture, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _deep_colour(stream: BinaryIO, picture: Image.Image) -> Array:
    """16-bit colour. Pillow keeps the high bytes; read again with the byte order swapped it gives the low ones."""
    raw, formats = _raw_mode(picture), [str(picture.format)]

    def plane(rawmode: str) -> Array:
        stream.seek(0)
        with Image.open(stream, formats=formats) as again:
            file = cast(Any, again)
            file.tile = [_retiled(tile, rawmode) for tile in file.tile]
            return np.array(again)

    if raw == "LA;16B":  # four bytes a pixel, which is what RGBA has
        return plane("RGBA").view(">u2").astype(np.uint16)
    order = raw[-1].replace("N", sys.byteorder[0].upper())
    low = plane(raw[:-1] + {"B": "L", "L": "B"}[order]).astype(np.uint16)
    values = plane(raw).astype(np.uint16) * 256 + low
    clear = picture.info.get("transparency")
    return _with_clear(values, clear) if isinstance(clear, tuple) else values


def _retiled(tile: Any, rawmode: str) -> Any:
    arguments = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _tiff(stream: BinaryIO, name: str) -> tuple[Tensor, int]:
    """Up to 8 bits a sample by pillow; above by tifffile, and where that lacks the codec by pillow again."""
    try:
        with Image.open(stream, formats=["TIFF"]) as picture:
            tags = cast(Any, picture).tag_v2
            if max(tags.get(_BITS, (1,))) <= 8:
                return _from_pil(picture, name)
    except UnidentifiedImageError:
        tags = {}
    stream.seek(0)
    import tifffile

    with tifffile.TiffFile(stream) as file:
        orientation = file.pages.first.tags.valueof(_ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        try:
            values = _tifffile(file, name)
        except (ValueError, LookupError, TypeError, NotImplementedError) as error:
            if "imagecodecs" not in str(error) or not tags or tags.get(_PLANAR, 1) != 1:
                raise
            return _packed_tiff(stream, name)
    return upright(to_pixels(values, name), orientation), orientation


def _packed_tiff(stream: BinaryIO, name: str) -> tuple[Tensor, int]:
    stream.seek(0)
    with Image.open(stream, formats=["TIFF"]) as picture:
        tags, orientation = cast(Any, picture).tag_v2, _orientation(picture)
        if picture.mode == "F" or picture.mode.startswith("I;16"):
            bits, white_is_zero = tags.get(_BITS, (16,))[0], tags.get(_PHOTOMETRIC) == 0
            values = unit(np.array(picture), name, bits)
            return to_pixels(1 - values if white_is_zero else values, name), orientation
        if _raw_mode(picture) in _DEEP:
            return to_pixels(_deep_colour(stream, picture), name), orientation
    raise ImageError(f"{name} is a TIFF with an unusual compression. Save it again without compression.")


def _tifffile(file: Any, name: str) -> Array:
    """The first page as (H, W, c), colours of `to_pixels`: grey or RGB, with straight alpha."""
    page, first = file.pages.first, file.series[0]
    check_area(page.imagewidth, page.imagelength, name)
    if first.kind == "shaped" and first.shape[1:] == page.shape and first.shape[-1] in (3, 4):
        check_area(first.shape[1], first.shape[0], name)
        return np.asarray(first.asarray())  # an (H, W, 3) array of which each row was written as a page
    values, axes = page.asarray(), page.axes
    if axes not in ("YX", "YXS", "SYX"):
        raise ImageError(f"{name} is a TIFF with axes {axes}, not a photo. Save one plane of it as grey or RGB.")
    values = np.atleast_3d(np.moveaxis(values, 0, -1) if axes == "SYX" else values)
    colours = {0: 1, 1: 1, 2: 3, 5: 4}.get(int(page.photometric), 0)
    if not 0 < colours <= values.shape[2] <= colours + 1:
        raise ImageError(
            f"{name} is a TIFF whose colours are not known ({values.shape[2]} channels). Save it as grey or RGB."
        )
    return _tiff_colours(unit(values, name, page.bitspersample), colours, page)


def _tiff_colours(values: Array, colours: int, page: Any) -> Array:
    colour, alpha = values[..., :colours], values[..., colours:]
    if page.photometric == 0:  # white is zero
        colour = 1 - colour
    if page.photometric == 5:  # CMYK
        colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
    kind = int(page.extrasamples[0]) if page.extrasamples else 2
    if alpha.shape[2] == 0 or kind == 0:
        return colour
    if kind == 1:  # colours already multiplied by alpha
        return np.asarray(np.clip(colour + (1 - alpha), 0, 1))
    return np.concatenate([colour, alpha], axis=-1)
