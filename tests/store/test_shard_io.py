"""Shards: aligned chunks, damage that is named with its place, checks, threads, open files."""

from __future__ import annotations

import gc
import os
import struct
import threading
from typing import Any

import google_crc32c
import numpy as np
import pytest
from strata.errors import StoreError
from strata.store.array_reader import ArrayReader
from strata.store.arrays import ArraySpec, encode_chunk
from strata.store.open_shard import EMPTY
from strata.store.shard_io import (
    ALIGN,
    OpenShards,
    present_chunks,
    read_index,
    shard_parts,
)


def make_spec(rows: int = 6, unit: int = 3, width: int = 8, **changes: Any) -> ArraySpec:
    dims = ("view", "row", "channel")
    return ArraySpec(
        **{
            "shape": (rows, 2, width),
            "dims": dims,
            "dtype": "float16",
            "unit": unit,
            "sharded": True,
            **changes,
        }
    )


def fill(folder, spec: ArraySpec) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=spec.shape).astype(np.float16)
    for unit in range(spec.units):
        chunks = [encode_chunk(spec, values[row]) for row in spec.rows(unit)]
        chunks += [None] * (spec.unit - len(chunks))  # type: ignore[list-item]
        (folder / spec.file(unit)).write_bytes(b"".join(shard_parts(chunks)))
    return values


def damage(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_large_chunks_start_at_pages_and_small_ones_follow_each_other():
    large, small = b"x" * 65536, b"y" * 65535
    shard = b"".join(shard_parts([small, large, None, large, small]))
    index = np.frombuffer(shard[-84:-4], "<u8").reshape(5, 2).tolist()
    assert index == [[0, 65535], [65536, 65536], [EMPTY, EMPTY], [131072, 65536], [196608, 65535]]
    assert shard[196608:262143] == small
    assert struct.unpack("<I", shard[-4:])[0] == google_crc32c.value(shard[-84:-4])
    gapped = b"".join(shard_parts([b"z" * 5, large]))
    assert np.frombuffer(gapped[-36:-4], "<u8").tolist() == [0, 5, ALIGN, 65536]
    assert gapped[5:ALIGN] == bytes(ALIGN - 5)


def test_a_flipped_byte_in_a_chunk_names_file_and_row(tmp_path):
    spec = make_spec()
    values = fill(tmp_path, spec)
    damage(tmp_path / "c.1.0.0", 40)
    reader = ArrayReader(tmp_path, spec)
    np.testing.assert_array_equal(reader.read([0, 1, 2, 3, 5]), values[[0, 1, 2, 3, 5]])
    with pytest.raises(StoreError) as caught:
        reader.read([4])
    assert caught.value.where == f"{tmp_path / 'c.1.0.0'}, row 4"
    assert "checksum" in caught.value.what


def test_damaged_indices_name_the_file(tmp_path):
    spec = make_spec()
    fill(tmp_path, spec)
    path = tmp_path / "c.0.0.0"
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:-60], whole[:10], b"", whole[1:]):
        path.write_bytes(data)
        if data == whole[1:]:
            continue  # offsets still fit; the chunks' own checksums tell
        with pytest.raises(StoreError) as caught:
            ArrayReader(tmp_path, spec).read([0])
        assert caught.value.where == str(path)
        assert present_chunks(path, 3) is None
    path.write_bytes(whole)
    damage(path, -20)
    with pytest.raises(StoreError, match="checksum"):
        read_index(path, 3)
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        read_index(path, 3)


def with_index(path, entries) -> None:
    index = np.array(entries, "<u8").tobytes()
    path.write_bytes(bytes(100) + index + struct.pack("<I", google_crc32c.value(index)))


@pytest.mark.parametrize(
    "entry",
    [
        (2**64 - 2, 36),
        (2**64 - 36, 72),
        (0, 2**64 - 1),
        (36, 2**64 - 36),
        (2**63, 2**63),
        (200, 36),
        (1, 200),
    ],
    ids=str,
)
def test_forged_offsets_are_refused(tmp_path, entry):
    path = tmp_path / "c.0.0.0"
    with_index(path, [(0, 36), entry, (EMPTY, EMPTY)])
    with pytest.raises(StoreError) as caught:
        read_index(path, 3)
    assert "does not fit" in caught.value.what
    assert caught.value.where == str(path)


def test_an_index_for_other_counts_is_refused(tmp_path):
    path = tmp_path / "c.0.0.0"
    with_index(path, [(0, 36), (36, 36)])
    assert present_chunks(path, 2) is not None
    assert present_chunks(path, 1) is None
    assert present_chunks(path, 9) is None
    # A whole file that is shorter than the index that is looked for, with a checksum that is right.
    path.write_bytes(bytes(8) + struct.pack("<I", google_crc32c.value(bytes(8))))
    with pytest.raises(StoreError, match="does not fit"):
        read_index(path, 3)


def test_a_chunk_of_another_size_is_refused(tmp_path):
    spec = make_spec()
    fill(tmp_path, spec)
    with pytest.raises(StoreError, match="36 bytes instead of 68"):
        ArrayReader(tmp_path, make_spec(width=16)).read([0])


