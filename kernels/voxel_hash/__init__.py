"""Dense ids of the voxels that points fall into."""

from __future__ import annotations

from torch import Tensor

from . import reference

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

    Args:
        points: [B, N, 3] f32 or f64.
        valid: [B, N] bool; other points, and points that are not finite, have no voxel.
        voxel_size: edge of a cell in the unit of the points, one number or [B].
        origin: [B, 3] corner (`floor`) or centre (`round`) of the cell (0, 0, 0); None = zero.
        rounding: `floor`, or `round` (half to even).

    Returns:
        [B, N] int64 ids 0, 1, 2, ...; -1 where there is no voxel.

    Raises:
        ProbeError: the edge is not positive, the rounding is unknown, or a valid point lies beyond
            2^20 cells from the origin.
    """
    return reference.voxel_hash(points, valid, voxel_size=voxel_size, origin=origin, rounding=rounding)
