"""Arrays of numbers out of .npy bytes that nobody vouches for."""

from __future__ import annotations

import io
import math

import numpy as np

NUMBERS = "biuf"


def read_npy(data: bytes) -> np.ndarray:
    """The array, read-only; its header is held against the bytes before anything is allocated.

    Raises:
        ValueError: it is no .npy file of version 1 or 2, holds no numbers, or has another length.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        raise ValueError(f"the .npy header is malformed: {error}") from None
    left = len(data) - file.tell()
    if dtype.kind not in NUMBERS or min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{left:,} bytes are no array of shape {shape} and type {dtype}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if by_column else "C")
