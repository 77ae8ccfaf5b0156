"""Single tokens out of stored maps: the same numbers as whole maps give, with the same checks."""

from __future__ import annotations

import os
import struct
from typing import Any

import google_crc32c
import numpy as np
import pytest
from strata.errors import SelectionError, StoreError
from strata.store.array_reader import ArrayReader
from strata.store.arrays import ArraySpec, encode_chunk
from strata.store.feature_store import FeatureStore
from strata.store.open_shard import EMPTY
from strata.store.shard_io import shard_parts


def make_spec(**changes: Any) -> ArraySpec:
    fields: dict[str, Any] = {
        "shape": (7, 3, 5, 8),
        "dims": ("view", "row", "col", "channel"),
        "dtype": "float16",
        "unit": 4,
        "sharded": True,
    }
    return ArraySpec(**{**fields, **changes})


def last_first(chunks: list[bytes | None]) -> bytes:
    """A shard whose chunks lie in the other order, with gaps of different sizes: legal, but not ours."""
    data, entries = b"", []
    for i, chunk in reversed(list(enumerate(chunks))):
        data += bytes(i)
        entries.insert(0, (EMPTY, EMPTY) if chunk is None else (len(data), len(chunk)))
        data += chunk or b""
    index = np.array(entries, "<u8").tobytes()
    return data + index + struct.pack("<I", google_crc32c.value(index))


def fill(folder, spec: ArraySpec, empty=(), shard=lambda chunks: b"".join(shard_parts(chunks))) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=spec.shape).astype(np.float16)
    values[list(empty)] = np.nan
    for unit in range(spec.units):
        chunks = [None if row in empty else encode_chunk(spec, values[row]) for row in spec.rows(unit)]
        (folder / spec.file(unit)).write_bytes(shard([*chunks, *[None] * (spec.unit - len(chunks))]))
    return values


def places(spec: ArraySpec, count: int = 200) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(1)
    return tuple(draw.integers(0, size, count) for size in spec.shape[:3])


@pytest.mark.parametrize("shard", [lambda chunks: b"".join(shard_parts(chunks)), last_first])
@pytest.mark.parametrize("empty", [(), (1, 6)])
@pytest.mark.parametrize("changes", [{}, {"unit": 7}, {"blosc": True}], ids=str)
def test_tokens_are_those_of_the_whole_array(tmp_path, shard, empty, changes):
    spec = make_spec(**changes)
    values, (view, row, col) = fill(tmp_path, spec, empty, shard), places(spec)
    for check in ("always", "first", "never"):
        reader = ArrayReader(tmp_path, spec, check)
        for _ in range(2):
            np.testing.assert_array_equal(reader.gather(view, (row, col)), values[view, row, col])
        assert reader.gather(view[:0], (row[:0], col[:0])).shape == (0, 8)


def test_a_flipped_bit_beside_the_token_is_found_at_the_first_touch(tmp_path):
    """The whole map is verified, not only what is taken from it."""
    spec = make_spec()
    values = fill(tmp_path, spec)
    at, one = (np.array([2, 5]), (np.array([0, 0]), np.array([0, 0]))), np.array([2])
    readers = {check: ArrayReader(tmp_path, spec, check) for check in ("always", "first", "never")}
    readers["first"].gather(*at)
    with (tmp_path / "c.0.0.0.0").open("r+b") as file:
        file.seek(3 * 244 - 6)  # the last token of view 2
        file.write(b"\x01\x02")
    np.testing.assert_array_equal(readers["first"].gather(*at), values[at[0], 0, 0])
    np.testing.assert_array_equal(readers["never"].gather(*at), values[at[0], 0, 0])
    for check in ("always", "first"):
        reader = ArrayReader(tmp_path, spec, check) if check == "first" else readers[check]
        with pytest.raises(StoreError, match="checksum") as caught:
            reader.gather(*at)
        assert caught.value.where == f"{tmp_path / 'c.0.0.0.0'}, row 2"
        with pytest.raises(StoreError, match="checksum"):
            reader.gather(one, (one, one))
        np.testing.assert_array_equal(reader.read([3]), values[[3]])


def test_reading_and_gathering_share_what_was_seen(tmp_path):
    spec = make_spec(unit=7)
    values = fill(tmp_path, spec)
    reader = ArrayReader(tmp_path, spec)
    reader.read([4])
    with (tmp_path / "c.0.0.0.0").open("r+b") as file:
        file.seek(4 * 244)
        file.write(b"\x00\x3c")
    four, zero = np.array([4]), np.array([0])
    assert reader.gather(four, (zero, zero))[0, 0] == 1
    assert values[4, 0, 0, 0] != 1


def test_a_file_that_was_cut_is_an_error_and_not_a_signal(tmp_path):
    spec = make_spec(unit=7)
    fill(tmp_path, spec)
    at = places(spec)
    for check in ("first", "never"):
        reader = ArrayReader(tmp_path, spec, check)
        reader.gather(at[0], at[1:])
        os.truncate(tmp_path / "c.0.0.0.0", os.path.getsize(tmp_path / "c.0.0.0.0") - 1)
        with pytest.raises(StoreError, match="ends in the middle"):
            reader.gather(at[0], at[1:])
        fill(tmp_path, spec)


def block_of(pipeline, **options):
    pipeline.add("a")
    pipeline.add("b")
    pipeline.extract(**options)
    return FeatureStore.open(pipeline.root).select("colour", scene="b").parts[0]


@pytest.mark.parametrize("storage", ["f16", "bf16", "f32"])
def test_a_block_gathers_what_it_would_load(pipeline, storage):
    block = block_of(pipeline, storage=storage)
    whole, draw = block.tokens("norm"), np.random.default_rng(0)
    view, row, col = (draw.integers(0, size, 50) for size in whole.shape[:3])
    taken = block.gather("norm", view, row, col)
    np.testing.assert_array_equal(taken, whole[view, row, col])
    assert taken.dtype == whole.dtype == block.dtype("norm")


def test_a_block_refuses_tokens_it_does_not_have(pipeline):
    block = block_of(pipeline)
    for view, row, col in (([3], [0], [0]), ([0], [4], [0]), ([0], [0], [-1]), ([0, 1], [0], [0])):
        with pytest.raises(SelectionError, match="not all of") as caught:
            block.gather("norm", *map(np.array, (view, row, col)))
        assert "3 views of 4 x 6 tokens" in caught.value.fix


def test_maps_go_into_a_part_of_a_batch_as_they_are_stored(pipeline):
    block = block_of(pipeline, storage="bf16")
    batch = np.zeros((4, 2, *block.grid, 3), block.shape("tokens", "norm")[1])
    block.read("tokens", [2, 0], layer="norm", out=batch[1:3, 1])
    widened = (batch[1:3, 1].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(widened, block.tokens("norm", [2, 0]))
    batch[1:3, 1] = 0
    assert not batch.any()
