"""Camera geometry: the conventions of the project, stated once, and the few functions on them.

Camera axes are OpenCV's: x right, y down, z forward. The integer pixel coordinate is the pixel's
centre, so an image of width W spans u in [-0.5, W - 0.5]. Extrinsics are named by direction:
`cam_from_world` maps world to camera points, `world_from_cam` back (WAI stores this one). `depth_m`
is z-depth, not ray length; 0 = none. Quaternions are xyzw. Units stand in names: _m, _deg, _px.
A pixel (u, v) of depth z lies at the camera point z * K^-1 (u, v, 1).

Shapes: ... any batch dimensions, H W pixels, N points. All functions are plain torch, keep dtype and
device, and are differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel centres (u, v), [H, W, 2], in the dtype and on the device of `like`."""
    v = torch.arange(height, dtype=like.dtype, device=like.device)
    u = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def resized_from_original_px(original: tuple[int, int], resized: tuple[int, int]) -> Tensor:
    """[3, 3] f64 that maps pixels (u, v, 1) of an image to those of the image resized.

    The outer edges stay the outer edges: -1/2 goes to -1/2, and width - 1/2 to the new width - 1/2. So
    K of the resized image is this matrix times K.

    Args:
        original, resized: (width, height) in pixels.
    """
    sx, sy = resized[0] / original[0], resized[1] / original[1]
    rows = [[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64)


def unproject(uv_px: Tensor, depth_m: Tensor, K_px: Tensor) -> Tensor:
    """Camera points [..., N, 3] of pixels [..., N, 2] with z-depth [..., N] and K [..., 3, 3].

    The skew K[0, 1] is honoured.
    """
    y = (uv_px[..., 1] - K_px[..., None, 1, 2]) / K_px[..., None, 1, 1]
    x = (uv_px[..., 0] - K_px[..., None, 0, 2] - K_px[..., None, 0, 1] * y) / K_px[..., None, 0, 0]
    return torch.stack((x, y, torch.ones_like(x)), dim=-1) * depth_m[..., None]


def project(points_cam: Tensor, K_px: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [..., N, 2] and z-depth [..., N] of camera points [..., N, 3].

    Points at or behind the camera plane (z <= 0) get NaN pixels.
    """
    z = points_cam[..., 2]
    safe = torch.where(z > 0, z, torch.full_like(z, torch.nan))
    homogeneous = points_cam @ K_px.mT
    return homogeneous[..., :2] / safe[..., None], z


def transform(target_from_source: Tensor, points_source: Tensor) -> Tensor:
    """Points [..., N, 3] moved by a rigid [..., 4, 4] (or [..., 3, 4])."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., :3, 3]
    return points_source @ rotation.mT + translation[..., None, :]


def invert_rigid(target_from_source: Tensor) -> Tensor:
    """`source_from_target` [..., 4, 4] of rigid [..., 4, 4] (or [..., 3, 4]), by transposing the rotation."""
    rotation = target_from_source[..., :3, :3].mT
    inverse = target_from_source.new_zeros(*target_from_source.shape[:-2], 4, 4)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ target_from_source[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def unproject_depth(depth_m: Tensor, K_px: Tensor, world_from_cam: Tensor) -> Tensor:
    """World points [..., H, W, 3] of a depth map [..., H, W]; pixels without depth lie at the camera."""
    height, width = depth_m.shape[-2:]
    uv_px = pixel_grid(height, width, depth_m).reshape(-1, 2)
    points_cam = unproject(uv_px.expand(*depth_m.shape[:-2], -1, 2), depth_m.flatten(-2), K_px)
    return transform(world_from_cam, points_cam).unflatten(-2, (height, width))


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between vectors [..., 3]; stable for small and for opposite angles.

    atan2(|a x b|, a . b), which unlike acos loses no digits near 0 and 180 degrees.
    """
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)))


def depth_agreement(
    depth_a_m: Tensor,
    depth_b_m: Tensor,
    K_a_px: Tensor,
    K_b_px: Tensor,
    b_from_a: Tensor,
    tolerance: float = 0.02,
    at_least: float = 0.2,
) -> tuple[int, int]:
    """How many pixels of view a agree in depth with view b, and how many should.

    A pixel is compared when it has depth, projects into view b, and the nearest pixel there has depth
    that does not hide it: one that lies behind view b's surface by more than `tolerance` is occluded.
    It agrees when the two depths differ by at most `tolerance` of the smaller. Views that are known to
    see each other share some of their pixels: fewer than `at_least` of those with depth are counted as
    that many, so that wrong poses gain nothing by hiding everything.

    Args:
        depth_a_m, depth_b_m: [H, W] z-depth, 0 = none.
        K_a_px, K_b_px: [3, 3].
        b_from_a: [4, 4].
        tolerance: relative.
        at_least: share of the pixels with depth.

    Returns:
        (agreeing, compared).
    """
    height, width = depth_a_m.shape
    valid = depth_a_m > 0
    uv_px = pixel_grid(height, width, depth_a_m)[valid]
    points_b = transform(b_from_a, unproject(uv_px, depth_a_m[valid], K_a_px))
    seen_px, z = project(points_b, K_b_px)
    u, v = seen_px.nan_to_num(-1e6).clamp(-1e6, 1e6).round().long().unbind(-1)
    inside = (z > 0) & (u >= 0) & (u < depth_b_m.shape[1]) & (v >= 0) & (v < depth_b_m.shape[0])
    there, z = depth_b_m[v[inside], u[inside]], z[inside]
    visible = (there > 0) & (z - there <= tolerance * there)
    agrees = visible & (there - z <= tolerance * z)
    return int(agrees.sum()), max(int(visible.sum()), round(at_least * len(uv_px)))
