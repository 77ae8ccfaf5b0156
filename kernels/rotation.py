"""Rotations as matrices and as quaternions, scalar last (xyzw).

Shapes: ... any batch dimensions. All functions keep dtype and device, and are differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_from_quaternion(xyzw: Tensor) -> Tensor:
    """Rotations [..., 3, 3] of quaternions [..., 4] of any length but zero."""
    x, y, z, w = xyzw.unbind(-1)
    s = 2 / (xyzw * xyzw).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternion_from_matrix(rotation: Tensor) -> Tensor:
    """Unit quaternions [..., 4] with w >= 0 of rotations [..., 3, 3].

    Of the four formulas, each of which divides by another component, the one with the largest is taken.
    """
    m = [rotation[..., i, j] for i in range(3) for j in range(3)]
    squares = torch.stack(
        (
            1 + m[0] - m[4] - m[8],
            1 - m[0] + m[4] - m[8],
            1 - m[0] - m[4] + m[8],
            1 + m[0] + m[4] + m[8],
        ),
        dim=-1,
    )  # [..., 4] of (2 x)^2, (2 y)^2, (2 z)^2, (2 w)^2
    xy, xz, yz = m[3] + m[1], m[6] + m[2], m[7] + m[5]
    wx, wy, wz = m[7] - m[5], m[2] - m[6], m[3] - m[1]
    products = (
        (squares[..., 0], xy, xz, wx),
        (xy, squares[..., 1], yz, wy),
        (xz, yz, squares[..., 2], wz),
        (wx, wy, wz, squares[..., 3]),
    )
    candidates = torch.stack([torch.stack(row, dim=-1) for row in products], dim=-2)  # [..., 4, 4]
    best = squares.argmax(-1)[..., None, None].expand(*rotation.shape[:-2], 1, 4)
    row = candidates.gather(-2, best)[..., 0, :]
    # The square root of what may be 0 in the other rows has no gradient: only the best is divided by.
    largest = squares.amax(-1, keepdim=True)
    xyzw = row / (2 * largest.sqrt())
    return torch.where(xyzw[..., 3:] < 0, -xyzw, xyzw)
