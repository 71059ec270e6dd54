"""Evidence: the connected regions of a run's maps, and the features that each of them weighs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import ndimage
from torch import Tensor

from .._files import file_name, write_atomic
from .._progress import progress as shown
from ..batches import Frames, batched
from ..embedding import embed
from ..errors import DamageError, InputError
from ..images import Images
from ..model import Model
from ..passes import Passes
from ..probe import Probe
from ..run.commit import Table, check_bytes, commit, records
from ..run.read import Run
from ..run.schema import vectors

Per = Literal["region", "image"]

THRESHOLD = 0.3
"""Share of a map's largest value from which a cell belongs to a region."""

MOST = 8
"""Regions of one map; the heaviest count."""

_FAMILY = "regions"


@dataclass(frozen=True)
class Points:
    """What is grouped: one row per point, in the order of images.

    `image` ``(P,)`` is the image's number in the run, `region` ``(P,)`` the region's among those of its map, heaviest
    first, or -1 for the whole map; `share` ``(P,)`` its part of the map's positive mass; `vectors` ``(P, K)`` eq. 1.
    """

    image: NDArray[Any]
    region: NDArray[Any]
    share: NDArray[Any]
    vectors: NDArray[Any]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[Any]) -> Points:
        """Some of the points."""
        return Points(self.image[rows], self.region[rows], self.share[rows], self.vectors[rows])


