"""Numbers and poses out of a scene's files, checked before they are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import SceneError

# Poses are often written with few digits; a wrong scale or a shear is far outside of this.
RIGID_TOLERANCE = 1e-3
LARGEST = 1e9


def finite_number(value: Any, key: str, where: str) -> float:
    """The value as a float.

    Raises:
        SceneError: it is no number, not finite, or absurdly large.
    """
    # NaN compares false.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise SceneError(
            f"{key}={value!r} is not a number.", where=where, fix=f"write {key} as a finite number"
        )
    return float(value)


def array_of(rows: Any) -> np.ndarray:
    """As f64; of no size where it is no array of numbers."""
    try:
        return np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def rigid_pose(frame: Mapping[str, Any], axes: str, where: str) -> np.ndarray | None:
    """`transform_matrix` of a frame as [4, 4] f64, world_from_cam with its own axes; None without.

    Raises:
        SceneError: it is not a finite rigid 4 x 4 matrix.
    """
    given = frame.get("transform_matrix")
    if given is None:
        return None
    world_from_cam = array_of(given)
    why = why_not_rigid(world_from_cam)
    if why:
        raise SceneError(
            "the pose is not a rigid 4 x 4 matrix.",
            where=where,
            why=why,
            fix=f"write transform_matrix as camera to world with {axes} axes; keep scale out of it",
        )
    return world_from_cam


def why_not_rigid(matrix: np.ndarray) -> str:
    """What keeps a matrix from being a rigid pose [4, 4]; empty if nothing does."""
    if matrix.shape != (4, 4):
        return "it is not four rows of four numbers"
    if not np.isfinite(matrix).all():
        return "it has values that are not finite"
    if not np.allclose(matrix[3], [0, 0, 0, 1], rtol=0, atol=1e-6):
        return f"the last row is {matrix[3].tolist()}, not 0 0 0 1"
    rotation = matrix[:3, :3]
    # Values near the limit of a float overflow to infinity, which is refused as well.
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not off <= RIGID_TOLERANCE:
        return f"the axes are not orthonormal: R R^T differs from 1 by {off:.3g}"
    return "the axes are mirrored (determinant -1)" if np.linalg.det(rotation) < 0 else ""
