"""Cameras of a WAI frame: intrinsics and pose, checked.

Frames: `transform_matrix` is world_from_cam with OpenCV axes; K is in pixels, integer coordinate =
pixel centre, no skew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import SceneError
from .camera_values import finite_number, rigid_pose

FOCAL_AND_CENTRE = ("fl_x", "fl_y", "cx", "cy")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def intrinsics(frame: Mapping[str, Any], meta: Mapping[str, Any], where: str) -> np.ndarray | None:
    """K_px [3, 3] f64 of a frame, each value from the frame or else from the scene; None without.

    Raises:
        SceneError: the camera is no pinhole, is distorted, or lacks a value.
    """
    values = {**meta, **{key: value for key, value in frame.items() if value is not None}}
    given = {key: values[key] for key in FOCAL_AND_CENTRE if values.get(key) is not None}
    if not given:
        return None
    model = values.get("camera_model") or "PINHOLE"
    bent = [key for key in DISTORTION if values.get(key) and finite_number(values[key], key, where) != 0]
    # OPENCV without distortion is a pinhole; a fisheye is bent even where its coefficients are 0.
    if model not in ("PINHOLE", "OPENCV") or bent:
        raise SceneError(
            "only undistorted pinhole cameras are read.",
            where=where,
            why=f"camera_model is {model}" + (f", with non-zero {', '.join(bent)}" if bent else ""),
            fix="undistort the images and depth, and write PINHOLE intrinsics",
        )
    absent = [key for key in FOCAL_AND_CENTRE if key not in given]
    fl_x, fl_y, cx, cy = (finite_number(given.get(key, 1), key, where) for key in FOCAL_AND_CENTRE)
    if absent or fl_x <= 0 or fl_y <= 0:
        raise SceneError(
            "the intrinsics are incomplete.",
            where=where,
            why=f"{', '.join(absent)} missing" if absent else f"fl_x={fl_x}, fl_y={fl_y} are not positive",
            fix="give fl_x, fl_y, cx and cy in pixels, in the frame or in the scene",
        )
    return np.array([[fl_x, 0, cx], [0, fl_y, cy], [0, 0, 1]], np.float64)


def pose(frame: Mapping[str, Any], where: str) -> np.ndarray | None:
    """world_from_cam [4, 4] f64 of a frame; None without.

    Raises:
        SceneError: it is not a finite rigid 4 x 4 matrix.
    """
    return rigid_pose(frame, "OpenCV", where)