def regions(explained: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """The connected regions ``(R, h, w)`` of a map ``(C, h, w)``, as bool, heaviest first; none where it has no mass.

    A cell belongs to one where the map, summed over channels, is at least `threshold` of its largest value; cells
    touch at corners too.
    """
    flat = explained.float().sum(0).clamp(min=0)
    largest = float(flat.max())
    if not largest > 0:
        return torch.zeros((0, *flat.shape), dtype=torch.bool)
    numbered, count = ndimage.label((flat >= threshold * largest).numpy(), structure=np.ones((3, 3)))
    found = torch.from_numpy(numbered)[None] == torch.arange(1, count + 1).view(-1, 1, 1)
    mass = (found * flat).sum((1, 2))
    return found[mass.argsort(descending=True, stable=True)[:MOST]]


def region(explained: Tensor, number: int) -> Tensor:
    """Region `number` ``(h, w)`` of a map ``(C, h, w)``; -1: all of its regions."""
    found = regions(explained)
    return found.any(0) if number < 0 else found[number]


def points(
    run: Run,
    label: str,
    *,
    per: Per = "region",
    model: Model | None = None,
    images: Images | None = None,
    progress: bool = False,
) -> Points:
    """The points of a run's method; those of regions are computed once and kept in the run, shard by shard.

    Regions need the model and the photos, opened again where `model` and `images`, all of the run's, are not given:
    one forward per image. Source: SOXAI,
    eq. 1, of each region by itself. Differs: the paper takes one point per image; what lies in several places for
    several reasons is then one mixture.
    """
    if not run.finished:
        raise InputError(f"'{run.folder}' is not finished: {run.committed} of {len(run)} images are done. Resume it.")
    run.embeddings(label)  # refuses where the method has no features
    per = "image" if run.of_objects else per
    return _of_images(run, label) if per == "image" else Regions(run, label, images).read(model, progress)


def _of_images(run: Run, label: str) -> Points:
    ids: list[NDArray[Any]] = []
    found: list[NDArray[Any]] = []
    for numbers, held in run.embeddings(label):
        there = held.isfinite().all(1) & (held != 0).any(1)
        ids.append(np.asarray(numbers)[there.numpy()])
        found.append(held[there].numpy())
    image = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    kept = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    return Points(image, np.full(len(image), -1, np.int16), np.ones(len(image), np.float32), kept)


class Regions:
    """The regions of one method of a run, in a folder of the run with its own commits."""

    def __init__(self, run: Run, label: str, images: Images | None) -> None:
        self.run, (_, self.stored), self.images = run, run.method(label), images
        self.folder = run.folder / "derived" / file_name(f"regions.{self.stored.label}")

    @cached_property
    def explained(self) -> list[bool]:
        """Whether each image of the run has a map."""
        return [status == "ok" for status in self.run.table(["status"]).column(0).to_pylist()]

    def read(self, model: Model | None, progress: bool) -> Points:
        """All points of the run; those of shards that are not there yet are made first."""
        done = records(self.folder, "", self.run.plan.shards)
        todo = [k for k in range(self.run.plan.shards) if k not in done]
        if todo:
            self.write_facts()
            self._make(model or self.run.model(), todo, progress)
        done = records(self.folder, "", self.run.plan.shards)
        files = [file for file in (record.file(_FAMILY) for record in done.values()) if file is not None]
        count, filled = sum(int(file.rows) for file in files), 0
        held = np.empty((count, self.stored.dim), np.float32)  # filled shard by shard: there is one copy at any time
        columns: list[list[NDArray[Any]]] = [[], [], []]
        for file in files:
            table = self._table(file)
            for name, found in zip(("image_id", "region", "share"), columns, strict=True):
                found.append(table.column(name).to_numpy())
            own = table.column("vector").combine_chunks().flatten().to_numpy()
            held[filled : filled + len(table)] = own.reshape(len(table), self.stored.dim)
            filled += len(table)
        image, number, share = (np.concatenate(found) if found else np.zeros(0) for found in columns)
        return Points(image, number, share, held)

    def _table(self, file: Any) -> pa.Table:
        path = self.folder / file.name
        check_bytes(path, file)
        try:
            return parquet.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise DamageError(f"'{path}' cannot be read: {error}") from None

    def write_facts(self) -> None:
        """What the regions are, beside them; others are refused."""
        said = json.dumps({"format": 1, "threshold": THRESHOLD, "most": MOST, "layer": self.stored.features}).encode()
        path = self.folder / "regions.json"
        if path.exists() and path.read_bytes() != said:
            raise InputError(f"'{self.folder}' holds regions that were made otherwise. Remove that folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, said)

    def _make(self, model: Model, todo: list[int], progress: bool) -> None:
        plan = self.run.plan
        count = sum(stop - start for start, stop in map(plan.bounds, todo))
        with shown(total=count, label="regions", show=progress) as told:
            for shard in todo:
                start, stop = plan.bounds(shard)
                rows = list(self._shard(model, start, stop))
                held = np.concatenate([v for *_, v in rows]) if rows else np.zeros((0, self.stored.dim), np.float32)
                image, number, part = (
                    np.concatenate([row[k] for row in rows]) if rows else np.zeros(0) for k in range(3)
                )
                self.write(shard, Points(image, number, part, held))
                told(stop - start)

    def write(self, shard: int, found: Points) -> None:
        """Commit the points of one shard of the run."""
        table = pa.table(
            {
                "image_id": pa.array(found.image, pa.int64()),
                "region": pa.array(found.region, pa.int16()),
                "share": pa.array(found.share, pa.float32()),
                "vector": vectors(found.vectors, np.ones(len(found), np.bool_)),
            }
        )
        commit(self.folder, "", shard, {_FAMILY: Table(table, 1024)})

    def _shard(self, model: Model, start: int, stop: int) -> Iterator[tuple[NDArray[Any], ...]]:
        images = (self.run.images if self.images is None else self.images).subset(slice(start, stop))
        size = self.run.plan.settings["batch_size"]
        for batch in batched(model, images.stream(), size, {}, first=start, strict=False):
            yield from self._batch(model, batch)

    def _batch(self, model: Model, batch: Frames) -> Iterator[tuple[NDArray[Any], ...]]:
        """The regions of one batch: image, region, share and vector of each."""
        layer = self.stored.features
        ok = [k for k, p in enumerate(batch.positions) if self.explained[p]]
        if not ok or layer is None:
            return
        passes = Passes(model, batch.frames[ok], layers={layer})
        features = Probe(passes, torch.zeros(len(ok), dtype=torch.long)).at(layer).activation().cpu()
        maps = self.run.maps(self.stored.label, [batch.positions[k] for k in ok])
        for at, k in enumerate(ok):
            parts = regions(maps[at])
            if not len(parts):
                continue
            mass = maps[at].float().sum(0).clamp(min=0)
            weights = (parts * mass)[:, None]
            found = embed(features[at : at + 1].expand(len(parts), -1, -1, -1), weights).vectors
            share = weights.sum((1, 2, 3)) / mass.sum()
            image = np.full(len(parts), batch.positions[k], np.int64)
            yield image, np.arange(len(parts), dtype=np.int16), share.numpy(), found.numpy()


def folder_of(run: Run) -> Path:
    """Where a run keeps its groupings."""
    return run.folder / "derived" / "groups"
