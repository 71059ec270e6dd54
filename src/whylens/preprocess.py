"""How a photo becomes a frame, and a frame what the net takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from PIL import Image
from torch import Tensor

from .errors import InputError
from .placement import Placement

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GREY = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601, as pillow converts to "L"

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Order = Literal["RGB", "BGR"]
Fit = Literal["shorter", "longer"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop, scale to [0, 1] (this gives the frame), then ``(frame - mean) / std`` (this the net takes).

    `size` is the frame ``(H, W)``. `resize` is an int (the side named by `fit`) or ``(rows, columns)``; the default
    resizes to `size` itself. What is larger than `size` is cropped in the centre; what is smaller is padded, with
    black, or with the mean where `fit` is "longer" (the whole photo in the frame).
    `mean` and `std` have one value per channel of the net: three for RGB, one for grey. `order` is "RGB" or "BGR".
    """

    size: Size
    resize: int | Size | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: Order = "RGB"
    fit: Fit = "shorter"

    def __post_init__(self) -> None:
        for name, expects, holds in (
            ("size", "(H, W), both at least 1", _is_size(self.size)),
            ("resize", "None, an integer, or (rows, columns)", self.resize is None or _is_side_or_size(self.resize)),
            ("interpolation", _listed(Interpolation), self.interpolation in get_args(Interpolation)),
            ("mean", "one number per channel", _are_numbers(self.mean)),
            ("std", "one number above 0 per channel, as many as mean", _are_numbers(self.std)),
            ("order", _listed(Order), self.order in get_args(Order)),
            ("fit", _listed(Fit), self.fit in get_args(Fit)),
        ):
            if not holds:
                raise InputError(f"Preprocess: {name} must be {expects}. Got {getattr(self, name)!r}.")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise InputError(
                f"Preprocess: std must be one number above 0 per channel, as many as mean. "
                f"Got mean {self.mean}, std {self.std}."
            )

    @property
    def channels(self) -> int:
        """Channels of the frame."""
        return len(self.mean)

    def frame(self, pixels: Tensor, orientation: int = 1) -> tuple[Tensor, Placement]:
        """Pixels ``(C, rows, columns)``, uint8 or float in [0, 1] → frame ``(channels, H, W)`` and its Placement."""
        pixels = to_channels(pixels, self.channels)
        rows, columns = pixels.shape[1:]
        new_rows, new_columns = self._resized(rows, columns)
        grey = tuple(round(255 * m) / 255 for m in self.mean)  # as it is stored in an 8-bit photo
        border = grey if self.fit == "longer" else (0.0,) * self.channels
        frame, top, left = _crop(_resize(pixels, new_rows, new_columns, self.interpolation), self.size, border)
        scale = (rows / new_rows, columns / new_columns)
        offset = (top * scale[0], left * scale[1])
        return frame, Placement(self.size, (rows, columns), scale, offset, orientation)

    def normalise(self, frames: Tensor) -> Tensor:
        """Frames ``(N, C, H, W)`` in [0, 1] → what the net takes; differentiable."""
        if self.order == "BGR":
            frames = frames.flip(1)
        mean, std = (
            torch.tensor(v, dtype=frames.dtype, device=frames.device).view(-1, 1, 1) for v in (self.mean, self.std)
        )
        return (frames - mean) / std

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `Preprocess.read` takes them back."""
        return asdict(self)

    @classmethod
    def read(cls, source: Any) -> Preprocess:
        """From a Preprocess, a mapping, "imagenet", or what torchvision, timm and transformers describe theirs with."""
        if isinstance(source, cls):
            return source
        if source == "imagenet":
            return cls((224, 224), 256)
        if isinstance(source, Mapping):
            return _from_mapping(source)
        if hasattr(source, "crop_size") and hasattr(source, "resize_size"):
            return _from_torchvision(source)
        if hasattr(source, "image_mean") or hasattr(source, "do_rescale"):
            return _from_huggingface(source)
        if hasattr(source, "transforms"):
            return _from_compose(source.transforms)
        raise InputError(
            f"Model: preprocess must be a Preprocess, a mapping of its fields, 'imagenet', torchvision's "
            f"weights.transforms() or a Compose of Resize, CenterCrop, ToTensor and Normalize. "
            f"Got {type(source).__name__}. For any other preparation hand in prepared tensors and preprocess=None."
        )

    def _resized(self, rows: int, columns: int) -> Size:
        if isinstance(self.resize, int):
            short, long = sorted((rows, columns))
            if self.fit == "longer":
                other = max(1, round(self.resize * short / long))
                return (other, self.resize) if rows <= columns else (self.resize, other)
            other = max(1, int(self.resize * long / short))
            return (self.resize, other) if rows <= columns else (other, self.resize)
        return self.resize or self.size


def to_channels(pixels: Tensor, channels: int) -> Tensor:
    """Grey repeated to colour, colour weighed to grey (ITU-R 601); anything else is refused."""
    if pixels.ndim != 3 or (pixels.shape[0] not in (1, 3) and pixels.shape[0] != channels):
        raise InputError(f"Model: a photo must be (C, rows, columns) with C = 1 or 3. Got {tuple(pixels.shape)}.")
    if pixels.shape[0] == channels:
        return pixels
    if channels == 1:
        grey = (pixels.float() * _GREY.view(3, 1, 1)).sum(0, keepdim=True)
        return grey.round().to(torch.uint8) if pixels.dtype == torch.uint8 else grey
    if pixels.shape[0] == 1 and channels == 3:
        return pixels.expand(3, -1, -1)
    raise InputError(f"Model: the net takes {channels} channels. Got a photo with {pixels.shape[0]}.")


def _resize(pixels: Tensor, rows: int, columns: int, interpolation: str) -> Tensor:
    """Resized by pillow, so that frames equal those of the net's own training code; float32 in [0, 1]."""
    how = Image.Resampling[interpolation.upper()]
    same = tuple(pixels.shape[1:]) == (rows, columns)
    if pixels.dtype == torch.uint8:
        if not same:
            array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
            image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
            array = np.asarray(image.resize((columns, rows), how))
            pixels = torch.from_numpy(array.copy()).view(rows, columns, -1).permute(2, 0, 1)
        return pixels.contiguous().float() / 255
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"Model: float pixels must lie in [0, 1]. Got values from {low:.4g} to {high:.4g}. "
            "Divide 0..255 by 255, give pixels before normalisation, or make the Model with preprocess=None."
        )
    pixels = pixels.float()
    if same:
        return pixels.contiguous()
    planes = [Image.fromarray(np.ascontiguousarray(c.numpy())).resize((columns, rows), how) for c in pixels.cpu()]
    return torch.stack([torch.from_numpy(np.array(p)) for p in planes]).clamp(0, 1)


