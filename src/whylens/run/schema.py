"""Schema: which columns a part of a run has, and how values become columns and maps bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from ..placement import Placement
from .plan import Part, Stored

SIDE = 56
"""Longest side of a stored map; larger ones are area-pooled."""

MAPS_PER_GROUP = 16
"""Maps that one read brings: one row group."""

PLACEMENT = pa.struct(
    [
        ("frame", pa.list_(pa.int32(), 2)),
        ("photo", pa.list_(pa.int32(), 2)),
        ("scale", pa.list_(pa.float64(), 2)),
        ("offset", pa.list_(pa.float64(), 2)),
        ("orientation", pa.int8()),
    ]
)


def rows_schema(part: Part) -> pa.Schema:
    """Columns of the rows of a part: those of the image (base only), then those of each method."""
    columns = [pa.field("image_id", pa.int64(), nullable=False)]
    if not part.name:
        columns += [
            pa.field("key", pa.string()),
            pa.field("label", pa.string()),
            pa.field("label_index", pa.int32()),
            pa.field("prediction", pa.string()),
            pa.field("prediction_index", pa.int32()),
            pa.field("probability", pa.float32()),
            pa.field("correct", pa.bool_()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("placement", PLACEMENT),
        ]
    if part.objects:
        return pa.schema([*columns, *(pa.field(name, pa.int32()) for name in COUNTS)])
    for method in part.methods:
        if method.label in part.keeps:
            columns += _method_columns(method)
        columns += [pa.field(metric_column(m.key, method.label), pa.float32()) for m in part.metrics]
    return pa.schema(columns)


COUNTS = ("instances", "references", "missed")
"""Of an image whose objects are explained: objects found, annotated ones (null: none are known), those not found."""


def instances_schema(part: Part) -> pa.Schema:
    """Columns of a part's objects: those of the object, then those of each method."""
    columns = [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("instance", pa.int32(), nullable=False),
        pa.field("class", pa.string()),
        pa.field("class_index", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("box", pa.list_(pa.float32(), 4)),
        pa.field("mask_area", pa.float32()),
        pa.field("level", pa.string()),
        pa.field("reference", pa.int32()),
        pa.field("overlap", pa.float32()),
        pa.field("covered", pa.float32()),
        pa.field("incomplete", pa.bool_()),
    ]
    for method in part.methods:
        columns += _method_columns(method)
    return pa.schema(columns)


def values_schema(part: Part) -> pa.Schema:
    """Columns of the family in which the values of a part's methods stand."""
    return instances_schema(part) if part.objects else rows_schema(part)


def _method_columns(method: Stored) -> list[pa.Field]:
    label = method.label
    columns = [
        pa.field(f"target.{label}", pa.int32()),
        pa.field(f"score.{label}", pa.float32()),
        pa.field(f"target_probability.{label}", pa.float32()),
        pa.field(f"scale.{label}", pa.float32()),
        pa.field(f"flags.{label}", pa.list_(pa.string())),
    ]
    columns += [pa.field(f"check.{name}.{label}", pa.float32()) for name in method.checks]
    if method.dim:
        columns += [
            pa.field(f"negative.{label}", pa.float32()),
            pa.field(f"embedding.{label}", pa.list_(pa.float32(), method.dim)),
        ]
    return columns


def metric_column(metric: str, label: str) -> str:
    """The column of a metric of a method."""
    return f"metric.{metric}.{label}"


def maps_schema(part: Part) -> pa.Schema:
    """Columns of the maps of a part: fixed-size bytes, their meaning in the field's metadata."""
    columns = [pa.field("image_id", pa.int64(), nullable=False)]
    columns += [pa.field("instance", pa.int32(), nullable=False)] if part.objects else []
    for method in part.methods:
        if method.label in part.keeps:
            size = int(np.prod(method.shape)) * np.dtype(method.dtype).itemsize
            said = {"shape": json.dumps(method.shape), "dtype": method.dtype, "times": f"scale.{method.label}"}
            columns.append(pa.field(f"map.{method.label}", pa.binary(size), metadata=said))
    return pa.schema(columns)


def described(schema: pa.Schema) -> dict[str, str]:
    """Names and types, for people."""
    return {f.name: str(f.type) for f in schema}


def table(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """Columns of the schema from lists and arrays."""
    arrays = []
    for field in schema:
        value = values[field.name]
        arrays.append(value if isinstance(value, pa.Array) else pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def vectors(values: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> pa.Array:
    """Vectors ``(n, K)`` as fixed-size lists; null where not `known`."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~known))


def placement_row(placement: Placement | None) -> dict[str, Any] | None:
    """A placement as a row of its column."""
    if placement is None:
        return None
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(placement).items()}


# ---- maps ------------------------------------------------------------------------------------------------


def stored_shape(raw: Sequence[int], full: bool) -> tuple[int, ...]:
    """The shape a map ``(C, h, w)`` is stored in; a row of a table keeps its own."""
    if full or len(raw) != 3:
        return tuple(raw)
    return 1, min(raw[1], SIDE), min(raw[2], SIDE)


def pack(maps: Tensor, method: Stored) -> tuple[list[bytes], list[float]]:
    """Maps ``(N, C, h, w)`` as bytes, and the number that each must be multiplied with when read."""
    small = maps.float()
    if method.dtype == "<f4":
        scale = torch.ones(len(maps))
    else:
        if maps.ndim == 4:
            small = F.adaptive_avg_pool2d(small.sum(1, keepdim=True), (method.shape[1], method.shape[2]))
        scale = small.flatten(1).abs().amax(1)
        small = small / scale.masked_fill(scale == 0, 1).view(-1, *[1] * (small.ndim - 1))
    array = small.numpy().astype(method.dtype)
    return [row.tobytes() for row in array], scale.tolist()


def unpack(data: bytes, method: Stored, scale: float) -> Tensor:
    """One map, as the method gave it up to pooling and half precision."""
    array = np.frombuffer(data, method.dtype).reshape(method.shape).astype(np.float32)
    return torch.from_numpy(array * np.float32(scale))
