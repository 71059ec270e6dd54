"""DICOM: one frame of a scan as it is meant to be looked at."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from .errors import ImageError, MissingExtra
from .pixels import Array, check_area, unit


def read_dicom(stream: BinaryIO, name: str) -> Array:
    """The first frame as (H, W) or (H, W, 3) in [0, 1]: rescaled, then windowed where the file gives a window."""
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, pixel_array
    except ImportError as error:
        raise MissingExtra("Reading DICOM", "pydicom", "dicom") from error
    scan = pydicom.dcmread(stream, force=True)
    if "PixelData" not in scan:
        raise ImageError(f"{name} is not a DICOM image: it holds no pixel data.")
    check_area(int(scan.Columns), int(scan.Rows), name)
    try:
        stored = pixel_array(scan, index=0)
    except (RuntimeError, NotImplementedError) as error:
        if "missing dependencies" not in str(error):
            raise
        syntax = scan.file_meta.TransferSyntaxUID.name
        raise ImageError(
            f"{name} cannot be decoded: pydicom has no decoder for {syntax}. Install pylibjpeg."
        ) from error
    kind = str(scan.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        return unit(apply_color_lut(stored, scan), name)
    if stored.ndim == 3:
        return np.asarray(stored / (2.0 ** int(scan.BitsStored) - 1), dtype=np.float32)
    shown = _windowed(scan, stored)
    return np.asarray(1 - shown if kind == "MONOCHROME1" else shown, dtype=np.float32)


def _windowed(scan: Any, stored: Array) -> Array:
    """DICOM PS3.3 C.11.1 and C.11.2: modality rescale, then the VOI table or window, then [0, 1]."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    bits, signed = int(scan.BitsStored), int(scan.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64)
    if "ModalityLUTSequence" in scan:
        values = apply_modality_lut(stored, scan)
        ends = np.array([0, 2.0 ** scan.ModalityLUTSequence[0].LUTDescriptor[2] - 1])
    else:
        slope = float(_dicom_value(scan, "PixelValueTransformationSequence", "RescaleSlope", 1))
        intercept = float(_dicom_value(scan, "PixelValueTransformationSequence", "RescaleIntercept", 0))
        values, ends = stored * slope + intercept, np.sort(ends * slope + intercept)
    if "VOILUTSequence" in scan:
        table = apply_voi(values.astype(np.int64), scan)
        return np.asarray(table / (2.0 ** scan.VOILUTSequence[0].LUTDescriptor[2] - 1))
    centre, width = (_dicom_value(scan, "FrameVOILUTSequence", key, None) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return np.asarray((values - ends[0]) / (ends[1] - ends[0]))
    shape = str(_dicom_value(scan, "FrameVOILUTSequence", "VOILUTFunction", "LINEAR"))
    return _window(values, float(centre), float(width), shape)


def _window(values: Array, centre: float, width: float, shape: str) -> Array:
    if shape == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if shape == "LINEAR":  # the default, half a value off the exact one
        centre, width = centre - 0.5, width - 1
    return np.asarray(np.clip((values - centre) / max(width, 1e-9) + 0.5, 0, 1))


def _dicom_value(scan: Any, group: str, key: str, default: Any) -> Any:
    """An attribute of the file, else of its first frame's or the shared functional group; the first of several."""
    holders = [scan]
    for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        holders += list(scan[name][0].get(group, []))[:1] if scan.get(name) else []
    found = next((holder.get(key) for holder in holders if holder.get(key) not in (None, "")), default)
    return found[0] if hasattr(found, "__getitem__") and not isinstance(found, str) else found
