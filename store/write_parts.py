"""Writing many pieces of memory as one file, without joining them first."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TOGETHER = 8 * 1024**2
"""Bytes of one call: many enough that calls cost nothing, few enough to be in the cache from the checksum."""
MOST_PIECES = 512
"""Systems take at least 1,024 at once."""


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Write a new file; returns its bytes.

    Raises:
        OSError: as the system tells.
    """
    written, waiting, size = 0, [], 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for part in parts:
            waiting.append(memoryview(part).cast("B"))
            size += waiting[-1].nbytes
            if size >= TOGETHER or len(waiting) == MOST_PIECES:
                written += _write_all(handle, waiting)
                waiting, size = [], 0
        return written + _write_all(handle, waiting)
    finally:
        os.close(handle)


def _write_all(handle: int, pieces: list[memoryview]) -> int:
    left, written = [piece for piece in pieces if piece.nbytes], 0
    while left:
        count = os.writev(handle, left)
        written += count
        while left and count >= left[0].nbytes:
            count -= left.pop(0).nbytes
        if count:
            left[0] = left[0][count:]
    return written
