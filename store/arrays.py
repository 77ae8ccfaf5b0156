"""Zarr v3 array and group documents of the store, and the bytes of one chunk.

Three kinds of arrays, all with the key separator ".":
- sharded: inner chunk = one view, outer chunk = the views of a unit; `tokens`, pixels, points;
- plain: one uncompressed chunk per unit or per bundle; `prefix`, cameras;
- strings: the labels `view` and `scene`, one chunk.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import blosc  # type: ignore[attr-defined]

from ..errors import StoreError
from .checksum import CRC_BYTES, crc_bytes, crc_fits

DTYPES = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "bool": np.dtype("?"),
}
BF16_NAN = 0x7FC0

# On the main thread numcodecs would compress with a pool of threads, whose blocks come out in any order:
# valid, but other bytes each time. Chunks are compressed side by side instead.
blosc.use_threads = False
Parts = tuple[bytes | memoryview, ...]
"""The bytes of a chunk, one part after the other."""
_FILLS = {"f": (str, float), "u": (int,), "b": (bool,)}
_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of the store.

    Attributes:
        shape: whole array; the first axis is `view`.
        dims: a name per axis.
        dtype: Zarr data type, a key of `DTYPES`.
        unit: views per outer chunk (shard or plain chunk).
        sharded: inner chunks of one view each inside the outer chunk.
        blosc: inner chunks compressed with blosc(zstd 3, shuffle).
        fill: fill value; "NaN" for floats.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    unit: int
    sharded: bool
    blosc: bool = False
    fill: float | int | bool | str = "NaN"

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one view, uncompressed."""
        return math.prod(self.shape[1:]) * self.itemsize

    @property
    def units(self) -> int:
        """Number of outer chunks."""
        return -(-self.shape[0] // self.unit)

    def rows(self, unit: int) -> range:
        """Rows of the array that lie in that outer chunk."""
        return range(unit * self.unit, min((unit + 1) * self.unit, self.shape[0]))

    def file(self, unit: int) -> str:
        """`c.3.0.0.0`, the file of an outer chunk."""
        return ".".join(["c", str(unit), *["0"] * (len(self.shape) - 1)])

    def fill_array(self, rows: int) -> np.ndarray:
        """[rows, ...] of the fill value."""
        return np.full((rows, *self.shape[1:]), self.fill_value())

    def fill_value(self) -> np.ndarray:
        """[] in the array's dtype."""
        return np.full((), float("nan") if self.fill == "NaN" else self.fill, DTYPES[self.dtype])

    def document(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """The array's `zarr.json`."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": _grid((self.unit, *self.shape[1:])),
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": self.fill,
            "codecs": [self._sharding()] if self.sharded else [_bytes(self.itemsize), _CRC],
            "dimension_names": list(self.dims),
            "attributes": attributes,
        }

    def _sharding(self) -> dict[str, Any]:
        compressor = [_blosc(self.itemsize)] if self.blosc else []
        return {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *self.shape[1:]],
                "codecs": [_bytes(self.itemsize), *compressor, _CRC],
                "index_codecs": [_ENDIAN, _CRC],
                "index_location": "end",
            },
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], where: object) -> ArraySpec:
        """The spec of a stored array.

        Raises:
            StoreError: the document is not of a kind that this format version writes.
        """
        try:
            chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
            sharded = document["codecs"][0]["name"] == "sharding_indexed"
            inner = document["codecs"][0]["configuration"]["codecs"] if sharded else ()
            spec = cls(
                shape=tuple(map(int, document["shape"])),
                dims=tuple(map(str, document["dimension_names"])),
                dtype=str(document["data_type"]),
                unit=int(chunk[0]),
                sharded=sharded,
                blosc=any(codec["name"] == "blosc" for codec in inner),
                fill=document["fill_value"],
            )
            if min(*spec.shape, spec.unit) < 1 or len(spec.dims) != len(spec.shape):
                raise ValueError(f"shape {list(spec.shape)}, chunks of {spec.unit}")
            if spec.document(document["attributes"]) != document:
                raise ValueError("its codecs or chunks are not those of the format")
            if type(spec.fill) not in _FILLS[DTYPES[spec.dtype].kind]:
                raise ValueError(f"fill value {spec.fill!r}")
            spec.fill_value()
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(
                "an array's document is not one of this format.",
                where=where,
                why=str(error) or type(error).__name__,
                fix="open it with zarr-python, or restore the file",
            ) from None
        return spec


def encode_chunk(spec: ArraySpec, values: np.ndarray) -> bytes:
    """Bytes of one inner chunk (one view) or of one plain chunk (all its rows), checksum last."""
    return b"".join(chunk_parts(spec, values))


def chunk_parts(spec: ArraySpec, values: np.ndarray) -> Parts:
    """The same, body and checksum; the body is the memory of `values` where it may stay as it is."""
    raw = np.ascontiguousarray(values, DTYPES[spec.dtype])
    if spec.blosc:
        data = blosc.compress(_typed(raw), b"zstd", 3, blosc.SHUFFLE, 0)
        return data, crc_bytes(data)
    body = raw.reshape(-1).view(np.uint8)
    return body.data, crc_bytes(body)


def decode_chunk(spec: ArraySpec, data: bytes, out: np.ndarray, where: object) -> None:
    """Fill `out` from the bytes of `encode_chunk`.

    Raises:
        StoreError: the checksum or the size is wrong.
    """
    body = check_crc(data, where)
    if spec.blosc:
        body = _decompressed(body, out.nbytes, where)
    if len(body) != out.nbytes:
        raise StoreError(f"a chunk holds {len(body):,} bytes instead of {out.nbytes:,}.", where=where)
    out.reshape(-1)[...] = np.frombuffer(body, out.dtype)


def check_crc(data: bytes, where: object) -> bytes:
    """The bytes without the crc32c behind them.

    Raises:
        StoreError: it does not match.
    """
    body = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or not crc_fits(body, data[-CRC_BYTES:]):
        raise bad_checksum(where)
    return body


def bad_checksum(where: object) -> StoreError:
    """What is said of a chunk that fails its checksum."""
    return StoreError(
        "a chunk fails its checksum.",
        where=where,
        why="the bytes on disk are not those that were written",
        fix="`strata store verify PATH --repair` drops what is damaged, and the same extraction mends it",
    )


def encode_strings(values: list[str]) -> bytes:
    """The one chunk of a label array, codec vlen-utf8."""
    encoded = [value.encode() for value in values]
    return struct.pack("<I", len(encoded)) + b"".join(struct.pack("<I", len(e)) + e for e in encoded)


def strings_document(count: int, dim: str) -> dict[str, Any]:
    """`zarr.json` of a label array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [count],
        "data_type": "string",
        "chunk_grid": _grid((count,)),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "",
        "codecs": [{"name": "vlen-utf8"}],
        "dimension_names": [dim],
        "attributes": {},
    }


def group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _grid(chunk: tuple[int, ...]) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


def _bytes(itemsize: int) -> dict[str, Any]:
    return _ENDIAN if itemsize > 1 else {"name": "bytes"}


def _blosc(itemsize: int) -> dict[str, Any]:
    configuration = {"typesize": itemsize, "cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0}
    return {"name": "blosc", "configuration": configuration}


def _typed(raw: np.ndarray) -> np.ndarray:
    return raw.view(np.uint8) if raw.dtype == np.bool_ else raw


def _decompressed(body: bytes, expected: int, where: object) -> bytes:
    # The size that a frame's header declares is checked before anything is allocated for it.
    unpacked, _, packed = struct.unpack("<3I", body[4:16]) if len(body) >= 16 else (-1, 0, -1)
    if (unpacked, packed) != (expected, len(body)):
        raise StoreError(f"a chunk unpacks to {unpacked:,} bytes instead of {expected:,}.", where=where)
    try:
        return blosc.decompress(body)
    except RuntimeError as error:
        raise StoreError("a chunk cannot be unpacked.", where=where, why=str(error)) from None
