"""Small files that become visible one after the other and wait for the disk together.

An fsync waits for the file system's journal, and one entry of the journal holds whatever was written before
it. So all files are written first, then all fsynced, then renamed, then their folders fsynced: of each kind
the first waits, and the others find their work done.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .atomic import fsync_folder, partial_name, sweep
from .disk_faults import explained
from .disk_hints import begin_writing


class Together:
    """Files that `together` makes visible, in the order in which they were given."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []
        self._folders: dict[Path, None] = {}

    def write(self, path: Path, data: bytes) -> None:
        """Write a file under a temporary name.

        Raises:
            DiskFullError, StoreError: it cannot be written.
        """
        partial = partial_name(path)
        self._files.append((partial, path))
        try:
            self._make_folder(path.parent)
            sweep(path.parent)
            with partial.open("xb", buffering=0) as file:
                left = memoryview(data)
                while left:  # a disk with room for a part takes that part
                    left = left[file.write(left) :]
                begin_writing(file.fileno(), 0, len(data))
        except OSError as error:
            raise explained(error, path) from error
        self.settle([path.parent])

    def settle(self, folders: Iterable[Path]) -> None:
        """What was renamed or made in these folders before the end is to survive a power cut as well."""
        self._folders |= dict.fromkeys(folders)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            self.settle([folder.parent])

    def publish(self) -> None:
        """Make the files visible."""
        for partial, path in self._files:
            with _of(path):
                _fsync(partial)
        while self._files:
            partial, path = self._files[0]
            with _of(path):
                os.replace(partial, path)
            del self._files[0]
        for folder in self._folders:
            with _of(folder):
                fsync_folder(folder)

    def drop(self) -> None:
        """Remove what has not become visible."""
        for partial, _ in self._files:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


@contextlib.contextmanager
def together() -> Iterator[Together]:
    """Files that become visible when the block ends well; else none of them does.

    Raises:
        DiskFullError, StoreError: they cannot be written; those that were renamed before that stay.
    """
    files = Together()
    try:
        yield files
        files.publish()
    finally:
        files.drop()


@contextlib.contextmanager
def _of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(error, path) from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
