"""Cameras as nine numbers: translation, quaternion (xyzw) and the two fields of view.

The extrinsics are `cam_from_world`. Fields of view are in radians, vertical first. The principal point
is not encoded: decoding puts it at (W / 2, H / 2), half a pixel right of and below the image's centre.

Shapes: ... any.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....kernels.rotation import matrix_from_quaternion, quaternion_from_matrix


def encode_pose(cam_from_world: Tensor, K_px: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., 9] of extrinsics [..., 3, 4] (or [..., 4, 4]) and intrinsics [..., 3, 3].

    Args:
        size: (height, width) of the images in pixels.
    """
    height, width = size
    quaternion = quaternion_from_matrix(cam_from_world[..., :3, :3])
    fov_h = 2 * torch.atan((height / 2) / K_px[..., 1, 1])
    fov_w = 2 * torch.atan((width / 2) / K_px[..., 0, 0])
    fov = torch.stack((fov_h, fov_w), dim=-1)
    return torch.cat((cam_from_world[..., :3, 3], quaternion, fov.to(quaternion.dtype)), dim=-1)


def decode_pose(pose: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(cam_from_world [..., 3, 4], K_px [..., 3, 3]) of [..., 9].

    The quaternion may have any length but zero. A field of view of 0, which the camera head can answer,
    has an infinite focal length.

    Args:
        size: (height, width) of the images in pixels.
    """
    height, width = size
    rotation = matrix_from_quaternion(pose[..., 3:7])
    cam_from_world = torch.cat((rotation, pose[..., :3, None]), dim=-1)
    K_px = pose.new_zeros(*pose.shape[:-1], 3, 3)
    K_px[..., 0, 0] = (width / 2) / torch.tan(pose[..., 8] / 2)
    K_px[..., 1, 1] = (height / 2) / torch.tan(pose[..., 7] / 2)
    K_px[..., 0, 2], K_px[..., 1, 2], K_px[..., 2, 2] = width / 2, height / 2, 1
    return cam_from_world, K_px


def activated(raw: Tensor) -> Tensor:
    """What the camera head answers for its raw [..., 9]: fields of view are never negative."""
    return torch.cat((raw[..., :7], raw[..., 7:].relu()), dim=-1)
