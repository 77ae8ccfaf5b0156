"""Folders of images as scenes, and what `open_scenes` makes of a path."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from strata.errors import ConfigError, SceneError, SelectionError
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.folder import FolderSource
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_write import write_wai


def save(path: Path, width=6, height=4, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, exif=exif)


def test_a_folder_of_images_is_one_scene_in_natural_order(tmp_path):
    for name in ("v10.png", "v2.JPG", "v1.webp", "notes.txt", ".v3.png"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("")
        else:
            save(tmp_path / "pictures" / "my.scene" / name)
    source = FolderSource(tmp_path / "pictures" / "my.scene")
    assert source.ids() == ["pictures/my.scene"]
    scene = source.scene("pictures/my.scene")
    assert [view.name for view in scene.views] == ["v1", "v2", "v10"]
    assert [view.image.suffix for view in scene.views] == ["webp", "jpg", "png"]
    assert scene.covisibility is None
    assert not scene.views[0].has_geometry


def test_a_folder_of_folders_is_a_dataset(tmp_path):
    for scene in ("room10", "room2"):
        save(tmp_path / "data" / scene / "a.png")
    (tmp_path / "data" / "empty").mkdir()
    source = open_scenes(tmp_path / "data")
    assert source.ids() == ["data/room2", "data/room10"]
    with pytest.raises(SceneError, match="no scene data/room3") as caught:
        source.scene("data/room3")
    assert "did you mean data/room2" in caught.value.fix


def test_two_files_of_one_stem_keep_their_suffix(tmp_path):
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        save(tmp_path / "d" / "s" / name)
    names = [view.name for view in FolderSource(tmp_path / "d" / "s").scene("d/s").views]
    assert sorted(names) == ["a.jpg", "a.jpg.png", "a.png"]


def test_the_exif_orientation_is_recorded_and_applied(tmp_path):
    save(tmp_path / "d" / "s" / "a.jpg", width=6, height=4, orientation=6)
    save(tmp_path / "d" / "s" / "b.jpg", width=6, height=4)
    turned, plain = FolderSource(tmp_path / "d" / "s").scene("d/s").views
    assert (turned.orientation, plain.orientation) == (6, 1)
    assert decode_view(turned).image.shape == (6, 4, 3)
    assert turned.image_digest != turned.image.sha256


def test_a_png_is_decoded_for_its_orientation_only_where_it_has_one(tmp_path, monkeypatch):
    save(tmp_path / "d" / "s" / "plain.png")
    save(tmp_path / "d" / "s" / "turned.png", orientation=6)
    decoded = []
    load = PngImageFile.load
    monkeypatch.setattr(
        PngImageFile, "load", lambda picture: decoded.append(picture.filename) or load(picture)
    )
    plain, turned = FolderSource(tmp_path / "d" / "s").scene("d/s").views
    assert (plain.orientation, turned.orientation) == (1, 6)
    assert not any("plain" in str(name) for name in decoded)


def test_every_unreadable_image_is_named(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / "d" / "s").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / "s" / name).write_bytes(b"no picture")
    save(tmp_path / "d" / "s" / "c.png")
    inspection = FolderSource(tmp_path / "d" / "s").inspect("d/s")
    assert [Path(fault.where).name for fault in inspection.faults] == ["a.png", "b.jpg"]
    assert inspection.scene
    assert [view.name for view in inspection.scene.views] == ["c"]


def test_a_path_without_scenes_says_what_was_looked_for(tmp_path):
    with pytest.raises(SceneError) as caught:
        open_scenes(tmp_path)
    assert str(tmp_path) in caught.value.what
    for looked_for in ("scene_meta.json", "transforms.json", "sparse/0", ".jpg"):
        assert looked_for in caught.value.why
    with pytest.raises(SceneError) as caught:
        open_scenes(tmp_path / "nowhere")
    assert caught.value.why == "there is no such folder"
    with pytest.raises(ConfigError, match="source=wia") as caught:
        open_scenes(tmp_path, source="wia")
    assert "did you mean wai" in caught.value.fix


def test_an_unreadable_image_is_a_scene_error(tmp_path):
    (tmp_path / "d" / "s").mkdir(parents=True)
    (tmp_path / "d" / "s" / "a.png").write_bytes(b"not a png")
    with pytest.raises(SceneError, match="cannot be decoded") as caught:
        open_scenes(tmp_path / "d" / "s").scene("d/s")
    assert caught.value.where.endswith("a.png")


@pytest.fixture
def rooms(tmp_path):
    for scene in SyntheticSource(3, views=2, width=24, height=18):
        write_wai(scene, tmp_path / "synthetic" / scene.name)
    lists = tmp_path / "metadata" / "test"
    lists.mkdir(parents=True)
    (lists / "synthetic_scene_list_test.txt").write_text("room_2  # the last\nroom_0\nroom_9\n")
    return tmp_path


def test_roots_datasets_and_scenes_open_as_wai(rooms):
    everything = [f"synthetic/room_{i}" for i in range(3)]
    assert open_scenes(rooms).ids() == everything
    assert open_scenes(rooms / "synthetic").ids() == everything
    assert open_scenes(rooms / "synthetic" / "room_1").ids() == everything[1:2]
    assert isinstance(open_scenes(rooms), WaiSource)
    assert open_scenes(rooms / "synthetic" / "room_1" / "images").ids() == ["room_1/images"]
    for path in (rooms, rooms / "synthetic", rooms / "synthetic" / "room_1"):
        listed = open_scenes(path).splits()
        assert listed == {"test/synthetic": ("synthetic/room_2", "synthetic/room_0", "synthetic/room_9")}


def test_a_split_keeps_its_scenes(rooms):
    kept = ["synthetic/room_0", "synthetic/room_2"]
    assert open_scenes(rooms, split="test").ids() == kept
    assert open_scenes(rooms, split="test/synthetic").ids() == kept
    (rooms / "mine.json").write_text('["synthetic/room_1"]')
    assert open_scenes(rooms, split=str(rooms / "mine.json")).ids() == ["synthetic/room_1"]
    (rooms / "mine.txt").write_text("synthetic/room_1\n")
    subset = open_scenes(rooms, split=str(rooms / "mine.txt"))
    assert [scene.id for scene in subset] == ["synthetic/room_1"]


def test_an_unknown_split_suggests_a_known_one(rooms):
    with pytest.raises(SelectionError, match="no split 'tset'") as caught:
        open_scenes(rooms, split="tset")
    assert "did you mean test" in caught.value.fix
    (rooms / "mine.txt").write_text("synthetic/room_7\n")
    with pytest.raises(SceneError, match="1 scene not there: synthetic/room_7") as caught:
        open_scenes(rooms, split=str(rooms / "mine.txt"))
    assert "did you mean synthetic/room_" in caught.value.fix