def _crop(frame: Tensor, size: Size, border: tuple[float, ...]) -> tuple[Tensor, int, int]:
    """Centre crop, padded with `border` where the picture is smaller; the crop's top and left in the picture."""
    starts = []
    colour = frame.new_tensor(border).view(-1, 1, 1)
    for axis, side in ((1, size[0]), (2, size[1])):
        have = frame.shape[axis]
        if have < side:
            before = (side - have) // 2
            widths = [0, 0, 0, 0]
            widths[(2 - axis) * 2], widths[(2 - axis) * 2 + 1] = before, side - have - before
            frame = F.pad(frame - colour, widths) + colour
            starts.append(-before)
        else:
            start = round((have - side) / 2)
            frame = frame.narrow(axis, start, side)
            starts.append(start)
    return frame.contiguous(), starts[0], starts[1]


def _from_mapping(source: Mapping[str, Any]) -> Preprocess:
    if "input_size" in source:
        return _from_timm(source)
    known = set(Preprocess.__dataclass_fields__)
    if not set(source) <= known or "size" not in source:
        raise InputError(f"Preprocess: needs 'size' and knows {sorted(known)}. Got {sorted(source)}.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in source.items()}
    if isinstance(values["size"], int):
        values["size"] = (values["size"], values["size"])
    return Preprocess(**values)


def _from_timm(source: Mapping[str, Any]) -> Preprocess:
    """timm's data configuration: the frame is `crop_pct` of the resized picture."""
    channels, rows, columns = source["input_size"]
    crop = source.get("crop_pct") or 1.0
    mode = source.get("crop_mode") or "center"
    resize: int | Size = (int(rows / crop), int(columns / crop))
    if mode in ("center", "border") and rows == columns:
        resize = int(rows / crop)
    absent = [k for k in ("mean", "std") if k not in source]
    if absent:
        raise InputError(f"Preprocess: timm's configuration lacks {', '.join(absent)}. It has {sorted(source)}.")
    mean, std = (tuple(float(v) for v in source[k])[:channels] for k in ("mean", "std"))
    how = source.get("interpolation", "bicubic")
    fit: Fit = "longer" if mode == "border" else "shorter"
    return Preprocess((rows, columns), resize, "bicubic" if how == "random" else how, mean, std, fit=fit)


def _from_torchvision(source: Any) -> Preprocess:
    """torchvision's ImageClassification preset."""
    crop, resize = source.crop_size, source.resize_size
    size = (crop[0], crop[-1])
    shorter = resize[0] if len(resize) == 1 else tuple(resize)
    return Preprocess(size, shorter, _how(source.interpolation), tuple(source.mean), tuple(source.std))


def _from_huggingface(source: Any) -> Preprocess:
    """An image processor of transformers."""
    size, crop = dict(getattr(source, "size", None) or {}), dict(getattr(source, "crop_size", None) or {})
    rescale = getattr(source, "rescale_factor", 1 / 255) if getattr(source, "do_rescale", True) else 1.0
    if abs(rescale - 1 / 255) > 1e-6:
        raise InputError(
            f"Preprocess: the processor rescales by {rescale:g}, not by 1/255. Give a Preprocess of your own."
        )
    normal = getattr(source, "do_normalize", True)
    mean, std = (tuple(source.image_mean), tuple(source.image_std)) if normal else ((0.0,) * 3, (1.0,) * 3)
    edge, percent = size.get("shortest_edge"), getattr(source, "crop_pct", None)
    frame = _pair(crop) if getattr(source, "do_center_crop", False) and crop else None
    resize: int | Size | None = edge or _pair(size)
    if edge and percent:  # ConvNeXt: crops a larger picture below 384 pixels, resizes to a square from there on
        resize, frame = (int(edge / percent) if edge < 384 else (edge, edge)), (edge, edge)
    frame = frame or ((edge, edge) if edge else _pair(size))
    if frame is None or not getattr(source, "do_resize", True):
        raise InputError(f"Preprocess: cannot read the processor's size {size}. Give a Preprocess of your own.")
    resample = getattr(source, "resample", None)
    how: Any = Image.Resampling(2 if resample is None else int(resample)).name.lower()
    order: Order = "BGR" if getattr(source, "do_flip_channel_order", False) else "RGB"
    return Preprocess(frame, resize, how, mean, std, order)


def _from_compose(steps: Any) -> Preprocess:
    """A torchvision Compose of Resize, CenterCrop, ToTensor and Normalize."""
    values: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    harmless = {"ToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "ToDtype"}
    for step in steps:
        kind = type(step).__name__
        if kind == "Resize":
            side = step.size[0] if isinstance(step.size, list | tuple) and len(step.size) == 1 else step.size
            values["resize"] = side if isinstance(side, int) else tuple(side)
            values["interpolation"] = _how(step.interpolation)
        elif kind == "CenterCrop":
            values["size"] = (step.size, step.size) if isinstance(step.size, int) else tuple(step.size)
        elif kind == "Normalize":
            values["mean"], values["std"] = tuple(map(float, step.mean)), tuple(map(float, step.std))
        elif kind not in harmless:
            raise InputError(f"Preprocess: cannot read {kind} in a Compose. Give a Preprocess of your own.")
    if "size" not in values:
        if not isinstance(values.get("resize"), tuple):
            raise InputError("Preprocess: the Compose fixes no frame size; it needs CenterCrop or Resize((H, W)).")
        values["size"] = values["resize"]
    return Preprocess(**values)


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and v >= 1 for v in value)


def _is_side_or_size(value: Any) -> bool:
    return _is_size(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(isinstance(v, int | float) for v in value)


def _listed(words: Any) -> str:
    return "one of " + ", ".join(map(repr, get_args(words)))


def _pair(size: Mapping[str, int]) -> Size | None:
    return (size["height"], size["width"]) if "height" in size and "width" in size else None


def _how(mode: Any) -> Any:
    return str(getattr(mode, "value", mode)).lower()
