"""A shard that is open for reading: its index, its bytes by offset, and as a map of memory.

Letters: N chunks asked for, ... shape of one chunk.
"""

from __future__ import annotations

import math
import mmap
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import StoreError
from .arrays import check_crc
from .checksum import CRC_BYTES

EMPTY = 2**64 - 1
MOST_BUFFERS = 512
"""Of one call; systems take at least 1,024."""
MOST_GAP = 8192
"""Bytes between two chunks that are read with them; our chunks are aligned to 4,096."""


class OpenShard:
    """A shard's index and an open handle, closed when nobody holds it any more.

    So a shard that is dropped from the cache stays open for a thread that is still reading it. Index
    and chunks come through one handle: a shard that is replaced meanwhile is not mixed with the new.

    Attributes:
        handle: file descriptor.
        index: [chunks, 2] u64 offsets and sizes.
        identity: of the file; another file at the same path has another one.

    Raises:
        StoreError: the file is missing, cut, or not such a shard.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        self.path, self._items = path, []
        try:
            self.handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            stat, length = os.fstat(self.handle), 16 * chunks + CRC_BYTES
            self._size, self.identity = stat.st_size, file_identity(stat)
            # How many chunks there are is said by a document that may be anybody's: no memory is asked for
            # an index that is longer than the file.
            tail = os.pread(self.handle, length, self._size - length) if length <= self._size else b""
        except OSError as error:
            raise StoreError(f"a shard cannot be read: {error.strerror}.", where=path) from None
        self.index = parse_index(tail, self._size, chunks, path)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)

    def items(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """[N, ...] the uncompressed chunks that are there, in the order of the index, mapped and not copied.

        The last axis of a chunk is one item of opaque bytes: what is picked by items is copied whole, which
        numpy does faster than number by number. None where chunks are not of this size, or do not follow each
        other at one distance. A shard belongs to one array, so shape and dtype are those of the first call.
        """
        if not self._items:
            self._items.append(self._mapped_items(shape, dtype))
        return self._items[0]

    def _mapped_items(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        there = self.index[self.present].astype(np.int64)
        nbytes = math.prod(shape) * dtype.itemsize
        steps = np.unique(np.diff(there[:, 0]))
        if not len(there) or (there[:, 1] != nbytes + CRC_BYTES).any() or len(steps) > 1:
            return None
        step = int(steps[0]) if len(steps) else nbytes
        item = np.dtype((np.void, shape[-1] * dtype.itemsize))
        first = np.ndarray(shape[:-1], item, self._map, int(there[0, 0]))
        return np.lib.stride_tricks.as_strided(
            first, (len(there), *first.shape), (step, *first.strides), writeable=False
        )

    @cached_property
    def present(self) -> np.ndarray:
        """[chunks] bool, which chunks are there."""
        return self.index[:, 0] != EMPTY

    @cached_property
    def full(self) -> bool:
        """Whether all of them are."""
        return bool(self.present.all())

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """The index as plain numbers: (offset, size) by chunk."""
        return [(offset, size) for offset, size in self.index.tolist()]

    def chunk(self, number: int) -> np.ndarray:
        """[size] u8 of one chunk with its checksum, mapped and not copied."""
        offset, size = self.places[number]
        return np.frombuffer(self._map, np.uint8, size, offset)

    def fill(self, buffers: list[memoryview], offset: int) -> bool:
        """Read into these buffers, one after the other; False where the file ends before."""
        return fill(self.handle, buffers, offset, self.path)

    def fill_each(self, pieces: list[tuple[int, memoryview]]) -> bool:
        """Read (offset, buffer) pieces, neighbours with one call; False where the file ends before."""
        done = 0
        while done < len(pieces):
            start, buffers, done = _neighbours(pieces, done)
            if not self.fill(buffers, start):
                return False
        return True

    @property
    def replaced(self) -> bool:
        """Whether another file lies at its path by now."""
        try:
            return file_identity(os.stat(self.path)) != self.identity
        except FileNotFoundError:
            return True

    def check_size(self) -> None:
        """To be called before mapped bytes are touched: those of a file that was cut end the process.

        Raises:
            StoreError: the file was cut since it was opened.
        """
        if os.fstat(self.handle).st_size < self._size:
            raise cut(self.path)

    def read_ahead(self, numbers: np.ndarray) -> None:
        """Have the kernel fetch these chunks, all at once instead of page by page."""
        for number in numbers.tolist():
            offset, size = self.places[number]
            os.posix_fadvise(self.handle, offset, size, os.POSIX_FADV_WILLNEED)

    @cached_property
    def _map(self) -> mmap.mmap:
        return mmap.mmap(self.handle, self._size, prot=mmap.PROT_READ)


def file_identity(stat: os.stat_result) -> tuple[int, int, int]:
    """Tells a file from another one that was renamed over it."""
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _neighbours(pieces: list[tuple[int, memoryview]], first: int) -> tuple[int, list[memoryview], int]:
    """(offset, buffers, next piece) of one call: what lies between pieces goes into memory of no use."""
    start, body = pieces[first]
    buffers, end, k = [body], start + body.nbytes, first + 1
    while k < len(pieces) and len(buffers) < MOST_BUFFERS and 0 <= pieces[k][0] - end <= MOST_GAP:
        gap, body = pieces[k][0] - end, pieces[k][1]
        buffers += [memoryview(bytearray(gap)), body]
        end += gap + body.nbytes
        k += 1
    return start, buffers, k


def fill(handle: int, buffers: list[memoryview], offset: int, path: Path) -> bool:
    """Read a file from `offset` into these buffers, one after the other; False where it ends before.

    Raises:
        StoreError: the disk does not give the bytes.
    """
    left = buffers[:]
    while left:
        try:
            count = os.preadv(handle, left, offset)
        except OSError as error:
            raise StoreError(f"a chunk cannot be read: {error.strerror}.", where=path) from None
        if not count:
            return False
        offset += count
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]
    return True


def cut(where: object) -> StoreError:
    """What is said of a file that is shorter than it was."""
    return StoreError("a shard ends in the middle of a chunk.", where=where)


def parse_index(tail: bytes, size: int, chunks: int, where: object) -> np.ndarray:
    """[chunks, 2] u64 offsets and sizes, from the last bytes of a shard of this size.

    Raises:
        StoreError: they are not the index of such a shard.
    """
    body = check_crc(tail, where) if tail else b""
    index = np.frombuffer(body, "<u8").reshape(-1, 2) if tail and len(body) == 16 * chunks else None
    if index is not None:
        there = index[index[:, 0] != EMPTY]
        # Overflow-safe: a forged offset near 2^64 must not wrap around to a small sum.
        fits = (there[:, 1] <= size) & (there[:, 0] <= size - np.minimum(there[:, 1], size))
        if fits.all():
            return index
    raise StoreError(
        f"a shard's index does not fit its {size:,} bytes.",
        where=where,
        why=f"{chunks} inner chunks were expected",
        fix="restore the file, or remove it and extract again",
    )
