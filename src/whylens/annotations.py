"""Annotation files of other tools, read as plain data: Pascal VOC boxes, COCO polygons and run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .errors import ImageError, InputError

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
Pixels = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class VocObject:
    """One object of a VOC annotation; the box is half-open from 0: left, top, right, bottom."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool


@dataclass(frozen=True)
class VocRecord:
    """The objects of one image and, where the file says it, its height and width."""

    objects: tuple[VocObject, ...]
    size: tuple[int, int] | None


def read_voc(path: Path) -> VocRecord:
    """One VOC XML file. Its boxes are 1-based and inclusive; a document type or entity is refused."""
    try:
        root = _parse_xml(path.read_bytes())
        objects = tuple(_voc_object(node) for node in root.findall("object"))
        height, width = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("height", "width"))
    except (expat.ExpatError, ValueError, ArithmeticError, LookupError, OSError) as error:
        raise ImageError(f"{path.name} is not a VOC annotation that can be read: {error}.") from error
    return VocRecord(objects, (height, width) if height > 0 and width > 0 else None)


def _parse_xml(data: bytes) -> Element:
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which annotations do not need")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag, attributes) and None
    parser.EndElementHandler = lambda tag: builder.end(tag) and None
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _voc_object(node: Element) -> VocObject:
    left, top, right, bottom = (
        round(float(node.findtext(f"bndbox/{k}") or "")) for k in ("xmin", "ymin", "xmax", "ymax")
    )
    name = (node.findtext("name") or "").strip()
    difficult = (node.findtext("difficult") or "0").strip() not in ("0", "")
    return VocObject(name, (max(left - 1, 0), max(top - 1, 0), right, bottom), difficult)


def fill_box(box: Sequence[float], size: tuple[int, int]) -> Pixels:
    """Pixels whose centre lies in a box of left, top, right, bottom."""
    left, top, right, bottom = (max(int(np.ceil(edge - 0.5)), 0) for edge in box)
    inside = np.zeros(size, dtype=np.bool_)
    inside[top:bottom, left:right] = True
    return inside


def fill_polygon(corners: Sequence[float], size: tuple[int, int]) -> Pixels:
    """Pixels whose centre lies in a polygon of x, y, x, y, ...; the first pixel reaches from 0 to 1."""
    from skimage.draw import polygon

    points = np.asarray(corners, dtype=np.float64).reshape(-1, 2) - 0.5
    inside = np.zeros(size, dtype=np.bool_)
    inside[polygon(points[:, 1], points[:, 0], size)] = True
    return inside


def run_lengths(text: str) -> list[int]:
    """The counts of a compressed COCO string: five bits a letter, after the third relative to the one two before."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def fill_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> Pixels:
    """A COCO run-length mask: runs of outside, inside, outside, ... down the columns."""
    height, width = size
    if list(runs["size"]) != [height, width]:
        raise ValueError(f"run lengths of size {runs['size']} in an image of {height} x {width}")
    counts = runs["counts"]
    counts = run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"run lengths must add up to {height} x {width} pixels, not {sum(counts)}")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(width, height).T


@dataclass(frozen=True)
class CocoObject:
    """One annotation of a COCO file."""

    category: int
    shape: Any
    box: tuple[float, ...]
    crowd: bool

    def pixels(self, size: tuple[int, int]) -> Pixels:
        """Where the object is in an image of this height and width."""
        if isinstance(self.shape, Mapping):
            return fill_runs(self.shape, size)
        if not self.shape:
            left, top, width, height = self.box
            return fill_box((left, top, left + width, top + height), size)
        inside = np.zeros(size, dtype=np.bool_)
        for corners in self.shape:
            inside |= fill_polygon(corners, size) if len(corners) >= 6 else False
        return inside


@dataclass(frozen=True)
class CocoRecord:
    """The objects of one image and, where the file says it, its height and width."""

    objects: tuple[CocoObject, ...]
    size: tuple[int, int] | None


class CocoFile:
    """An instances file, indexed by image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_bytes())
            self.categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
            objects = defaultdict(list)
            for entry in content["annotations"]:
                objects[entry["image_id"]].append(_coco_object(entry))
            self._records = {
                str(image["file_name"]): CocoRecord(tuple(objects[image["id"]]), _coco_size(image))
                for image in content["images"]
            }
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path.name} is not a COCO instances file: it must hold 'images', 'annotations' and 'categories'."
            ) from error
        self._by_basename: dict[str, list[str]] = defaultdict(list)
        for name in self._records:
            self._by_basename[PurePosixPath(name).name].append(name)

    def find(self, name: str) -> CocoRecord | None:
        """The record of an image by its relative path, else by its file name alone."""
        if name in self._records:
            return self._records[name]
        same = self._by_basename.get(PurePosixPath(name).name, [])
        if len(same) > 1:
            raise InputError(f"load_images: '{name}' fits several images of the annotation: {same[0]}, {same[1]}.")
        return self._records[same[0]] if same else None


def _coco_object(entry: Mapping[str, Any]) -> CocoObject:
    box = tuple(float(edge) for edge in entry.get("bbox") or ())
    return CocoObject(int(entry["category_id"]), entry.get("segmentation"), box, bool(entry.get("iscrowd", 0)))


def _coco_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    return (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
