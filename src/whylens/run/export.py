"""Export: rows, maps or embeddings of a run as one file of a common kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa

from ..errors import InputError

if TYPE_CHECKING:
    from .read import Run

What = Literal["rows", "embeddings", "maps"]

KINDS: dict[str, tuple[str, ...]] = {
    "rows": (".csv", ".tsv", ".parquet", ".jsonl"),
    "embeddings": (".parquet", ".npz", ".safetensors"),
    "maps": (".npz", ".safetensors"),
}


def export(run: Run, file: str | Path, *, what: What = "rows", method: str | None = None) -> Path:
    """Write what is committed of a run to one file; its ending says which kind.

    rows: .csv, .tsv, .jsonl or .parquet, one line per image with the user's own columns (no embeddings).
    embeddings: .parquet, .npz or .safetensors, vectors ``(n, K)`` of `method` with `image_id`.
    maps: .npz or .safetensors, maps ``(n, C, h, w)`` of `method` with `image_id`, as `Run.maps` gives them.

    Where a detector's objects were explained all of these are of objects, the lines of `Run.instances`; vectors and
    maps come with `object`, the number of the line, in place of `image_id`.

    Raises InputError for another ending, or a file that cannot be written.
    """
    path = Path(file)
    ending = path.suffix.lower()
    if what not in KINDS:
        raise InputError(f"export: what must be one of {', '.join(KINDS)}. Got '{what}'.")
    known = KINDS[what]
    if ending not in known:
        raise InputError(f"export: {what} go into {', '.join(known)} files. Got '{path.name}'.")
    if what != "rows" and method is None and len(run.labels) > 1:
        raise InputError(f"export: name one method: {', '.join(run.labels)}.")
    label = method or run.labels[0]
    if what == "rows":
        _write(path, lambda p: _rows(run, p, ending))
    else:
        arrays = _embeddings(run, label) if what == "embeddings" else _maps(run, label)
        _write(path, lambda p: _arrays(arrays, what, p, ending))
    return path


def _rows(run: Run, path: Path, ending: str) -> None:
    from pyarrow import csv, parquet

    table = run.instances() if run.of_objects else run.table()
    if ending == ".parquet":
        parquet.write_table(table, path)
    elif ending == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for batch in table.to_batches():
                file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in batch.to_pylist())
    else:
        csv.write_csv(_flat(table), path, csv.WriteOptions(delimiter="\t" if ending == ".tsv" else ","))


def _flat(table: pa.Table) -> pa.Table:
    """Lists and structs as text: a CSV file has only cells."""
    columns: list[Any] = []
    for column in table.columns:
        if pa.types.is_list(column.type):
            words = [None if v is None else ";".join(map(str, v)) for v in column.to_pylist()]
            columns.append(pa.array(words, pa.string()))
        elif pa.types.is_nested(column.type):
            words = [None if v is None else json.dumps(v) for v in column.to_pylist()]
            columns.append(pa.array(words, pa.string()))
        else:
            columns.append(column)
    return pa.table(columns, names=table.column_names)


def _embeddings(run: Run, label: str) -> dict[str, np.ndarray[Any, Any]]:
    ids, vectors = run.embeddings(label).tensor()
    return {_number(run): ids.numpy(), "embeddings": vectors.numpy()}


def _maps(run: Run, label: str) -> dict[str, np.ndarray[Any, Any]]:
    if run.of_objects:
        ids = run.ids(slice(None))
    else:
        rows = run.table(["image_id", "status"]).to_pylist()
        ids = [row["image_id"] for row in rows if row["status"] == "ok"]
    return {_number(run): np.array(ids, np.int64), "maps": run.maps(label, ids).numpy()}


def _number(run: Run) -> str:
    """What counts the rows: an object's number in `instances`, or that of an image."""
    return "object" if run.of_objects else "image_id"


def _arrays(arrays: dict[str, np.ndarray[Any, Any]], what: str, path: Path, ending: str) -> None:
    if ending == ".npz":
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    elif ending == ".safetensors":
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    else:
        from pyarrow import parquet

        values = arrays[what]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        parquet.write_table(pa.table({**arrays, what: flat}), path)


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """The whole file under its name, or nothing."""
    with _whole(path) as temporary:
        write(temporary)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)
