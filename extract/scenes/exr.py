"""OpenEXR for depth and normals, read and written with numpy and zlib alone.

Scanline files with one or three channels of half, float or uint, compressed with NONE, ZIPS or ZIP.
Shapes: H W pixels.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .exr_header import BLOCK_LINES, NONE, ZIP, Header, build_header, fault, parse_header

__all__ = ["read_exr", "write_exr"]


def read_exr(data: bytes, where: str = "") -> np.ndarray:
    """The pixels of an EXR file, [H, W] or [H, W, 3] f32.

    Three channels come as R G B or X Y Z, others in alphabetical order.

    Args:
        data: the whole file.
        where: what errors call it.

    Raises:
        SceneError: the file is truncated, malformed or of a kind that is not supported.
    """
    header = parse_header(data, where)
    rows = _rows(data, header, where)
    ends = np.cumsum([header.width * dtype.itemsize for dtype in header.dtypes])
    channels = {
        name: rows[:, end - header.width * dtype.itemsize : end].copy().view(dtype)
        for name, dtype, end in zip(header.names, header.dtypes, ends, strict=True)
    }
    if len(channels) == 1:
        return channels[header.names[0]].astype(np.float32)
    return np.stack([channels[name] for name in _ordered(header.names)], axis=-1, dtype=np.float32)


def write_exr(array: np.ndarray, half: bool = True) -> bytes:
    """An EXR file of [H, W] (channel Y) or [H, W, 3] (R G B); equal arrays give equal bytes.

    Args:
        array: finite or not; beyond 65,504 a half becomes infinite.
        half: 16-bit floats, else 32-bit.
    """
    names = ("Y",) if array.ndim == 2 else ("B", "G", "R")
    planes = array[:, None] if array.ndim == 2 else array.transpose(0, 2, 1)[:, ::-1]
    with np.errstate(over="ignore"):
        lines = planes.astype("<f2" if half else "<f4")
    step = BLOCK_LINES[ZIP]
    blocks = [_packed(lines[y : y + step].tobytes()) for y in range(0, len(lines), step)]
    chunks = [struct.pack("<ii", i * step, len(block)) + block for i, block in enumerate(blocks)]
    header = build_header(names, half, array.shape[1], array.shape[0])
    first = len(header) + 8 * len(chunks)
    starts = first + np.cumsum([0, *map(len, chunks[:-1])])
    return header + starts.astype("<u8").tobytes() + b"".join(chunks)


def _ordered(names: tuple[str, ...]) -> tuple[str, ...]:
    """R G B is not alphabetical; X Y Z and everything else is taken as stored."""
    return names[::-1] if [name.rsplit(".", 1)[-1] for name in names] == ["B", "G", "R"] else names


def _rows(data: bytes, header: Header, where: str) -> np.ndarray:
    """[H, bytes per line] u8; the blocks may come in any order."""
    blocks: dict[int, np.ndarray] = {}
    starts = np.frombuffer(data, "<u8", header.blocks, header.end).tolist()
    for number, start in enumerate(starts):
        title = f"block {number + 1} of {header.blocks}"
        y, packed = _block(data, start, title, where)
        top = y - header.first_line
        if top in blocks or top % header.block_lines or not 0 <= top < header.height:
            raise fault("a block of the EXR file is out of place.", where, f"{title} begins at line {y}")
        size = min(header.block_lines, header.height - top) * header.line_bytes
        blocks[top] = _unpacked(packed, size, header.compression, title, where)
    # Joined at the end, so that a header which lies about the size costs no memory.
    return np.concatenate([blocks[top] for top in sorted(blocks)]).reshape(header.height, -1)


def _block(data: bytes, start: int, title: str, where: str) -> tuple[int, bytes]:
    if start > len(data) - 8:
        raise fault("the EXR file ends too early.", where, f"{title} would begin at byte {start:,}")
    y, size = struct.unpack_from("<ii", data, start)
    left = len(data) - start - 8
    if not 0 <= size <= left:
        why = f"{title} wants {size:,} bytes, {left:,} are left"
        raise fault("the EXR file ends in the middle of a block.", where, why)
    return y, data[start + 8 : start + 8 + size]


def _unpacked(packed: bytes, size: int, compression: int, title: str, where: str) -> np.ndarray:
    # A block that does not shrink is stored as it is, without the predictor.
    if compression == NONE or len(packed) == size:
        if len(packed) != size:
            why = f"{title} has {len(packed):,} bytes, not {size:,}"
            raise fault("a block of the EXR file has the wrong size.", where, why)
        return np.frombuffer(packed, np.uint8)
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(packed, size)
    except zlib.error as error:
        raise fault("a block of the EXR file is damaged.", where, f"{title}: {error}") from None
    if len(plain) != size or not _ended(inflate):
        why = f"{title} does not unpack to {size:,} bytes"
        raise fault("a block of the EXR file has the wrong size.", where, why)
    return _unpredicted(np.frombuffer(plain, np.uint8))


def _ended(inflate) -> bool:
    """Nothing follows; asking for one byte more also checks the stream's checksum."""
    try:
        return inflate.eof or (not inflate.decompress(inflate.unconsumed_tail, 1) and inflate.eof)
    except zlib.error:
        return False


def _unpredicted(deltas: np.ndarray) -> np.ndarray:
    """Undoes the predictor (differences, offset by 128) and the split into even and odd bytes."""
    steps = deltas - np.uint8(128)
    steps[0] = deltas[0]
    summed = np.cumsum(steps, dtype=np.uint8)
    plain = np.empty_like(summed)
    middle = (len(summed) + 1) // 2
    plain[0::2], plain[1::2] = summed[:middle], summed[middle:]
    return plain


def _packed(plain: bytes) -> bytes:
    values = np.frombuffer(plain, np.uint8)
    halves = np.concatenate((values[0::2], values[1::2]))
    deltas = halves.copy()
    deltas[1:] -= halves[:-1]
    deltas[1:] += np.uint8(128)
    packed = zlib.compress(deltas.tobytes(), 6)
    return packed if len(packed) < len(plain) else plain
