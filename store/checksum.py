"""crc32c, as Zarr's codec of that name writes it."""

from __future__ import annotations

import struct

import numpy as np
from awscrt import checksums

CRC_BYTES = 4
Bytes = bytes | bytearray | memoryview | np.ndarray


def crc32c(data: Bytes) -> int:
    """Of contiguous memory, which is not copied.

    awscrt's is twice as fast as google_crc32c where the processor can multiply polynomials side by side
    (AVX-512), and leaves other threads running.
    """
    return checksums.crc32c(data)  # pyright: ignore[reportArgumentType] (any buffer)


def crc_bytes(data: Bytes) -> bytes:
    """The four bytes that stand behind a chunk."""
    return struct.pack("<I", crc32c(data))


def crc_fits(data: Bytes, crc: bytes) -> bool:
    """Whether those four bytes are the crc32c of these."""
    return crc == crc_bytes(data)