def test_check_never_trusts_first_looks_once_always_each_time(tmp_path):
    spec = make_spec()
    values = fill(tmp_path, spec)
    readers = {check: ArrayReader(tmp_path, spec, check) for check in ("always", "first", "never")}
    for reader in readers.values():
        np.testing.assert_array_equal(reader.read([4]), values[[4]])
    path = tmp_path / "c.1.0.0"
    with path.open("r+b") as file:  # the same file, so that open handles see it
        file.seek(40)
        file.write(b"\x00\x3c")
    np.testing.assert_array_equal(readers["first"].read([4]), readers["never"].read([4]))
    assert (readers["never"].read([4]) != values[4]).any()
    with pytest.raises(StoreError, match="checksum"):
        readers["always"].read([4])
    with pytest.raises(StoreError, match="checksum"):
        ArrayReader(tmp_path, spec, "first").read([4])
    ArrayReader(tmp_path, spec, "never").read([4])


def test_a_file_that_is_cut_while_it_is_open(tmp_path):
    spec = make_spec()
    fill(tmp_path, spec)
    reader = ArrayReader(tmp_path, spec, "never")
    reader.read([3])
    os.truncate(tmp_path / "c.1.0.0", 50)
    with pytest.raises(StoreError, match="ends in the middle"):
        reader.read([4])


def test_a_shard_that_is_replaced_is_read_as_it_was_opened(tmp_path):
    """Index and chunks are of one file: what `retry=failed` writes has other offsets."""
    spec = make_spec(rows=3)
    values = fill(tmp_path, spec)
    reader = ArrayReader(tmp_path, spec)
    reader.read([0])
    chunks: list[Any] = [None, encode_chunk(spec, values[1] + 1), encode_chunk(spec, values[2] + 1)]
    (tmp_path / "new").write_bytes(b"".join(shard_parts(chunks)))
    os.replace(tmp_path / "new", tmp_path / "c.0.0.0")
    np.testing.assert_array_equal(reader.read([0, 1, 2]), values)
    np.testing.assert_array_equal(ArrayReader(tmp_path, spec).read([1, 2]), values[1:] + 1)


def test_rows_go_into_the_callers_buffer(tmp_path):
    spec = make_spec()
    values = fill(tmp_path, spec)
    buffer = np.zeros((4, 2, 8), np.float16)
    assert ArrayReader(tmp_path, spec).read([5, 0], buffer[1:3]) is not None
    np.testing.assert_array_equal(
        buffer, np.stack([np.zeros((2, 8)), values[5], values[0], np.zeros((2, 8))])
    )


def test_no_more_than_64_shards_stay_open_whatever_the_readers(tmp_path):
    spec = make_spec(rows=100, unit=1)
    shards, readers, values = OpenShards(), [], []
    gc.collect()  # what earlier tests' errors still hold open
    before = len(os.listdir("/proc/self/fd"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        values.append(fill(tmp_path / name, spec))
        readers.append(ArrayReader(tmp_path / name, spec, shards=shards))
    for rows in (range(100), range(99, -1, -1)):
        for reader, expected in zip(readers, values, strict=True):
            np.testing.assert_array_equal(reader.read(rows), expected[list(rows)])
            assert len(os.listdir("/proc/self/fd")) - before <= 64
    del readers, reader, shards
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_read_together(tmp_path):
    """More shards than stay open: one thread drops what the other still reads."""
    spec = make_spec(rows=150, unit=1, width=64)
    values = fill(tmp_path, spec)
    reader, wrong = ArrayReader(tmp_path, spec, "always"), []

    def work(seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(150)
        try:
            for some in np.array_split(rows, 15):
                if not (reader.read(some.tolist()) == values[some]).all():
                    wrong.append(some)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plain_chunks_that_are_missing_are_the_fill_value(tmp_path):
    spec = make_spec(sharded=False)
    assert np.isnan(ArrayReader(tmp_path, spec).read([0, 4])).all()
    assert not ArrayReader(tmp_path, spec).present(4)
    values = np.arange(48, dtype=np.float16).reshape(3, 2, 8)
    (tmp_path / "c.1.0.0").write_bytes(encode_chunk(spec, values))
    for check in ("always", "first", "never"):
        reader = ArrayReader(tmp_path, spec, check)
        for _ in range(2):
            np.testing.assert_array_equal(reader.read([5, 0, 3])[[0, 2]], values[[2, 0]])
        assert reader.present(4)


def test_plain_chunks_are_checked_as_shards_are(tmp_path):
    spec = make_spec(sharded=False)
    path = tmp_path / "c.0.0.0"
    path.write_bytes(encode_chunk(spec, np.zeros((3, 2, 8), np.float16)))
    readers = {check: ArrayReader(tmp_path, spec, check) for check in ("always", "first", "never")}
    for reader in readers.values():
        reader.read([1])
    damage(path, 3)
    for check in ("always", "first"):  # a file that was written anew was not seen
        with pytest.raises(StoreError, match="checksum"):
            readers[check].read([1])
    assert (readers["never"].read([1]) == 0).all()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match="ends in the middle"):
        readers["never"].read([2])
    with pytest.raises(StoreError, match="checksum"):
        ArrayReader(tmp_path, spec).read([0])
