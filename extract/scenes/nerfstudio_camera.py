"""Cameras of a Nerfstudio frame, turned into ours.

Frames: `transform_matrix` is world_from_cam with OpenGL axes (y up, z back); ours are OpenCV's. The
corner of the image is pixel (0, 0) there, so a centred principal point is w / 2; here the centre of
the first pixel is, so ours lies half a pixel lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import SceneError
from .camera_values import array_of, finite_number, rigid_pose, why_not_rigid

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
HALF_PIXEL = 0.5
# With all distortion at zero, each of these is a pinhole.
PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
UNDISTORT = (
    "undistort with `colmap image_undistorter --image_path images --input_path colmap/sparse/0 "
    "--output_path OUT` and give OUT as scenes="
)

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldChange:
    """What the exporter did to the world, to be undone: x -> scale * (rotation x + shift).

    Attributes:
        rotation: [3, 3] f64.
        shift: [3] f64, in the recording's units.
        scale: of lengths.
    """

    rotation: np.ndarray
    shift: np.ndarray
    scale: float = 1.0

    def undone(self, world_from_cam: np.ndarray) -> np.ndarray:
        """The rigid pose [4, 4] in the world of the recording."""
        original = np.eye(4)
        original[:3, :3] = self.rotation.T @ world_from_cam[:3, :3]
        original[:3, 3] = self.rotation.T @ (world_from_cam[:3, 3] / self.scale - self.shift)
        return original


def world_change(meta: Values, where: str) -> WorldChange:
    """`applied_transform` and `applied_scale` of a transforms.json; nothing where they are absent.

    Raises:
        SceneError: they are no rotation, shift and positive scale.
    """
    scale = finite_number(meta.get("applied_scale", 1), "applied_scale", where)
    applied, stretch = _applied(meta.get("applied_transform")), 1.0
    if applied.shape == (4, 4) and np.isfinite(applied).all():
        stretch = abs(float(np.cbrt(np.linalg.det(applied[:3, :3])))) or 1.0
        applied[:3] /= stretch
    why = why_not_rigid(applied) or ("" if scale > 0 else f"applied_scale is {scale}")
    if why:
        raise SceneError(
            "applied_transform cannot be undone.",
            where=where,
            why=why,
            fix="write it as three rows of four numbers, a rotation with a shift, or leave it out",
        )
    return WorldChange(rotation=applied[:3, :3], shift=applied[:3, 3], scale=scale * stretch)


def pose(frame: Values, change: WorldChange, where: str) -> np.ndarray | None:
    """world_from_cam [4, 4] f64 with OpenCV axes, in the world of the recording; None without.

    Raises:
        SceneError: it is not a finite rigid 4 x 4 matrix.
    """
    world_from_cam = rigid_pose(frame, "OpenGL", where)
    if world_from_cam is None:
        return None
    return change.undone(world_from_cam) @ OPENGL_FROM_OPENCV


def intrinsics(frame: Values, meta: Values, size: tuple[int, int], where: str) -> np.ndarray | None:
    """K_px [3, 3] f64 for images of that (width, height); None where no focal length is given.

    A value comes from the frame, or else from the scene; the focal length may be given as
    `camera_angle_x`, and the principal point is the middle where it is not given.

    Raises:
        SceneError: the camera is distorted or no pinhole, or its size is not the image's.
    """
    values = {**meta, **{key: value for key, value in frame.items() if value is not None}}
    _check_pinhole(values, where)
    numbers = {
        key: finite_number(values[key], key, where)
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
        if values.get(key) is not None
    }
    _check_size(numbers, size, where)
    fl_x = _focal(numbers, "x", size[0], where)
    fl_y = _focal(numbers, "y", size[1], where) or fl_x
    if not fl_x or not fl_y:
        return None
    cx, cy = numbers.get("cx", size[0] / 2), numbers.get("cy", size[1] / 2)
    return np.array([[fl_x, 0, cx - HALF_PIXEL], [0, fl_y, cy - HALF_PIXEL], [0, 0, 1]], np.float64)


def _applied(rows: Any) -> np.ndarray:
    """As [4, 4] f64, the last row added where only three are given; of no size where it is no matrix."""
    if rows is None:
        return np.eye(4)
    return array_of([*rows, [0, 0, 0, 1]] if isinstance(rows, list) and len(rows) == 3 else rows)


def _focal(numbers: dict[str, float], axis: str, length: int, where: str) -> float | None:
    focal, angle = numbers.get(f"fl_{axis}"), numbers.get(f"camera_angle_{axis}")
    if focal is None and angle is not None and 0 < angle < math.pi:
        return length / 2 / math.tan(angle / 2)
    if focal is None and angle is None:
        return None
    if focal is None or focal <= 0:
        raise SceneError(
            f"the focal length along {axis} is not positive.",
            where=where,
            why=f"camera_angle_{axis} is {angle}" if focal is None else f"fl_{axis} is {focal}",
            fix=f"give fl_{axis} in pixels, or camera_angle_{axis} in radians",
        )
    return focal


def _check_pinhole(values: Values, where: str) -> None:
    model = values.get("camera_model") or "PINHOLE"
    given = {key: values[key] for key in DISTORTION if values.get(key) is not None}
    listed = values.get("distortion_params")
    given |= {f"distortion_params[{i}]": v for i, v in enumerate(listed if isinstance(listed, list) else ())}
    bent = [key for key, value in given.items() if finite_number(value, key, where) != 0]
    if model not in PERSPECTIVE or bent:
        raise SceneError(
            "only undistorted pinhole cameras are read.",
            where=where,
            why=f"camera_model is {model}" + (f", with non-zero {', '.join(bent)}" if bent else ""),
            fix=UNDISTORT,
        )


def _check_size(numbers: dict[str, float], size: tuple[int, int], where: str) -> None:
    given = tuple(numbers.get(key, length) for key, length in zip(("w", "h"), size, strict=True))
    if given != size:
        raise SceneError(
            "the camera is for images of another size.",
            where=where,
            why=f"w and h are {given[0]:g} and {given[1]:g}, the image is {size[0]} x {size[1]}",
            fix="give the intrinsics for the size that the image has",
        )
