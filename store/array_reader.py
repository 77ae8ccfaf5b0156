"""Rows of one stored array, read into buffers of the caller, and single tokens picked out of them.

Checksums are verified `always`, at the `first` touch of a chunk, or `never`; compressed chunks are
verified always. A gather is a touch: with `first` it reads and verifies the whole map of a token once, and
from then on the tokens' own pages alone. With `never` it reads those pages alone from the beginning.

Letters: N rows or tokens asked for, ... shape of what is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from ..errors import StoreError
from .arrays import DTYPES, ArraySpec, bad_checksum, decode_chunk
from .checks import Checks
from .checksum import CRC_BYTES, crc_fits
from .open_shard import EMPTY, OpenShard, cut, file_identity, fill
from .page_memory import page_empty
from .shard_io import OpenShards

LARGE = 256 * 1024
"""Bytes of a map from which on a call of its own costs nothing."""


class ArrayReader:
    """Reads one stored array through its shards' indices.

    Args:
        folder: the array's folder.
        spec: what its `zarr.json` says.
        check: verify checksums `always`, at the `first` touch of a chunk, or `never`.
        shards: where open shards are kept; None = of this reader alone.

    It may be used from several threads.
    """

    def __init__(
        self, folder: Path, spec: ArraySpec, check: str = "first", shards: OpenShards | None = None
    ) -> None:
        self.folder, self.spec, self.dtype = folder, spec, DTYPES[spec.dtype]
        self._shards = shards or OpenShards()
        self._paths: dict[int, Path] = {}
        self._map_bytes = spec.row_bytes if spec.sharded and not spec.blosc else 0
        self._checks = Checks(check, spec.unit if spec.sharded else 1)

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """[N, ...] in the stored dtype; rows without a chunk hold the fill value.

        Args:
            rows: [N] of the array.
            out: [N, ...] in the stored dtype, each row contiguous; None = a new array.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        if out is None:
            out = page_empty((len(rows), *self.spec.shape[1:]), self.dtype)
        # Mostly a few large maps are read: plain numbers cost less than arrays of them.
        numbers: Sequence[int] = rows.tolist() if isinstance(rows, np.ndarray) else rows
        if self._read_settled(numbers, out):
            return out
        if not self.spec.sharded:
            units, places = np.divmod(np.asarray(rows, int), self.spec.unit)
            for unit in np.unique(units).tolist():
                here = np.flatnonzero(units == unit)
                out[here] = self._read_plain(unit, places[here])
            return out
        wanted = [(*divmod(row, self.spec.unit), at) for row, at in zip(numbers, out, strict=True)]
        for unit, some in groupby(wanted, key=itemgetter(0)):
            self._read_shard(unit, [(place, at) for _, place, at in some])
        return out

    def gather(self, rows: np.ndarray, inner: tuple[np.ndarray, ...]) -> np.ndarray:
        """[N, D] `array[rows, *inner]` in the stored dtype; D is the last axis.

        Args:
            rows: [N] of the array.
            inner: [N] positions on each of the axes between; none of them negative.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        rows = np.asarray(rows, int)
        if self.spec.units == 1 and len(rows):
            return self._gather(0, rows, inner)
        units, places = np.divmod(rows, self.spec.unit)
        present = np.unique(units).tolist()
        if len(present) == 1:
            return self._gather(present[0], places, inner)
        out = np.empty((len(units), self.spec.shape[-1]), self.dtype)
        for unit in present:
            here = np.flatnonzero(units == unit)
            out[here] = self._gather(unit, places[here], tuple(at[here] for at in inner))
        return out

    def present(self, row: int) -> bool:
        """Whether a row was written; a view that failed has no chunk."""
        unit, i = divmod(row, self.spec.unit)
        if not self.spec.sharded:
            return self._path(unit).exists()
        return bool(self._open(unit).present[i])

    def settled(self, rows: Sequence[int] | np.ndarray) -> list[tuple[str, int]] | None:
        """(file, offset) of each row's bytes, for readers that go past us.

        None unless all of them are there, uncompressed, and no checksum is to be verified.
        """
        places = []
        for row in np.asarray(rows, int).tolist():
            unit, i = divmod(row, self.spec.unit)
            shard = self._open(unit) if self.spec.sharded and not self.spec.blosc else None
            if shard is None or shard.replaced or self._checks.due(unit, shard.identity, i):
                return None
            offset, size = shard.places[i]
            if size != self.spec.row_bytes + CRC_BYTES:
                return None
            places.append((str(shard.path), offset))
        return places

    def _read_settled(self, rows: Sequence[int], out: np.ndarray) -> bool:
        """Chunks with nothing to look at, which is what a loader asks for all day; whether they were such.

        Each by a call of its own: neighbours, and many small ones, are left to who reads them together.
        """
        nbytes = self._map_bytes
        if not nbytes or not out.flags.c_contiguous:
            return False
        if len(rows) > 1 and (nbytes < LARGE or rows[1] == rows[0] + 1):
            return False
        try:
            for row, at in zip(rows, out, strict=True):
                unit, place = divmod(row, self.spec.unit)
                shard = self._open(unit)
                offset, size = shard.places[place]
                if size != nbytes + CRC_BYTES or self._checks.due(unit, shard.identity, place):
                    return False
                if os.preadv(shard.handle, [at], offset) != nbytes:
                    return False
        except OSError:
            return False  # the longer way tells
        return True

    def _read_shard(self, unit: int, wanted: list[tuple[int, np.ndarray]]) -> None:
        """Chunks of one shard into the rows of a buffer; those that are to be verified one by one."""
        shard, settled = self._open(unit), []
        for place, out in wanted:
            offset, size = shard.places[place]
            if offset == EMPTY:
                out[...] = self.spec.fill_value()
            elif self.spec.blosc:
                data = bytearray(size)
                if not shard.fill([memoryview(data)], offset):
                    raise cut(self._where(unit, place))
                decode_chunk(self.spec, bytes(data), out, self._where(unit, place))
            elif size != out.nbytes + CRC_BYTES or not out.flags.c_contiguous:
                what = f"a chunk holds {size:,} bytes instead of {out.nbytes + CRC_BYTES:,}."
                raise StoreError(what, where=self._where(unit, place))
            elif self._checks.due(unit, shard.identity, place):
                self._read_verified(shard, unit, place, out)
            else:
                settled.append((offset, _bytes_of(out).data))
        if not shard.fill_each(settled):
            raise cut(shard.path)

    def _read_verified(self, shard: OpenShard, unit: int, place: int, out: np.ndarray) -> None:
        body, crc = _bytes_of(out), bytearray(CRC_BYTES)
        if not shard.fill([body.data, memoryview(crc)], shard.places[place][0]):
            raise cut(self._where(unit, place))
        if not crc_fits(body, bytes(crc)):
            raise bad_checksum(self._where(unit, place))
        self._checks.passed(unit, shard.identity, place)

    def _read_plain(self, unit: int, places: np.ndarray) -> np.ndarray:
        """[N, ...] rows of an uncompressed chunk; it is read whole when it is to be verified."""
        path = self._path(unit)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return self.spec.fill_array(len(places))
        try:
            identity = file_identity(os.fstat(handle))
            if self._checks.due(unit, identity, 0):
                rows = self._verified_plain(handle, path)[places]
                self._checks.passed(unit, identity, 0)
                return rows
            rows = np.empty((len(places), *self.spec.shape[1:]), self.dtype)
            for row, place in zip(rows, places.tolist(), strict=True):
                if not fill(handle, [_bytes_of(row).data], place * row.nbytes, path):
                    raise cut(path)
            return rows
        finally:
            os.close(handle)

    def _verified_plain(self, handle: int, path: Path) -> np.ndarray:
        """[unit, ...] a whole uncompressed chunk."""
        rows, crc = self.spec.fill_array(self.spec.unit), bytearray(CRC_BYTES)
        body = _bytes_of(rows)
        whole = os.fstat(handle).st_size == body.nbytes + CRC_BYTES
        if (
            not whole
            or not fill(handle, [body.data, memoryview(crc)], 0, path)
            or not crc_fits(body, bytes(crc))
        ):
            raise bad_checksum(path)
        return rows

    def _gather(self, unit: int, places: np.ndarray, inner: tuple[np.ndarray, ...]) -> np.ndarray:
        shard = self._open(unit) if self.spec.sharded and not self.spec.blosc else None
        items = shard.items(self.spec.shape[1:], self.dtype) if shard is not None else None
        if shard is None or items is None:
            some, inverse = np.unique(places, return_inverse=True)
            return self.read(unit * self.spec.unit + some)[inverse, *inner]
        self._verify(unit, shard, places)
        shape = (len(places), self.spec.shape[-1])
        if shard.full:
            return items[places, *inner].view(self.dtype).reshape(shape)
        values = items[(np.cumsum(shard.present) - 1)[places], *inner].view(self.dtype).reshape(shape)
        values[~shard.present[places]] = self.spec.fill_value()
        return values

    def _verify(self, unit: int, shard: OpenShard, places: np.ndarray) -> None:
        """Of these chunks, those that are due; they are mapped, so nothing is copied."""
        shard.check_size()
        due = self._checks.all_due(unit, shard.identity, places)
        due = due[shard.present[due]]
        shard.read_ahead(due)
        for i in due.tolist():
            chunk = shard.chunk(i)
            if not crc_fits(chunk[:-CRC_BYTES], chunk[-CRC_BYTES:].tobytes()):
                raise bad_checksum(self._where(unit, i))
            self._checks.passed(unit, shard.identity, i)

    def _open(self, unit: int) -> OpenShard:
        return self._shards.get(self._path(unit), self.spec.unit)

    def _path(self, unit: int) -> Path:
        if unit not in self._paths:
            self._paths[unit] = self.folder / self.spec.file(unit)
        return self._paths[unit]

    def _where(self, unit: int, place: int) -> str:
        return f"{self._path(unit)}, row {unit * self.spec.unit + place}"


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """[bytes] u8 of a contiguous array, its memory."""
    return values.reshape(-1).view(np.uint8)
