"""Nerfstudio folders of an analytic room, written here by hand, read back as the room."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.agreement import scene_agreement
from strata.extract.scenes.check import check_scene
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.nerfstudio import NerfstudioSource
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource

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


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rooms" / "lounge"
    frames = [write(folder, view, i) | cameras(view) for i, view in enumerate(ROOM.views)]
    save(folder, {"camera_model": "OPENCV", "k1": 0, "p2": 0.0, "frames": frames})
    return folder


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


def known(array: np.ndarray | None) -> np.ndarray:
    """The array, which is there."""
    assert array is not None
    return array


def same_cameras(scene, tolerance=1e-9):
    for view, truth in zip(scene.views, ROOM.views, strict=True):
        np.testing.assert_allclose(known(view.K_px), truth.K_px, rtol=0, atol=tolerance)
        np.testing.assert_allclose(known(view.world_from_cam), truth.world_from_cam, rtol=0, atol=tolerance)


def test_a_room_comes_back(folder):
    scene = read(folder)
    assert [view.name for view in scene.views] == ["frame_00000", "frame_00001", "frame_00002"]
    assert scene.scale_type == "metric"
    same_cameras(scene)
    for view, truth in zip(scene.views, ROOM.views, strict=True):
        decoded = decode_view(view)
        np.testing.assert_array_equal(decoded.image, truth.image)
        np.testing.assert_allclose(known(decoded.depth_m), truth.depth_m, atol=5.1e-4)


def test_its_depth_agrees_as_well_as_the_room_s_own(folder):
    from dataclasses import replace

    scene = replace(read(folder), covisibility=ROOM.covisibility)
    own = scene_agreement(ROOM.encoded())
    assert own is not None
    assert own > 0.9
    assert scene_agreement(scene) == pytest.approx(own, abs=0.005)
    assert check_scene(NerfstudioSource(folder), ID) == []


def test_what_was_applied_to_the_world_is_undone(folder):
    frames = [write(folder, v, i, APPLIED, 0.125) | cameras(v) for i, v in enumerate(ROOM.views)]
    save(folder, {"applied_transform": APPLIED.tolist(), "applied_scale": 0.125, "frames": frames})
    same_cameras(read(folder))
    # The scale may also stand in the transform, and its last row may be written out.
    whole = [*(0.125 * APPLIED).tolist(), [0, 0, 0, 1]]
    save(folder, {"applied_transform": whole, "frames": frames})
    same_cameras(read(folder))


@pytest.mark.parametrize(
    "applied", [[[1, 2], [3]], np.ones((3, 4)).tolist(), "x", np.diag([1, 1, -1, 1]).tolist()]
)
def test_a_transform_that_cannot_be_undone(folder, applied):
    edit(folder, applied_transform=applied)
    with pytest.raises(SceneError, match="applied_transform cannot be undone"):
        read(folder)


def test_the_focal_length_as_an_angle_and_the_middle_by_default(folder):
    meta = load(folder)
    for frame in meta["frames"]:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del frame[key]
    save(folder, meta | {"camera_angle_x": 2 * math.atan(32 / 45)})
    expected = np.array([[45, 0, 31.5], [0, 45, 23.5], [0, 0, 1]])
    np.testing.assert_allclose(known(read(folder).views[0].K_px), expected, atol=1e-9)
    save(folder, meta)
    assert read(folder).views[0].K_px is None


def test_the_scene_speaks_where_the_frame_does_not(folder):
    meta = load(folder)
    del meta["frames"][1]["fl_x"]
    save(folder, meta | {"fl_x": 77.0, "cx": 5})
    scene = read(folder)
    assert known(scene.views[1].K_px)[0, 0] == 77.0
    np.testing.assert_array_equal(scene.views[0].K_px, ROOM.views[0].K_px)


@pytest.mark.parametrize("file", ["d.npy", "whole.npy", "d.exr", "scaled.exr", "scaled.npy", "column.npy"])
def test_other_depth_files(folder, file):
    depth_m = ROOM.views[0].depth_m
    frame = {"depth_file_path": file}
    if file == "d.exr":
        (folder / file).write_bytes(write_exr(depth_m, half=False))
    elif file == "scaled.exr":
        (folder / file).write_bytes(write_exr(depth_m * 4, half=False))
        frame["depth_unit_scale_factor"] = 0.25
    elif file == "scaled.npy":
        np.save(folder / file, (depth_m.astype(np.float64) * 8)[..., None])
        edit(folder, depth_unit_scale_factor=0.125)
    elif file == "whole.npy":
        np.save(folder / file, (depth_m * 1000).round().astype(np.int32))
    else:
        np.save(folder / file, np.asfortranarray(depth_m) if file == "column.npy" else depth_m)
    edit_frame(folder, **frame)
    view = read(folder).views[0]
    assert view.depth
    assert view.depth.suffix == "exr"
    tolerance = 5.1e-4 if file == "whole.npy" else 1e-6
    np.testing.assert_allclose(known(decode_view(view).depth_m), depth_m, atol=tolerance)


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


def test_depth_is_converted_when_it_is_asked_for(folder, monkeypatch):
    from strata.extract.scenes import depth_files

    calls = []
    monkeypatch.setitem(depth_files.READERS, ".png", lambda *_: calls.append(1))
    read(folder)
    assert calls == []


def test_masks_take_depth_away(folder):
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 10:] = 255
    Image.fromarray(mask).save(folder / "masks" / "m.png")
    edit_frame(folder, mask_path="masks/m.png")
    valid = known(decode_view(read(folder).views[0]).valid)
    assert not valid[:, :10].any()
    assert valid[:, 10:].all()


def test_images_are_enough(folder):
    save(folder, {"frames": [{"file_path": "images/frame_00001"}, {"file_path": "./images/frame_00000"}]})
    scene = read(folder)
    assert [view.name for view in scene.views] == ["frame_00001", "frame_00000"]
    assert scene.scale_type is None
    assert not scene.views[0].has_geometry


def test_frames_of_several_cameras_keep_their_folders(folder):
    for camera in ("left", "right"):
        (folder / camera).mkdir()
        Image.fromarray(ROOM.views[0].image).save(folder / camera / "1.png")
    save(folder, {"frames": [{"file_path": f"{camera}/1.png"} for camera in ("left", "right")]})
    assert [view.name for view in read(folder).views] == ["left_1", "right_1"]


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
    assert [fault.what.split(" ")[0] for fault in faults] == ["the", "2"]
    assert "images/gone.png" in faults[1].why
    assert "gone.png" in faults[1].why


def test_an_image_listed_twice(folder):
    edit_frame(folder, 1, file_path="images/frame_00000.png")
    with pytest.raises(SceneError, match="listed twice"):
        read(folder)


def test_folders_of_scenes_and_their_splits(folder):
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "transforms.json").write_text("{")
    edit(folder, train_filenames=["images/frame_00000.png"], test_filenames=["images/frame_00001.png"])
    for path in (folder.parent, folder.parent.parent):
        source = open_scenes(path)
        assert isinstance(source, NerfstudioSource)
        assert source.ids() == ["rooms/broken", ID]
        assert source.splits() == {"train/rooms": (ID,), "test/rooms": (ID,)}
    assert open_scenes(folder.parent, split="test").ids() == [ID]
    with pytest.raises(SceneError, match="no scene rooms/loung"):
        NerfstudioSource(folder).scene("rooms/loung")
    with pytest.raises(SceneError, match="there are no scenes"):
        open_scenes(folder / "images", source="nerfstudio").ids()
