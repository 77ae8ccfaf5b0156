"""Which share of one view's pixels another view sees, by depth, as WAI defines it.

Shapes: N views, H W pixels, P = H * W. Frames: OpenCV axes, `depth_m` is z-depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# |z - depth| < OFFSET + RELATIVE * z + ln 2 * SOFTNESS, WAI's parameters for measured depth.
OFFSET, SOFTNESS, RELATIVE = 0.1, 0.1, 0.005
NEAREST_Z = 0.04
# Rounding may put a pixel of the border that far outside.
EDGE_PX = 1e-6


def pairwise_covisibility(
    depths_m: Sequence[np.ndarray],
    K_px: Sequence[np.ndarray],
    world_from_cam: Sequence[np.ndarray],
    *,
    long_side: int = 224,
    offset: float = OFFSET,
    softness: float = SOFTNESS,
    relative: float = RELATIVE,
) -> np.ndarray:
    """[N, N] f32: the share of row's pixels that project into column where it has the same depth.

    The share is of all pixels, those without depth included; so the matrix is not symmetric, and its
    diagonal is about the share of pixels with depth.

    Args:
        depths_m: N maps [H, W], 0 = none; sizes may differ.
        K_px: N [3, 3] for the maps' own sizes.
        world_from_cam: N rigid [4, 4].
        long_side: maps are first reduced (nearest pixel) to this many pixels along the long side.
        offset, softness, relative: how far two depths may be apart, see above.
    """
    small = [_reduced(depth, K, long_side) for depth, K in zip(depths_m, K_px, strict=True)]
    points = [_world_points(depth, K, pose) for (depth, K), pose in zip(small, world_from_cam, strict=True)]
    shares = np.zeros((len(small), len(small)), np.float32)
    for j, (depth, K) in enumerate(small):
        cam_from_world = np.linalg.inv(world_from_cam[j])
        for i, world in enumerate(points):
            u, v, z = _projected(world, K, cam_from_world)
            there = _looked_up(depth, u, v)
            matches = (z > NEAREST_Z) & (np.abs(z - there) < offset + relative * z + np.log(2) * softness)
            shares[i, j] = np.count_nonzero(matches) / small[i][0].size
    return shares


def covisibility_bounds(
    depths_m: Sequence[np.ndarray],
    K_px: Sequence[np.ndarray],
    world_from_cam: Sequence[np.ndarray],
    *,
    long_side: int = 224,
    relative: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """(least, most), each [N, N] f64: what any covisibility matrix of these views lies between.

    The least counts pixels whose depths agree to `relative`, as a share of all. The most counts those
    that fall into the other image whatever is there, as a share of those with depth, so that depth
    that was masked out later does not matter.
    """
    small = [_reduced(depth, K, long_side) for depth, K in zip(depths_m, K_px, strict=True)]
    points = [_world_points(depth, K, pose) for (depth, K), pose in zip(small, world_from_cam, strict=True)]
    least, most = np.zeros((2, len(small), len(small)))
    for j, (depth, K) in enumerate(small):
        cam_from_world = np.linalg.inv(world_from_cam[j])
        for i, world in enumerate(points):
            u, v, z = _projected(world, K, cam_from_world)
            there = _looked_up(depth, u, v)
            inside = (z > 0) & np.isfinite(there)
            agrees = inside & (np.abs(z - there) < relative * z)
            least[i, j] = np.count_nonzero(agrees) / small[i][0].size
            most[i, j] = np.count_nonzero(inside) / max(1, len(world))
    return least, most


def _reduced(depth_m: np.ndarray, K_px: np.ndarray, long_side: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = depth_m.shape
    scale = min(1.0, long_side / max(height, width))
    rows, cols = max(1, round(height * scale)), max(1, round(width * scale))
    small = depth_m[np.arange(rows) * height // rows][:, np.arange(cols) * width // cols]
    return small, K_px * np.array([[cols / width], [rows / height], [1]])


def _world_points(depth_m: np.ndarray, K_px: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """[P', 3] of the pixels with depth."""
    v, u = np.nonzero(depth_m > 0)
    pixels = np.stack((u, v, np.ones_like(u)), axis=-1) * depth_m[v, u, None].astype(np.float64)
    return pixels @ (world_from_cam[:3, :3] @ np.linalg.inv(K_px)).T + world_from_cam[:3, 3]


def _projected(
    world: np.ndarray, K_px: np.ndarray, cam_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel coordinates and z-depth, each [P']."""
    x, y, z = (world @ (K_px @ cam_from_world[:3, :3]).T + K_px @ cam_from_world[:3, 3]).T
    safe = np.maximum(np.abs(z), 1e-5)
    return x / safe, y / safe, z


def _looked_up(depth_m: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The depth of the nearest pixel, infinite outside of the map."""
    height, width = depth_m.shape
    inside = (u >= -EDGE_PX) & (u < width) & (v >= -EDGE_PX) & (v < height)
    there = np.full(u.shape, np.inf)
    cols = np.minimum(np.rint(u[inside]).astype(int), width - 1)
    rows = np.minimum(np.rint(v[inside]).astype(int), height - 1)
    there[inside] = depth_m[rows, cols]
    return there
