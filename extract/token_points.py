"""One 3D point per token, from the source depth, the same for every encoder.

Cells are the exact rectangles of the grid on the source box, without rounding: with `crop` the
largest centred box of the grid's aspect inside the image, with `pad` the smallest around it, with
`stretch` the image itself. A pixel belongs to the cell that holds its centre. An image that was packed
smaller keeps the cells of its source: they are laid over fewer pixels.

Where patches overlap, the box is that of the whole image, and a cell is the square of side `stride` around a
token's centre: what no other token is nearer to. The cells then leave out a border of (patch - stride) / 2.

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
from ..store.key import Size, pixels_of_grid

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
    depth_m: np.ndarray,
    K_px: np.ndarray,
    world_from_cam: np.ndarray,
    grid: Size,
    fit: str,
    *,
    source_size: tuple[int, int] | None = None,
    patch: int = 1,
    stride: int | None = None,
) -> CellPoints:
    """Token points of one view.

    Args:
        depth_m: [H, W] f32 z-depth, 0 = none.
        K_px: [3, 3] for these pixels.
        world_from_cam: [4, 4].
        grid: (R, C).
        fit: crop | pad | stretch.
        source_size: (width, height) of the source's image, where these pixels were made from more.
        patch, stride: as in `cell_starts`.
    """
    height, width = depth_m.shape
    row_starts, col_starts = cell_starts(
        *(source_size or (width, height)), grid, fit, (width, height), patch=patch, stride=stride
    )
    v, row_inside = _padded(row_starts, height)
    u, col_inside = _padded(col_starts, width)
    depth = depth_m[v[:, None, :, None], u[None, :, None, :]]  # [R, C, h, w]
    inside = row_inside[:, None, :, None] & col_inside[None, :, None, :]
    cells = np.where((depth > 0) & inside, depth, np.float32(np.inf)).reshape(grid[0] * grid[1], -1)
    with_depth = np.isfinite(cells).sum(1)
    picked, spread_m = _medians(cells, with_depth)
    picked_m = _f64(cells[np.arange(len(cells)), picked])
    cam = unproject(_uv(picked, u, v), picked_m, _f64(K_px))
    world = transform(_f64(world_from_cam), cam).numpy().astype(np.float32)
    pixels = (np.diff(row_starts)[:, None] * np.diff(col_starts)[None]).reshape(-1)
    return CellPoints(
        world=np.where(with_depth[:, None] > 0, world, np.float32(np.nan)).reshape(*grid, 3),
        valid=((with_depth > 0) & (2 * with_depth >= pixels)).reshape(grid),
        spread_m=spread_m.reshape(grid),
    )


def cell_starts(
    width: int,
    height: int,
    grid: Size,
    fit: str,
    pixels: tuple[int, int] | None = None,
    *,
    patch: int = 1,
    stride: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each token row [R + 1] and column [C + 1], on a lattice that goes on beyond the image.

    Integer arithmetic: a pixel centre on a cell's edge belongs to the cell behind it, exactly.

    Args:
        width, height: of the source's image, which the cells divide.
        grid: (R, C).
        fit: crop | pad | stretch.
        pixels: (width, height) of the image whose pixels are meant; None = the source's own.
        patch, stride: of an encoder whose patches overlap; without a stride the patch size is no matter.
    """
    step = stride or patch
    rows, cols = pixels_of_grid(grid, patch, stride)  # of the image that the encoder sees
    across, down = pixels or (width, height)
    wide = width * rows >= height * cols  # the image is wider than that
    if fit == "stretch":
        box_w, box_h, unit = width, height, 1
    elif wide == (fit == "crop"):
        box_w, box_h, unit = height * cols, height * rows, rows
    else:
        box_w, box_h, unit = width * cols, width * rows, cols
    down_starts = _starts(height, down, box_h, unit, _edges(grid[0], step), rows)
    return down_starts, _starts(width, across, box_w, unit, _edges(grid[1], step), cols)


def _edges(cells: int, step: int) -> np.ndarray:
    """[cells + 1] twice the distance of the cells' edges from the image's middle, in its pixels."""
    return step * (2 * np.arange(cells + 1, dtype=np.int64) - cells)


def _starts(length: int, pixels: int, box: int, unit: int, edges: np.ndarray, side: int) -> np.ndarray:
    """ceil of x pixels/length - 1/2 for x = length/2 + (box/unit) edges/(2 side)."""
    whole = length * side * unit
    return -(-((whole + box * edges) * pixels - whole) // (2 * whole))


def _padded(starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each cell along one axis, all as many as the longest has: (index, whether it counts)."""
    index = starts[:-1, None] + np.arange(max(1, int(np.diff(starts).max())))
    counts = (index < starts[1:, None]) & (index >= 0) & (index < length)
    return np.clip(index, 0, length - 1), counts


def _uv(picked: np.ndarray, u: np.ndarray, v: np.ndarray) -> torch.Tensor:
    """[R C, 2] f64 of one pixel [R C] of each cell, which has columns u [C, w] and rows v [R, h]."""
    dv, du = np.divmod(picked, u.shape[1])
    row, col = np.divmod(np.arange(len(picked)), len(u))
    return _f64(np.stack([u[col, du], v[row, dv]], axis=1))


def _medians(cells: np.ndarray, with_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(chosen pixel [N], spread [N] f32) of cells [N, pixels] of depth, infinite = none.

    Pixels lie in row-major order, so the first that has the chosen depth is the one of the lowest row,
    then column.
    """
    ordered, every = np.sort(cells, axis=1), np.arange(len(cells))
    median = ordered[every, np.maximum(with_depth - 1, 0) // 2, None]
    with np.errstate(invalid="ignore"):  # cells without depth compare infinities
        near = np.abs(ordered - median) <= WITHIN * median
    near &= np.isfinite(ordered)
    used = near.sum(1)
    # In order, what lies within 5 % of the median is a run.
    chosen = ordered[every, near.argmax(1) + np.maximum(used - 1, 0) // 2]
    wide = np.where(near, ordered, 0).astype(np.float64)
    mean = wide.sum(1) / np.maximum(used, 1)
    square = np.where(near, wide - mean[:, None], 0) ** 2
    spread = np.sqrt(square.sum(1) / np.maximum(used, 1))
    return (cells == chosen[:, None]).argmax(1), np.where(used > 0, spread, np.nan).astype(np.float32)


def _f64(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))
