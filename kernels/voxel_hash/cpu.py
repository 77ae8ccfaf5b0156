"""Dense ids of the voxels that points fall into, on a processor: one pass through a growing hash table.

In the order of the points, ids by first occurrence are those that a counter gives. The table holds ids
alone, and their keys lie in order of occurrence: memory that is touched first costs more than arithmetic.
One thread: sets are scored by several, and numba's own pools do not share a process well with torch's.

Shapes: B sets, N points, S slots of a table.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .cells import REACH, CellGrid, check_cells

FIRST_SLOTS = 1 << 10
"""A table grows with the voxels that are found, since one made for every point would leave the cache."""

AHEAD = 64
"""Points whose slots are read before they are needed: memory answers many questions at once."""

NO_CELL, OUT_OF_REACH = -1, -2


def voxel_ids(points: Tensor, valid: Tensor, grid: CellGrid) -> Tensor:
    """As `reference.voxel_ids`."""
    ids = torch.empty(valid.shape, dtype=torch.int64)
    points = points.detach() if points.dtype in (torch.float32, torch.float64) else points.detach().double()
    sane = bool((grid.size > 0).all() & grid.origin.isfinite().all())
    points_, valid_, size, origin, out = (
        one.contiguous().numpy() for one in (points, valid, grid.size, grid.origin, ids)
    )
    nearest = grid.rounding == "round"
    if not sane or not all(
        _number(points_[b], valid_[b], size[b], origin[b], nearest, out[b])[0] for b in range(len(out))
    ):
        check_cells(points, valid, grid)
    return ids


@njit(cache=True, nogil=True)
def mix(key):
    """The finaliser of MurmurHash3: every bit of the key changes every bit of the result."""
    h = np.uint64(key)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True)
def _number(points, valid, size, origin, nearest, ids):
    """Fills ids [N] of one set; (false, _) when a point lies out of reach."""
    table, voxels, found = np.zeros(FIRST_SLOTS, np.int32), np.empty(len(points), np.int64), 0
    keys, slots, read = np.empty(AHEAD, np.int64), np.empty(AHEAD, np.uint64), 0
    x0, y0, z0 = origin
    for start in range(0, len(points), AHEAD):
        stop = min(start + AHEAD, len(points))
        mask = np.uint64(len(table) - 1)
        for n in range(start, stop):
            x, y, z = np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2])
            finite = np.isfinite(x) and np.isfinite(y) and np.isfinite(z)
            key = _key(x - x0, y - y0, z - z0, size, nearest) if valid[n] and finite else NO_CELL
            if key == OUT_OF_REACH:
                return False, read
            keys[n - start], slots[n - start] = key, mix(key) & mask
            read += table[slots[n - start]]  # given back, so that no compiler leaves it out
        for n in range(start, stop):
            key, slot = keys[n - start], slots[n - start]
            if key == NO_CELL:
                ids[n] = NO_CELL
                continue
            while table[slot] and voxels[table[slot] - 1] != key:
                slot = (slot + np.uint64(1)) & mask
            if not table[slot]:
                voxels[found] = key
                found += 1
                table[slot] = found
            ids[n] = table[slot] - 1
        if 2 * found > len(table):
            table = _grown(table, voxels[:found], len(points))
    return True, read


@njit(cache=True, nogil=True)
def _key(x, y, z, size, nearest):
    x, y, z = x / size, y / size, z / size
    if nearest:
        x, y, z = np.rint(x), np.rint(y), np.rint(z)
    else:
        x, y, z = np.floor(x), np.floor(y), np.floor(z)
    if not (-REACH <= x < REACH and -REACH <= y < REACH and -REACH <= z < REACH):
        return OUT_OF_REACH
    return (np.int64(x) + REACH) << 42 | (np.int64(y) + REACH) << 21 | (np.int64(z) + REACH)


@njit(cache=True, nogil=True)
def _grown(table, voxels, points):
    size = 4 * len(table)
    while size >= 4 * points:
        size //= 2
    larger = np.zeros(size, np.int32)
    mask = np.uint64(len(larger) - 1)
    for voxel in range(len(voxels)):
        slot = mix(voxels[voxel]) & mask
        while larger[slot]:
            slot = (slot + np.uint64(1)) & mask
        larger[slot] = voxel + 1
    return larger
