"""Scenes that are known exactly: views of rooms made of formulas.

Depth, normals, poses and the world point of every pixel come from the formulas, so a test can hold
any result against the truth. Shapes: H W pixels. Frames: the world is metric with z up; cameras have
OpenCV axes, integer pixel coordinate = pixel centre; `depth_m` is z-depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO

import numpy as np
from PIL import Image

from ...errors import SceneError, did_you_mean
from .covisibility import pairwise_covisibility
from .exr import write_exr
from .room import KINDS, Room
from .scene import Blob, Scene, SceneSource, View

DATASET = "synthetic"
# Cameras go round the middle of the room; neighbours see much of the same, the ends do not.
STEP_DEG, STEP_JITTER_DEG = 20.0, 3.0
ORBIT_M, HEIGHT_M = (1.7, 2.1), (1.3, 1.8)
FOCAL = 0.7
COVISIBILITY_LONG_SIDE = 96
# One room in so many is for tests, and one for validation.
ROOMS_PER_HELD_OUT = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticView:
    """One view with all that is known about it.

    Attributes:
        name: frame name.
        image: [H, W, 3] u8.
        depth_m: [H, W] f32.
        normal_world: [H, W, 3] f32, length 1, towards the camera.
        point_world: [H, W, 3] f64, where the ray of the pixel's centre ends.
        solid: [H, W] index of what it hit.
        K_px: [3, 3] f64.
        world_from_cam: [4, 4] f64.
    """

    name: str
    image: np.ndarray
    depth_m: np.ndarray
    normal_world: np.ndarray
    point_world: np.ndarray
    solid: np.ndarray
    K_px: np.ndarray
    world_from_cam: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticScene:
    """Views of one room."""

    id: str
    views: tuple[SyntheticView, ...]

    @cached_property
    def covisibility(self) -> np.ndarray:
        """[N, N] f32, see `pairwise_covisibility`."""
        return pairwise_covisibility(
            [view.depth_m for view in self.views],
            [view.K_px for view in self.views],
            [view.world_from_cam for view in self.views],
            long_side=COVISIBILITY_LONG_SIDE,
        )

    def encoded(self) -> Scene:
        """The scene as files would hold it: PNG and 32-bit EXR, in memory."""
        return Scene(
            id=self.id,
            views=tuple(map(_encoded, self.views)),
            covisibility=self.covisibility,
            scale_type="metric",
        )


class SyntheticSource(SceneSource):
    """Analytic rooms `synthetic/room_0`, `room_1`, ... made when they are asked for.

    Args:
        scenes: how many; of two or more the last mixes landscape, portrait and two sizes.
        views: per scene.
        width, height: of the images, in pixels.
        seed: of furniture, textures and camera paths.
    """

    def __init__(self, scenes: int = 2, views: int = 8, width: int = 192, height: int = 144, seed: int = 0):
        self.scenes, self.views, self.seed = scenes, views, seed
        self.width, self.height = width, height
        self.analytic = cache(self._analytic)

    def ids(self) -> list[str]:
        return [f"{DATASET}/room_{index}" for index in range(self.scenes)]

    def scene(self, scene_id: str) -> Scene:
        return self.analytic(scene_id).encoded()

    def splits(self) -> dict[str, tuple[str, ...]]:
        """Of three rooms or more the last tenth is `test`, the tenth before it `val`, the others are `train`.

        A tenth is one room at least. Fewer rooms are all `test`.
        """
        ids = self.ids()
        if len(ids) < 3:
            return {f"test/{DATASET}": tuple(ids)}
        part = max(1, len(ids) // ROOMS_PER_HELD_OUT)
        parts = {"train": ids[: -2 * part], "val": ids[-2 * part : -part], "test": ids[-part:]}
        return {f"{name}/{DATASET}": tuple(found) for name, found in parts.items()}

    def _analytic(self, scene_id: str) -> SyntheticScene:
        if scene_id not in self.ids():
            raise SceneError(
                f"there is no scene {scene_id}.",
                where="synthetic scenes",
                fix=did_you_mean(scene_id, self.ids()),
            )
        index = self.ids().index(scene_id)
        mixed = self.scenes > 1 and index == self.scenes - 1
        return synthetic_scene(index, self.seed, self.views, self.width, self.height, mixed=mixed)


def synthetic_scene(
    index: int, seed: int, views: int, width: int, height: int, *, mixed: bool = False
) -> SyntheticScene:
    """Views of one room; lounges, halls and offices take turns.

    Args:
        index: of the scene; with `seed` it decides everything random.
        seed: see above.
        views: how many.
        width, height: of the images, in pixels.
        mixed: portrait and three-quarter-size views among the others.
    """
    rng = np.random.default_rng([seed, index])
    room = KINDS[index % len(KINDS)](rng)
    sizes = [(width, height)]
    if mixed:
        small = (width * 3 // 4, height * 3 // 4)
        sizes = [(width, height), (height, width), small, small[::-1]]
    shots = (
        _shot(room, f"{i:04d}", pose, *sizes[i % len(sizes)])
        for i, pose in enumerate(_path(room, views, rng))
    )
    return SyntheticScene(id=f"{DATASET}/room_{index}", views=tuple(shots))


def _path(room: Room, views: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`world_from_cam` [4, 4] of every view, round the middle and looking across it."""
    middle = np.array(room.size) / 2
    steps = STEP_DEG + rng.uniform(-STEP_JITTER_DEG, STEP_JITTER_DEG, views)
    angles = np.deg2rad(rng.uniform(0, 360) + np.cumsum(steps))
    poses = []
    for angle in angles:
        out = np.array([np.cos(angle), np.sin(angle), 0]) * rng.uniform(*ORBIT_M)
        eye = np.array([*middle[:2], rng.uniform(*HEIGHT_M)]) + out
        target = np.array([*middle[:2], 0.8]) + rng.uniform(-0.4, 0.4, 3)
        poses.append(_looking(eye, target, up=np.array([*rng.uniform(-0.06, 0.06, 2), 1])))
    return poses


