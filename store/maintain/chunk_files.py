"""The files of one array, every byte of them: chunks by their checksums, the rest by what it must be."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import StoreError
from ..arrays import ArraySpec, check_crc, decode_chunk
from ..atomic import read_file
from ..claims import check_claim
from ..open_shard import EMPTY
from ..shard_io import read_index


def file_faults(path: Path, spec: ArraySpec, unit: int) -> Iterator[str]:
    """What is wrong with the file of one outer chunk, one sentence each."""
    try:
        if spec.sharded:
            yield from _shard_faults(path, spec, unit)
        else:
            _check_plain(path, spec)
    except StoreError as error:
        yield error.what
    except OSError as error:
        yield f"the file cannot be read: {error.strerror}."


def absent_rows(path: Path, spec: ArraySpec, unit: int) -> list[int]:
    """Rows of a whole shard that have no chunk."""
    index = read_index(path, spec.unit)
    return [row for i, row in enumerate(spec.rows(unit)) if int(index[i, 0]) == EMPTY]


def _check_plain(path: Path, spec: ArraySpec) -> None:
    size, expected = path.stat().st_size, spec.unit * spec.row_bytes + 4
    if size != expected:
        raise StoreError(f"a chunk holds {size:,} bytes instead of {expected:,}.")
    check_crc(read_file(path), path)


def _shard_faults(path: Path, spec: ArraySpec, unit: int) -> Iterator[str]:
    index, rows = read_index(path, spec.unit), spec.rows(unit)
    there = [(int(offset), int(size), i) for i, (offset, size) in enumerate(index) if int(offset) != EMPTY]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for offset, size, i in there:
            try:
                _check_chunk(spec, data[offset : offset + size], path)
            except StoreError as error:
                yield f"row {rows.start + i}: {error.what}"
        if any(i >= len(rows) for _, _, i in there):
            yield "it holds rows beyond those of its array."
        yield from _between(data, sorted(there), len(data) - 16 * spec.unit - 4)


def _check_chunk(spec: ArraySpec, data: bytes, path: Path) -> None:
    if not spec.blosc:
        if len(data) != spec.row_bytes + 4:
            raise StoreError(f"a chunk holds {len(data):,} bytes instead of {spec.row_bytes + 4:,}.")
        check_crc(data, path)
        return
    check_crc(data, path)
    check_claim(spec, len(data), path)
    decode_chunk(spec, data, np.empty(spec.shape[1:], spec.fill_value().dtype), path)


def _between(data: mmap.mmap, there: list[tuple[int, int, int]], end: int) -> Iterator[str]:
    """Whatever is neither a chunk nor the index is 0, and chunks do not overlap."""
    position = 0
    for offset, size, _ in [*there, (end, 0, 0)]:
        if offset < position:
            yield "its chunks overlap."
        elif data[position:offset].strip(b"\0"):
            yield "bytes between its chunks are not 0."
        position = max(position, offset + size)
