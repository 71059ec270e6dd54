"""Store: the files of a run, opened when asked for and held against what their records say of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..errors import DamageError
from .commit import DataFile, Record, check_bytes, check_footer

OPEN_FILES = 64
"""Files whose footers are kept parsed, and columns that are kept."""


class Store:
    """Reads files of a run's folder; size and footer are checked when a file is opened, pages when they are read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: OrderedDict[str, parquet.ParquetFile] = OrderedDict()
        self._whole: set[str] = set()
        self._columns: OrderedDict[tuple[str, str], np.ndarray[Any, Any]] = OrderedDict()

    def file(self, record: Record, family: str) -> DataFile:
        """The file of a family in a committed shard."""
        file = record.file(family)
        if file is None:
            raise DamageError(f"'{self.folder}' is damaged: shard {record.shard} has no {family}.")
        return file

    def check(self, file: DataFile) -> None:
        """Hash a file whole. Raises DamageError where it is not what was written."""
        check_bytes(self.folder / file.name, file)
        self._whole.add(file.name)

    def table(self, file: DataFile, columns: list[str]) -> pa.Table:
        """Some columns of all rows; the file is hashed whole, once."""
        if file.name not in self._whole:
            self.check(file)
        return self.read(file, lambda opened: opened.read(columns=columns))

    def read(self, file: DataFile, read: Callable[[parquet.ParquetFile], pa.Table]) -> pa.Table:
        """What `read` takes from an opened file. Raises DamageError where the file is not what was written."""
        try:
            return read(self._opened(file))
        except (pa.ArrowException, OSError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise DamageError(f"'{self.folder / file.name}' is damaged: {first}") from None

    def column(self, file: DataFile, name: str) -> np.ndarray[Any, Any]:
        """One column of a file, kept while it is among the last used."""
        key = (file.name, name)
        if key not in self._columns:
            if len(self._columns) >= OPEN_FILES:
                self._columns.popitem(last=False)
            read = self.read(file, lambda opened: opened.read(columns=[name]))
            self._columns[key] = read.column(0).to_numpy(zero_copy_only=False)
        return self._columns[key]

    def _opened(self, file: DataFile) -> parquet.ParquetFile:
        """The file with its footer parsed, after its size and footer were held against the record."""
        if file.name not in self.open:
            path = self.folder / file.name
            check_footer(path, file)
            if len(self.open) >= OPEN_FILES:
                self.open.popitem(last=False)[1].close()
            self.open[file.name] = parquet.ParquetFile(path, page_checksum_verification=True)
        self.open.move_to_end(file.name)
        return self.open[file.name]
