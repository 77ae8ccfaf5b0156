"""Rotations: the two forms are each other's inverse, everywhere, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from strata.kernels.geometry import invert_rigid, transform
from strata.kernels.rotation import matrix_from_quaternion, quaternion_from_matrix


def random_quaternions(count: int) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    xyzw = torch.randn(count, 4, generator=noise, dtype=torch.float64)
    return xyzw / xyzw.norm(dim=-1, keepdim=True)


def test_matrices_are_rotations_and_turn_as_they_say():
    rotation = matrix_from_quaternion(random_quaternions(50) * 3)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, eye)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    half = math.radians(45)
    quarter_about_z = torch.tensor([0, 0, math.sin(half), math.cos(half)])
    turned = matrix_from_quaternion(quarter_about_z) @ torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(turned, torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


def test_there_and_back():
    xyzw = random_quaternions(200)
    back = quaternion_from_matrix(matrix_from_quaternion(xyzw))
    torch.testing.assert_close(back, torch.where(xyzw[:, 3:] < 0, -xyzw, xyzw))
    assert quaternion_from_matrix(torch.eye(3).expand(2, 5, 3, 3)).shape == (2, 5, 4)


@pytest.mark.parametrize("axis", range(4))
def test_half_turns_and_the_identity_have_gradients(axis: int):
    xyzw = torch.eye(4, dtype=torch.float64)[axis]
    rotation = matrix_from_quaternion(xyzw).requires_grad_()
    torch.testing.assert_close(quaternion_from_matrix(rotation), xyzw)
    quaternion_from_matrix(rotation).sum().backward()
    assert rotation.grad.isfinite().all()


@pytest.mark.parametrize("rows", [3, 4])
def test_rigid_motions_of_three_or_four_rows_are_undone(rows: int):
    motion = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    motion[:, :3, :3] = matrix_from_quaternion(random_quaternions(5))
    motion[:, :3, 3] = torch.arange(15.0).reshape(5, 3)
    points = torch.rand(5, 7, 3, dtype=torch.float64)
    inverse = invert_rigid(motion[:, :rows])
    assert inverse.shape == (5, 4, 4)
    torch.testing.assert_close(transform(inverse, transform(motion, points)), points)
    torch.testing.assert_close(inverse @ motion, torch.eye(4, dtype=torch.float64).expand(5, 4, 4))
