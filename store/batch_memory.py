"""Memory of batches, used again once nobody holds a batch any more.

Fresh memory is cleared by the system page by page, which takes about as long as copying features into it.
"""

from __future__ import annotations

import weakref
from collections import defaultdict

import numpy as np

from .page_memory import page_empty


class BatchMemory:
    """Gives arrays whose memory comes back when they are collected.

    An array must be passed on whole (to `torch.from_numpy`, which keeps it): a slice of it that outlives it
    does not keep its memory.

    Args:
        most: free arrays that are kept of one shape and dtype.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = defaultdict(list)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of any content."""
        free = self._free[shape, np.dtype(dtype).str]
        try:
            memory = free.pop()
        except IndexError:
            memory = page_empty(shape, dtype)
        array = memory.view()
        # Lists may be changed from any thread; the callback runs wherever the last reference goes.
        weakref.finalize(array, _back, free, memory, self._most).atexit = False
        return array


def _back(free: list[np.ndarray], memory: np.ndarray, most: int) -> None:
    if len(free) < most:
        free.append(memory)
