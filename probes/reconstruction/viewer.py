"""`viewer.html`: points and cameras of a reconstruction in one file that needs no network.

The page draws with WebGL. Points come quantised to 16 bits an axis, which is finer than a pixel of the
page as long as no stray point stretches the box; so the few far outside are left to the PLY file.

Shapes: V views, H W pixels, N points.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from ...pages import render
from .fuse import PointCloud
from .prediction import Prediction

MOST_POINTS = 300_000
MOST_THUMBNAILS, THUMBNAIL_PX = 64, 192
# The box of the middle 98 % of the points, grown by its own size on each side, holds what is shown.
SPAN_PERCENT, GROWTH = (1, 99), 1.0


def viewer_page(prediction: Prediction, cloud: PointCloud, *, title: str, notes: Sequence[str] = ()) -> str:
    """The page as HTML.

    Args:
        prediction: whose cameras are shown.
        cloud: its points; at most 300,000 of them are shown.
        title: what it is a reconstruction of.
        notes: facts below the title; a word on random weights belongs here.
    """
    near = cloud.take(_near(cloud.points_world)).thinned(MOST_POINTS)
    document = {
        "title": title,
        "points": _points(near),
        "cameras": _cameras(prediction),
        "up": _up(prediction),
        "shown": len(near),
        "fused": len(cloud),
    }
    package = __package__ or "strata.probes.reconstruction"
    return render(package, "viewer.html", {}, title=title, notes=notes, document=document)


def _near(points_N3: np.ndarray) -> np.ndarray:
    """[N] bool."""
    if not len(points_N3):
        return np.ones(0, bool)
    low, high = np.percentile(points_N3, SPAN_PERCENT, axis=0)
    room = GROWTH * np.maximum(high - low, 1e-6)
    return ((points_N3 >= low - room) & (points_N3 <= high + room)).all(-1)


def _points(cloud: PointCloud) -> dict[str, Any]:
    """Little-endian arrays in base64: u16 x y z; u8 r g b; u8 ranks of confidence and of depth."""
    xyz = cloud.points_world
    low, high = (xyz.min(0), xyz.max(0)) if len(cloud) else (np.zeros(3), np.ones(3))
    size = np.maximum(high - low, 1e-9)
    return {
        "count": len(cloud),
        "low": low.astype(float).tolist(),
        "size": size.astype(float).tolist(),
        "xyz": _base64(((xyz - low) / size * 65535).round().astype("<u2")),
        "rgb": _base64(cloud.colours),
        "confidence": _base64(_ranks(cloud.confidence)),
        "depth": _base64(_ranks(cloud.depth)),
    }


def _ranks(values_N: np.ndarray) -> np.ndarray:
    """[N] u8: the share of values below, which spreads colours evenly over any distribution."""
    below = np.searchsorted(np.sort(values_N), values_N)
    return (255 * below / max(1, len(values_N))).astype(np.uint8)


def _cameras(prediction: Prediction) -> list[dict[str, Any]]:
    frames = prediction.frames
    height, width = frames.images.shape[1:3]
    pictured = set(np.linspace(0, len(frames) - 1, MOST_THUMBNAILS).round().astype(int).tolist())
    corners_px = np.array(
        [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]]
    )
    homogeneous = np.concatenate((corners_px, np.ones((4, 1))), axis=-1)
    return [
        {
            "name": name,
            "world_from_cam": prediction.world_from_cam[i].tolist(),
            "corners_cam": (homogeneous @ np.linalg.inv(prediction.K_px[i]).T).tolist(),
            "picture": _picture(frames.images[i]) if i in pictured else None,
        }
        for i, name in enumerate(frames.names)
    ]


def _up(prediction: Prediction) -> list[float]:
    """Where the tops of the images point, on average."""
    up = -prediction.world_from_cam[:, :3, 1].mean(0)
    length = float(np.linalg.norm(up))
    return (up / length).tolist() if length > 1e-6 else [0.0, -1.0, 0.0]


def _picture(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    jpeg = BytesIO()
    picture.save(jpeg, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
