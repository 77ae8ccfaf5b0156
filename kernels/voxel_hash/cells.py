"""The cells of a grid that points fall into, and what a grid can not hold.

Shapes: B sets, N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ProbeError

REACH = 1 << 20
"""Cells on either side of the origin along an axis: three signed 21-bit numbers fill one 64-bit key."""

ROUNDINGS = {"floor": torch.floor, "round": torch.round}


@dataclass(frozen=True, kw_only=True, eq=False)
class CellGrid:
    """Where the cells of each set lie.

    Attributes:
        size: [B] f64 edges.
        origin: [B, 3] f64 corner (`floor`) or centre (`round`) of the cell (0, 0, 0).
        rounding: one of `ROUNDINGS`.
    """

    size: Tensor
    origin: Tensor
    rounding: str


def cell_grid(
    points: Tensor, valid: Tensor, voxel_size: float | Tensor, origin: Tensor | None, rounding: str
) -> CellGrid:
    """The grid on the device of the points, without waiting for that device.

    Raises:
        ProbeError: the rounding is unknown, or shapes do not fit.
    """
    if rounding not in ROUNDINGS:
        raise ProbeError(f"rounding={rounding} is not known.", where="voxel_hash", fix="use floor or round")
    sets, place = len(points), {"dtype": torch.float64, "device": points.device}
    size = voxel_size if isinstance(voxel_size, Tensor) else torch.full((1,), voxel_size, **place)
    origin = torch.zeros(sets, 3, **place) if origin is None else origin
    grid_fits = size.numel() in (1, sets) and origin.shape == (sets, 3)
    if points.shape != (*valid.shape, 3) or valid.ndim != 2 or not grid_fits:
        raise ProbeError(
            f"points {list(points.shape)}, valid {list(valid.shape)}, voxel sizes {list(size.shape)} "
            f"and origin {list(origin.shape)} do not fit together.",
            where="voxel_hash",
            fix="give points [B, N, 3], valid [B, N], one voxel size or [B], and origin [B, 3]",
        )
    return CellGrid(
        size=size.to(**place).reshape(-1).expand(sets), origin=origin.to(**place), rounding=rounding
    )


def cells_of(points: Tensor, grid: CellGrid) -> Tensor:
    """[B, N, 3] f64 whole numbers, of points [B, N, 3]."""
    return ROUNDINGS[grid.rounding]((points.double() - grid.origin[:, None]) / grid.size[:, None, None])


def have_cell(points: Tensor, valid: Tensor) -> Tensor:
    """[B, N] bool: valid points that are finite."""
    return valid & points.isfinite().all(-1)


def check_cells(points: Tensor, valid: Tensor, grid: CellGrid) -> None:
    """Refuses a grid that is none, and valid points that it does not reach.

    Raises:
        ProbeError: an edge is not positive, an origin is not finite, or a valid point lies beyond `REACH`.
    """
    if not bool((grid.size > 0).all()):
        raise ProbeError(
            f"the voxel edge {float(grid.size.min())} is not a positive number.",
            where="voxel_hash",
            fix="give a positive voxel size",
        )
    if not bool(grid.origin.isfinite().all()):
        raise ProbeError("the origin is not finite.", where="voxel_hash", fix="give a finite origin")
    cells = cells_of(points, grid)[have_cell(points, valid)]
    beyond = ((cells < -REACH) | (cells >= REACH)).any(-1)
    if bool(beyond.any()):
        raise ProbeError(
            f"{int(beyond.sum()):,} points lie beyond {REACH:,} voxels from the origin.",
            where="voxel_hash",
            why=f"the farthest is {float(cells.abs().max()):,.0f} cells of edge "
            f"{float(grid.size.min()):g} away; a 64-bit key holds 21 bits an axis",
            fix="use larger voxels, or remove outliers from the depth",
        )


def pack(cells: Tensor) -> Tensor:
    """One injective int64 key [...] per cell [..., 3] within reach; no key is negative."""
    x, y, z = (cells.long() + REACH).unbind(-1)
    return (x << 42) | (y << 21) | z
