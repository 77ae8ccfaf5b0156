"""Tars that are missing, cut or changed."""

from __future__ import annotations

import pytest
from strata.errors import SceneError, ShardError
from strata.extract.scenes.scene import Blob
from strata.extract.shards import ShardIndex


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


def test_a_damaged_covisibility_is_named_and_no_pickle_is_read(copied):
    scene = ShardIndex.open(copied).scenes[0]
    tar = copied / "shard-000000.tar"
    data = tar.read_bytes()
    # 'O' is the type of pickled objects; the header keeps its length.
    tar.write_bytes(data.replace(b"{'descr': '<f4'", b"{'descr': '|O' "))
    with pytest.raises(ShardError, match="covisibility of a scene is damaged"):
        scene.covisibility()
