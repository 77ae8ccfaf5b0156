"""The EXR reader against files made byte by byte here, by a writer that shares nothing with it."""

import struct
import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.scenes.exr import read_exr, write_exr

CODES = {"NONE": 0, "RLE": 1, "ZIPS": 2, "ZIP": 3, "PIZ": 4}
KINDS = {"uint": (0, "I"), "half": (1, "e"), "float": (2, "f")}


def attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def zipped(plain: bytes) -> bytes:
    halves = plain[0::2] + plain[1::2]
    deltas = [halves[0]] + [(b - a + 128) % 256 for a, b in pairwise(halves)]
    packed = zlib.compress(bytes(deltas))
    return packed if len(packed) < len(plain) else plain


def exr_bytes(planes, kind="half", compression="ZIP", origin=(0, 0), backwards=False, flags=0, size=None):
    """`planes`: channel name -> rows of numbers; written value by value."""
    code, letter = KINDS[kind]
    names = sorted(planes)
    rows = planes[names[0]]
    width, height = size or (len(rows[0]), len(rows))
    x, y = origin
    channels = b"".join(n.encode() + b"\0" + struct.pack("<iiii", code, 0, 1, 1) for n in names) + b"\0"
    head = struct.pack("<II", 20000630, 2 | flags)
    head += attribute("channels", "chlist", channels)
    head += attribute("compression", "compression", bytes([CODES[compression]]))
    head += attribute("dataWindow", "box2i", struct.pack("<4i", x, y, x + width - 1, y + height - 1))
    head += attribute("lineOrder", "lineOrder", bytes([int(backwards)])) + b"\0"
    step = 16 if compression == "ZIP" else 1
    blocks = []
    for top in range(0, len(rows), step):
        plain = b"".join(
            struct.pack(f"<{letter}", value)
            for line in range(top, min(top + step, len(rows)))
            for name in names
            for value in planes[name][line]
        )
        body = plain if compression == "NONE" else zipped(plain)
        blocks.append(struct.pack("<ii", y + top, len(body)) + body)
    if backwards:
        blocks.reverse()
    table, at = b"", len(head) + 8 * len(blocks)
    for block in blocks:
        table += struct.pack("<Q", at)
        at += len(block)
    return head + table + b"".join(blocks)


def numbers(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 40, (height, width)).astype(float) / 8


@pytest.mark.parametrize("compression", ["NONE", "ZIPS", "ZIP"])
@pytest.mark.parametrize("kind", ["half", "float"])
@pytest.mark.parametrize("size", [(1, 1), (16, 3), (33, 7)])
def test_one_channel(compression, kind, size):
    plane = numbers(*size)
    decoded = read_exr(exr_bytes({"Y": plane.tolist()}, kind, compression))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, plane)


@pytest.mark.parametrize("names", ["RGB", "XYZ"])
@pytest.mark.parametrize("compression", ["NONE", "ZIP"])
def test_three_channels_come_in_their_usual_order(names, compression):
    planes = {name: numbers(18, 5, seed).tolist() for seed, name in enumerate(names)}
    decoded = read_exr(exr_bytes(planes, "float", compression))
    np.testing.assert_array_equal(decoded, np.stack([planes[name] for name in names], axis=-1))


def test_uint_and_lines_from_below_and_a_window_elsewhere():
    plane = np.arange(40 * 3).reshape(40, 3)
    data = exr_bytes({"id": plane.tolist()}, "uint", "ZIP", origin=(-5, -7), backwards=True)
    np.testing.assert_array_equal(read_exr(data), plane)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (16, 4, 3), (35, 9, 3)])
def test_what_is_written_is_read_back(half, shape):
    array = np.random.default_rng(1).normal(size=shape).astype(np.float16 if half else np.float32)
    data = write_exr(array, half)
    np.testing.assert_array_equal(read_exr(data), array.astype(np.float32))
    assert data == write_exr(array.copy(), half)


def test_values_that_are_not_finite_survive():
    array = np.array([[np.nan, np.inf, -np.inf, 1e6]], np.float32)
    np.testing.assert_array_equal(read_exr(write_exr(array, half=False)), array)
    assert np.isinf(read_exr(write_exr(array))[0, 3])


def test_real_depth_is_plausible_and_our_writer_gives_the_same_bytes(real_scenes):
    files = sorted(real_scenes.glob("*/*/depth/*.exr"))[::7]
    assert len(files) > 3
    for file in files:
        depth_m = read_exr(file.read_bytes(), str(file))
        assert depth_m.shape in ((480, 640), (360, 540))
        assert 0.2 < np.median(depth_m[depth_m > 0]) < 6, file
        assert depth_m.max() < 20
        assert write_exr(depth_m) == file.read_bytes()


def test_a_truncated_file_names_the_block():
    data = exr_bytes({"Y": numbers(40, 30).tolist()})
    with pytest.raises(SceneError) as caught:
        read_exr(data[:-10], "depth/1.exr")
    assert caught.value.what == "the EXR file ends in the middle of a block."
    assert caught.value.where == "depth/1.exr"
    assert "block 3 of 3 wants" in caught.value.why
    assert "copy the file again" in caught.value.fix


def test_every_truncation_is_a_scene_error():
    data = exr_bytes({"Y": numbers(20, 3).tolist()})
    for length in range(len(data)):
        with pytest.raises(SceneError):
            read_exr(data[:length])


def test_no_flipped_byte_causes_another_exception():
    data = exr_bytes({"Y": numbers(20, 3).tolist()})
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 2):
            broken[at] = rng.integers(0, 256)
        try:
            read_exr(bytes(broken))
        except SceneError:
            refused += 1
    assert refused > 500


def test_a_huge_window_is_refused_before_memory_is_taken():
    data = exr_bytes({"Y": [[1.0]]}, size=(60_000, 60_000))
    tracemalloc.start()
    with pytest.raises(SceneError) as caught:
        read_exr(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert "60000 x 60000 pixels" in caught.value.why


def test_a_block_that_inflates_beyond_its_size_is_refused():
    honest = exr_bytes({"Y": np.zeros((16, 64)).tolist()})
    (start,) = struct.unpack_from("<Q", honest, honest.index(b"lineOrder") + 9 + 1 + 10 + 4 + 1 + 1)
    bomb = zlib.compress(bytes(50_000_000))
    data = honest[:start] + struct.pack("<ii", 0, len(bomb)) + bomb
    tracemalloc.start()
    with pytest.raises(SceneError, match="wrong size"):
        read_exr(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compression": "PIZ"}, "PIZ"),
        ({"compression": "RLE"}, "RLE"),
        ({"flags": 0x200}, "tiles"),
        ({"flags": 0x800}, "deep pixels"),
        ({"flags": 0x1000}, "several parts"),
    ],
)
def test_other_kinds_of_exr_are_refused_by_name(changes, said):
    with pytest.raises(SceneError) as caught:
        read_exr(exr_bytes({"Y": [[1.0]]}, **changes))
    assert said in str(caught.value)


def test_two_channels_are_refused():
    with pytest.raises(SceneError, match="one or three channels"):
        read_exr(exr_bytes({"A": [[1.0]], "Y": [[1.0]]}))
