"""One view made ready: decoded, placed, and, where asked, its depth, camera and token points.

Shapes: R C token rows and columns, H W pixels of the preprocessed view.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..store.key import Preprocess, Size, pixels_of_grid
from .packed_scene import PackedScene, PackedView
from .preprocess import Placement, place, place_image, place_intrinsics, place_plane, token_from_source_px
from .scenes.decode import decode_view
from .scenes.scene import View
from .token_points import CellPoints, token_points


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of a view.

    Attributes:
        preprocess, grid, patch, stride: how it is placed; tokens are `stride` pixels apart, None = a patch.
        points: token points are wanted.
        depth: preprocessed depth is wanted.
    """

    preprocess: Preprocess
    grid: Size
    patch: int
    stride: int | None = None
    points: bool = False
    depth: bool = False

    @property
    def target(self) -> Size:
        """(H, W)."""
        return pixels_of_grid(self.grid, self.patch, self.stride)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedView:
    """A view as encoders and writers take it.

    Attributes:
        image: [H, W, 3] u8.
        depth_m: [H, W] f32, valid: [H, W] bool; None where not wanted or not there.
        points: token points; None likewise.
        camera: placed intrinsics and pose.
        scene_scale_m: of the scene, None without depth.
        grid: (R, C).
        decode_s: seconds it took.
    """

    image: np.ndarray
    depth_m: np.ndarray | None
    valid: np.ndarray | None
    points: CellPoints | None
    camera: PlacedCamera
    scene_scale_m: float | None
    grid: Size
    decode_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedCamera:
    """Cameras of a preprocessed view; NaN where unknown.

    Attributes:
        K_px: [3, 3] f64.
        cam_from_world: [4, 4] f64.
        token_from_source_px: [2, 3] f64.
    """

    K_px: np.ndarray
    cam_from_world: np.ndarray
    token_from_source_px: np.ndarray


def prepare(scene: PackedScene, packed: PackedView, request: Request) -> PreparedView:
    """Read, decode and place one view.

    Raises:
        SceneError: the image, its depth or its camera cannot be read.
        ShardError: they are not what was packed.
    """
    start = time.perf_counter()
    view = packed.verified(scene)
    decoded = decode_view(view)
    placement = place(decoded.width, decoded.height, request.target, request.preprocess.fit)
    depth_m, points, placed = decoded.depth_m, None, None
    if request.points and depth_m is not None and view.has_geometry:
        assert view.K_px is not None
        assert view.world_from_cam is not None
        points = token_points(
            depth_m,
            view.K_px,
            view.world_from_cam,
            request.grid,
            request.preprocess.fit,
            source_size=packed.source_size,
            patch=request.patch,
            stride=request.stride,
        )
    if request.depth and depth_m is not None:
        placed = place_plane(depth_m, placement)
    return PreparedView(
        image=place_image(decoded.image, placement, request.preprocess.filter),
        depth_m=placed,
        valid=None if placed is None else placed > 0,  # decoding leaves 0 wherever depth is not valid
        points=points,
        camera=_camera(view, placement, request, packed.packed_from_source_px),
        scene_scale_m=scene.scene_scale_m,
        grid=request.grid,
        decode_s=time.perf_counter() - start,
    )


def placed_camera(packed: PackedView, request: Request) -> PlacedCamera:
    """The cameras of a view, without decoding its image."""
    placement = place(packed.width, packed.height, request.target, request.preprocess.fit)
    return _camera(packed.view(), placement, request, packed.packed_from_source_px)


def unknown_camera() -> PlacedCamera:
    """NaN, for views that are not there any more."""
    return PlacedCamera(
        K_px=np.full((3, 3), np.nan),
        cam_from_world=np.full((4, 4), np.nan),
        token_from_source_px=np.full((2, 3), np.nan),
    )


def _camera(
    view: View, placement: Placement, request: Request, packed_from_source_px: np.ndarray
) -> PlacedCamera:
    nothing = unknown_camera()
    K_px = nothing.K_px if view.K_px is None else place_intrinsics(view.K_px, placement)
    pose = view.world_from_cam
    return PlacedCamera(
        K_px=K_px,
        cam_from_world=nothing.cam_from_world if pose is None else np.linalg.inv(pose),
        token_from_source_px=token_from_source_px(
            placement, request.patch, packed_from_source_px, request.stride
        ),
    )
