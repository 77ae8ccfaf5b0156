"""Which way a surface faces, from a depth map.

A plane is affine in inverse depth: with m . X = 1 for its points X = z K^-1 (u, v, 1), 1/z = a u + b v + c
where (a, b, c) = m K^-1, so that m = (a, b, c) K. The fit is therefore exact on planes under any
perspective, and m points away from the camera.

Shapes: N points, H W pixels, Q pixels of a window. Camera frame; integer pixel coordinate = pixel centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAME_SURFACE = 0.05
"""Depths that differ by less than this share belong to one surface, as for token points."""

LEAST_SPREAD_PX2 = 0.2
"""A window's pixels vary at least so much in every direction; two full rows side by side vary by 0.25."""


def surface_normals(uv_px: Tensor, z_m: Tensor, depth_m: Tensor, K_px: Tensor, *, reach_px: int) -> Tensor:
    """Normals, towards the camera, of the surfaces that points of one view lie on.

    A plane is fitted by least squares to the inverse depths of the window of `reach_px` pixels around a
    point, of those pixels whose depth is within 5 % of the point's: what lies behind or before an edge
    does not count. At a crease the normal is one between the two sides.

    Args:
        uv_px: [N, 2] where the points are seen.
        z_m: [N] their z-depth.
        depth_m: [H, W] z-depth, 0 = none.
        K_px: [3, 3].
        reach_px: pixels on each side of the middle one.

    Returns:
        [N, 3] f64 of length 1 in the camera's frame; NaN where the pixels lie in one row or in one line,
        or the point is not finite.
    """
    step = torch.arange(-reach_px, reach_px + 1, device=depth_m.device)
    dv, du = torch.meshgrid(step, step, indexing="ij")
    offset = torch.stack((du.flatten(), dv.flatten()), dim=-1)  # [Q, 2]
    known = uv_px.isfinite().all(-1) & (z_m > 0)
    middle = uv_px.where(known[:, None], 0.0).round().long().clamp(-(1 << 30), 1 << 30)
    depth = _window(depth_m, middle, offset).double()  # [N, Q]
    z = z_m.double().where(known, 1.0)[:, None]
    used = ((depth > 0) & ((depth - z).abs() <= SAME_SURFACE * z)).double()
    slope, level = _plane(used, used / depth.where(used > 0, 1.0), offset.double())
    plane = torch.cat((slope, (level - (slope * middle).sum(-1))[:, None]), dim=-1)  # [N, 3] = (a, b, c)
    away = plane @ K_px.double()
    normal = -away / torch.linalg.vector_norm(away, dim=-1, keepdim=True)
    return normal.masked_fill(~known[:, None], torch.nan)


def _window(depth_m: Tensor, middle: Tensor, offset: Tensor) -> Tensor:
    """[N, Q] depth at middle [N, 2] + offset [Q, 2], 0 outside the image."""
    height, width = depth_m.shape
    u, v = (middle[:, None] + offset).unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return depth_m[v.clamp(0, height - 1), u.clamp(0, width - 1)] * inside


def _plane(used: Tensor, inverse: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Slope [N, 2] and level [N] at offset 0 of the plane through weighted inverse depths [N, Q].

    Weights are 0 or 1; NaN where the used pixels do not span a plane.
    """
    square = torch.stack((offset[:, 0] ** 2, offset.prod(-1), offset[:, 1] ** 2), dim=-1)
    count = used.sum(-1, keepdim=True).clamp(min=1)
    mean, mean_inverse = used @ offset / count, inverse.sum(-1) / count[:, 0]
    uu, uv, vv = (used @ square / count).unbind(-1)
    uu, uv, vv = uu - mean[:, 0] ** 2, uv - mean.prod(-1), vv - mean[:, 1] ** 2
    along_u, along_v = (inverse @ offset / count - mean * mean_inverse[:, None]).unbind(-1)
    determinant = uu * vv - uv**2
    # At most the smaller of the variances along the two main directions.
    spread = determinant / (uu + vv).clamp(min=1e-12)
    determinant = determinant.where(spread >= LEAST_SPREAD_PX2, torch.nan)
    slope = torch.stack((vv * along_u - uv * along_v, uu * along_v - uv * along_u), -1) / determinant[:, None]
    return slope, mean_inverse - (slope * mean).sum(-1)
