"""What a network says of a scene, as values: the same for any network, and for exact depth in tests.

Shapes: V views, H W pixels of the network's images. Frames: OpenCV camera axes, integer pixel
coordinate = pixel centre; the world is the network's, usually the first camera's frame. Its unit of
length is the network's own: metres only where a network says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .frames import Frames


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Cameras and depth of all views of a scene, in one world.

    Attributes:
        frames: the views as the network saw them.
        depth: [V, H, W] f32 z-depth.
        confidence: [V, H, W] f32, above 0; more is surer.
        K_px: [V, 3, 3] f64, in pixels of the network's images.
        cam_from_world: [V, 4, 4] f64, rigid.
        points_world: [V, H, W, 3] f32, where the network has a head for them.
        points_confidence: [V, H, W] f32, of that head.
        notes: what a reader of the numbers should know.
    """

    frames: Frames
    depth: np.ndarray
    confidence: np.ndarray
    K_px: np.ndarray
    cam_from_world: np.ndarray
    points_world: np.ndarray | None = None
    points_confidence: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def world_from_cam(self) -> np.ndarray:
        """[V, 4, 4] f64."""
        rotation, translation = self.cam_from_world[:, :3, :3], self.cam_from_world[:, :3, 3]
        inverse = np.tile(np.eye(4), (len(rotation), 1, 1))
        inverse[:, :3, :3] = rotation.swapaxes(1, 2)
        inverse[:, :3, 3] = -np.einsum("vji,vj->vi", rotation, translation)
        return inverse

    @cached_property
    def source_intrinsics_px(self) -> np.ndarray:
        """[V, 3, 3] f64, in pixels of the source images."""
        return np.linalg.inv(self.frames.network_from_source_px) @ self.K_px

    @cached_property
    def shown_depth(self) -> np.ndarray:
        """[V, H, W] f32 depth of the source's own pixels, 0 = none: borders and what is not positive."""
        sound = np.isfinite(self.depth) & (self.depth > 0) & self.frames.inside
        return np.where(sound, self.depth, np.float32(0))
