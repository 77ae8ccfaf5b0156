"""Who may change what others decide by: `store gc`, runs that begin, and plans, one after the other.

A run becomes live under the lock, and gc removes under it what no live run names; so nothing is removed that
a run has just taken up. Lists that a run reads, extends and writes are changed under it as well. Shards need
no lock. Where the file system has none, everything goes on without: gc leaves alone what is young.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from .atomic import make_folder

_WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Alone, among those who lock the store."""
    make_folder(root / "runs")
    with locked(_path(root)):
        yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Alone, among those who lock this file in a folder that is there; gives its handle."""
    with _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as handle:
        yield handle


@contextlib.contextmanager
def shared(root: Path) -> Iterator[None]:
    """While nobody is alone; writes nothing."""
    if not _path(root).exists():
        yield
        return
    with _locked(_path(root), os.O_RDONLY, fcntl.LOCK_SH):
        yield


def _path(root: Path) -> Path:
    return root / "runs" / ".lock"


@contextlib.contextmanager
def _locked(path: Path, flags: int, kind: int) -> Iterator[int]:
    handle = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, kind)
        except OSError as error:
            if error.errno not in _WITHOUT:
                raise
        yield handle
    finally:
        os.close(handle)
