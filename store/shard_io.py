"""Bytes of a shard: inner chunks one after the other, the index last.

The index is, for each inner chunk in C order, its offset and its size as little-endian u64 (both
2^64 - 1 = no chunk), then the crc32c of those. Chunks of 64 KiB and more start at multiples of 4096,
so that they can be mapped; readers go through the index and never assume an order.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from ..errors import StoreError
from .arrays import DTYPES, ArraySpec, check_crc, decode_chunk

EMPTY = 2**64 - 1
ALIGN = 4096
ALIGN_FROM = 64 * 1024
_OPEN_SHARDS = 64


def shard_parts(chunks: Sequence[bytes | None]) -> Iterator[bytes]:
    """The bytes of a shard with these inner chunks, part by part."""
    offset, entries = 0, []
    for chunk in chunks:
        if chunk is None:
            entries.append((EMPTY, EMPTY))
            continue
        gap = -offset % ALIGN if len(chunk) >= ALIGN_FROM else 0
        if gap:
            yield bytes(gap)
        entries.append((offset + gap, len(chunk)))
        yield chunk
        offset += gap + len(chunk)
    index = np.array(entries, "<u8").tobytes()
    yield index
    yield struct.pack("<I", google_crc32c.value(index))


def read_index(path: Path, chunks: int) -> np.ndarray:
    """[chunks, 2] u64 offsets and sizes of a shard that should hold this many inner chunks.

    Raises:
        StoreError: the file is missing, cut, or not such a shard.
    """
    return _OpenShard(path, chunks).index


def present_chunks(path: Path, chunks: int) -> np.ndarray | None:
    """[chunks] bool of the inner chunks that are there; None when this is no whole shard of that shape."""
    try:
        return read_index(path, chunks)[:, 0] != EMPTY
    except StoreError:
        return None


class _OpenShard:
    """A shard's index and an open handle, closed when nobody holds it any more.

    So a shard that is dropped from the cache stays open for a thread that is still reading it. Index
    and chunks come through one handle: a shard that is replaced meanwhile is not mixed with the new.

    Raises:
        StoreError: the file is missing, cut, or not such a shard.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        try:
            self.handle = os.open(path, os.O_RDONLY)
            size, length = os.fstat(self.handle).st_size, 16 * chunks + 4
            tail = os.pread(self.handle, length, max(0, size - length))
        except OSError as error:
            raise StoreError(f"a shard cannot be read: {error.strerror}.", where=path) from None
        self.index = parse_index(tail, size, chunks, path)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class OpenShards:
    """The shards that stay open, at most 64: many readers share one, so that handles never run out."""

    def __init__(self) -> None:
        self._shards: OrderedDict[Path, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, chunks: int) -> _OpenShard:
        """The shard, opened unless it is.

        Raises:
            StoreError: the file is missing, cut, or not such a shard.
        """
        with self._lock:
            if path not in self._shards:
                self._shards[path] = _OpenShard(path, chunks)
                if len(self._shards) > _OPEN_SHARDS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(path)
            return self._shards[path]


class ArrayReader:
    """Reads rows of one stored array through its shards' indices into caller-owned buffers.

    Args:
        folder: the array's folder.
        spec: what its `zarr.json` says.
        check: verify checksums `always`, at the `first` touch of a chunk, or `never`; compressed and
            plain chunks are verified always.
        shards: where open shards are kept; None = of this reader alone.

    It may be used from several threads.
    """

    def __init__(
        self, folder: Path, spec: ArraySpec, check: str = "first", shards: OpenShards | None = None
    ) -> None:
        self.folder, self.spec, self.check = folder, spec, check
        self._shards = shards or OpenShards()
        self._verified: set[int] = set()

    def read(self, rows: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """[len(rows), ...] in the stored dtype; rows without a chunk hold the fill value.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        if out is None:
            out = np.empty((len(rows), *self.spec.shape[1:]), DTYPES[self.spec.dtype])
        if self.spec.sharded:
            for i, row in enumerate(rows):
                self._read_sharded(row, out[i])
        else:
            self._read_plain(np.asarray(rows, int), out)
        return out

    def present(self, row: int) -> bool:
        """Whether a row was written; a view that failed has no chunk."""
        unit, i = divmod(row, self.spec.unit)
        if not self.spec.sharded:
            return (self.folder / self.spec.file(unit)).exists()
        return int(self._open(unit).index[i, 0]) != EMPTY

    def _read_sharded(self, row: int, out: np.ndarray) -> None:
        unit, i = divmod(row, self.spec.unit)
        shard = self._open(unit)
        offset, size = map(int, shard.index[i])
        where = f"{self.folder / self.spec.file(unit)}, row {row}"
        if offset == EMPTY:
            out[...] = self.spec.fill_array(1)[0]
        elif self.spec.blosc:
            decode_chunk(self.spec, os.pread(shard.handle, size, offset), out, where)
        else:
            self._read_raw(row, shard, offset, size, out, where)

    def _read_raw(
        self, row: int, shard: _OpenShard, offset: int, size: int, out: np.ndarray, where: str
    ) -> None:
        if size != out.nbytes + 4 or not out.flags.c_contiguous:
            raise StoreError(f"a chunk holds {size:,} bytes instead of {out.nbytes + 4:,}.", where=where)
        crc = bytearray(4)
        body = out.data.cast("B")
        if os.preadv(shard.handle, [body, crc], offset) != size:
            raise StoreError("a shard ends in the middle of a chunk.", where=where)
        if self.check == "never" or (self.check == "first" and row in self._verified):
            return
        if struct.unpack("<I", crc)[0] != google_crc32c.value(bytes(body)):
            check_crc(bytes(body) + bytes(crc), where)
        self._verified.add(row)

    def _read_plain(self, rows: np.ndarray, out: np.ndarray) -> None:
        for unit in np.unique(rows // self.spec.unit):
            path, here = self.folder / self.spec.file(int(unit)), rows // self.spec.unit == unit
            if path.exists():
                chunk = np.empty((self.spec.unit, *self.spec.shape[1:]), out.dtype)
                decode_chunk(self.spec, path.read_bytes(), chunk, path)
                out[here] = chunk[rows[here] % self.spec.unit]
            else:
                out[here] = self.spec.fill_array(1)

    def _open(self, unit: int) -> _OpenShard:
        return self._shards.get(self.folder / self.spec.file(unit), self.spec.unit)


def parse_index(tail: bytes, size: int, chunks: int, where: object) -> np.ndarray:
    """[chunks, 2] offsets and sizes, from the last bytes of a shard of this size.

    Raises:
        StoreError: it is not the index of such a shard.
    """
    body = check_crc(tail, where)
    index = np.frombuffer(body, "<u8").reshape(-1, 2) if len(body) == 16 * chunks else None
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
