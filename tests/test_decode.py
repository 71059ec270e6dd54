"""Every file is built by another tool than the one that reads it, or compared with an independent formula."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from whylens import decode as decode_module
from whylens.decode import decode, from_pil, measure, upright
from whylens.errors import ImageError, MissingExtra
from whylens.pixels import to_pixels

Array = np.ndarray[Any, Any]
SIXTEEN = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
EIGHT = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8)
FLOAT = np.random.default_rng(2).random((5, 7, 3), dtype=np.float32)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def png(values: Array, colour: int, depth: int = 16, extra: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG written by hand after the standard: filter 0 on each row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    between = chunk(*extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + between + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def hwc(pixels: torch.Tensor) -> Array:
    return pixels.permute(1, 2, 0).numpy()


def exact(values: Array) -> Array:
    """16-bit values in [0, 1], rounded once from exact double arithmetic."""
    return np.atleast_3d((values.astype(np.float64) / 65535).astype(np.float32))


# ---- eight bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_eight_bit_files_keep_every_value(kind: str, mode: str) -> None:
    values = EIGHT[..., :3] if mode == "RGB" else EIGHT[..., 0]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, orientation = decode(saved(Image.fromarray(values), kind, **options))
    assert pixels.dtype == torch.uint8
    assert orientation == 1
    if kind == "WEBP" and mode == "L":  # WebP has no grey
        values = np.repeat(values[..., None], 3, axis=2)
    assert np.array_equal(hwc(pixels), np.atleast_3d(values))


def test_jpeg_equals_another_decoder() -> None:
    smooth = cv2.resize(EIGHT[..., :3], (64, 48), interpolation=cv2.INTER_CUBIC)
    data = saved(Image.fromarray(smooth), "JPEG", quality=95)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(hwc(decode(data)[0]).astype(int) - other).max() <= 2


def test_one_bit_is_black_and_white() -> None:
    values = EIGHT[..., 0] > 127
    assert np.array_equal(decode(saved(Image.fromarray(values), "PNG"))[0][0].numpy(), values * 255)


@pytest.mark.parametrize("depth", [2, 4])
def test_few_bit_grey_spans_the_whole_range(depth: int) -> None:
    top = 2**depth - 1
    values = np.arange(top + 1, dtype=np.uint8)[None]
    packed = np.packbits(((values[..., None] >> np.arange(depth)[::-1]) & 1).reshape(1, -1), axis=1)
    data = bytearray(png(packed, 0, 8))
    data[16:26] = struct.pack(">IIBB", top + 1, 1, depth, 0)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert decode(bytes(data))[0][0, 0].tolist() == [round(255 * k / top) for k in range(top + 1)]


def test_first_frame_of_a_gif() -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    pixels, _ = decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels[:, 0, 0].tolist() == [200, 0, 0]


def test_first_page_of_a_tiff() -> None:
    data = tiff(SIXTEEN.transpose(2, 0, 1), photometric="minisblack")
    assert np.array_equal(hwc(decode(data)[0]), exact(SIXTEEN[..., 0]))


# ---- alpha, palettes, CMYK --------------------------------------------------------------------------------------


def over_white(colour: Array, alpha: Array) -> Array:
    a = alpha.astype(np.float64)[..., None] / 255
    return colour * a + 255 * (1 - a)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_goes_over_white(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels, _ = decode(saved(Image.fromarray(EIGHT), kind, **options))
    assert pixels.shape[0] == 3
    assert np.abs(hwc(pixels) - over_white(EIGHT[..., :3], EIGHT[..., 3])).max() <= 0.5 + 1e-9
    white = Image.new("RGBA", (7, 5), "white")
    peer = np.asarray(Image.alpha_composite(white, Image.fromarray(EIGHT)).convert("RGB"))
    assert np.abs(hwc(pixels).astype(int) - peer).max() <= 1


def test_grey_with_alpha_stays_grey() -> None:
    pixels, _ = decode(saved(Image.fromarray(EIGHT[..., :2], "LA"), "PNG"))
    assert pixels.shape[0] == 1
    assert np.abs(hwc(pixels) - over_white(EIGHT[..., :1], EIGHT[..., 1])).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("alpha", [0, 255, 51])
def test_palette_with_transparency(alpha: int) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    data = saved(picture, "PNG", transparency=bytes([alpha, 255]))
    pixels, _ = decode(data)
    assert pixels[:, 0, 1].tolist() == [200, 100, 50]
    assert pixels[:, 0, 0].tolist() == np.rint(over_white(np.array([10, 20, 30]), np.array(alpha))).tolist()


def test_palette_without_transparency_is_colour() -> None:
    picture = Image.fromarray(EIGHT[..., :3]).quantize(8)
    assert np.array_equal(hwc(decode(saved(picture, "PNG"))[0]), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_colour_declared_transparent_becomes_white(mode: str) -> None:
    clear = 40 if mode == "L" else (40, 50, 60)
    picture = Image.new(mode, (3, 1), 0)
    picture.putpixel((1, 0), clear)
    pixels, _ = decode(saved(picture, "PNG", transparency=clear))
    assert pixels[:, 0, 1].unique().tolist() == [255]
    assert pixels[:, 0, 0].unique().tolist() == [0]


def test_cmyk_tiff_and_inverted_adobe_jpeg() -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # full cyan
    assert decode(saved(cmyk, "TIFF"))[0][:, 0, 0].tolist() == [0, 255, 255]
    data = saved(cmyk, "JPEG", quality=100)  # pillow writes the Adobe marker, with which values are inverted
    assert b"Adobe" in data
    assert (decode(data)[0][:, 8, 8].int() - torch.tensor([0, 255, 255])).abs().max() <= 3
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[8, 8, ::-1]
    assert np.abs(decode(data)[0][:, 8, 8].numpy().astype(int) - other).max() <= 3


# ---- sixteen bits and floats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_sixteen_bits_written_by_another_tool_are_exact(kind: str, channels: int) -> None:
    values = SIXTEEN[..., :channels]
    data = cv2.imencode(kind, np.ascontiguousarray(values[..., ::-1]))[1].tobytes()  # its TIFF is LZW with predictor
    pixels, _ = decode(data)
    assert pixels.dtype == torch.float32
    assert np.array_equal(hwc(pixels), exact(values))


def test_every_sixteen_bit_value_is_exact() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(hwc(decode(png(values, 0))[0]), exact(values))


@pytest.mark.parametrize("colour", [2, 6, 4])
def test_sixteen_bit_png_by_hand(colour: int) -> None:
    values = SIXTEEN[..., : {2: 3, 6: 4, 4: 2}[colour]]
    got = hwc(decode(png(values, colour))[0])
    unit = values / 65535
    want = unit if colour == 2 else unit[..., :-1] * unit[..., -1:] + 1 - unit[..., -1:]
    assert got.shape[2] == want.shape[2]
    assert np.abs(got - want).max() < 1e-6


def test_interlaced_sixteen_bit_png() -> None:
    stream = io.BytesIO()  # Adam7 of one pixel has a single pass, so the plain file is a valid interlaced one
    data = bytearray(png(SIXTEEN[:1, :1, :3], 2))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    stream.write(data)
    assert np.array_equal(hwc(decode(stream.getvalue())[0]), exact(SIXTEEN[:1, :1, :3]))


def test_sixteen_bit_png_with_a_transparent_colour() -> None:
    grey = decode(png(SIXTEEN[..., :1], 0, extra=(b"tRNS", struct.pack(">H", SIXTEEN[2, 3, 0]))))[0]
    rgb = decode(png(SIXTEEN[..., :3], 2, extra=(b"tRNS", struct.pack(">HHH", *SIXTEEN[2, 3, :3]))))[0]
    assert grey[0, 2, 3] == 1
    assert rgb[:, 2, 3].tolist() == [1, 1, 1]
    assert np.array_equal(hwc(rgb)[0], exact(SIXTEEN[..., :3])[0])


TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "deflate": {"compression": "zlib"},
    "big": {"bigtiff": True},
    "tiled": {"tile": (16, 16)},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_layouts(options: dict[str, Any], channels: int) -> None:
    for values in (SIXTEEN, FLOAT, EIGHT):
        values = np.squeeze(values[..., :channels])
        data = tiff(values, photometric="rgb" if channels == 3 else "minisblack", **options)
        want = exact(values) if values.dtype == np.uint16 else np.atleast_3d(values)
        assert np.array_equal(hwc(decode(data)[0]), want)


def test_tiff_with_a_predictor() -> None:
    data = tiff(SIXTEEN[..., :3], photometric="rgb", compression="zlib", predictor=True)
    assert np.array_equal(hwc(decode(data)[0]), exact(SIXTEEN[..., :3]))


def test_planar_tiff() -> None:
    data = tiff(SIXTEEN[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(hwc(decode(data)[0]), exact(SIXTEEN[..., :3]))


@pytest.mark.parametrize(("kind", "premultiplied"), [("unassalpha", False), ("assocalpha", True)])
def test_sixteen_bit_tiff_alpha(kind: str, premultiplied: bool) -> None:
    alpha = SIXTEEN[..., 3:] / 65535
    colour = SIXTEEN[..., :3] / 65535 * (alpha if premultiplied else 1)
    stored = np.rint(np.concatenate([colour, alpha], axis=2) * 65535).astype(np.uint16)
    want = SIXTEEN[..., :3] / 65535 * alpha + 1 - alpha
    got = hwc(decode(tiff(stored, photometric="rgb", extrasamples=[kind]))[0])
    assert np.abs(got - want).max() < 1e-4


def test_an_unspecified_extra_channel_is_not_alpha() -> None:
    data = tiff(SIXTEEN, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(hwc(decode(data)[0]), exact(SIXTEEN[..., :3]))


@pytest.mark.parametrize("values", [SIXTEEN[..., 0], EIGHT[..., 0]], ids=["16", "8"])
def test_white_is_zero(values: Array) -> None:
    top = np.iinfo(values.dtype).max
    got = decode(tiff(values, photometric="miniswhite"))[0][0].double().numpy()
    assert np.abs(got / (255 if top == 255 else 1) - (1 - values / top)).max() < 1e-6


def test_white_is_zero_when_packed_by_lzw() -> None:
    data = saved(Image.fromarray(SIXTEEN[..., 0]), "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    assert np.abs(decode(data)[0][0].numpy() - (1 - SIXTEEN[..., 0] / 65535)).max() < 1e-6


def test_cmyk_of_sixteen_bits() -> None:
    unit = SIXTEEN / 65535
    got = hwc(decode(tiff(SIXTEEN, photometric="separated"))[0])
    assert np.abs(got - (1 - unit[..., :3]) * (1 - unit[..., 3:])).max() < 1e-6


def test_twelve_bits_reach_one() -> None:
    values = np.array([[0, 4095], [1, 2048]])
    packed = np.packbits(((values[..., None] >> np.arange(12)[::-1]) & 1).astype(np.uint8)).tobytes()
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert np.array_equal(decode(data)[0][0].numpy(), (values / 4095).astype(np.float32))


def test_a_float_array_saved_row_by_row() -> None:
    data = tiff(FLOAT, photometric="minisblack")  # (H, W, 3) without a hint: each row becomes a page
    assert np.array_equal(hwc(decode(data)[0]), FLOAT)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (FLOAT[..., 0] * 255, "must lie in [0, 1]"),
        (FLOAT[..., 0] - 0.5, "must lie in [0, 1]"),
        (np.full((2, 2), np.nan, np.float32), "must lie in [0, 1]"),
        (np.zeros((2, 2), np.int32), "int32 values, which have no fixed range"),
        (np.zeros((2, 2), np.int16), "int16 values, which have no fixed range"),
    ],
)
def test_values_without_a_known_range_are_refused(values: Array, said: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(tiff(values))
    assert said in str(error.value)


def test_a_stack_with_many_channels_is_refused() -> None:
    data = tiff(np.zeros((4, 4, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="7 channels"):
        decode(data)


# ---- orientation ------------------------------------------------------------------------------------------------


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_equals_pillow(kind: str, orientation: int, tmp_path: Path) -> None:
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = saved(Image.fromarray(EIGHT[..., :3]), kind, exif=turned(orientation), **options)
    pixels, applied = decode(data)
    with Image.open(io.BytesIO(data)) as picture:
        want = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(hwc(pixels), want)
    assert applied == orientation
    path = tmp_path / f"photo.{kind.lower()}"
    path.write_bytes(data)
    assert measure(path) == (*want.shape[:2], orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_orientation_of_sixteen_bit_tiffs(orientation: int, compression: str | None) -> None:
    want = upright(torch.from_numpy(exact(SIXTEEN[..., :3]).transpose(2, 0, 1)), orientation)
    data = tiff(SIXTEEN[..., :3], photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    if compression:
        grey = Image.fromarray(SIXTEEN[..., 0])
        data, want = saved(grey, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation}), want[:1]
    pixels, applied = decode(data)
    assert torch.equal(pixels, want)
    assert applied == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_picture_in_memory(orientation: int) -> None:
    picture = Image.fromarray(EIGHT[..., :3])
    picture.getexif()[0x0112] = orientation
    pixels, applied = from_pil(picture, "picture")
    assert np.array_equal(hwc(pixels), np.asarray(ImageOps.exif_transpose(picture)))
    assert applied == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_senseless_orientation_is_no_orientation(orientation: int) -> None:
    assert decode(saved(Image.fromarray(EIGHT[..., :3]), "PNG", exif=turned(orientation)))[1] == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]), st.integers(1, 8))
def test_odd_sizes(height: int, width: int, channels: int, orientation: int) -> None:
    values = np.random.default_rng(height * 10 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    picture = Image.frombytes(mode, (width, height), values.tobytes())
    pixels, _ = decode(saved(picture, "PNG", exif=turned(orientation)))
    assert pixels.shape == (3 if channels > 2 else 1, *((width, height) if orientation > 4 else (height, width)))
    assert pixels.is_contiguous()


# ---- what cannot be read ----------------------------------------------------------------------------------------


def reason(source: Any) -> str:
    with pytest.raises(ImageError) as error:
        decode(source)
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_reasons_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert reason(tmp_path / "empty.png") == "empty.png is empty (0 bytes)."
    assert reason(tmp_path / "text.jpg") == "text.jpg is not an image in a known format."
    assert reason(tmp_path / "folder.png") == "folder.png is a folder."
    assert reason(tmp_path / "gone.png") == "gone.png does not exist."
    assert reason(tmp_path / "IMG_1.HEIC").endswith("HEIC photos must be converted to JPEG first.")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "pipe.png is not a regular file."


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF"])
def test_a_truncated_file(kind: str) -> None:
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(big), kind)
    assert reason(data[: len(data) // 2]) in (
        "image is damaged or cut short.",
        "image is not an image in a known format.",
    )


def test_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for data in (saved(Image.fromarray(EIGHT[..., :3]), "PNG"), tiff(FLOAT, photometric="rgb")):
        assert "more than 20 pixels" in reason(data)


def test_a_picture_without_pixels() -> None:
    with pytest.raises(ImageError, match="has no pixels: its size is 0 x 4"):
        to_pixels(np.zeros((4, 0, 3), np.uint8), "it")
    reason(png(np.zeros((0, 0), np.uint8), 0, 8))


def test_postscript_is_not_run() -> None:
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n") == (
        "image is not an image in a known format."
    )


FILES = [
    saved(Image.fromarray(EIGHT[..., :3]), "JPEG", exif=turned(6)),
    png(SIXTEEN[..., :3], 2),
    tiff(SIXTEEN[..., :3], photometric="rgb"),
    tiff(FLOAT, photometric="rgb", compression="zlib"),
    saved(Image.fromarray(SIXTEEN[..., 0]), "TIFF", compression="tiff_lzw"),
    saved(Image.fromarray(EIGHT[..., :3]).quantize(8), "GIF"),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_a_damaged_file_gives_pixels_or_a_reason(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    try:
        pixels, orientation = decode(bytes(damaged[: draw.draw(st.integers(1, len(damaged)))]))
    except ImageError:
        return
    assert pixels.shape[0] in (1, 3)
    assert 1 <= orientation <= 8
    if pixels.dtype == torch.float32:
        assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1


def test_readers_warnings_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(EIGHT[..., :3]), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # 35 pixels: pillow warns
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(data)
        inside = list(warnings.filters)
    assert caught == []
    assert inside[0][0] == "always"
    assert list(warnings.filters) == before
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))


def test_readers_warnings_stay_inside_for_pictures_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(self: Image.Image) -> Image.Exif:
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
        return Image.Exif()

    monkeypatch.setattr(Image.Image, "getexif", corrupt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pil(Image.new("L", (2, 2)), "picture")


def test_measuring_reads_the_header_only() -> None:
    data = saved(Image.fromarray(EIGHT[..., :3]), "JPEG", exif=turned(6))
    start = data[: data.index(b"\xff\xda")]
    reason(start)
    assert measure(start) == (7, 5, 6)
    assert measure(FILES[2]) == (5, 7, 1)
    assert measure(dicom(HOUNSFIELD)) == (4, 6, 1)


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES[1])
    (tmp_path / "b.tif").write_bytes(FILES[2][:-9])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        decode(tmp_path / "a.png")
        reason(tmp_path / "b.tif")


# ---- DICOM ------------------------------------------------------------------------------------------------------


def dicom(values: Array, **tags: Any) -> bytes:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    scan = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    colour = values.ndim == 3 and values.shape[2] == 3
    scan.Rows, scan.Columns = values.shape[:2] if colour or values.ndim == 2 else values.shape[1:]
    scan.SamplesPerPixel = 3 if colour else 1
    scan.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    scan.BitsAllocated = scan.BitsStored = values.dtype.itemsize * 8
    scan.HighBit = scan.BitsStored - 1
    scan.PixelRepresentation = int(values.dtype.kind == "i")
    if colour:
        scan.PlanarConfiguration = 0
    elif values.ndim == 3:
        scan.NumberOfFrames = len(values)
    for key, value in tags.items():
        setattr(scan, key, value)
    scan.PixelData = values.tobytes()
    stream = io.BytesIO()
    scan.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


HOUNSFIELD = np.random.default_rng(3).integers(0, 4096, (4, 6)).astype(np.uint16)


def test_dicom_without_a_window_spans_what_can_be_stored() -> None:
    pixels, orientation = decode(dicom(HOUNSFIELD, BitsStored=12, HighBit=11, RescaleSlope=2, RescaleIntercept=-1024))
    assert (pixels.dtype, tuple(pixels.shape), orientation) == (torch.float32, (1, 4, 6), 1)
    assert np.allclose(pixels[0], HOUNSFIELD / 4095, atol=1e-6)
    signed = (HOUNSFIELD.astype(np.int16) - 2048).astype(np.int16)
    assert np.allclose(decode(dicom(signed))[0][0], (signed + 32768.0) / 65535, atol=1e-6)


def test_dicom_window_after_rescale() -> None:
    data = dicom(HOUNSFIELD, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 1500])
    want = np.clip((HOUNSFIELD * 2.0 - 1024 - 39.5) / 399 + 0.5, 0, 1)
    assert np.allclose(decode(data)[0][0], want, atol=1e-6)


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_dicom_window_equals_pydicom(shape: str) -> None:
    from pydicom import dcmread
    from pydicom.pixels import apply_windowing

    data = dicom(HOUNSFIELD, BitsStored=12, HighBit=11, WindowCenter=1800, WindowWidth=900, VOILUTFunction=shape)
    scan = dcmread(io.BytesIO(data))
    want = apply_windowing(scan.pixel_array, scan) / 4095
    assert np.allclose(decode(data)[0][0], want, atol=1e-6)


def test_dicom_where_low_is_white() -> None:
    plain, inverted = (decode(dicom(HOUNSFIELD, PhotometricInterpretation=f"MONOCHROME{k}"))[0] for k in (2, 1))
    assert np.allclose(inverted, 1 - plain)


def test_dicom_table() -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [4, 10, 8]  # four entries from value 10, eight bits
    table.LUTData = [5, 50, 100, 255]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    values = np.array([[0, 10, 11], [12, 13, 99]], np.uint16)
    want = np.array([[5, 5, 50], [100, 255, 255]]) / 255
    assert np.allclose(decode(dicom(values, VOILUTSequence=[table]))[0][0], want, atol=1e-6)


def test_dicom_colour_first_frame_and_enhanced_rescale() -> None:
    from pydicom.dataset import Dataset

    assert np.allclose(hwc(decode(dicom(EIGHT[..., :3].copy()))[0]), EIGHT[..., :3] / 255, atol=1e-6)
    frames = np.stack([HOUNSFIELD, HOUNSFIELD[::-1]])
    window, shared = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 1000.5, 1001
    shared.FrameVOILUTSequence = [window]
    want = np.clip((HOUNSFIELD - 1000.0) / 1000 + 0.5, 0, 1)
    assert np.allclose(decode(dicom(frames, SharedFunctionalGroupsSequence=[shared]))[0][0], want, atol=1e-6)


def test_dicom_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(b"this is no scan")
    assert reason(path) == "scan.dcm is not a DICOM image: it holds no pixel data."
    path.write_bytes(dicom(HOUNSFIELD)[:-20])
    assert reason(path) == "scan.dcm is damaged or cut short."
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtra, match=r"pip install 'whylens\[dicom\]'"):
        decode(path)


def test_the_module_has_no_state_left() -> None:
    assert decode_module._quiet._inside == 0
