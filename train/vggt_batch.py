"""A batch on its way through a VGGT: what the model is given, and the truth and its answer as geometry.

Shapes: B sets, V views, R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..extract.encoders.vggt.pose_encoding import decode_pose
from ..kernels.dense_views import DenseViews
from ..kernels.geometry import invert_rigid, transform, unproject_depth
from ..kernels.precision import full_precision
from .batch import Batch


def predict(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """The model's answer to a batch of images or of tokens."""
    images, tokens = batch.get("images"), batch.get("tokens")
    if images is not None and not images.is_floating_point():
        images = images.float() / 255
    return model(images, tokens=None if tokens is None else tokens.float())


@full_precision
def true_geometry(depth: Tensor, K_px: Tensor, world_from_cam: Tensor) -> tuple[DenseViews, Tensor]:
    """The truth of a batch, and where there is any, [B, V, H, W] bool.

    Args:
        depth: [B, V, H, W], 0 = none.
        K_px: [B, V, 3, 3].
        world_from_cam: [B, V, 4, 4].
    """
    points = unproject_depth(depth, K_px, world_from_cam)
    truth = DenseViews(points_world=points, depth=depth, world_from_cam=world_from_cam, K_px=K_px)
    return truth, depth > 0


def measurable(answer: Mapping[str, Any]) -> bool:
    """Whether the answer has cameras and a surface."""
    return "pose_enc" in answer and ("depth" in answer or "world_points" in answer)


def predicted_geometry(answer: Mapping[str, Any]) -> DenseViews:
    """The answer as geometry, in the frame and unit that the model chose.

    Points are those of the point head; without one, of depth and cameras. Without it, depth is the points'.
    """
    points, depth = answer.get("world_points"), answer.get("depth")
    return _geometry(answer["pose_enc"], points, None if depth is None else depth[..., 0])


@full_precision
def _geometry(pose: Tensor, points: Tensor | None, depth: Tensor | None) -> DenseViews:
    height, width = (points[..., 0] if depth is None else depth).shape[-2:]  # type: ignore[index]
    cam_from_world, K_px = decode_pose(pose, (height, width))
    world_from_cam = invert_rigid(cam_from_world)
    if points is None:
        assert depth is not None
        points = unproject_depth(depth, K_px, world_from_cam)
    if depth is None:
        depth = transform(cam_from_world, points.flatten(2, 3))[..., 2].view(points.shape[:-1])
    return DenseViews(points_world=points, depth=depth, world_from_cam=world_from_cam, K_px=K_px)
