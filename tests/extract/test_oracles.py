"""Oracles against their definitions, computed here by other means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from strata.errors import EncoderError, LayerError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.registry import create
from strata.testing import random_batch

GRID = (2, 3)
NAMES = ("oracle_world", "oracle_camera", "oracle_rgb", "oracle_position", "oracle_constant")


def batch_for(name: str) -> ViewBatch:
    return random_batch(create(name), GRID)


def points_of(batch: ViewBatch) -> torch.Tensor:
    assert batch.token_point_world is not None
    return batch.token_point_world


def tokens_of(name: str, batch: ViewBatch) -> torch.Tensor:
    return create(name).forward(batch, ("norm",))["norm"].tokens


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    encoder = create(name)
    tokens = encoder.forward(batch_for(name), ("last",))["norm"].tokens
    assert tokens.shape == (2, 2, *GRID, encoder.width("norm"))
    assert tokens.dtype == torch.float32
    assert (encoder.layers(), encoder.info.depth, encoder.info.patch_size) == (("norm",), 0, 14)
    with pytest.raises(LayerError):
        encoder.forward(batch_for(name), ("block0",))


def test_world_is_cos_and_sin_of_the_phases():
    batch = batch_for("oracle_world")
    point = points_of(batch)[1, 0, 1, 2]
    omega = torch.randn(192, 3, generator=torch.Generator().manual_seed(0)) / (0.1 * 2.0)
    phases = [math.fsum(float(w) * float(x) for w, x in zip(row, point, strict=True)) for row in omega]
    expected = torch.tensor([math.cos(p) for p in phases] + [math.sin(p) for p in phases])
    token = tokens_of("oracle_world", batch)[1, 0, 1, 2]
    torch.testing.assert_close(token, expected, atol=2e-5, rtol=0)


def test_world_similarity_falls_with_distance_in_scales():
    batch = batch_for("oracle_world")
    points = torch.full((2, 2, *GRID, 3), 0.3)
    points[0, 0, 0, 1, 0] += 0.1  # half of the first set's length of 0.1 x 2
    points[1, 0, 0, 1, 0] += 0.1  # a tenth of the second's
    moved = replace(batch, token_point_world=points, scene_scale_m=torch.tensor([2.0, 10.0]))
    tokens = tokens_of("oracle_world", moved)
    similarity = torch.cosine_similarity(tokens[:, 0, 0, 0], tokens[:, 0, 0, 1], dim=-1)
    expected = torch.tensor([math.exp(-0.5 * 0.5**2), math.exp(-0.5 * 0.1**2)])
    torch.testing.assert_close(similarity, expected, atol=0.05, rtol=0)


def test_world_keeps_its_digits_far_from_the_origin():
    batch = batch_for("oracle_world")
    near = torch.rand(2, 2, *GRID, 3, generator=torch.Generator().manual_seed(3)).double()
    near[..., 0, 0, :] = 0.0
    step = torch.tensor([2.0**-6, 0, 0], dtype=torch.float64)
    points = torch.stack((near[:, 0] + 4096, near[:, 0] + 4096 + step), dim=1)
    tokens = tokens_of("oracle_world", replace(batch, token_point_world=points))
    omega = torch.randn(192, 3, generator=torch.Generator().manual_seed(0)).double() / 0.2
    expected = (omega @ step).cos().mean().float()
    similarity = torch.cosine_similarity(tokens[:, 0], tokens[:, 1], dim=-1)
    torch.testing.assert_close(similarity, expected.expand_as(similarity), atol=1e-5, rtol=0)


def test_camera_is_the_point_in_camera_axes():
    batch = batch_for("oracle_camera")
    turn = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], dtype=torch.float64)
    cameras = torch.eye(4, dtype=torch.float64).repeat(2, 2, 1, 1)
    cameras[0, 1] = turn
    x, y, z = points_of(batch)[0, 1, 1, 2]
    token = tokens_of("oracle_camera", replace(batch, cam_from_world=cameras))[0, 1, 1, 2]
    torch.testing.assert_close(token, torch.stack((5 - y, 6 + x, 7 + z)))


@pytest.mark.parametrize("name", ["oracle_world", "oracle_camera"])
@pytest.mark.parametrize("hole", [torch.nan, torch.inf])
def test_tokens_without_a_point_are_zero(name, hole):
    batch = batch_for(name)
    points = torch.ones_like(points_of(batch))
    points[1, 0, 1, 1, 2] = hole
    cameras = torch.eye(4, dtype=torch.float64).repeat(2, 2, 1, 1)
    cameras[..., :3, 3] = 1.0
    tokens = tokens_of(name, replace(batch, token_point_world=points, cam_from_world=cameras))
    assert (tokens[1, 0, 1, 1] == 0).all()
    assert (tokens != 0).any(-1).sum() == 2 * 2 * math.prod(GRID) - 1


def test_rgb_is_the_mean_colour():
    batch = batch_for("oracle_rgb")
    cell = batch.images[1, 0, :, 14:28, 28:42]
    torch.testing.assert_close(tokens_of("oracle_rgb", batch)[1, 0, 1, 2], cell.mean((1, 2)))


def test_position_is_the_centre_of_the_cell():
    tokens = tokens_of("oracle_position", batch_for("oracle_position"))
    row, col = 0.5, -2 / 3  # centres of 2 rows: -1/2, 1/2; of 3 columns: -2/3, 0, 2/3
    half = math.pi / 2
    waves = [math.cos(half * row), math.sin(half * row), math.cos(half * col), math.sin(half * col)]
    torch.testing.assert_close(tokens[0, 0, 1, 0], torch.tensor([row, col, *waves]))
    assert (tokens == tokens[:1, :1]).all()


def test_constant_is_one():
    assert (tokens_of("oracle_constant", batch_for("oracle_constant")) == 1).all()


def test_missing_geometry_is_named():
    batch = replace(batch_for("oracle_world"), token_point_world=None)
    with pytest.raises(EncoderError, match="needs token_point_world"):
        create("oracle_world").forward(batch, ("norm",))


def test_points_of_another_grid_are_refused():
    batch = batch_for("oracle_world")
    other = replace(batch, token_point_world=points_of(batch).transpose(2, 3))
    with pytest.raises(EncoderError, match=r"\[2, 2, 3, 2, 3\]"):
        create("oracle_world").forward(other, ("norm",))


def test_digests_tell_oracles_apart_and_stay():
    digests = {create(name).weights_digest() for name in NAMES}
    assert len(digests) == len(NAMES)
    assert digests == {create(name, "random:3").weights_digest() for name in NAMES}


def test_needs_geometry():
    assert [create(name).needs_geometry for name in NAMES] == [True, True, False, False, False]
