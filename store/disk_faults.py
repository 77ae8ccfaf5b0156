"""Faults of disks and network file systems, as errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from ..errors import DiskFullError, StoreError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
_GONE = "its disk or network file system is gone or failing", "mount it again (`dmesg` says what happened)"
_FOREIGN = "its folder belongs to somebody else", "give yourself the right to write there"
_FAULTS = {
    errno.EROFS: (
        "its file system is read-only",
        "mount it for writing; after a fault of the disk see `dmesg`",
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _FOREIGN),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN), _GONE),
}


@contextlib.contextmanager
def disk_faults(where: object) -> Iterator[None]:
    """Faults of the disk under `where` that reach here as errors of the system become errors of ours.

    Raises:
        DiskFullError, StoreError: as `explained` says; other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_FAULTS):
            raise
        raise explained(error, error.filename or where) from error


def explained(error: OSError, path: object) -> StoreError:
    """The error that says why `path` cannot be written, and what resolves it."""
    if error.errno in _FULL:
        return DiskFullError(
            f"{_FULL[error.errno]}.",
            where=path,
            why="what was finished before is whole; nothing half-written is visible",
            fix="make room and run the same command again, or ask for fewer layers",
        )
    nothing = "", "check that the folder exists, is mounted and may be written"
    why, fix = _FAULTS.get(error.errno or 0, nothing)
    return StoreError(
        f"the file cannot be written: {error.strerror}.",
        where=path,
        why=why,
        fix=f"{fix}; the same command then continues",
    )


def refusal(error: OSError) -> StoreError | None:
    """What to say of an error that no program can mend, met while reading or writing; None for any other."""
    path = error.filename or "a file that this command uses"
    if error.errno in _FULL:
        return explained(error, path)
    if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
        return None
    return StoreError(
        f"the system refuses this file or folder: {error.strerror or error}.",
        where=path,
        why="its file system is read-only" if error.errno == errno.EROFS else "you have no right to use it",
        fix="give yourself the right to read or write it, or name another place; then run the command again",
    )
