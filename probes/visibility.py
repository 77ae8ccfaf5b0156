"""Which tokens of a set lie near each other, face the same way, and are seen by each other's views.

Two tokens of different views, with points X and footprints s = z / f * cell (the side of what a token
covers of a plane that faces its camera; f = sqrt(fx fy)) and r = (s_i + s_j) / 2,

    correspond       if |X_i - X_j| < r, their normals are within 60 degrees, and each point is seen in the
                     other's view: it projects inside, where the nearest pixel has a depth that differs from
                     its own by at most 2 % of the smaller
    do not           if |X_i - X_j| >= 3 r
    are not asked    otherwise: near, but on another surface, hidden, or not known to be neither.

A token without a normal (see `kernels/surface_normals.py`), or whose point lands on a pixel without depth, is
therefore in no corresponding pair; it does count in pairs that do not correspond.

Shapes: V views, W = V other views, P tokens of the longest view, H W pixels of a view, M pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import ProbeError
from ..kernels.geometry import angle_deg, invert_rigid, project, transform
from ..kernels.radius_pairs import RadiusPairs, radius_pairs
from ..kernels.surface_normals import surface_normals
from .questions import ViewPoints, padded

if TYPE_CHECKING:
    from ..store.block import Block

FAR = 3
"""Radii from which on tokens do not correspond."""

MOST_PAIRS = 1 << 25
"""Near pairs of one set: 1 GiB, as many again for each way in which they are listed."""

FACING_DEG = 60.0
TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceView(ViewPoints):
    """Token points on the surfaces of one view.

    Attributes:
        footprint_m: [P] f64, in the scene's unit; read where valid.
        normal: [P, 3] f64 in the world, towards the camera; NaN = unknown.
        depth_m: [H, W] f32, 0 = none.
        K_px: [3, 3] f64.
        cam_from_world: [4, 4] f64.
    """

    footprint_m: Tensor
    normal: Tensor
    depth_m: Tensor
    K_px: Tensor
    cam_from_world: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class NearPairs:
    """The pairs of tokens of a set that are nearer than `FAR` radii.

    Attributes:
        i, j: [M] int64 of the V * P tokens, i < j.
        corresponds: [M] bool; the others are not asked about.
        angle_deg: [M] f64 between the rays from the two points to their own cameras.
    """

    i: Tensor
    j: Tensor
    corresponds: Tensor
    angle_deg: Tensor


def read_surfaces(block: Block, rows: list[int]) -> list[SurfaceView]:
    """The surfaces of views of a block.

    Raises:
        SelectionError: the store has no points, depth or cameras of them.
    """
    points = block.token_points(rows)
    tokens = zip(rows, points.world, points.valid, strict=True)
    return [_surface(block, row, torch.from_numpy(w), torch.from_numpy(v)) for row, w, v in tokens]


def near_pairs(views: Sequence[SurfaceView]) -> NearPairs:
    """All near pairs of the set, and which of them correspond.

    Raises:
        ProbeError: they are more than fit into memory.
    """
    world = padded([view.world for view in views])[0].double()  # [V, P, 3]
    valid = padded([view.valid for view in views])[0]
    footprint_m = padded([view.footprint_m for view in views])[0].flatten()
    normal = padded([view.normal for view in views])[0].flatten(0, 1)
    count, tokens = valid.shape
    view = torch.arange(count).repeat_interleave(tokens)
    near = _within_reach(world.flatten(0, 1), valid.flatten(), view, FAR * footprint_m)
    i, j = near.i, near.j
    sees = seen_in(views, world, valid).transpose(1, 2).flatten(0, 1)  # [V * P, W]
    facing = (normal[i] * normal[j]).sum(-1) >= math.cos(math.radians(FACING_DEG))
    ray = (torch.stack([view.centre for view in views])[:, None] - world).flatten(0, 1)
    return NearPairs(
        i=i,
        j=j,
        corresponds=(near.distance < (footprint_m[i] + footprint_m[j]) / 2)
        & facing
        & sees[i, view[j]]
        & sees[j, view[i]],
        angle_deg=angle_deg(ray[i], ray[j]),
    )


def seen_in(views: Sequence[SurfaceView], world: Tensor, valid: Tensor) -> Tensor:
    """[V, W, P] bool: view w sees, at the depth it has, point world [V, P, 3] of valid [V, P] tokens."""
    seen = torch.zeros(len(views), *valid.shape, dtype=torch.bool)
    for w, view in enumerate(views):
        if bool(view.valid.any()):
            uv_px, z = project(transform(view.cam_from_world, world), view.K_px)
            seen[:, w] = valid & _depth_agrees(uv_px, z, view.depth_m)
    return seen


def _within_reach(world: Tensor, valid: Tensor, view: Tensor, radius_m: Tensor) -> RadiusPairs:
    try:
        return radius_pairs(world[None], valid[None], view, radius_m[None], most=MOST_PAIRS)
    except ProbeError as error:
        raise ProbeError(
            error.what,
            where="protocol=visible",
            why=error.why,
            fix="make sets of fewer views (set_views=), extract with fewer tokens, or use protocol=voxel",
        ) from None


def _depth_agrees(uv_px: Tensor, z: Tensor, depth_m: Tensor) -> Tensor:
    """[V, P] bool for pixels [V, P, 2] and z-depths [V, P] of points in a view of depth [H, W]."""
    height, width = depth_m.shape
    u, v = uv_px.nan_to_num(-1e6, -1e6, -1e6).clamp(-1e6, 1e6).round().long().unbind(-1)
    inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    there = depth_m[v.clamp(0, height - 1), u.clamp(0, width - 1)].double()
    return inside & (there > 0) & ((there - z).abs() <= TOLERANCE * torch.minimum(there, z))


def _surface(block: Block, row: int, world: Tensor, valid: Tensor) -> SurfaceView:
    # One view at a time: windows around all tokens of many views in float64 would not fit.
    geometry = block.geometry([row])
    depth_m = torch.from_numpy(geometry.depth_m[0]).where(torch.from_numpy(geometry.valid[0]), 0.0)
    K_px = torch.from_numpy(geometry.K_px[0])
    cam_from_world = torch.from_numpy(geometry.cam_from_world[0])
    world_from_cam = invert_rigid(cam_from_world)
    world, valid = world.flatten(0, 1), valid.flatten()
    uv_px, z = project(transform(cam_from_world, world.double()), K_px)
    normal = surface_normals(uv_px, z, depth_m, K_px, reach_px=block.patch // 2)
    footprint_m = z * block.stride / (K_px[0, 0] * K_px[1, 1]).sqrt()
    return SurfaceView(
        world=world,
        valid=valid & (z > 0) & footprint_m.isfinite(),
        centre=world_from_cam[:3, 3],
        footprint_m=footprint_m,
        normal=normal @ world_from_cam[:3, :3].T,
        depth_m=depth_m,
        K_px=K_px,
        cam_from_world=cam_from_world,
    )
