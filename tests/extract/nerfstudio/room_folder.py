"""An analytic room as a folder with a `transforms.json`, and changes of that file."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from strata.extract.scenes.nerfstudio import NerfstudioSource
from strata.extract.scenes.synthetic import SyntheticSource

from ..compared import known

ROOM = SyntheticSource(1, views=3, width=64, height=48).analytic("synthetic/room_0")
OPENGL = np.diag([1.0, -1, -1, 1])
ID = "rooms/lounge"
UNCHANGED = np.eye(4)[:3]
# x y z -> x z -y, as Nerfstudio turns worlds, and a shift.
APPLIED = np.array([[1.0, 0, 0, 0.25], [0, 0, 1, -1.5], [0, -1, 0, 3]])


def write(folder, view, number, applied=UNCHANGED, scale=1.0):
    """One frame's files and its entry."""
    for part in ("images", "depths", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = {part: f"{part}/frame_{number:05d}.png" for part in ("images", "depths", "masks")}
    Image.fromarray(view.image).save(folder / names["images"])
    Image.fromarray((view.depth_m * 1000).round().astype(np.uint16)).save(folder / names["depths"])
    pose = np.eye(4)
    pose[:3] = (applied @ view.world_from_cam) @ OPENGL
    pose[:3, 3] *= scale
    return {
        "file_path": names["images"],
        "depth_file_path": names["depths"],
        "transform_matrix": pose.tolist(),
    }


def cameras(view):
    """In the words of the format, whose pixel (0, 0) is the corner of the image."""
    K, (height, width) = view.K_px, view.depth_m.shape
    return {
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2] + 0.5,
        "cy": K[1, 2] + 0.5,
        "w": width,
        "h": height,
    }


def save(folder, meta):
    (folder / "transforms.json").write_text(json.dumps(meta))


def load(folder):
    return json.loads((folder / "transforms.json").read_text())


def edit(folder, **values):
    save(folder, load(folder) | values)


def edit_frame(folder, number=0, **values):
    meta = load(folder)
    meta["frames"][number] |= values
    save(folder, meta)


def read(folder):
    return NerfstudioSource(folder).scene(ID)


def same_cameras(scene, tolerance=1e-9):
    for view, truth in zip(scene.views, ROOM.views, strict=True):
        np.testing.assert_allclose(known(view.K_px), truth.K_px, rtol=0, atol=tolerance)
        np.testing.assert_allclose(known(view.world_from_cam), truth.world_from_cam, rtol=0, atol=tolerance)
