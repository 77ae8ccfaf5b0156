"""Reading rows of an array elsewhere: by ranges, through the indices of its shards.

Shapes: rows of an array [views, ...].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import RemoteError, StoreError
from ..arrays import DTYPES, ArraySpec, bad_checksum, crc_fits, decode_chunk
from ..open_shard import EMPTY, parse_index
from .blocks import Span, whole
from .listing import RemoteFile
from .path import RemotePath

AT_ONCE = 32 << 20
"""Bytes of rows that are asked for at once."""


class RemoteArrayReader:
    """What `ArrayReader` is for local arrays, with the same results.

    Every chunk is verified, whether it comes from the network or from the cache. One that is damaged is asked
    for again from its place before that is an error.

    Args:
        folder: the array's folder.
        spec: what its `zarr.json` says.

    It may be used from several threads.
    """

    def __init__(self, folder: RemotePath, spec: ArraySpec) -> None:
        self.folder, self.spec, self.dtype = folder, spec, DTYPES[spec.dtype]
        self._indices: dict[int, tuple[RemoteFile, np.ndarray]] = {}

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """[len(rows), ...] in the stored dtype; rows without a chunk hold the fill value.

        Raises:
            StoreError: a shard is missing or damaged.
            RemoteError: the place cannot be reached.
        """
        rows = [int(row) for row in rows]
        if out is None:
            out = np.empty((len(rows), *self.spec.shape[1:]), self.dtype)
        for part in self._parts(len(rows)):
            try:
                self._read(rows[part], out[part])
            except RemoteError:
                raise
            except StoreError:
                # The cache's copy may be spoilt, or the shard was replaced since the store was opened.
                self._forget(rows[part])
                self._read(rows[part], out[part])
        return out

    def gather(self, rows: np.ndarray, inner: tuple[np.ndarray, ...]) -> np.ndarray:
        """[N, ...] `array[rows, *inner]` in the stored dtype; each row that is touched is read whole, once.

        Args:
            rows: [N] of the array.
            inner: [N] positions on each of the next axes; all of them inside the array.
        """
        some, inverse = np.unique(np.asarray(rows, int), return_inverse=True)
        return self.read(some.tolist())[inverse, *inner]

    def settled(self, rows: Sequence[int] | np.ndarray) -> None:
        """None: no row lies in a file of this machine, and each is verified."""

    def present(self, row: int) -> bool:
        """Whether a row was written; a view that failed has no chunk."""
        unit, i = divmod(row, self.spec.unit)
        if not self.spec.sharded:
            return self._path(unit).is_file()
        self._open([unit])
        return int(self._indices[unit][1][i, 0]) != EMPTY

    def _parts(self, count: int) -> Iterator[slice]:
        step = max(1, AT_ONCE // max(1, self.spec.row_bytes))
        return (slice(start, start + step) for start in range(0, count, step))

    def _read(self, rows: list[int], out: np.ndarray) -> None:
        if self.spec.sharded:
            self._read_sharded(rows, out)
        else:
            self._read_plain(np.asarray(rows, int), out)

    def _read_sharded(self, rows: list[int], out: np.ndarray) -> None:
        self._open(sorted({row // self.spec.unit for row in rows}))
        spans: dict[int, Span] = {}
        for i, row in enumerate(rows):
            unit, chunk = divmod(row, self.spec.unit)
            file, index = self._indices[unit]
            offset, size = map(int, index[chunk])
            if offset == EMPTY:
                out[i] = self.spec.fill_array(1)[0]
            else:
                spans[i] = Span(file=file, start=offset, stop=offset + size)
        for i, pieces in zip(spans, self.folder.place.pieces(list(spans.values())), strict=True):
            where = f"{self._path(rows[i] // self.spec.unit)}, row {rows[i]}"
            direct = out[i].flags.c_contiguous
            values = out[i] if direct else np.empty_like(out[i], order="C")
            if self.spec.blosc:
                decode_chunk(self.spec, b"".join(pieces), values, where)
            else:
                _put_together(pieces, values, where)
            if not direct:
                out[i] = values

    def _read_plain(self, rows: np.ndarray, out: np.ndarray) -> None:
        units = [int(unit) for unit in np.unique(rows // self.spec.unit)]
        there = [unit for unit in units if self._path(unit).is_file()]
        files = [self.folder.place.file(self._path(unit).path) for unit in there]
        out[...] = self.spec.fill_value()
        for unit, data in zip(there, self.folder.place.read([whole(file) for file in files]), strict=True):
            chunk = np.empty((self.spec.unit, *self.spec.shape[1:]), out.dtype)
            decode_chunk(self.spec, data, chunk, self._path(unit))
            here = rows // self.spec.unit == unit
            out[here] = chunk[rows[here] % self.spec.unit]

    def _open(self, units: Sequence[int]) -> None:
        """Read the indices of shards that are not known yet, all at once."""
        new = [unit for unit in units if unit not in self._indices]
        files = [self._shard(unit) for unit in new]
        length = 16 * self.spec.unit + 4
        tails = [Span(file=file, start=max(0, file.size - length), stop=file.size) for file in files]
        for unit, file, tail in zip(new, files, self.folder.place.read(tails), strict=True):
            index = parse_index(tail, file.size, self.spec.unit, self._path(unit))
            self._check_sizes(unit, index)
            self._indices[unit] = file, index

    def _check_sizes(self, unit: int, index: np.ndarray) -> None:
        """An uncompressed chunk has its map's size: asked before anything is fetched for it."""
        sizes = index[index[:, 0] != EMPTY, 1]
        expected = math.prod(self.spec.shape[1:]) * self.spec.itemsize + 4
        if not self.spec.blosc and not (sizes == expected).all():
            raise StoreError(f"a chunk is not of {expected:,} bytes.", where=self._path(unit))

    def _shard(self, unit: int) -> RemoteFile:
        path = self._path(unit)
        try:
            return path.place.file(path.path)
        except FileNotFoundError:
            fix = "push or extract it again; a store that changed since is opened again"
            raise StoreError("a shard is missing.", where=path, fix=fix) from None

    def _forget(self, rows: Sequence[int]) -> None:
        for unit in {row // self.spec.unit for row in rows}:
            self._indices.pop(unit, None)
            if self._path(unit).is_file():
                self.folder.place.forget(self._path(unit).path)

    def _path(self, unit: int) -> RemotePath:
        return self.folder / self.spec.file(unit)


def _put_together(pieces: Sequence[memoryview], out: np.ndarray, where: object) -> None:
    """What `decode_chunk` does with a chunk that is not compressed, from its pieces and with one copy.

    Raises:
        StoreError: the checksum or the size is wrong.
    """
    flat, position, crc = out.reshape(-1).view(np.uint8), 0, b""
    for piece in pieces:
        body = piece[: flat.size - position]
        if body:
            flat[position : position + len(body)] = np.frombuffer(body, np.uint8)
        position += len(body)
        crc += piece[len(body) :]
    if position != flat.size or not crc_fits(flat, crc):
        raise bad_checksum(where)
