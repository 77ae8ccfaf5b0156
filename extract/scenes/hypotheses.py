"""What is often wrong with converted scenes, each as the change that would mend it.

Frames: `world_from_cam` [4, 4] with OpenCV axes, K_px [3, 3], `depth_m` [H, W] z-depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])

Pose = Callable[[np.ndarray], np.ndarray]
Camera = Callable[[np.ndarray], np.ndarray]
Depth = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _same_depth(depth_m: np.ndarray, K_px: np.ndarray) -> np.ndarray:
    return depth_m


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of all views of a scene.

    Attributes:
        kind: what it changes; two of a kind exclude each other.
        what: what is wrong if the change mends the scene.
        fix: the change in words.
        pose: new `world_from_cam` from the old.
        camera: new K_px from the old.
        depth: new `depth_m` from the old and from K_px.
    """

    kind: str
    what: str
    fix: str
    pose: Pose = _same
    camera: Camera = _same
    depth: Depth = _same_depth

    @property
    def changes_depth(self) -> bool:
        return self.depth is not _same_depth


def ray_per_z(K_px: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W] length of a ray whose z is 1."""
    v, u = np.mgrid[:height, :width]
    rays = np.stack((u, v, np.ones_like(u)), axis=-1) @ np.linalg.inv(K_px).T
    return np.linalg.norm(rays, axis=-1)


INVERTED = Change(
    kind="poses",
    what="the poses are cam_from_world",
    fix="invert every transform_matrix: it is to map camera to world points",
    pose=np.linalg.inv,
)
OPENGL_AXES = Change(
    kind="poses",
    what="the poses have OpenGL axes (y up, z back)",
    fix="multiply every transform_matrix with diag(1, -1, -1, 1) from the right",
    pose=lambda pose: pose @ OPENGL,
)
INVERTED_OPENGL = Change(
    kind="poses",
    what="the poses are cam_from_world with OpenGL axes (y up, z back)",
    fix="invert every transform_matrix, then multiply it with diag(1, -1, -1, 1) from the right",
    pose=lambda pose: np.linalg.inv(pose) @ OPENGL,
)
SWAPPED_CENTRE = Change(
    kind="centre",
    what="cx and cy are swapped",
    fix="swap cx and cy",
    camera=lambda K_px: _centred(K_px, K_px[1, 2], K_px[0, 2]),
)
HALF_PIXEL = Change(
    kind="half pixel",
    what="cx and cy are half a pixel too large: integer coordinates are taken for the corners of pixels",
    fix="subtract 0.5 from cx and cy: integer coordinates are the centres of pixels",
    camera=lambda K_px: _centred(K_px, K_px[0, 2] - 0.5, K_px[1, 2] - 0.5),
)
HALF_PIXEL_LESS = Change(
    kind="half pixel",
    what="cx and cy are half a pixel too small",
    fix="add 0.5 to cx and cy: integer coordinates are the centres of pixels",
    camera=lambda K_px: _centred(K_px, K_px[0, 2] + 0.5, K_px[1, 2] + 0.5),
)
RAY_LENGTH = Change(
    kind="depth",
    what="the depth is the length of rays, not z",
    fix="divide each pixel's depth by the length of its ray K^-1 (u, v, 1)",
    depth=lambda depth_m, K_px: (depth_m / ray_per_z(K_px, *depth_m.shape)).astype(np.float32),
)
MILLIMETRE_DEPTH = Change(
    kind="scale",
    what="the depth is in millimetres, the poses are in metres",
    fix="divide the depth by 1,000",
    depth=lambda depth_m, K_px: depth_m * np.float32(1e-3),
)
MILLIMETRES = Change(
    kind="units",
    what="depth and poses are not in metres",
    fix="divide depth and translations by 1,000 if they are in millimetres, or write scale_type colmap",
    pose=lambda pose: _scaled(pose, 1e-3),
    depth=lambda depth_m, K_px: depth_m * np.float32(1e-3),
)

POSES = (INVERTED, OPENGL_AXES, INVERTED_OPENGL)
HALF_PIXELS = (HALF_PIXEL, HALF_PIXEL_LESS)


def scaled_poses(factor: float) -> Change:
    """Translations times `factor`."""
    millimetres = abs(np.log(factor * 1e3)) < 0.05
    return Change(
        kind="scale",
        what="the translations are in millimetres, the depth is in metres"
        if millimetres
        else f"poses and depth have different scales, by a factor of {factor:.4g}",
        fix="divide the translations by 1,000"
        if millimetres
        else f"multiply the translations by {factor:.4g}, or the depth by {1 / factor:.4g}",
        pose=lambda pose: _scaled(pose, 1e-3 if millimetres else factor),
    )


def _scaled(pose: np.ndarray, factor: float) -> np.ndarray:
    scaled = pose.copy()
    scaled[:3, 3] *= factor
    return scaled


def _centred(K_px: np.ndarray, cx: float, cy: float) -> np.ndarray:
    moved = K_px.copy()
    moved[:2, 2] = cx, cy
    return moved
