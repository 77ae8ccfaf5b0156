"""Reading shards: scenes and views come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.pack import pack_scenes
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.scene import Blob, Scene
from strata.extract.shards import ShardIndex

from .decorated_rooms import SHARD_BYTES, edit


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
        assert (view.depth is None, view.has_camera) == (want.depth is None, want.K_px is not None)
    assert scene.views[-1].depth is None
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
