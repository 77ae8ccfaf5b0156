"""Dense ids of the voxels that points fall into: the definition, in plain torch.

Shapes: B sets, N points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cells import CellGrid, cells_of, check_cells, have_cell, pack


def voxel_ids(points: Tensor, valid: Tensor, grid: CellGrid) -> Tensor:
    """[B, N] int64 ids of points [B, N, 3] by first occurrence, -1 where there is no voxel.

    A point p lies in the cell floor((p - origin) / size), computed in float64; points of one cell
    share one id. Equal input gives equal ids on every device.
    """
    check_cells(points, valid, grid)
    valid = have_cell(points, valid)
    keys = pack(cells_of(points, grid).where(valid[..., None], 0.0))
    ids = torch.empty_like(keys)
    for row, key, ok in zip(ids, keys, valid, strict=True):
        row.copy_(_dense_ids(key, ok))
    return ids


def _dense_ids(keys: Tensor, valid: Tensor) -> Tensor:
    """[N] ids by first occurrence among the valid keys [N], -1 for the others."""
    ids = torch.full_like(keys, -1)
    _, voxel = torch.unique(keys[valid], return_inverse=True)  # numbered by key
    count = int(voxel.max()) + 1 if len(voxel) else 0
    places = torch.arange(len(voxel), device=keys.device)
    first = places.new_full((count,), len(voxel)).scatter_reduce(0, voxel, places, "amin")
    by_occurrence = first.argsort()
    rank = torch.empty_like(first).scatter_(0, by_occurrence, torch.arange(count, device=keys.device))
    ids[valid] = rank[voxel]
    return ids
