"""A room that is known exactly goes through what takes a network's answers, and comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from strata.errors import ConfigError
from strata.extract.scenes.room import Ball, Block, Room, Walls
from strata.extract.scenes.synthetic import SyntheticScene
from strata.probes.reconstruction.fuse import fuse
from strata.probes.reconstruction.network import prediction_of
from strata.probes.reconstruction.prediction import Prediction

from .known_room import HEIGHT, SCALE, VIEWS, WIDTH


def surface_distance_m(room: Room, points_world: np.ndarray) -> np.ndarray:
    """How far points [N, 3] are from the nearest surface of a lounge."""
    distances = []
    for solid in (Walls(size=room.size), *room.furniture):
        if isinstance(solid, Ball):
            distances.append(abs(np.linalg.norm(points_world - solid.centre, axis=-1) - solid.radius))
            continue
        assert isinstance(solid, Block | Walls)
        low, high = (solid.low, solid.high) if isinstance(solid, Block) else ((0, 0, 0), solid.size)
        beyond = np.maximum(np.subtract(low, points_world), points_world - high)
        outside = np.linalg.norm(beyond.clip(0), axis=-1)
        distances.append(np.where(outside > 0, outside, -beyond.max(-1)))
    return np.min(distances, axis=0)


def in_the_room(points: np.ndarray, scene: SyntheticScene) -> np.ndarray:
    first = scene.views[0].world_from_cam
    return points.astype(np.float64) / SCALE @ first[:3, :3].T + first[:3, 3]


def test_the_room_s_surfaces_come_back(prediction: Prediction, room: Room, scene: SyntheticScene):
    cloud = fuse(prediction)
    assert len(cloud) == VIEWS * HEIGHT * WIDTH
    points = in_the_room(cloud.points_world, scene)
    assert surface_distance_m(room, points).max() < 2e-6
    # The check itself sees a shift of a centimetre.
    assert np.median(surface_distance_m(room, points + 0.01)) > 5e-3
    np.testing.assert_array_equal(cloud.colours, prediction.frames.images.reshape(-1, 3))
    assert np.bincount(cloud.view).tolist() == [HEIGHT * WIDTH] * VIEWS


def test_the_room_s_cameras_come_back(prediction: Prediction, scene: SyntheticScene):
    for view, world_from_cam in zip(scene.views, prediction.world_from_cam, strict=True):
        centre = in_the_room(world_from_cam[None, :3, 3], scene)[0]
        np.testing.assert_allclose(centre, view.world_from_cam[:3, 3], atol=1e-9)
        turned = scene.views[0].world_from_cam[:3, :3] @ world_from_cam[:3, :3]
        np.testing.assert_allclose(turned, view.world_from_cam[:3, :3], atol=1e-9)
    np.testing.assert_allclose(prediction.K_px[0, [0, 1], [0, 1]], (38, 41), rtol=1e-12)


def test_the_point_head_is_taken_when_asked_for(answers):
    outputs, frames = answers
    points = torch.arange(VIEWS * HEIGHT * WIDTH * 3.0).reshape(VIEWS, HEIGHT, WIDTH, 3)
    heads = {"world_points": points, "world_points_conf": torch.full((VIEWS, HEIGHT, WIDTH), 2.0)}
    cloud = fuse(prediction_of({**outputs, **heads}, frames), source="head")
    np.testing.assert_array_equal(cloud.points_world, points.reshape(-1, 3).numpy())
    with pytest.raises(ConfigError, match="no head for points"):
        fuse(prediction_of(outputs, frames), source="head")
    with pytest.raises(ConfigError, match="points=dpeth is not known"):
        fuse(prediction_of(outputs, frames), source="dpeth")


def test_the_least_sure_pixels_are_dropped(prediction: Prediction):
    everything, half = fuse(prediction), fuse(prediction, drop_percent=50)
    assert len(half) == pytest.approx(len(everything) / 2, rel=1e-3)
    # Confidence falls with depth here, so the nearer half stays.
    assert half.depth.max() <= np.percentile(everything.depth, 51)
    flat = replace(prediction, confidence=np.ones_like(prediction.confidence))
    assert len(fuse(flat, drop_percent=50)) == len(everything)


def test_what_is_no_depth_is_no_point(prediction: Prediction):
    depth = prediction.depth.copy()
    depth[0, 0, :4] = 0, -1, np.nan, np.inf
    holed = replace(prediction, depth=depth)
    assert len(fuse(holed)) == VIEWS * HEIGHT * WIDTH - 4
    assert holed.shown_depth[0, 0, :4].tolist() == [0, 0, 0, 0]


def test_thinning_keeps_whole_points_and_is_the_same_every_time(prediction: Prediction):
    cloud = fuse(prediction)
    thin = cloud.thinned(500)
    assert len(thin) == 500
    rows = {tuple(row) for row in cloud.points_world}
    assert all(tuple(row) in rows for row in thin.points_world)
    np.testing.assert_array_equal(thin.points_world, cloud.thinned(500).points_world)
    assert len(set(thin.view.tolist())) == VIEWS
    assert cloud.thinned(len(cloud)) is cloud


def test_a_field_of_view_of_nothing_is_cut_and_said(answers):
    outputs, frames = answers
    pose = outputs["pose_enc"].clone()
    pose[1, 7:] = 0
    odd = prediction_of({**outputs, "pose_enc": pose}, frames)
    assert np.isfinite(odd.K_px).all()
    assert odd.notes == ("1 fields of view outside 1 to 175 degrees were cut to that",)
    assert prediction_of(outputs, frames).notes == ()
