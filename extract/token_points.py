"""One 3D point per token, from the source depth, the same for every encoder.

Cells are the exact rectangles of the grid on the source box, without rounding: with `crop` the
largest centred box of the grid's aspect inside the image, with `pad` the smallest around it, with
`stretch` the image itself. A pixel belongs to the cell that holds its centre.

The token point is the unprojection of one *source* pixel: the median by depth among those within 5 %
of the cell's median depth. So it lies on a surface, never between two. A token is valid when at least
half of the pixels of its cell have depth; pixels that a border puts into the cell count as without.

Shapes: R C token rows and columns, H W source pixels, N pixels with depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..kernels.geometry import transform, unproject
from ..store.key import Size

WITHIN = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class CellPoints:
    """Attributes:
    world: [R, C, 3] f32, NaN = none.
    valid: [R, C] bool.
    spread_m: [R, C] f32, standard deviation of the depths used, NaN = none.
    """

    world: np.ndarray
    valid: np.ndarray
    spread_m: np.ndarray


def token_points(
    depth_m: np.ndarray, K_px: np.ndarray, world_from_cam: np.ndarray, grid: Size, fit: str
) -> CellPoints:
    """Token points of one view.

    Args:
        depth_m: [H, W] f32 source z-depth, 0 = none.
        K_px: [3, 3] of the source image.
        world_from_cam: [4, 4].
        grid: (R, C).
        fit: crop | pad | stretch.
    """
    height, width = depth_m.shape
    row_starts, col_starts = cell_starts(width, height, grid, fit)
    row_of, col_of = _cell_of(height, row_starts), _cell_of(width, col_starts)
    v, u = np.nonzero((depth_m > 0) & (row_of >= 0)[:, None] & (col_of >= 0)[None])
    cell, depth = row_of[v] * grid[1] + col_of[u], depth_m[v, u]
    # Stable and already in row-major order: equal depths keep the lowest row, then column, first.
    order = np.lexsort((depth, cell))
    cell, depth, v, u = cell[order], depth[order], v[order], u[order]
    with_depth = np.bincount(cell, minlength=grid[0] * grid[1])
    filled = np.flatnonzero(with_depth)
    world = np.full((grid[0] * grid[1], 3), np.nan, np.float32)
    spread_m = np.full(grid[0] * grid[1], np.nan, np.float32)
    if len(filled):
        picked, spread_m[filled] = _medians(depth, with_depth[filled])
        uv = torch.from_numpy(np.stack([u[picked], v[picked]], axis=1).astype(np.float64))
        cam = unproject(uv, _f64(depth[picked]), _f64(K_px))
        world[filled] = transform(_f64(world_from_cam), cam).numpy()
    pixels = (np.diff(row_starts)[:, None] * np.diff(col_starts)[None]).reshape(-1)
    return CellPoints(
        world=world.reshape(*grid, 3),
        valid=((with_depth > 0) & (2 * with_depth >= pixels)).reshape(grid),
        spread_m=spread_m.reshape(grid),
    )


def cell_starts(width: int, height: int, grid: Size, fit: str) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each token row [R + 1] and column [C + 1], on a lattice that goes on beyond the image.

    Integer arithmetic: a pixel centre on a cell's edge belongs to the cell behind it, exactly.
    """
    rows, cols = grid
    wide = width * rows >= height * cols  # the image is wider than the grid
    if fit == "stretch":
        box_w, box_h, unit = width, height, 1
    elif wide == (fit == "crop"):
        box_w, box_h, unit = height * cols, height * rows, rows
    else:
        box_w, box_h, unit = width * cols, width * rows, cols
    return _starts(height, box_h, unit, rows), _starts(width, box_w, unit, cols)


def _starts(length: int, box: int, unit: int, cells: int) -> np.ndarray:
    """ceil of (length - 1)/2 + (box/unit) (2 i - cells)/(2 cells) for i = 0..cells."""
    edges = (length - 1) * cells * unit + box * (2 * np.arange(cells + 1, dtype=np.int64) - cells)
    return -(-edges // (2 * cells * unit))


def _cell_of(length: int, starts: np.ndarray) -> np.ndarray:
    """[length] cell of each pixel, -1 outside the box."""
    cell = np.searchsorted(starts, np.arange(length), side="right") - 1
    return np.where(cell < len(starts) - 1, cell, -1)


def _medians(depth: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the chosen pixel and the spread of each run; depths are sorted within a run."""
    starts = np.cumsum(lengths) - lengths
    run, index = np.repeat(np.arange(len(lengths)), lengths), np.arange(len(depth))
    median = depth[starts + (lengths - 1) // 2][run]
    # Within a sorted run, what lies within 5 % of the median is a run again.
    near = np.abs(depth - median) <= WITHIN * median
    used = np.add.reduceat(near.astype(np.int64), starts)
    first = np.minimum.reduceat(np.where(near, index, len(depth)), starts)
    chosen = depth[first + (used - 1) // 2][run]
    picked = np.minimum.reduceat(np.where(depth == chosen, index, len(depth)), starts)
    wide = depth.astype(np.float64)
    mean = np.add.reduceat(near * wide, starts) / used
    spread = np.sqrt(np.add.reduceat(near * (wide - mean[run]) ** 2, starts) / used)
    return picked, spread


def _f64(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))
