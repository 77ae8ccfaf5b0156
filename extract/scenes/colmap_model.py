"""A COLMAP sparse model as values, whichever of its two formats it was read from.

Frames: a pose is cam_from_world, a unit quaternion wxyz and a translation, with OpenCV axes. The
corner of the image is pixel (0, 0) there; ours is the centre of the first pixel, half a pixel on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import SceneError

HALF_PIXEL = 0.5
LARGEST = 1e9
# COLMAP's camera models in the order of their ids, with the number of parameters of each.
PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
}
# Models that begin with one or with two focal lengths, and are pinholes when the rest is zero.
ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
TWO_FOCALS = ("PINHOLE", "OPENCV", "FULL_OPENCV")
UNDISTORT = (
    "undistort with `colmap image_undistorter --image_path images --input_path sparse/0 "
    "--output_path OUT` and give OUT as scenes="
)


@dataclass(frozen=True, kw_only=True)
class ColmapCamera:
    """One camera: `PARAMETERS` names the models."""

    id: int
    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def K_px(self, where: str) -> np.ndarray:  # noqa: N802
        """[3, 3] f64 intrinsics.

        Raises:
            SceneError: the camera is distorted or no pinhole, or a value is out of range.
        """
        focals = 1 if self.model in ONE_FOCAL else 2 if self.model in TWO_FOCALS else 0
        bent = [value for value in self.params[focals + 2 :] if value != 0]
        if not focals or bent:
            raise SceneError(
                "only undistorted pinhole cameras are read.",
                where=where,
                why=f"camera {self.id} is {self.model}" + (" with distortion" if focals else ""),
                fix=UNDISTORT,
            )
        fl_x, fl_y, cx, cy = (*self.params[:1], *self.params[focals - 1 : focals + 2])
        # NaN compares false.
        if not (0 < fl_x < LARGEST and 0 < fl_y < LARGEST and abs(cx) < LARGEST and abs(cy) < LARGEST):
            raise SceneError(
                "the intrinsics are out of range.",
                where=where,
                why=f"camera {self.id} has parameters {', '.join(f'{value:g}' for value in self.params)}",
                fix="write positive focal lengths and a finite principal point, in pixels",
            )
        return np.array([[fl_x, 0, cx - HALF_PIXEL], [0, fl_y, cy - HALF_PIXEL], [0, 0, 1]], np.float64)


@dataclass(frozen=True, kw_only=True)
class ColmapImage:
    """One image: its file, its camera, and where it was taken."""

    id: int
    name: str
    camera_id: int
    quaternion_wxyz: tuple[float, ...]
    translation: tuple[float, ...]

    def world_from_cam(self, where: str) -> np.ndarray:
        """[4, 4] f64 rigid pose.

        Raises:
            SceneError: the quaternion is zero, or a value is not finite.
        """
        quaternion = np.array(self.quaternion_wxyz, np.float64)
        # hypot does not overflow.
        length, shift = math.hypot(*self.quaternion_wxyz), np.array(self.translation, np.float64)
        # NaN compares false.
        if not (1e-6 < length < LARGEST and (np.abs(shift) < LARGEST).all()):
            raise SceneError(
                "the pose is not rigid.",
                where=where,
                why=f"quaternion {self.quaternion_wxyz}, translation {self.translation}",
                fix="write a quaternion of length 1 (w x y z) and a finite translation",
            )
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = _rotation(*(quaternion / length)).T
        world_from_cam[:3, 3] = -world_from_cam[:3, :3] @ shift
        return world_from_cam


@dataclass(frozen=True, kw_only=True, eq=False)
class ColmapModel:
    """Cameras by id, images, and which image sees which 3D point.

    Attributes:
        sightings: [S, 2] i64 of (image id, point id), in any order and perhaps repeated.
    """

    cameras: dict[int, ColmapCamera]
    images: tuple[ColmapImage, ...]
    sightings: np.ndarray


def shared_points(model: ColmapModel, image_ids: list[int]) -> np.ndarray | None:
    """[N, N] f32: the share of row's 3D points that column sees too; None where no image has points.

    Args:
        model: its `sightings` are counted.
        image_ids: of the N rows and columns.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    pairs = np.unique(model.sightings, axis=0)
    rows = np.array([row_of.get(image_id, -1) for image_id in pairs[:, 0].tolist()], np.int64)
    rows, points = rows[rows >= 0], pairs[rows >= 0, 1]
    if not len(rows):
        return None
    _, points = np.unique(points, return_inverse=True)
    viewers = rows[np.argsort(points, kind="stable")]  # point by point
    counts = np.bincount(points)
    starts = np.cumsum(counts) - counts
    shares = np.zeros((len(image_ids), len(image_ids)), np.float32)
    for row in np.unique(rows):
        own = points[rows == row]
        # Who sees each of this image's points: runs of `viewers`, one after the other.
        within = np.arange(counts[own].sum()) - np.repeat(np.cumsum(counts[own]) - counts[own], counts[own])
        seen_by = viewers[np.repeat(starts[own], counts[own]) + within]
        shares[row] = np.bincount(seen_by, minlength=len(image_ids)) / len(own)
    return shares


def model_fault(what: str, where: object, why: str = "") -> SceneError:
    """A `SceneError` about the files of a model."""
    fix = "copy the model again, or export it with `colmap model_converter`"
    return SceneError(what, where=where, why=why, fix=fix)


def _rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """[3, 3] of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
