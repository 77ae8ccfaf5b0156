"""`strata scenes convert`: what was written reads back as the same scene, and running again resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from strata.configs.schema import ConvertConfig
from strata.errors import DiskFullError, SceneError
from strata.extract.scenes import wai_write
from strata.extract.scenes.convert import convert
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai_write import write_wai

ROOM = SyntheticSource(1, views=3, width=32, height=24).analytic("synthetic/room_0")
OPENGL = np.diag([1.0, -1, -1, 1])


def write_nerfstudio(folder, **extra):
    folder.mkdir(parents=True)
    frames = []
    for view in ROOM.views:
        Image.fromarray(view.image).save(folder / f"{view.name}.png")
        np.save(folder / f"{view.name}.npy", view.depth_m)
        K = view.K_px
        frames.append(
            {
                "file_path": f"{view.name}.png",
                "depth_file_path": f"{view.name}.npy",
                "transform_matrix": (view.world_from_cam @ OPENGL).tolist(),
                "fl_x": K[0, 0],
                "fl_y": K[1, 1],
                "cx": K[0, 2] + 0.5,
                "cy": K[1, 2] + 0.5,
                **extra,
            }
        )
    (folder / "transforms.json").write_text(json.dumps({"frames": frames, "test_filenames": ["0000.png"]}))


@pytest.fixture
def rooms(tmp_path):
    for name in ("a", "b"):
        write_nerfstudio(tmp_path / "in" / "rooms" / name)
    return tmp_path / "in"


def run(rooms, console, **words):
    out = rooms.parent / "out"
    code = convert(ConvertConfig(scenes=str(rooms), out=str(out), **words), console)
    return code, out, console.file.getvalue()


def same(scene, other):
    assert (scene.id, scene.scale_type, len(scene)) == (other.id, other.scale_type, len(other))
    assert scene.digest == other.digest
    for view, twin in zip(scene.views, other.views, strict=True):
        np.testing.assert_array_equal(view.K_px, twin.K_px)
        np.testing.assert_array_equal(view.world_from_cam, twin.world_from_cam)
        decoded, again = decode_view(view), decode_view(twin)
        np.testing.assert_array_equal(decoded.image, again.image)
        np.testing.assert_array_equal(decoded.depth_m, again.depth_m)


def test_converted_scenes_read_back_the_same(rooms, console):
    code, out, said = run(rooms, console)
    assert code == 0
    assert "2 scenes written" in said
    assert "convert: 2 scenes in" in said
    written = open_scenes(out, source="wai")
    source = open_scenes(rooms)
    assert written.ids() == source.ids() == ["rooms/a", "rooms/b"]
    assert written.splits() == source.splits() == {"test/rooms": ("rooms/a", "rooms/b")}
    for scene_id in source.ids():
        same(source.scene(scene_id), written.scene(scene_id))


def test_running_again_keeps_what_is_there(rooms, console, tree):
    _, out, _ = run(rooms, console, split="test")
    (out / "rooms" / "b" / "scene_meta.json").unlink()
    for file in sorted((out / "rooms" / "b").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (out / "rooms" / "b").rmdir()
    before = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file()}
    code, out, said = run(rooms, console)
    assert code == 0
    assert "1 scene written" in said
    assert "1 were there" in said
    kept = [path for path in before if "rooms/a/" in str(path)]
    assert kept
    assert all(path.stat().st_ino == before[path] for path in kept)


def test_broken_scenes_are_named_and_the_others_written(rooms, console):
    (rooms / "rooms" / "a" / "0001.png").unlink()
    (rooms / "rooms" / "a" / "0002.npy").unlink()
    write_nerfstudio(rooms / "rooms" / "c", k1=0.5)
    code, out, said = run(rooms, console)
    assert code == 1
    assert "- rooms/a: rooms/a lacks 2 files." in said
    assert said.count("- rooms/c: only undistorted pinhole cameras are read.") == 3
    assert "1 scene written" in said
    assert "2 left out" in said
    assert open_scenes(out).ids() == ["rooms/b"]


def test_another_scene_in_its_place_is_never_replaced(rooms, console):
    other = rooms.parent / "out" / "rooms" / "a"
    write_wai(replace(ROOM.encoded(), id="rooms/a"), other)
    before = (other / "scene_meta.json").read_bytes()
    code, _, said = run(rooms, console)
    assert code == 1
    assert "- rooms/a: another scene is at" in said
    assert "1 scene written" in said
    assert (other / "scene_meta.json").read_bytes() == before


def test_masks_that_wai_would_not_read_are_written_into_the_depth(rooms, console):
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 9:] = 255
    Image.fromarray(mask).save(rooms / "rooms" / "a" / "mask.png")
    path = rooms / "rooms" / "a" / "transforms.json"
    meta = json.loads(path.read_text())
    meta["frames"][1]["mask_path"] = "mask.png"
    path.write_text(json.dumps(meta))
    _, out, _ = run(rooms, console)
    same(open_scenes(rooms).scene("rooms/a"), open_scenes(out).scene("rooms/a"))
    valid = decode_view(open_scenes(out).scene("rooms/a").views[1]).valid
    assert valid is not None
    assert not valid[:, :9].any()


def test_turned_images_are_written_upright(tmp_path, console):
    (tmp_path / "in" / "photos").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ROOM.views[0].image).save(tmp_path / "in" / "photos" / "a.jpg", exif=exif)
    code, out, _ = run(tmp_path / "in", console)
    assert code == 0
    (turned,), (upright,) = (open_scenes(p).scene("in/photos").views for p in (tmp_path / "in", out))
    assert upright.orientation == 1
    np.testing.assert_array_equal(decode_view(upright).image, decode_view(turned).image)
    assert decode_view(upright).image.shape == (32, 24, 3)


def test_a_full_disk_leaves_the_scenes_before_it_whole(rooms, console, monkeypatch):
    write_blob = wai_write._write_blob

    def full(blob, folder, part, name):
        if "b" in folder.name.split("."):
            raise OSError(28, "No space left on device")
        return write_blob(blob, folder, part, name)

    monkeypatch.setattr(wai_write, "_write_blob", full)
    with pytest.raises(DiskFullError, match="disk is full") as caught:
        run(rooms, console)
    assert "same command again" in caught.value.fix
    out = rooms.parent / "out"
    assert open_scenes(out).ids() == ["rooms/a"]
    assert sorted(path.name for path in (out / "rooms").iterdir()) == ["a"]
    monkeypatch.undo()
    assert run(rooms, console)[0] == 0


def test_a_folder_that_cannot_be_written(rooms, console):
    (rooms.parent / "out").write_text("a file")
    with pytest.raises(SceneError, match="cannot be written"):
        run(rooms, console)


def test_a_broken_list_is_named_and_the_scenes_are_written(tmp_path, console):
    write_wai(ROOM.encoded(), tmp_path / "in" / "synthetic" / "room_0")
    lists = tmp_path / "in" / "metadata" / "test"
    lists.mkdir(parents=True)
    (lists / "synthetic_scene_list_test.json").write_text("{")
    code, out, said = run(tmp_path / "in", console)
    assert code == 1
    assert "the list of scenes cannot be read" in said
    same(open_scenes(out).scene("synthetic/room_0"), ROOM.encoded())
