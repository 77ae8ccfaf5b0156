"""Nerfstudio folders are read back as the room that they are of."""

from __future__ import annotations

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

from ..compared import known
from .room_folder import APPLIED, ID, ROOM, cameras, edit, edit_frame, load, read, same_cameras, save, write


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
