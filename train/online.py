"""Views of scenes or shards: decoded, augmented and cut while training goes on.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from ..errors import SceneError, SetsError
from ..extract.packed_folder import INDEX
from ..extract.preprocess import Placement, place, place_image, place_intrinsics, place_plane
from ..extract.scenes.decode import decode_view
from ..extract.scenes.open import open_scenes
from ..extract.scenes.scene import Scene, SceneSource, View
from ..extract.shards import ShardIndex
from .augment import augment_colours
from .draws import Covisible, Draw
from .far_depth import without_far
from .views import Look, SetViews, ViewSource, in_first_camera


class PackedSource(SceneSource):
    """The scenes of a folder of shards."""

    def __init__(self, folder: Path) -> None:
        self._index = ShardIndex.open(folder)

    def ids(self) -> list[str]:
        return [scene.id for scene in self._index]

    def scene(self, scene_id: str) -> Scene:
        return self._index.scene(scene_id).to_scene()

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self._index.splits


def open_source(path: str) -> SceneSource:
    """Shards, or scenes of any kind.

    Raises:
        StrataError: there is neither.
    """
    return PackedSource(Path(path)) if (Path(path) / INDEX).is_file() else open_scenes(path)


class OnlineViews(ViewSource):
    """Views of scenes.

    Args:
        scenes: with geometry; their images are read when they are asked for.
        fit: crop | pad | stretch.
    """

    def __init__(self, scenes: Iterable[Scene], fit: str) -> None:
        self._views = {scene.id: {view.name: view for view in scene.views} for scene in scenes}
        self._fit = fit

    def read(self, draw: Draw, look: Look, generator: Generator) -> SetViews:
        assert look.size is not None
        placed = [self._placed(self._views[draw.scene][name], look, generator) for name in draw.names]
        images = torch.from_numpy(np.stack([image for image, _, _ in placed])).permute(0, 3, 1, 2)
        if look.augment is not None:
            images = augment_colours(images.float() / 255, look.augment, generator)
        views = [self._views[draw.scene][name] for name in draw.names]
        return SetViews(
            draw=draw,
            images=images,
            depth=torch.from_numpy(np.stack([depth for _, depth, _ in placed])),
            K_px=torch.from_numpy(np.stack([K_px for _, _, K_px in placed]).astype(np.float32)),
            world_from_cam=in_first_camera(np.stack([_pose(view) for view in views])),
        )

    def pictures(self, draw: Draw, look: Look) -> np.ndarray:
        images = self.read(draw, Look(size=look.size), Generator()).images
        assert images is not None
        return images.permute(0, 2, 3, 1).numpy()

    def _placed(
        self, view: View, look: Look, generator: Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([H, W, 3] u8 image, [H, W] f32 depth, [3, 3] f64 intrinsics)."""
        assert look.size is not None
        assert view.K_px is not None
        decoded = decode_view(view)
        assert decoded.depth_m is not None
        depth_m, augment = decoded.depth_m, look.augment
        if augment is not None:  # of the whole image, so that it is the same however the image is cut
            depth_m = without_far(depth_m, augment.depth_share)
        placement = self._placement(decoded.width, decoded.height, view.K_px, look, generator)
        return (
            place_image(decoded.image, placement),
            place_plane(depth_m, placement),
            place_intrinsics(view.K_px, placement),
        )

    def _placement(
        self, width: int, height: int, K_px: np.ndarray, look: Look, generator: Generator
    ) -> Placement:
        assert look.size is not None
        if look.augment is not None and self._fit == "crop":
            return look.augment.crop.draw(width, height, K_px, look.size, generator)
        return place(width, height, look.size, self._fit)


def read_scenes(source: SceneSource, wanted: Iterable[str]) -> tuple[list[Scene], dict[str, str]]:
    """Scenes with the views that have geometry, and by id why others are left out."""
    scenes, left_out = [], {}
    for scene_id in wanted:
        try:
            scenes.append(_with_geometry(source.scene(scene_id)))
        except (SceneError, SetsError) as error:
            left_out[scene_id] = error.what
    return scenes, left_out


def covisible(
    scenes: Iterable[Scene], threshold: Callable[[str], float]
) -> tuple[list[Covisible], dict[str, str]]:
    """What walks can be drawn over, and by id why others cannot.

    Args:
        scenes: with the views that have geometry.
        threshold: by dataset, covisibility above which two views are neighbours.
    """
    found, left_out = [], {}
    for scene in scenes:
        if scene.covisibility is None:
            left_out[scene.id] = "no covisibility"
            continue
        names = tuple(view.name for view in scene.views)
        one = Covisible(scene=scene.id, names=names, covisibility=scene.covisibility)
        if one.connects(threshold(scene.dataset)):
            found.append(one)
        else:
            left_out[scene.id] = f"no two views have covisibility above {threshold(scene.dataset)}"
    return found, left_out


def _with_geometry(scene: Scene) -> Scene:
    """The scene without the views that have no depth or camera."""
    keep = [i for i, view in enumerate(scene.views) if view.has_geometry]
    if not keep:
        raise SetsError("no view has depth, intrinsics and a pose", where=scene.id)
    covisibility = scene.covisibility
    return replace(
        scene,
        views=tuple(scene.views[i] for i in keep),
        covisibility=None if covisibility is None else covisibility[np.ix_(keep, keep)],
    )


def _pose(view: View) -> np.ndarray:
    assert view.world_from_cam is not None
    return view.world_from_cam
