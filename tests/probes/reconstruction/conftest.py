"""A room that is known exactly, as a network without a fault would see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strata.extract.encoders.vggt.pose_encoding import encode_pose
from strata.extract.scenes.room import KINDS, Room
from strata.extract.scenes.synthetic import SyntheticScene, synthetic_scene
from strata.probes.reconstruction.frames import Frames, place_views
from strata.probes.reconstruction.network import prediction_of
from strata.probes.reconstruction.prediction import Prediction

from .known_room import HEIGHT, SCALE, VIEWS, WIDTH


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return synthetic_scene(0, seed=3, views=VIEWS, width=64, height=48)


@pytest.fixture(scope="module")
def room() -> Room:
    """The room of that scene: it is the first thing that is drawn."""
    return KINDS[0](np.random.default_rng([3, 0]))


@pytest.fixture(scope="module")
def answers(scene: SyntheticScene, room: Room) -> tuple[dict[str, torch.Tensor], Frames]:
    """What a network without a fault would answer, with the frames that it would be asked for."""
    first = scene.views[0].world_from_cam
    K_px = np.array([[38.0, 0, WIDTH / 2], [0, 41.0, HEIGHT / 2], [0, 0, 1]])
    v, u = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    rays_cam = np.stack((u, v, np.ones_like(u)), axis=-1) @ np.linalg.inv(K_px).T
    poses, depths, images = [], [], []
    for view in scene.views:
        eye, rays = view.world_from_cam[:3, 3], rays_cam @ view.world_from_cam[:3, :3].T
        depth, normals, solid = room.cast(eye, rays)
        images.append(room.texture.image(eye + depth[:, None] * rays, normals, solid))
        cam_from_first = np.linalg.inv(view.world_from_cam) @ first
        cam_from_first[:3, 3] *= SCALE
        poses.append(encode_pose(torch.tensor(cam_from_first), torch.tensor(K_px), (HEIGHT, WIDTH)))
        depths.append(SCALE * depth)
    depth = torch.tensor(np.stack(depths)).reshape(VIEWS, HEIGHT, WIDTH, 1)
    outputs = {"pose_enc": torch.stack(poses), "depth": depth, "depth_conf": 1 + 1 / depth[..., 0]}
    frames = Frames(
        names=tuple(view.name for view in scene.views),
        images=np.stack(images).reshape(VIEWS, HEIGHT, WIDTH, 3),
        placements=place_views([(WIDTH, HEIGHT)] * VIEWS, size=WIDTH, patch=14, fit="crop"),
        source_sizes=((WIDTH, HEIGHT),) * VIEWS,
    )
    return outputs, frames


@pytest.fixture(scope="module")
def prediction(answers) -> Prediction:
    return prediction_of(*answers)
