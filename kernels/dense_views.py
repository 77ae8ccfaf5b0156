"""Geometry of sets of views, and the change of its frame and unit.

Shapes: B sets, V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .geometry import invert_rigid, transform


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseViews:
    """Geometry of sets of views, predicted or true, in any one world frame and unit per set.

    Attributes:
        points_world: [B, V, H, W, 3].
        depth: [B, V, H, W], z-depth.
        world_from_cam: [B, V, 4, 4].
        K_px: [B, V, 3, 3].
    """

    points_world: Tensor
    depth: Tensor
    world_from_cam: Tensor
    K_px: Tensor

    def widened(self) -> DenseViews:
        """With halves as float32."""
        return replace(self, **{name: _widened(value) for name, value in vars(self).items()})

    def in_first_camera(self) -> DenseViews:
        """The same views, the first camera's frame as world; exact inside of autocast too."""
        with torch.autocast(self.depth.device.type, enabled=False):
            first_from_world = invert_rigid(self.world_from_cam[:, :1])  # [B, 1, 4, 4]
            points = transform(first_from_world, self.points_world.flatten(2, 3))
            return replace(
                self,
                points_world=points.view_as(self.points_world),
                world_from_cam=first_from_world @ self.world_from_cam,
            )

    def divided(self, scale: Tensor) -> DenseViews:
        """The same views in units of `scale` [B]."""
        poses = self.world_from_cam.clone()
        poses[..., :3, 3] /= scale[:, None, None]
        return replace(
            self,
            points_world=self.points_world / scale[:, None, None, None, None],
            depth=self.depth / scale[:, None, None, None],
            world_from_cam=poses,
        )


def _widened(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
