"""Arrays that begin at a page of memory, for large reads."""

from __future__ import annotations

import math

import numpy as np

PAGE = 4096


def page_empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """An uninitialised array that begins at a page.

    Chunks of a shard begin at pages of the file. Copied to 1 to 63 bytes beyond a page of memory, which is
    where numpy puts large arrays, they take twice as long on some processors (AMD Zen 4): their copy
    instruction takes what it writes for what it will read. Pages avoid that; so does torch, at 64 bytes.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start : start + nbytes].view(dtype).reshape(shape)