def _looking(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """`world_from_cam` [4, 4] of a camera at `eye` whose z axis points to `target`."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    world_from_cam = np.eye(4)
    world_from_cam[:3] = np.stack((right, np.cross(forward, right), forward, eye), axis=-1)
    return world_from_cam


def _shot(room: Room, name: str, world_from_cam: np.ndarray, width: int, height: int) -> SyntheticView:
    # Unequal focal lengths and an off-centre principal point, so that swapped axes show.
    focal = FOCAL * max(width, height)
    K_px = np.array([[focal, 0, (width - 1) / 2 + 1.3], [0, 1.03 * focal, (height - 1) / 2 - 0.8], [0, 0, 1]])
    v, u = np.mgrid[:height, :width].reshape(2, -1)
    rays = np.stack((u, v, np.ones_like(u)), axis=-1) @ (world_from_cam[:3, :3] @ np.linalg.inv(K_px)).T
    # The camera's z of every ray is 1, so its length to the hit is the z-depth.
    depth_m, normals, solid = room.cast(world_from_cam[:3, 3], rays)
    points = world_from_cam[:3, 3] + depth_m[:, None] * rays
    return SyntheticView(
        name=name,
        image=room.texture.image(points, normals, solid).reshape(height, width, 3),
        depth_m=depth_m.reshape(height, width).astype(np.float32),
        normal_world=normals.reshape(height, width, 3).astype(np.float32),
        point_world=points.reshape(height, width, 3),
        solid=solid.reshape(height, width),
        K_px=K_px,
        world_from_cam=world_from_cam,
    )


def _encoded(view: SyntheticView) -> View:
    png = BytesIO()
    Image.fromarray(view.image).save(png, "PNG")
    return View(
        name=view.name,
        image=Blob(suffix="png", data=png.getvalue()),
        depth=Blob(suffix="exr", data=write_exr(view.depth_m, half=False)),
        K_px=view.K_px,
        world_from_cam=view.world_from_cam,
    )
