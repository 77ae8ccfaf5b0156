"""WAI scenes: how every fault of a scene on disk is reported."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import shutil

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai

from .room_folder import ID, SYNTHETIC, change, change_frame, read


def refused(folder):
    with pytest.raises(SceneError) as caught:
        read(folder)
    error = caught.value
    assert error.where
    assert error.fix
    return error


def test_all_missing_files_are_named_at_once(folder):
    shutil.rmtree(folder / "depth")
    for number in (1, 3):
        (folder / "images" / f"000{number}.png").unlink()
    error = refused(folder)
    assert error.what == f"{ID} lacks 6 files."
    assert error.where == str(folder)
    assert "images/0001.png" in error.why
    assert error.why.endswith("and 1 more")


@pytest.mark.parametrize(
    ("pose", "why"),
    [
        (np.diag([1, 1, 1, np.nan]), "not finite"),
        (np.diag([2.0, 2, 2, 1]), "not orthonormal"),
        (np.diag([-1.0, 1, 1, 1]), "mirrored"),
        (np.eye(4) + np.eye(4, k=-3), "last row"),
        (np.eye(3), "four rows"),
    ],
)
def test_a_pose_that_is_not_rigid(folder, pose, why):
    change_frame(folder, transform_matrix=pose.tolist())
    error = refused(folder)
    assert error.what == "the pose is not a rigid 4 x 4 matrix."
    assert why in error.why
    assert all(part in error.where for part in ("scene_meta.json", ID, "frame 0001"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"k1": 0.1}, "non-zero k1"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model is OPENCV_FISHEYE"),
        ({"fl_x": None}, "fl_x missing"),
        ({"fl_y": -3.0}, "not positive"),
        ({"cx": float("nan")}, "cx=nan is not a number"),
        ({"cx": "12"}, "cx='12' is not a number"),
    ],
)
def test_cameras_that_are_not_read(folder, values, said):
    change_frame(folder, **values)
    assert said in str(refused(folder))


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (5, 5)])
def test_covisibility_of_the_wrong_shape(folder, shape):
    shutil.rmtree(folder / "covisibility")
    (folder / "covisibility" / "v0").mkdir(parents=True)
    path = folder / "covisibility" / "v0" / f"pairwise_covisibility--{shape[0]}x{shape[1]}.npy"
    np.save(path, np.ones(shape, np.float32))
    error = refused(folder)
    assert error.what == "the covisibility has the wrong shape."
    assert error.where == str(path)
    assert "need 4x4" in error.why
    assert "compute it again" in error.fix


def test_covisibility_whose_name_and_size_disagree(folder):
    (path,) = (folder / "covisibility" / "v0").glob("*.npy")
    np.save(path, np.ones((4, 4)))
    assert "192 bytes; the file has 256" in refused(folder).why
    np.save(path, np.full((4, 4), np.nan, np.float32))
    assert "not finite" in refused(folder).what


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "a/b", "a\\b", "", "a\nb"])
def test_scene_names_that_lead_outside(folder, name):
    change(folder, lambda meta: meta.update(scene_name=name))
    error = refused(folder)
    assert "is not a scene id" in error.what
    assert error.where.endswith("scene_meta.json")


@pytest.mark.parametrize("name", ["..", "../other", "a/b", "", None, [1]])
def test_frame_names_that_lead_outside(folder, name):
    change_frame(folder, frame_name=name)
    assert "is not a frame name" in refused(folder).what


@pytest.mark.parametrize("key", ["image", "depth"])
@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "images/../../x.png", 3, "a\0b", ""])
def test_file_paths_that_lead_outside(folder, key, path):
    change_frame(folder, **{key: path})
    error = refused(folder)
    assert error.what == f"{path!r} is not a path in the scene's folder."
    assert "frame 0001" in error.where


def test_an_empty_scene(folder):
    change(folder, lambda meta: meta.update(frames=[], skipped_reason="fewer than two frames"))
    error = refused(folder)
    assert error.what == f"the scene {ID} has no frames."
    assert error.why == "fewer than two frames"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"frames": 3}', '{"frames": [3]}', "[" * 100_000, "\xff"])
def test_a_scene_meta_that_is_none(folder, text):
    (folder / "scene_meta.json").write_bytes(text.encode("latin-1"))
    refused(folder)


def test_a_scene_without_its_meta_is_broken_not_absent(folder):
    write_wai(SYNTHETIC.scene(ID), folder.with_name("room_1"))
    (folder / "scene_meta.json").unlink()
    source = WaiSource(folder.parent)
    assert source.ids() == [ID, "synthetic/room_1"]
    with pytest.raises(SceneError, match="cannot be read: No such file"):
        source.scene(ID)


def test_other_conventions_and_scales_are_refused(folder):
    change(folder, lambda meta: meta.update(camera_convention="opengl"))
    assert "camera_convention=opengl" in refused(folder).what
    change(folder, lambda meta: meta.update(camera_convention="opencv", scale_type="feet"))
    assert "scale_type=feet" in refused(folder).what


def test_a_frame_name_used_twice(folder):
    change_frame(folder, 1, frame_name="0000")
    error = refused(folder)
    assert "used twice" in error.what
    assert error.why == "twice: 0000"


def test_two_scenes_of_one_id(folder, tmp_path):
    other = tmp_path / "elsewhere" / "synthetic"
    shutil.copytree(folder.parent, other)
    with pytest.raises(SceneError, match=f"two scenes are called {ID}") as caught:
        WaiSource(folder.parent, other).ids()
    assert str(folder) in caught.value.where
    assert str(other / "room_0") in caught.value.where
    assert "rename" in caught.value.fix


def test_every_fault_is_collected(folder):
    change_frame(folder, 0, transform_matrix=np.zeros((4, 4)).tolist(), fl_x=None)
    change_frame(folder, 2, image="../x.png")
    (folder / "depth" / "0003.exr").unlink()
    inspection = WaiSource(folder).inspect(ID)
    assert len(inspection.faults) == 4
    assert [view.name for view in inspection.scene.views] == ["0000", "0001", "0003"]
    with pytest.raises(SceneError) as caught:
        inspection.require()
    assert "lists 3 more faults" in caught.value.fix
