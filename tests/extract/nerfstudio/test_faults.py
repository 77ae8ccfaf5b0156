"""Nerfstudio folders that are no scene are refused, with their faults named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.check import check_scene
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.nerfstudio import NerfstudioSource

from .room_folder import ID, edit, edit_frame, read


@pytest.mark.parametrize(
    "applied", [[[1, 2], [3]], np.ones((3, 4)).tolist(), "x", np.diag([1, 1, -1, 1]).tolist()]
)
def test_a_transform_that_cannot_be_undone(folder, applied):
    edit(folder, applied_transform=applied)
    with pytest.raises(SceneError, match="applied_transform cannot be undone"):
        read(folder)


@pytest.mark.parametrize("kind", ["8 bits", "no png", "pickle", "short", "text", "other size"])
def test_depth_that_cannot_be_read(folder, kind):
    depth_mm = np.ones((48, 64), np.uint16)
    file = folder / ("d.npy" if kind in ("pickle", "short") else "d.txt" if kind == "text" else "d.png")
    if kind == "8 bits":
        Image.fromarray(depth_mm.astype(np.uint8)).save(file)
    elif kind == "pickle":
        np.save(file, np.array([[{}]]), allow_pickle=True)
    elif kind == "short":
        np.save(file, depth_mm)
        file.write_bytes(file.read_bytes()[:-1])
    elif kind == "other size":
        Image.fromarray(depth_mm[1:]).save(file)
    else:
        file.write_text("no depth")
    edit_frame(folder, depth_file_path=file.name)
    with pytest.raises(SceneError, match="depth") as caught:
        decode_view(read(folder).views[0])
    assert file.name in caught.value.where


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"k1": 0.1}, "non-zero k1"),
        ({"k4": -1e-9}, "non-zero k4"),
        ({"distortion_params": [0, 0, 0.5]}, r"distortion_params\[2\]"),
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE"),
        ({"camera_model": ["PINHOLE"]}, "PINHOLE"),
        ({"fl_x": 0}, "fl_x is 0"),
        ({"fl_x": "wide"}, "fl_x='wide'"),
        ({"cx": float("nan")}, "cx=nan"),
        ({"w": 640}, "w and h are 640"),
        ({"fl_x": None, "camera_angle_x": 4.0}, "camera_angle_x is 4"),
        ({"transform_matrix": np.diag([2.0, 1, 1, 1]).tolist()}, "not orthonormal"),
        ({"transform_matrix": [[1]]}, "four rows"),
        ({"transform_matrix": [[1e200] * 4] * 4}, "last row"),
        ({"depth_unit_scale_factor": "mm"}, "depth_unit_scale_factor='mm'"),
        ({"depth_file_path": "../d.png"}, "path in the scene's folder"),
        ({"mask_path": "/etc/passwd"}, "path in the scene's folder"),
        ({"file_path": 3}, "path in the scene's folder"),
        ({"file_path": "images/none"}, "images/none"),
    ],
)
def test_frames_that_are_not_read(folder, values, said):
    edit_frame(folder, **values)
    with pytest.raises(SceneError, match=f"(?s).*{said}") as caught:
        raise_whole(folder)
    assert str(folder) in str(caught.value)


def raise_whole(folder):
    """The error with all its parts as its message."""
    try:
        read(folder)
    except SceneError as error:
        raise SceneError(str(error)) from None


def test_distortion_says_how_to_undistort(folder):
    edit(folder, k1=0.2)
    with pytest.raises(SceneError, match="undistorted") as caught:
        read(folder)
    assert "colmap image_undistorter" in caught.value.fix


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"frames": []}', '{"frames": [1]}', "[" * 100_000])
def test_a_transforms_json_that_is_none(folder, text):
    (folder / "transforms.json").write_text(text)
    with pytest.raises(SceneError, match=r"transforms\.json"):
        read(folder)


def test_every_fault_is_found_at_once(folder):
    edit_frame(folder, 0, transform_matrix=[])
    edit_frame(folder, 1, depth_file_path="gone.png")
    edit_frame(folder, 2, file_path="images/gone.png")
    faults = check_scene(NerfstudioSource(folder), ID)
    assert [fault.what.split(" ")[0] for fault in faults] == ["the", ID]
    assert "images/gone.png" in faults[1].why
    assert "gone.png" in faults[1].why


def test_an_image_listed_twice(folder):
    edit_frame(folder, 1, file_path="images/frame_00000.png")
    with pytest.raises(SceneError, match="listed twice"):
        read(folder)
