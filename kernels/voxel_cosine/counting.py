"""The segments of ids on a processor by counting: linear in the number of tokens, in one compiled pass.

Ids of `voxel_hash` are small, so that a table has a place for each. Tokens come in order of views, so
that a stable sort by cell also sorts by view.

Shapes: B sets, V views, P tokens of a view; T tokens that have a cell, S segments, G cells.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .segments import VoxelSegments

SPARSE = 8
"""Ids above this many times the tokens of a set are sorted instead: the table would cost more."""


def voxel_segments(ids: Tensor) -> VoxelSegments | None:
    """The segments of ids [B, V, P] on the CPU, equal to those of a sort; None if the ids are sparse."""
    sets, views, tokens = ids.shape
    table = ids.reshape(sets, views * tokens).numpy()
    cells = int(table.max(initial=-1)) + 1
    if cells > SPARSE * views * tokens:
        return None
    order, *segments, cell_set, corr, noncorr = _count(table, views, tokens, cells)
    set_, view, id_, count, cell = segments
    return VoxelSegments(
        shape=(sets, views, tokens),
        order=torch.from_numpy(order),
        set=torch.from_numpy(set_),
        view=torch.from_numpy(view),
        id=torch.from_numpy(id_),
        count=torch.from_numpy(count),
        cell=torch.from_numpy(cell),
        cell_set=torch.from_numpy(cell_set),
        corr_count=torch.from_numpy(corr),
        noncorr_count=torch.from_numpy(noncorr),
    )


@njit(nogil=True, cache=True)
def _count(ids, views, tokens, cells):
    """The arrays of a plan, from ids [B, V * P] below `cells`."""
    sets = ids.shape[0]
    order, view_of = np.empty(ids.size, np.int64), np.empty(ids.size, np.int64)
    segments = np.empty((5, ids.size), np.int64)  # set, view, id, count, cell
    cell_set = np.empty(ids.size, np.int64)
    corr, noncorr = np.zeros(sets, np.int64), np.zeros(sets, np.int64)
    place = np.empty(cells + 1, np.int64)
    done = segment = cell = 0
    for b in range(sets):
        end = _sort(ids[b], views, tokens, b, place, order, view_of, done)
        in_view = np.zeros(views, np.int64)
        in_cell = same_view = 0
        for id_ in range(cells):
            first, done = done, place[id_]
            if first == done:
                continue
            k = first
            while k < done:
                start, view = k, view_of[k]
                while k < done and view_of[k] == view:
                    k += 1
                count = k - start
                segments[0, segment], segments[1, segment], segments[2, segment] = b, view, id_
                segments[3, segment], segments[4, segment] = count, cell
                in_view[view] += count
                same_view += count * count
                segment += 1
            in_cell += (done - first) * (done - first)
            cell_set[cell] = b
            cell += 1
        corr[b] = (in_cell - same_view) // 2
        noncorr[b] = (in_view.sum() ** 2 - (in_view * in_view).sum()) // 2 - corr[b]
        done = end
    set_, view, id_, count, cell_of = segments[:, :segment]
    return order[:done], set_, view, id_, count, cell_of, cell_set[:cell], corr, noncorr


@njit(nogil=True, cache=True)
def _sort(ids, views, tokens, b, place, order, view_of, done):
    """Writes the rows and views of one set from `done` on; `place` [cells + 1] gets the end of each cell."""
    place[:] = 0
    for id_ in ids:
        if id_ >= 0:
            place[id_ + 1] += 1
    place[0] = done
    for id_ in range(1, place.shape[0]):
        place[id_] += place[id_ - 1]
    row = 0
    for view in range(views):
        for _ in range(tokens):
            id_ = ids[row]
            if id_ >= 0:
                order[place[id_]] = b * views * tokens + row
                view_of[place[id_]] = view
                place[id_] += 1
            row += 1
    return place[-1]
