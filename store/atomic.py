"""Whole files and folders or nothing: temporary name, fsync, rename, fsync of the folder around it.

A temporary file or folder is `.<name>.<host>-<pid>-<n>.partial`; zarr ignores it, and whoever writes into the
folder next removes those whose process is gone.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DiskFullError, StoreError

Buffer = bytes | bytearray | memoryview

_HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
_COUNTER = itertools.count()
_PARTIAL = re.compile(rf"\..+\.{_HOST}-(\d+)-\d+\.partial")


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
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, for libraries that write files; it becomes `path` when the block ends well.

    Raises:
        DiskFullError: no space or quota is left; the temporary file is removed.
        StoreError: the folder cannot be written.
    """
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        fsync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _explained(error, path) from error
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to put files into, which becomes `path` when the block ends well.

    Raises:
        DiskFullError: no space or quota is left; what was written is removed.
        StoreError: it cannot be written, or `path` is a folder with something in it.
    """
    partial = _partial(path)
    try:
        partial.mkdir(parents=True)
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
            raise _explained(error, path) from error
        raise


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A JSON document, indented, whole or not there."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """The JSON document.

    Raises:
        StoreError: it is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError("a document of the store is missing.", where=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            "a document of the store cannot be read.",
            where=path,
            why=str(error),
            fix="restore the file from a copy of the store",
        ) from None


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files and folders that dead processes of this machine left in `folder`."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        match = _PARTIAL.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_COUNTER)}.partial")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _explained(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            "the disk is full.",
            where=path,
            why="what was finished before is whole; nothing half-written is visible",
            fix="make room and run the same command again, or ask for fewer layers",
        )
    return StoreError(
        f"the file cannot be written: {error.strerror}.",
        where=path,
        fix="check that the folder exists, is mounted and may be written",
    )
