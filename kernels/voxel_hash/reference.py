"""Dense ids of the voxels that points fall into: the definition, in plain torch.

Shapes: B sets, N points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ProbeError

REACH = 1 << 20
"""Cells on either side of the origin along an axis: three signed 21-bit numbers fill one 64-bit key."""

ROUNDINGS = {"floor": torch.floor, "round": torch.round}


def voxel_hash(
    points: Tensor,
    valid: Tensor,
    *,
    voxel_size: float | Tensor,
    origin: Tensor | None = None,
    rounding: str = "floor",
) -> Tensor:
    """The voxel of each point, numbered per set in order of first occurrence.

    A point p lies in the cell floor((p - origin) / voxel_size), computed in float64; points of one
    cell share one id. Equal input gives equal ids on every device.

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
    if rounding not in ROUNDINGS:
        raise ProbeError(f"rounding={rounding} is not known.", where="voxel_hash", fix="use floor or round")
    size = torch.as_tensor(voxel_size, dtype=torch.float64, device=points.device).reshape(-1, 1, 1)
    if not bool((size > 0).all()):
        raise ProbeError(
            f"the voxel edge {float(size.min())} is not a positive number.",
            where="voxel_hash",
            fix="give a positive voxel size",
        )
    shifted = points.double() if origin is None else points.double() - origin.double()[:, None]
    cells = ROUNDINGS[rounding](shifted / size)  # [B, N, 3]
    valid = valid & points.isfinite().all(-1)
    _check_reach(cells[valid], size)
    keys = _pack(cells.where(valid[..., None], 0.0).long())
    return torch.stack([_dense_ids(k, v) for k, v in zip(keys, valid, strict=True)])


def _check_reach(cells: Tensor, size: Tensor) -> None:
    beyond = ((cells < -REACH) | (cells >= REACH)).any(-1)
    if bool(beyond.any()):
        raise ProbeError(
            f"{int(beyond.sum()):,} points lie beyond {REACH:,} voxels from the origin.",
            where="voxel_hash",
            why=f"the farthest is {float(cells.abs().max()):,.0f} cells of edge {float(size.min()):g} away; "
            "a 64-bit key holds 21 bits an axis",
            fix="use larger voxels, or remove outliers from the depth",
        )


def _pack(cells: Tensor) -> Tensor:
    """One injective int64 key [...] per cell [..., 3] within reach."""
    x, y, z = (cells + REACH).unbind(-1)
    return (x << 42) | (y << 21) | z


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
