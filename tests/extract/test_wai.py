"""WAI scenes: what is read, and how every fault of a scene on disk is reported."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.names import natural_key
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai

SYNTHETIC = SyntheticSource(1, views=4, width=24, height=18)
ID = "synthetic/room_0"


@pytest.fixture
def folder(tmp_path):
    """A sound scene to be damaged."""
    write_wai(SYNTHETIC.scene(ID), tmp_path / "synthetic" / "room_0")
    return tmp_path / "synthetic" / "room_0"


def read(folder):
    return WaiSource(folder).scene(f"{folder.parent.name}/{folder.name}")


def change(folder, edit):
    path = folder / "scene_meta.json"
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


def change_frame(folder, number=1, **values):
    change(folder, lambda meta: meta["frames"][number].update(values))


def refused(folder):
    with pytest.raises(SceneError) as caught:
        read(folder)
    error = caught.value
    assert error.where
    assert error.fix
    return error


def test_what_was_written_is_read_back(folder):
    scene, origin = read(folder), SYNTHETIC.scene(ID)
    assert (scene.id, scene.scale_type, scene.rules) == (ID, "metric", 1)
    np.testing.assert_array_equal(scene.covisibility, origin.covisibility)
    assert scene.digest == origin.digest
    for view, known in zip(scene.views, origin.views, strict=True):
        assert view.geometry_digest("metric", 1) == known.geometry_digest("metric", 1)
    truth = SYNTHETIC.analytic(ID).views[2]
    decoded = decode_view(scene.views[2])
    np.testing.assert_array_equal(decoded.image, truth.image)
    np.testing.assert_array_equal(decoded.depth_m, truth.depth_m)


def test_writing_again_keeps_the_scene_and_never_replaces_another(folder):
    before = (folder / "scene_meta.json").stat().st_mtime_ns
    write_wai(SYNTHETIC.scene(ID), folder)
    assert (folder / "scene_meta.json").stat().st_mtime_ns == before
    other = SyntheticSource(1, views=4, width=24, height=18, seed=1).scene(ID)
    with pytest.raises(SceneError, match="another scene is at"):
        write_wai(other, folder)
    assert read(folder).digest == SYNTHETIC.scene(ID).digest
    assert [path.name for path in folder.parent.iterdir()] == ["room_0"]


def test_golden_scenes(shared):
    source = WaiSource(shared / "golden" / "wai")
    assert source.ids() == ["blendedmvs/toy_c", "eth3d/toy_a", "eth3d/toy_b", "scannetppv2/toy_d"]
    assert source.splits() == {
        "test/eth3d": ("eth3d/toy_a", "eth3d/toy_b"),
        "val/blendedmvs": ("blendedmvs/toy_c",),
        "val/scannetppv2": ("scannetppv2/toy_d",),
    }
    masked, plain, _, rendered = list(source)
    assert list(masked.views[0].masks) == ["moge2"]
    assert plain.views[0].masks == {}
    assert rendered.views[0].depth.path.parent.name == "rendered_depth"
    np.testing.assert_array_equal(plain.views[0].K_px, [[140, 0, 79.5], [0, 140, 59.5], [0, 0, 1]])
    assert plain.covisibility.shape == (6, 6)
    assert np.allclose(np.diag(plain.covisibility), 1, atol=0.02)


def test_a_mask_takes_depth_away(shared):
    view = WaiSource(shared / "golden" / "wai").scene("blendedmvs/toy_c").views[0]
    decoded = decode_view(view)
    with_mask, without = decoded.valid.sum(), (decode_view(replace(view, masks={})).depth_m > 0).sum()
    assert 0 < with_mask < without


def test_masks_are_written_and_read_for_datasets_that_ask_for_them(shared, tmp_path):
    origin = WaiSource(shared / "golden" / "wai").scene("blendedmvs/toy_c")
    write_wai(origin, tmp_path / "blendedmvs" / "toy_c")
    copy = WaiSource(tmp_path / "blendedmvs").scene("blendedmvs/toy_c")
    assert copy.views[0].masks["moge2"].sha256 == origin.views[0].masks["moge2"].sha256
    shutil.move(tmp_path / "blendedmvs", tmp_path / "eth3d")
    assert WaiSource(tmp_path / "eth3d").scene("eth3d/toy_c").views[0].masks == {}


def test_the_frame_says_more_than_the_scene(folder):
    def edit(meta):
        meta.update(fl_x=50.0, fl_y=60.0, cx=11.0, cy=9.0)
        del meta["frames"][0]["fl_x"], meta["frames"][0]["cy"]

    change(folder, edit)
    K = read(folder).views[0].K_px
    truth = SYNTHETIC.analytic(ID).views[0].K_px
    assert (K[0, 0], K[1, 1], K[0, 2], K[1, 2]) == (50, truth[1, 1], truth[0, 2], 9)


def test_only_images_are_needed(folder):
    def edit(meta):
        for frame in meta["frames"]:
            for key in ("depth", "transform_matrix", "fl_x", "fl_y", "cx", "cy"):
                del frame[key]
        del meta["frame_modalities"], meta["scene_modalities"]

    change(folder, edit)
    shutil.rmtree(folder / "covisibility")
    scene = read(folder)
    assert scene.covisibility is None
    assert not any(view.depth or view.has_geometry for view in scene.views)


def test_all_missing_files_are_named_at_once(folder):
    shutil.rmtree(folder / "depth")
    for number in (1, 3):
        (folder / "images" / f"000{number}.png").unlink()
    error = refused(folder)
    assert error.what == f"{ID} lacks 6 files."
    assert error.where == str(folder)
    assert "images/0001.png" in error.why
    assert error.why.endswith("and 1 more")


def test_linked_images_are_followed(folder, tmp_path):
    image = folder / "images" / "0000.png"
    target = tmp_path / "raw.png"
    image.rename(target)
    image.symlink_to(target)
    assert decode_view(read(folder).views[0]).image.shape == (18, 24, 3)


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


def test_zero_distortion_is_a_pinhole(folder):
    change_frame(folder, k1=0.0, p2=0)
    assert read(folder).views[1].K_px is not None
    change_frame(folder, camera_model="OPENCV")
    assert read(folder).views[1].K_px is not None


def test_distortion_of_the_scene_holds_for_every_frame_that_says_nothing_else(folder):
    change(folder, lambda meta: meta.update(k1=0.1))
    for number in range(4):
        change_frame(folder, number, k1=0.0)
    assert read(folder).views[0].has_geometry
    change_frame(folder, 2, k1=None)
    error = refused(folder)
    assert "non-zero k1" in error.why
    assert "frame 0002" in error.where


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


def test_names_with_dots_are_welcome(tmp_path):
    folder = tmp_path / "my.data" / "room.v1.2"
    write_wai(SYNTHETIC.scene(ID), folder)
    change_frame(folder, 0, frame_name="0000.left.crop")
    change(folder, lambda meta: meta.update(scene_name="room.v1.2"))
    scene = WaiSource(tmp_path).scene("my.data/room.v1.2")
    assert scene.views[0].name == "0000.left.crop"


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


def test_ids_come_in_natural_order(folder):
    for name in ("room_10", "room_9", "Room"):
        shutil.copytree(folder, folder.with_name(name))
    ids = WaiSource(folder.parent).ids()
    assert ids == [f"synthetic/{name}" for name in ("Room", "room_0", "room_9", "room_10")]
    assert sorted(["a10b2", "a9", "10", "9"], key=natural_key) == ["9", "10", "a9", "a10b2"]


@pytest.fixture
def list_file(folder):
    lists = folder.parents[1] / "metadata" / "test"
    lists.mkdir(parents=True)
    return lists / "synthetic_scene_list_test.npy"


def splits(list_file):
    return WaiSource(list_file.parents[2]).splits()


@pytest.mark.parametrize("names", [[], ["room_0"], ["room_0", "room.1", "room_0"]])
def test_lists_of_strings_are_read_from_npy(list_file, names):
    expected = {"test/synthetic": tuple(f"synthetic/{name}" for name in names)}
    np.save(list_file, np.array(names, dtype=object), allow_pickle=True)
    assert splits(list_file) == expected
    np.save(list_file, np.array(names, dtype=str))
    assert splits(list_file) == expected


class Hostile:
    """Does something when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def hostile_npy(payload: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(list_file, tmp_path, protocol):
    victim = tmp_path / "victim"
    for call, *arguments in (
        (exec, f"open({str(victim)!r}, 'w')"),
        (getattr, "", "join"),
        (np.fromfile, "/dev/null"),
    ):
        array = np.empty(1, object)
        array[0] = Hostile(call, *arguments)
        list_file.write_bytes(hostile_npy(pickle.dumps(array, protocol)))
        with pytest.raises(SceneError, match="list of scenes cannot be read") as caught:
            splits(list_file)
        assert "wants to load" in caught.value.why
        assert caught.value.where == str(list_file)
        assert ".txt" in caught.value.fix
    assert not victim.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x04.",
        b"\x80\x04K\x01.",
        b"\x80\x04]N.",
        pickle.dumps(np.array([1, "a"], dtype=object)),
        pickle.dumps(np.array([["a"], "b"], dtype=object)),
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
        b"N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b".",
    ],
)
def test_pickles_of_something_else_are_refused(list_file, payload):
    list_file.write_bytes(hostile_npy(payload))
    with pytest.raises(SceneError, match="list of scenes cannot be read"):
        splits(list_file)


def test_other_list_files(list_file):
    list_file.with_suffix(".json").write_text('{"format": "strata-split", "scenes": ["room_0"]}')
    assert splits(list_file) == {"test/synthetic": (ID,)}
    list_file.with_suffix(".json").write_text('["../../x"]')
    with pytest.raises(SceneError, match="is not a scene id"):
        splits(list_file)
    list_file.with_suffix(".json").write_text('{"scenes": "room_0"}')
    with pytest.raises(SceneError, match="list of scenes cannot be read"):
        splits(list_file)
