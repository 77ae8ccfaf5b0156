"""Dense ids of the voxels that points fall into."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from .cells import cell_grid

__all__ = ["voxel_hash"]


def voxel_hash(
    points: Tensor,
    valid: Tensor,
    *,
    voxel_size: float | Tensor,
    origin: Tensor | None = None,
    rounding: str = "floor",
) -> Tensor:
    """The voxel of each point, numbered per set in order of first occurrence.

    A point p lies in the cell floor((p - origin) / voxel_size), computed in float64; points of one cell
    share one id. Equal input gives equal ids on every device.

    Args:
        points: [B, N, 3] f32 or f64.
        valid: [B, N] bool; other points, and points that are not finite, have no voxel.
        voxel_size: edge of a cell in the unit of the points, one number or [B].
        origin: [B, 3] corner (`floor`) or centre (`round`) of the cell (0, 0, 0); None = zero.
        rounding: `floor`, or `round` (half to even).

    Returns:
        [B, N] int64 ids 0, 1, 2, ...; -1 where there is no voxel.

    Raises:
        ProbeError: an edge is not positive, an origin is not finite, the rounding is unknown, shapes do
            not fit, or a valid point lies beyond 2^20 cells from the origin.
    """
    grid = cell_grid(points, valid, voxel_size, origin, rounding)
    if points.is_cuda and find_spec("triton"):
        from . import kernel

        if valid.numel() <= kernel.MOST_POINTS:
            return kernel.voxel_ids(points, valid, grid)
    elif points.device.type == "cpu" and find_spec("numba"):
        from . import cpu

        return cpu.voxel_ids(points, valid, grid)
    from . import reference

    return reference.voxel_ids(points, valid, grid)
