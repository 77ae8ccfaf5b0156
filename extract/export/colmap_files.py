"""Exports as COLMAP models with features: what a reconstruction program takes, and the tokens beside it.

A folder of one scene and grid holds
- `images/<frame>.png`: the images as the encoder saw them;
- `sparse/0/cameras.txt`: a PINHOLE camera for each image;
- `sparse/0/images.txt`: poses; the 2D points are the centres of all tokens, row by row;
- `sparse/0/points3D.txt`: the 3D point of each valid token, its colour, error 0, seen by its own image alone;
- `features/<frame>.npz`: `<layer>` [R C, D] in the order of the 2D points, `keypoints_px` [R C, 2], `grid`.

Pixels are COLMAP's: the corner of the image is (0, 0), half a pixel before the centre of the first pixel.
Views without a camera are left out. Nothing is matched: a point has the track of its own image.

Shapes: R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import SelectionError
from ...kernels.rotation import quaternion_from_matrix
from ...store.atomic import whole_folder
from ...store.grid_features import GridFeatures
from ...store.selection import Selection
from ..scenes.colmap_model import HALF_PIXEL

COLMAP_FIELDS = ("tokens", "image", "K_px", "cam_from_world", "token_point_world", "token_valid")
NO_POINT = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class _Exported:
    """One view: its lines of the three files, and its point ids.

    Attributes:
        camera, image: lines.
        points: lines of points3D.txt.
    """

    camera: str
    image: str
    points: list[str]


def write_colmap(path: Path, part: Selection, fields: tuple[str, ...]) -> int:
    """The folder of one scene and grid; returns how many views have no camera.

    Raises:
        SelectionError: no view has a camera, or the intrinsics have a skew.
    """
    K_px, poses = map(np.concatenate, zip(*(block.cameras() for block in part.parts), strict=True))
    known = np.flatnonzero(np.isfinite(K_px).all((1, 2)) & np.isfinite(poses).all((1, 2))).tolist()
    scene = part.scenes[0]
    if not known:
        raise SelectionError(
            "no view of the scene has a camera.",
            where=scene,
            fix="leave it out, or use another format=",
        )
    if (K_px[known][:, 0, 1] != 0).any():
        raise SelectionError(
            "a camera has a skew, which COLMAP's models do not have.",
            where=scene,
            fix="leave the scene out, or use another format=",
        )
    with whole_folder(path) as folder:
        for name in ("images", "features", "sparse/0"):
            (folder / name).mkdir(parents=True)
        _write_model(folder / "sparse" / "0", list(_views(folder, part, known, fields)))
    return len(part) - len(known)


def _views(folder: Path, part: Selection, known: list[int], fields: tuple[str, ...]) -> Iterator[_Exported]:
    """Writes images and features, one view in memory at a time."""
    first_point, patch = 1, part.stored_key.patch_size
    for number, i in enumerate(known, 1):
        features = part.read([i], fields)
        name = features.views[0].rpartition("/")[2]
        Image.fromarray(_one(features, "image")).save(folder / "images" / f"{name}.png")
        centres_px = _token_centres(features, patch)
        (folder / "features" / f"{name}.npz").write_bytes(_features(features, centres_px))
        exported = _lines(features, f"{name}.png", number, centres_px, first_point)
        first_point += len(exported.points)
        yield exported


def _token_centres(features: GridFeatures[np.ndarray], patch: int) -> np.ndarray:
    """[R C, 2] COLMAP pixels."""
    rows, cols = features.grid
    x, y = np.meshgrid(np.arange(cols), np.arange(rows))
    return (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * patch


def _features(features: GridFeatures[np.ndarray], centres_px: np.ndarray) -> bytes:
    flat = {layer: values[0].reshape(-1, values.shape[-1]) for layer, values in features.tokens.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **flat, keypoints_px=centres_px, grid=np.array(features.grid))
    return buffer.getvalue()


def _lines(
    features: GridFeatures[np.ndarray], file: str, number: int, centres_px: np.ndarray, first_point: int
) -> _Exported:
    image, K_px, pose = (_one(features, name) for name in ("image", "K_px", "cam_from_world"))
    world = _one(features, "token_point_world").reshape(-1, 3)
    valid = _one(features, "token_valid").reshape(-1)
    ids = np.where(valid, first_point + np.cumsum(valid) - 1, NO_POINT)
    height, width = image.shape[:2]
    params = (K_px[0, 0], K_px[1, 1], K_px[0, 2] + HALF_PIXEL, K_px[1, 2] + HALF_PIXEL)
    x, y, z, w = quaternion_from_matrix(torch.from_numpy(pose[:3, :3])).tolist()
    head = _numbers(number, w, x, y, z, *pose[:3, 3], number)
    seen = " ".join(_numbers(u, v, point) for (u, v), point in zip(centres_px, ids, strict=True))
    columns, rows = centres_px.astype(int).T
    points = [
        _numbers(ids[i], *world[i], *image[rows[i], columns[i]], 0, number, i) for i in np.flatnonzero(valid)
    ]
    camera = f"{number} PINHOLE {width} {height} {_numbers(*params)}"
    return _Exported(camera=camera, image=f"{head} {file}\n{seen}", points=points)


def _one(features: GridFeatures[np.ndarray], name: str) -> np.ndarray:
    """A field of the one view that was read."""
    return getattr(features, name)[0]


def _write_model(folder: Path, views: list[_Exported]) -> None:
    texts = {
        "cameras": ("CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY", [view.camera for view in views]),
        "images": (
            "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each token",
            [view.image for view in views],
        ),
        "points3D": (
            "POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX",
            [point for view in views for point in view.points],
        ),
    }
    for name, (columns, lines) in texts.items():
        (folder / f"{name}.txt").write_text("\n".join([f"# {columns}", *lines, ""]), "utf-8")


def _numbers(*values: Any) -> str:
    """Whole numbers as such, others with all digits of their kind."""
    return " ".join(str(v.item() if isinstance(v, np.generic) else v) for v in values)
