"""Files: written whole or not at all, created once, named so that every system takes them."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from .errors import InputError

_NO_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.EXDEV,
    errno.EINVAL,
}
_PATIENCE = 20
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself, whatever their ending."""


def file_name(text: str) -> str:
    """A name that every system takes, different for different texts."""
    safe = re.sub(r"[^\w.\-=]+", "_", text).strip("._") or "image"
    cut = safe.encode()[:120].decode(errors="ignore")
    plain = f"_{cut}" if _DEVICES.fullmatch(cut) else cut
    mark = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return plain if plain == text else f"{plain}-{mark[:6] if cut == safe else mark[:16]}"


def prepare_folder(out: Path) -> Path:
    """The folder, made if need be and tried by writing, so that hours of work do not end at a closed door."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        trial = _beside(out / "trial")  # others may try the same folder now
        trial.write_bytes(b"")
        trial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to '{out}': {error.strerror or error}. Give another --out.") from None
    return out


def write_atomic(path: Path, data: bytes) -> None:
    """The whole file under its name, or nothing: a temporary neighbour, flushed to disk, then renamed."""
    temporary = _beside(path)
    try:
        write_new(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """A file that must not exist yet, flushed to disk; what was begun is removed when it fails."""
    try:
        _fill(path, data)
    except FileExistsError:
        raise
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def create_once(path: Path, data: bytes, *, whole: Callable[[bytes], bool]) -> bool:
    """Give `data` this name if nothing has it yet: True for the first of any number of writers, for ever.

    A hard link does it in one step. Where there are none, the file is created exclusively and then filled, so a
    writer that dies on the way leaves a torn file; `whole` tells it from a complete one, and it is replaced.
    """
    temporary = _beside(path)
    try:
        write_new(temporary, data)
        first = _linked(temporary, path, data, whole)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return first


def _linked(temporary: Path, path: Path, data: bytes, whole: Callable[[bytes], bool]) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return _replaced_if_torn(temporary, path, whole)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    try:
        _fill(path, data)  # what it leaves when it fails stays: by then the name may belong to another writer
    except FileExistsError:
        return _replaced_if_torn(temporary, path, whole)
    return path.read_bytes() == data  # a writer that slept on the way was taken for dead, and replaced


def _replaced_if_torn(temporary: Path, path: Path, whole: Callable[[bytes], bool]) -> bool:
    for _ in range(_PATIENCE):  # its writer may be between creating and filling it
        if whole(path.read_bytes()):
            return False
        time.sleep(0.05)
    if whole(path.read_bytes()):
        return False
    temporary.replace(path)
    return True


def _fill(path: Path, data: bytes | memoryview) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last; systems that cannot sync a folder do it by themselves or not at all."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_leftover(name: str) -> bool:
    """Whether a name is that of a temporary neighbour, left by a process that died."""
    return re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", name) is not None


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
