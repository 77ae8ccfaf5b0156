"""Documents that zarr accepts, chunks that it decodes, and forged ones that are refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import blosc  # type: ignore[attr-defined]
from strata.errors import StoreError
from strata.store.array_reader import ArrayReader
from strata.store.arrays import (
    BF16_NAN,
    DTYPES,
    ArraySpec,
    check_crc,
    decode_chunk,
    encode_chunk,
    encode_strings,
    group_document,
    strings_document,
)
from strata.store.atomic import write_atomic, write_json
from strata.store.shard_io import shard_parts

KINDS: dict[str, dict[str, Any]] = {
    "f16": {"dtype": "float16", "sharded": True},
    "bf16": {"dtype": "uint16", "sharded": True, "fill": BF16_NAN},
    "f32-blosc": {"dtype": "float32", "sharded": True, "blosc": True},
    "bool-blosc": {"dtype": "bool", "sharded": True, "blosc": True, "fill": False},
    "u8-blosc": {"dtype": "uint8", "sharded": True, "blosc": True, "fill": 0},
    "f64-plain": {"dtype": "float64", "sharded": False},
    "f16-plain": {"dtype": "float16", "sharded": False},
    "depth": {"dtype": "float32", "sharded": True, "blosc": True, "fill": 0.0},
}


def make_spec(**changes: Any) -> ArraySpec:
    return ArraySpec(**{"shape": (5, 3, 4), "dims": ("view", "row", "col"), "unit": 2, **changes})


def make_values(spec: ArraySpec) -> np.ndarray:
    values = np.random.default_rng(0).normal(100, 50, spec.shape)
    return (values > 100) if spec.dtype == "bool" else np.abs(values).astype(DTYPES[spec.dtype])


def write(folder, spec: ArraySpec, values: np.ndarray, empty: tuple[int, ...] = ()) -> None:
    for unit in range(spec.units):
        rows = spec.rows(unit)
        if spec.sharded:
            chunks: list[Any] = [None if r in empty else encode_chunk(spec, values[r]) for r in rows]
            write_atomic(folder / spec.file(unit), shard_parts([*chunks, *[None] * (spec.unit - len(rows))]))
        else:
            whole = spec.fill_array(spec.unit)
            whole[: len(rows)] = values[rows.start : rows.stop]
            write_atomic(folder / spec.file(unit), encode_chunk(spec, whole))
    write_json(folder / "zarr.json", spec.document({"note": 1}))


@pytest.mark.parametrize("kind", KINDS)
def test_zarr_reads_what_is_written(tmp_path, kind):
    spec = make_spec(**KINDS[kind])
    values = make_values(spec)
    write(tmp_path, spec, values)
    array: Any = zarr.open_array(tmp_path, mode="r")
    assert array.dtype == values.dtype
    assert dict(array.attrs) == {"note": 1}
    assert array.metadata.dimension_names == spec.dims
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(ArrayReader(tmp_path, spec).read(range(5)), values)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind["sharded"]])
def test_rows_without_a_chunk_are_the_fill_value(tmp_path, kind):
    spec = make_spec(**KINDS[kind])
    values = make_values(spec)
    write(tmp_path, spec, values, empty=(1, 2, 3))
    values[1:4] = spec.fill_value()
    array: Any = zarr.open_array(tmp_path, mode="r")
    np.testing.assert_array_equal(array[:], values)
    reader = ArrayReader(tmp_path, spec)
    np.testing.assert_array_equal(reader.read([4, 2, 1, 2]), values[[4, 2, 1, 2]])
    assert [reader.present(row) for row in range(5)] == [True, False, False, False, True]


def test_bf16_fill_is_a_nan():
    assert np.isnan((np.array([BF16_NAN], np.uint32) << 16).view(np.float32)).all()


def test_labels_are_strings_for_zarr(tmp_path):
    labels = ["toy/a/000", "", "été/b/1"]
    write_json(tmp_path / "zarr.json", strings_document(3, "view"))
    write_atomic(tmp_path / "c.0", encode_strings(labels))
    array: Any = zarr.open_array(tmp_path, mode="r")
    assert list(array[:]) == labels


def test_groups(tmp_path):
    write_json(tmp_path / "zarr.json", group_document({"a": 1}))
    assert dict(zarr.open_group(tmp_path, mode="r").attrs) == {"a": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_specs_come_back_from_their_documents(kind):
    spec = make_spec(**KINDS[kind])
    assert ArraySpec.from_document(spec.document({}), "here") == spec


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "complex64"},
        {"data_type": "int32"},
        {"shape": [5, 3]},
        {"shape": [0, 3, 4]},
        {"shape": [-5, 3, 4]},
        {"shape": []},
        {"dimension_names": ["view", "row"]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3, 4]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 1, 4]}}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}},
        {"codecs": []},
        {"codecs": [{"name": "gzip"}]},
        {"fill_value": "nothing"},
        {"fill_value": None},
        {"data_type": "uint8", "fill_value": 256},
        {"attributes": None, "zarr_format": 2},
    ],
    ids=str,
)
def test_other_documents_are_refused_by_name(change):
    document = {**make_spec(**KINDS["f16"]).document({}), **change}
    with pytest.raises(StoreError) as caught:
        ArraySpec.from_document(document, "feats.zarr/zarr.json")
    assert caught.value.where == "feats.zarr/zarr.json"


def test_a_document_of_another_kind_is_refused():
    for document in ([], None, {}, {"zarr_format": 3}):
        with pytest.raises(StoreError):
            ArraySpec.from_document(document, "here")  # type: ignore[arg-type]


def test_units_cover_the_rows():
    spec = make_spec(**KINDS["f16"])
    assert [list(spec.rows(unit)) for unit in range(spec.units)] == [[0, 1], [2, 3], [4]]
    assert spec.file(1) == "c.1.0.0"
    assert spec.row_bytes == 24


def signed(body: bytes) -> bytes:
    return body + struct.pack("<I", google_crc32c.value(body))


@pytest.mark.parametrize("declared", [0, 47, 49, 2**31, 2**32 - 1])
def test_a_forged_size_is_refused_before_anything_is_allocated(monkeypatch, declared):
    spec = make_spec(**KINDS["f32-blosc"])
    chunk = bytearray(encode_chunk(spec, make_values(spec)[0])[:-4])
    struct.pack_into("<I", chunk, 4, declared)
    monkeypatch.setattr("strata.store.arrays.blosc", None)
    with pytest.raises(StoreError) as caught:
        decode_chunk(spec, signed(bytes(chunk)), np.empty(spec.shape[1:], "<f4"), "c.0, row 1")
    assert f"{declared:,} bytes instead of 48" in caught.value.what
    assert caught.value.where == "c.0, row 1"


@pytest.mark.parametrize(("at", "value"), [(0, 99), (8, 2**32 - 1), (12, 10_000), (12, 17)])
def test_a_forged_header_is_refused(at, value):
    spec = make_spec(shape=(5, 30, 40), **KINDS["f32-blosc"])
    chunk = bytearray(blosc.compress(make_values(spec)[0], b"zstd", 3, blosc.SHUFFLE, 0))
    struct.pack_into("<I", chunk, at, value)
    with pytest.raises(StoreError) as caught:
        decode_chunk(spec, signed(bytes(chunk)), np.empty((30, 40), "<f4"), "c.0, row 1")
    assert caught.value.where == "c.0, row 1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 3, 4, 10])
def test_short_chunks_are_refused(kind, length):
    spec = make_spec(**KINDS[kind])
    for data in (bytes(length), signed(bytes(length))):
        with pytest.raises(StoreError):
            decode_chunk(spec, data, spec.fill_array(1)[0], "here")


def test_a_checksum_covers_every_byte():
    data = signed(b"some bytes")
    assert check_crc(data, "here") == b"some bytes"
    for i in range(len(data)):
        damaged = bytearray(data)
        damaged[i] ^= 1
        with pytest.raises(StoreError, match="fails its checksum"):
            check_crc(bytes(damaged), "here")


def test_fill_values_must_fit_the_type():
    document = replace(make_spec(**KINDS["u8-blosc"]), fill="NaN").document({})
    with pytest.raises(StoreError):
        ArraySpec.from_document(document, "here")
