"""Whole files and folders or nothing: temporary name, fsync, rename, fsync of the folder around it.

A temporary file or folder is `.<name>.<host>-<pid>-<n>.partial`; zarr ignores it, and whoever writes into the
folder next removes those whose process is gone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from .disk_faults import explained
from .processes import alive, machine

if TYPE_CHECKING:
    from .remote.path import Place

Buffer = bytes | bytearray | memoryview

_COUNTER = itertools.count()
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""Of network and shared file systems that know no such thing: there a rename is all that can be had."""
_PARTIAL = re.compile(rf"\..+\.{machine()}-(\d+)-\d+\.partial")


def write_atomic(path: Path, parts: Buffer | Iterable[Buffer]) -> None:
    """Write `parts` one after the other as the file `path`, so that it is whole or not there.

    Raises:
        DiskFullError: no space or quota is left; the temporary file is removed.
        StoreError: the folder cannot be written.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        for part in [parts] if isinstance(parts, Buffer) else parts:
            file.write(part)


@contextlib.contextmanager
def whole_file(path: Path, settle: bool = True) -> Iterator[Path]:
    """A temporary file to write, for libraries that write files; it becomes `path` when the block ends well.

    Args:
        path: of the file.
        settle: make its name survive a power cut. Without, it does once somebody syncs the folders above it.

    Raises:
        DiskFullError: no space or quota is left; the temporary file is removed.
        StoreError: the folder cannot be written.
    """
    partial = partial_name(path)
    try:
        make_folder(path.parent) if settle else path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        if settle:
            fsync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explained(error, path) from error
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to put files into, which becomes `path` when the block ends well.

    Raises:
        DiskFullError: no space or quota is left; what was written is removed.
        StoreError: it cannot be written, or `path` is a folder with something in it.
    """
    partial = partial_name(path)
    try:
        make_folder(partial.parent)
        sweep(partial.parent)
        partial.mkdir()
        yield partial
        for inner in partial.rglob("*"):
            if inner.is_dir():
                fsync_folder(inner)
                continue
            with inner.open("rb") as handle:
                os.fsync(handle.fileno())
        fsync_folder(partial)
        os.replace(partial, path)
        fsync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise explained(error, path) from error
        raise


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A JSON document, indented, whole or not there."""
    write_atomic(path, json_text(document).encode())


def json_text(document: dict[str, Any]) -> str:
    """The text of a file that `write_json` writes."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Place) -> Any:
    """The JSON document.

    Raises:
        StoreError: it is missing, unreadable or no JSON.
    """
    try:
        return json.loads(read_file(path))
    except FileNotFoundError:
        raise StoreError("a document of the store is missing.", where=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            "a document of the store cannot be read.",
            where=path,
            why=str(error),
            fix="restore the file from a copy of the store",
        ) from None


def read_file(path: Place) -> bytes:
    """The bytes of a regular file; a pipe or a device, which has no end, is refused.

    Raises:
        OSError: it cannot be read.
    """
    if not isinstance(path, Path):
        return path.read_bytes()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files and folders that dead processes of this machine left in `folder`."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if abandoned(entry.name):
            with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
                remove(Path(entry.path))


@functools.lru_cache(maxsize=4096)
def sweep(folder: Path) -> None:
    """`remove_abandoned`, when this process writes into a folder for the first time."""
    remove_abandoned(folder)


def is_partial(name: str) -> bool:
    """Whether a file or folder of that name is a temporary one, of any machine."""
    return name.startswith(".") and name.endswith(".partial")


def abandoned(name: str) -> bool:
    """Whether it is the temporary file of a dead process of this machine."""
    match = _PARTIAL.fullmatch(name)
    return match is not None and not alive(int(match[1]))


def in_use(name: str) -> bool:
    """Whether it is the temporary file of a process of this machine that lives."""
    match = _PARTIAL.fullmatch(name)
    return match is not None and alive(int(match[1]))


def set_aside(path: Path) -> Path:
    """Give a file or folder a temporary name, so that it is gone for readers at once; returns the name.

    A folder's `zarr.json` goes first: whoever has listed the folder does not take it for a whole one.
    """
    if path.is_dir():
        (path / "zarr.json").unlink(missing_ok=True)
    aside = partial_name(path)
    os.replace(path, aside)
    fsync_folder(path.parent)
    return aside


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that each survives a power cut with what will lie in it."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def partial_name(path: Path) -> Path:
    """A temporary name beside `path`, given once."""
    return path.with_name(f".{path.name}.{machine()}-{os.getpid()}-{next(_COUNTER)}.partial")
