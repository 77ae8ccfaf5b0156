"""Writing many pieces of memory as one file, without joining them first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .disk_hints import begin_writing, reserve

TOGETHER = 8 * 1024**2
"""Bytes of one call: many enough that calls cost nothing, few enough to be in the cache from the checksum."""
AHEAD = 32 * 1024**2
"""Bytes that room is made for at a time."""
MOST_PIECES = 512
"""Systems take at least 1,024 at once."""


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Write a new file; returns its bytes.

    Raises:
        OSError: as the system tells.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        written = reserved = 0
        for pieces, size in _batches(parts):
            if size >= TOGETHER and written + size > reserved:
                reserve(handle, written, max(AHEAD, size))
                reserved = written + max(AHEAD, size)
            _write_all(handle, pieces)
            begin_writing(handle, written, size)
            written += size
        if reserved > written:
            os.ftruncate(handle, written)
        return written
    finally:
        os.close(handle)


def _batches(parts: Iterable[bytes | memoryview]) -> Iterator[tuple[list[memoryview], int]]:
    """Pieces that are written by one call, and their bytes."""
    waiting, size = [], 0
    for part in parts:
        waiting.append(memoryview(part).cast("B"))
        size += waiting[-1].nbytes
        if size >= TOGETHER or len(waiting) == MOST_PIECES:
            yield waiting, size
            waiting, size = [], 0
    if waiting:
        yield waiting, size


def _write_all(handle: int, pieces: list[memoryview]) -> None:
    left = [piece for piece in pieces if piece.nbytes]
    while left:
        count = os.writev(handle, left)
        while left and count >= left[0].nbytes:
            count -= left.pop(0).nbytes
        if count:
            left[0] = left[0][count:]
