"""The header of an OpenEXR file: parsed to what the reader needs, and built for the writer.

Scanline files of one part, with channels that are not subsampled; everything else is refused by name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ...errors import SceneError

MAGIC = struct.pack("<II", 20000630, 2)
NONE, ZIPS, ZIP = 0, 2, 3
BLOCK_LINES = {NONE: 1, ZIPS: 1, ZIP: 16}
DTYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
COMPRESSIONS = ("NONE", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
UNSUPPORTED_FLAGS = {0x200: "tiles", 0x800: "deep pixels", 0x1000: "several parts"}
# A byte of deflate stream stands for at most this many bytes, so a larger picture is a lie.
MAX_DEFLATE_RATIO = 1032


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header says about the pixels.

    Attributes:
        names: channels in file order, which is alphabetical.
        dtypes: one per channel.
        width, height: of the data window, in pixels.
        first_line: the y coordinate of the first line.
        compression: NONE, ZIPS or ZIP.
        end: where the table of block offsets begins, in bytes.
    """

    names: tuple[str, ...]
    dtypes: tuple[np.dtype, ...]
    width: int
    height: int
    first_line: int
    compression: int
    end: int

    @property
    def block_lines(self) -> int:
        return BLOCK_LINES[self.compression]

    @property
    def blocks(self) -> int:
        return -(-self.height // self.block_lines)

    @property
    def line_bytes(self) -> int:
        return self.width * sum(dtype.itemsize for dtype in self.dtypes)


def fault(what: str, where: str, why: str = "") -> SceneError:
    """A `SceneError` about an EXR file."""
    fix = "copy the file again, or write it anew as a scanline EXR, half or float, ZIP compression"
    return SceneError(what, where=where, why=why, fix=fix)


def parse_header(data: bytes, where: str) -> Header:
    """The header of `data`, checked against the size of the file.

    Raises:
        SceneError: it is malformed, or asks for something that is not supported.
    """
    if data[:4] != MAGIC[:4]:
        raise fault("the file is not an EXR file.", where, f"it begins with {data[:4].hex(' ') or 'nothing'}")
    try:
        _check_version(struct.unpack_from("<I", data, 4)[0], where)
        attributes, end = _attributes(data)
        header = _header(attributes, end, where)
    except (struct.error, ValueError, KeyError) as error:
        raise fault("the EXR header is malformed.", where, f"{error}") from None
    _check_size(header, len(data), where)
    return header


def build_header(names: tuple[str, ...], half: bool, width: int, height: int) -> bytes:
    """A header for `names` (alphabetical), ZIP compression and increasing lines."""
    channel = struct.pack("<iB3xii", 1 if half else 2, 0, 1, 1)
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = (
        ("channels", "chlist", b"".join(name.encode() + b"\0" + channel for name in names) + b"\0"),
        ("compression", "compression", bytes([ZIP])),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    )
    packed = (
        f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
        for name, kind, value in attributes
    )
    return MAGIC + b"".join(packed) + b"\0"


def _check_version(version: int, where: str) -> None:
    found = [name for flag, name in UNSUPPORTED_FLAGS.items() if version & flag]
    if version & 0xFF != 2 or found:
        why = f"it has {' and '.join(found)}" if found else f"its version is {version & 0xFF}, not 2"
        raise fault("the EXR file is of a kind that is not supported.", where, why)


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    attributes: dict[str, bytes] = {}
    at = 8
    while True:
        name, at = _text(data, at)
        if not name:
            return attributes, at
        _, at = _text(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        at += 4
        if not 0 <= size <= len(data) - at:
            raise ValueError(f"attribute {name!r} of {size:,} bytes does not fit into the file")
        attributes[name] = data[at : at + size]
        at += size


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at, at + 256)
    if end < 0:
        raise ValueError(f"the name at byte {at:,} has no end")
    return data[at:end].decode("latin-1"), end + 1


def _header(attributes: dict[str, bytes], end: int, where: str) -> Header:
    absent = {"channels", "compression", "dataWindow"} - attributes.keys()
    if absent:
        raise ValueError(f"the attribute {min(absent)} is missing")
    compression = struct.unpack("<B", attributes["compression"])[0]
    if compression not in BLOCK_LINES:
        name = COMPRESSIONS[compression] if compression < len(COMPRESSIONS) else compression
        raise fault(f"EXR compression {name} is not supported.", where, "NONE, ZIPS and ZIP are")
    x_min, y_min, x_max, y_max = struct.unpack("<4i", attributes["dataWindow"])
    if x_max < x_min or y_max < y_min:
        raise ValueError(f"the data window {x_min, y_min, x_max, y_max} is empty")
    names, dtypes = _channels(attributes["channels"], where)
    return Header(
        names=names,
        dtypes=dtypes,
        width=x_max - x_min + 1,
        height=y_max - y_min + 1,
        first_line=y_min,
        compression=compression,
        end=end,
    )


def _channels(value: bytes, where: str) -> tuple[tuple[str, ...], tuple[np.dtype, ...]]:
    names: list[str] = []
    dtypes: list[np.dtype] = []
    at = 0
    while True:
        name, at = _text(value, at)
        if not name:
            break
        kind, x_step, y_step = struct.unpack_from("<i4xii", value, at)
        at += 16
        if kind not in DTYPES or (x_step, y_step) != (1, 1):
            raise ValueError(f"channel {name!r} has type {kind} and steps {x_step, y_step}")
        names.append(name)
        dtypes.append(DTYPES[kind])
    if len(names) not in (1, 3):
        why = f"it has {len(names)}: {', '.join(names[:8])}"
        raise fault("an EXR file needs one or three channels.", where, why)
    return tuple(names), tuple(dtypes)


def _check_size(header: Header, file_bytes: int, where: str) -> None:
    left = file_bytes - header.end - 8 * header.blocks
    ratio = 1 if header.compression == NONE else MAX_DEFLATE_RATIO
    if left < 8 * header.blocks or header.height * header.line_bytes > left * ratio:
        raise fault(
            "the EXR file is too short for its picture.",
            where,
            f"{header.width} x {header.height} pixels of {len(header.names)} channels cannot lie in "
            f"{file_bytes:,} bytes",
        )
