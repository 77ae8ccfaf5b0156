"""Blocks of files from elsewhere, kept on the local disk up to a limit.

A block is a file of its own: its bytes, then their crc32c. It is written under a temporary name and renamed,
so that processes which share the folder see whole blocks; one that fails its checksum is removed and asked
for again. Its modification time is that of its last use; when there are too many, the oldest go. Nothing is
synced: what a power cut spoils, the checksum finds.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import ConfigError
from ..checksum import CRC_BYTES, crc_bytes, crc_fits

FOLDER, LIMIT = "STRATA_CACHE", "STRATA_CACHE_BYTES"
DEFAULT_BYTES = 10 * 1000**3
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_COUNTER = itertools.count()


class BlockCache:
    """A folder of blocks that any number of threads and processes may share.

    Args:
        folder: where they lie; made when the first one is kept.
        limit: bytes they may take; 0 = none are kept. One or two processes stay below it, each further one
            may exceed it by a sixteenth.
    """

    def __init__(self, folder: str | Path, limit: int = DEFAULT_BYTES) -> None:
        self.folder, self.limit = Path(folder), limit
        self._lock = threading.Lock()
        # Others may have filled the folder: the first block that is kept looks.
        self._unseen = limit

    def get(self, name: str) -> bytes | None:
        """The block, or None when it is not there or not as it was written."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size - CRC_BYTES
                body, crc = file.read(max(size, 0)), file.read(CRC_BYTES)
                os.utime(file.fileno())
        except OSError:
            return None
        if len(body) != size or not crc_fits(body, crc):
            self.drop(name)
            return None
        return body

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Keep a block. Without room on the disk it is not kept: it can be fetched again."""
        if not self.limit:
            return
        path = self._path(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{next(_COUNTER)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.write(crc_bytes(data))
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            return
        self._count(len(data) + CRC_BYTES)

    def drop(self, name: str) -> None:
        """Forget a block."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _count(self, size: int) -> None:
        with self._lock:
            self._unseen += size
            if self._unseen > self.limit // 16:
                self._unseen = 0
                with contextlib.suppress(OSError), _alone(self.folder / ".lock"):
                    self._trim()

    def _trim(self) -> None:
        """Remove the least recently used until seven eighths of the limit are left."""
        blocks = sorted(_blocks(self.folder))
        used = sum(size for _, size, _ in blocks)
        for _, size, path in blocks:
            if used <= self.limit * 7 // 8:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            used -= size


def cache_of(environment: Mapping[str, str]) -> BlockCache:
    """The cache that STRATA_CACHE and STRATA_CACHE_BYTES name; else 10 GB in the user's cache folder.

    Raises:
        ConfigError: the size is not one.
    """
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = environment.get(FOLDER) or Path(home) / "strata"
    return BlockCache(folder, parsed_bytes(environment.get(LIMIT, str(DEFAULT_BYTES))))


def parsed_bytes(text: str) -> int:
    """Bytes of `200GB`, `500 MB`, `0` or a plain number.

    Raises:
        ConfigError: it is something else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?b)?\s*", text.lower())
    if not match:
        raise ConfigError(f"{text!r} is not a size.", where=LIMIT, fix="write 20GB, or 0 to keep nothing")
    return int(float(match[1]) * _UNITS[match[2] or ""])


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; where locks do not work, two may both remove old blocks, which harms nothing."""
    with lock.open("wb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _blocks(folder: Path) -> Iterator[tuple[float, int, str]]:
    """(last use, size, path) of everything in the cache, also of what dead writers left half-written."""
    for shelf in os.scandir(folder):
        if not shelf.is_dir(follow_symlinks=False):
            continue
        for entry in os.scandir(shelf.path):
            with contextlib.suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                yield state.st_mtime, state.st_size, entry.path
