"""Bytes of a shard: inner chunks one after the other, the index last.

The index is, for each inner chunk in C order, its offset and its size as little-endian u64 (both
2^64 - 1 = no chunk), then the crc32c of those. Chunks of 64 KiB and more start at multiples of 4096,
so that they can be mapped; readers go through the index and never assume an order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import StoreError
from .arrays import Parts
from .checksum import crc_bytes
from .open_shard import EMPTY, OpenShard

ALIGN = 4096
ALIGN_FROM = 64 * 1024
_OPEN_SHARDS = 64


def shard_parts(chunks: Iterable[bytes | Parts | None]) -> Iterator[bytes | memoryview]:
    """The bytes of a shard with these inner chunks, part by part; what is in memory is not copied.

    A chunk is asked for when those before it were taken.
    """
    offset, entries = 0, []
    for chunk in chunks:
        if chunk is None:
            entries.append((EMPTY, EMPTY))
            continue
        parts = (chunk,) if isinstance(chunk, bytes) else chunk
        size = sum(map(len, parts))
        gap = -offset % ALIGN if size >= ALIGN_FROM else 0
        if gap:
            yield bytes(gap)
        entries.append((offset + gap, size))
        yield from parts
        offset += gap + size
    index = np.array(entries, "<u8").tobytes()
    yield index
    yield crc_bytes(index)


def read_index(path: Path, chunks: int) -> np.ndarray:
    """[chunks, 2] u64 offsets and sizes of a shard that should hold this many inner chunks.

    Raises:
        StoreError: the file is missing, cut, or not such a shard.
    """
    return OpenShard(path, chunks).index


def present_chunks(path: Path, chunks: int) -> np.ndarray | None:
    """[chunks] bool of the inner chunks that are there; None when this is no whole shard of that shape."""
    try:
        return read_index(path, chunks)[:, 0] != EMPTY
    except StoreError:
        return None


class OpenShards:
    """The shards that stay open, at most 64: many readers share one, so that handles never run out."""

    def __init__(self) -> None:
        self._shards: OrderedDict[Path, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, chunks: int) -> OpenShard:
        """The shard, opened unless it is.

        Raises:
            StoreError: the file is missing, cut, or not such a shard.
        """
        with self._lock:
            if path not in self._shards:
                self._shards[path] = OpenShard(path, chunks)
                if len(self._shards) > _OPEN_SHARDS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(path)
            return self._shards[path]
