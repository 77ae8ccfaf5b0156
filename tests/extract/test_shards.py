"""Reading shards: scenes come back as they were, and what is damaged is found and named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError, ShardError
from strata.extract.pack import pack_scenes
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.shards import ShardIndex

SHARD_BYTES = 12_000


class Decorated(SceneSource):
    """Synthetic rooms; the first view has masks, the last no camera and a turned image."""

    def __init__(self) -> None:
        self.rooms = SyntheticSource(scenes=2, views=4, width=24, height=16)

    def ids(self) -> list[str]:
        return self.rooms.ids()

    def scene(self, scene_id: str) -> Scene:
        scene = self.rooms.scene(scene_id)
        first, *middle, last = scene.views
        mask = Blob(suffix="png", data=_grey(first))
        first = replace(first, masks={"sky": mask, "moge2/mask": mask})
        last = View(name=last.name, image=last.image, orientation=6)
        return replace(scene, views=(first, *middle, last))

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self.rooms.splits()


def _grey(view: View) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(view.image.read())).convert("L").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def source() -> Decorated:
    return Decorated()


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert pack_scenes(source, folder, shard_bytes=SHARD_BYTES).shards >= 3
    return folder


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    """A pack that a test may damage."""
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(folder: Path, change) -> None:
    """Apply `change` to the index."""
    index = json.loads((folder / "index.json").read_bytes())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def assert_same_scene(read: Scene, original: Scene) -> None:
    assert (read.id, read.scale_type, read.rules) == (original.id, original.scale_type, original.rules)
    assert read.digest == original.digest
    np.testing.assert_array_equal(read.covisibility, original.covisibility)
    for got, want in zip(read.views, original.views, strict=True):
        assert (got.name, got.orientation, got.image.suffix) == (
            want.name,
            want.orientation,
            want.image.suffix,
        )
        assert got.geometry_digest("metric", 1) == want.geometry_digest("metric", 1)
        for name in ("K_px", "world_from_cam"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert got.image.read() == want.image.read()
        assert {name: blob.read() for name, blob in got.masks.items()} == {
            name: blob.read() for name, blob in want.masks.items()
        }
        assert (got.depth is None) == (want.depth is None)
        if want.depth is not None:
            np.testing.assert_array_equal(decode_view(got).depth_m, decode_view(want).depth_m)


def test_scenes_come_back_as_they_were(source, packed):
    index = ShardIndex.open(packed)
    assert [scene.id for scene in index.scenes] == source.ids()
    assert index.splits == source.splits()
    for scene_id in source.ids():
        assert_same_scene(index.scene(scene_id).to_scene(), source.scene(scene_id))
        assert index.scene(scene_id).digest == source.scene(scene_id).digest


def test_the_index_knows_every_view_without_reading_a_shard(source, packed, monkeypatch):
    monkeypatch.setattr(Blob, "read", lambda blob: pytest.fail(f"{blob.where} was read"))
    index = ShardIndex.open(packed)
    scene = index.scene("synthetic/room_1")
    monkeypatch.undo()
    original = source.scene("synthetic/room_1")
    assert len(scene) == len(scene.views) == 4
    for position, (view, want) in enumerate(zip(scene.views, original.views, strict=True)):
        assert (view.name, view.position) == (want.name, position)
        assert (view.image_digest, view.geometry_digest) == (
            want.image_digest,
            want.geometry_digest("metric", 1),
        )
        decoded = decode_view(want)
        assert (view.width, view.height) == (decoded.width, decoded.height)
        assert (view.has_depth, view.has_camera) == (want.depth is not None, want.K_px is not None)
    assert not scene.views[-1].has_depth
    assert not scene.views[-1].has_camera
    depth_maps = [
        depth_m for depth_m in (decode_view(v).depth_m for v in original.views) if depth_m is not None
    ]
    depths = np.concatenate([depth_m[depth_m > 0] for depth_m in depth_maps])
    assert scene.scene_scale_m == np.median(depths.astype(np.float64))


def test_real_scenes_come_back_as_they_were(real_scenes, tmp_path):
    original = open_scenes(real_scenes / "icl_nuim")
    pack_scenes(original, tmp_path, shard_bytes=600_000)
    index = ShardIndex.open(tmp_path)
    index.verify()
    assert len(index.shards) > 1
    (scene_id,) = original.ids()
    scene = index.scene(scene_id)
    assert_same_scene(scene.to_scene(), original.scene(scene_id))
    assert scene.scene_scale_m == pytest.approx(2, abs=1.5)  # metres in a living room


def test_the_digest_is_of_the_scenes_not_of_the_shards(source, packed, tmp_path):
    pack_scenes(source, tmp_path, shard_bytes=10 * SHARD_BYTES)
    other = ShardIndex.open(tmp_path)
    assert len(other.shards) < len(ShardIndex.open(packed).shards)
    assert other.digest == ShardIndex.open(packed).digest
    edit(tmp_path, lambda index: index["scenes"][0]["views"][2].update(geometry_digest="0" * 64))
    assert ShardIndex.open(tmp_path).digest != other.digest


def test_a_scene_that_is_not_there_is_answered_with_the_nearest(packed):
    with pytest.raises(SceneError, match="synthetic/room_1"):
        ShardIndex.open(packed).scene("synthetic/rom_1")


def test_without_an_index_packing_was_not_finished(copied):
    (copied / "index.json").unlink()
    with pytest.raises(ShardError, match="packing was not finished") as caught:
        ShardIndex.open(copied)
    assert "strata pack" in caught.value.fix


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": "1"}, {"format": "strata-split"}], ids=["newer", "text", "format"]
)
def test_an_index_of_another_version_is_refused(copied, change):
    edit(copied, lambda index: index.update(change))
    with pytest.raises(ShardError, match="not an index of this version"):
        ShardIndex.open(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"strata-shards"', "\xff"])
def test_what_is_no_index_is_refused(copied, text):
    (copied / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError):
        ShardIndex.open(copied)


def _first(index: dict) -> dict:
    return index["scenes"][0]


MALFORMED_AT_OPEN = {
    "no scenes": lambda index: index.pop("scenes"),
    "scenes are numbers": lambda index: index.update(scenes=[1, 2]),
    "splits are a list": lambda index: index.update(splits=[]),
    "a scene without views": lambda index: _first(index).update(views=[]),
    "a scene without id": lambda index: _first(index).pop("id"),
    "an id that leaves the folder": lambda index: _first(index).update(id="../x"),
    "a shard elsewhere": lambda index: index["shards"][0].update(name="../shard-000000.tar"),
    "a scale of text": lambda index: _first(index).update(scene_scale_m="far"),
    "two scenes of one id": lambda index: index["scenes"].append(_first(index)),
}


@pytest.mark.parametrize("kind", MALFORMED_AT_OPEN)
def test_a_malformed_index_is_refused(copied, kind):
    edit(copied, MALFORMED_AT_OPEN[kind])
    with pytest.raises(ShardError, match="index of the shards is damaged") as caught:
        ShardIndex.open(copied)
    assert "index.json" in caught.value.where


MALFORMED_VIEWS = {
    "no image": lambda view: view.pop("image"),
    "an image of two numbers": lambda view: view.update(image=[1, 2]),
    "beyond the shard": lambda view: view.update(depth=[0, 10**9]),
    "before the shard": lambda view: view.update(camera=[-512, 10]),
    "a shard that is not there": lambda view: view.update(shard=99),
    "masks of text": lambda view: view.update(masks="sky"),
}


@pytest.mark.parametrize("kind", MALFORMED_VIEWS)
def test_a_malformed_view_is_refused_when_its_scene_is_read(copied, kind):
    edit(copied, lambda index: MALFORMED_VIEWS[kind](_first(index)["views"][1]))
    index = ShardIndex.open(copied)
    assert len(index.scenes[1].views) == 4
    with pytest.raises(ShardError, match="index of the shards is damaged"):
        _ = index.scenes[0].views


def test_a_tar_cut_in_the_middle_is_found_when_opening(copied):
    tar = copied / "shard-000001.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match=r"1 of \d shards are not as they were packed") as caught:
        ShardIndex.open(copied)
    assert f"shard-000001.tar has {len(data) // 2:,} bytes" in caught.value.why


def test_a_missing_tar_is_found_when_opening(copied):
    (copied / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match="not as they were packed") as caught:
        ShardIndex.open(copied)
    assert "shard-000000.tar is missing" in caught.value.why


def test_a_tar_cut_after_opening_is_named(copied):
    view = ShardIndex.open(copied).scenes[0].views[0]
    (copied / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(SceneError, match="ends too early"):
        view.view()


def test_verify_finds_one_turned_bit(copied):
    index = ShardIndex.open(copied)
    index.verify()
    tar = index.shards[2].path
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardError, match=r"shard-000002\.tar") as caught:
        ShardIndex.open(copied).verify()
    assert "remove" in caught.value.fix


def overwrite(blob: Blob, data: bytes) -> None:
    assert blob.path is not None
    content = bytearray(blob.path.read_bytes())
    content[blob.offset : blob.offset + len(data)] = data
    blob.path.write_bytes(content)


def test_a_damaged_camera_is_named(copied):
    view = ShardIndex.open(copied).scenes[0].views[0]
    overwrite(view.camera, b"???")
    with pytest.raises(ShardError, match="camera of a view is damaged") as caught:
        view.view()
    assert "shard-000000.tar at byte" in caught.value.where


@pytest.mark.parametrize("part", ["image", "depth", "camera", "mask"])
def test_a_view_whose_bytes_are_others_is_not_taken_for_the_packed_one(copied, part):
    scene = ShardIndex.open(copied).scenes[0]
    view = scene.views[0]
    assert view.verified(scene).image.data == view.image.read()
    blob = view.masks["sky"] if part == "mask" else getattr(view, part)
    overwrite(blob, changed(blob.read(), part))
    with pytest.raises(ShardError, match="bytes of view 0000 are damaged"):
        view.verified(scene)


def changed(data: bytes, part: str) -> bytes:
    if part == "camera":
        at = data.index(b".") + 1
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return data[:-1] + bytes([data[-1] ^ 1])


def test_covisibility_of_another_value_is_refused(copied):
    scene = ShardIndex.open(copied).scenes[0]
    original = scene.covisibility()
    assert original is not None
    tar = copied / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(original.tobytes(), (original / 2).tobytes()))
    with pytest.raises(ShardError, match="covisibility of a scene is damaged"):
        scene.covisibility()


def test_an_entry_that_was_changed_is_refused_when_its_scene_is_read(copied):
    edit(copied, lambda index: _first(index).update(scene_scale_m=2.0))
    with pytest.raises(ShardError, match="index of the shards is damaged") as caught:
        _ = ShardIndex.open(copied).scenes[0].views
    assert "not as it was written" in caught.value.why


def test_an_index_without_shards_is_refused(copied):
    edit(copied, lambda index: index.update(shards=[]))
    with pytest.raises(ShardError, match="index of the shards is damaged"):
        ShardIndex.open(copied)


def test_a_damaged_covisibility_is_named_and_no_pickle_is_read(copied):
    scene = ShardIndex.open(copied).scenes[0]
    tar = copied / "shard-000000.tar"
    data = tar.read_bytes()
    # 'O' is the type of pickled objects; the header keeps its length.
    tar.write_bytes(data.replace(b"{'descr': '<f4'", b"{'descr': '|O' "))
    with pytest.raises(ShardError, match="covisibility of a scene is damaged"):
        scene.covisibility()


def test_covisibility_of_another_number_of_views_is_refused(copied):
    edit(copied, lambda index: _first(index)["views"].pop())
    with pytest.raises(ShardError, match="covisibility"):
        ShardIndex.open(copied).scenes[0].covisibility()
