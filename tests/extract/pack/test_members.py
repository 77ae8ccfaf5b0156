"""What is in the shards: bytes untouched, every name, and tars that are the same for good."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import numpy as np
from strata.extract.pack import pack_scenes
from strata.extract.pack_members import escaped
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.scene import Scene, View
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.shards import ShardIndex
from strata.extract.tar_write import tar_chunks, tar_layout

from .memory_source import SMALL, png, samples, scene, source, view


def test_plain_webdataset_finds_every_view_with_its_bytes_untouched(tmp_path):
    room = SyntheticSource(scenes=2, views=3, width=32, height=24)
    pack_scenes(room, tmp_path, shard_bytes=10 * SMALL)
    found = samples(tmp_path)
    for scene_id in room.ids():
        original = room.scene(scene_id)
        for position, want in enumerate(original.views):
            sample = found.pop(f"{scene_id}/{position:06d}-{want.name}")
            assert sample["image.png"] == want.image.read()
            assert want.depth is not None
            assert sample["depth.exr"] == want.depth.read()
            camera = json.loads(sample["camera.json"])
            np.testing.assert_array_equal(camera["K_px"], want.K_px)
            np.testing.assert_array_equal(camera["world_from_cam"], want.world_from_cam)
            assert camera["image_digest"] == want.image_digest
            assert camera["geometry_digest"] == want.geometry_digest("metric", 1)
            decoded = decode_view(want)
            assert (camera["width"], camera["height"]) == (decoded.width, decoded.height)
    assert set(found) == {f"{scene_id}/scene-0000" for scene_id in room.ids()}
    header = found["synthetic/room_0/scene-0000"]
    about = json.loads(header["scene.json"])
    assert about["frames"] == ["0000", "0001", "0002"]
    assert (about["part"], about["parts"], about["scale_type"]) == (0, 1, "metric")
    stored = np.load(io.BytesIO(header["covisibility.npy"]))
    np.testing.assert_array_equal(stored, room.scene("synthetic/room_0").covisibility)


NAMES = ["a.b.c", "x/y", "größe 1", "視点", "__meta__", "100%", "-", "_", ".hidden", "n" * 150]


def test_any_name_becomes_one_sample_and_comes_back(tmp_path):
    hard = Scene(id="__da.ta__/sc.ene ü", views=tuple(view(i, name) for i, name in enumerate(NAMES)))
    pack_scenes(source(hard), tmp_path, shard_bytes=10 * SMALL)
    found = samples(tmp_path)
    assert len(found) == len(NAMES) + 1
    assert {json.loads(s["camera.json"])["name"] for s in found.values() if "camera.json" in s} == set(NAMES)
    assert all(s["image.png"] for s in found.values() if "camera.json" in s)
    assert [v.name for v in ShardIndex.open(tmp_path).scenes[0].views] == NAMES
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert all(name.isascii() for name in tar.getnames())


def test_escaped_names_are_distinct_and_plain():
    names = [*NAMES, "a%2Eb", "a.b", "%5F_meta__", "A", "a"]
    assert len({escaped(name) for name in names}) == len(names)
    assert escaped("DSC_0286") == "DSC_0286"
    assert escaped("a.b/ü") == "a%2Eb%2F%C3%BC"


def test_masks_orientation_and_missing_parts_are_kept(tmp_path):
    mask = replace(png(3, mode="L"), suffix="png")
    turned = View(name="turned", image=png(1), orientation=6)
    masked = replace(view(2), masks={"moge2.mask": mask, "sky": png(4, mode="L")})
    pack_scenes(source(Scene(id="made/mixed", views=(turned, masked))), tmp_path, shard_bytes=SMALL)
    found = samples(tmp_path)
    first, second = found["made/mixed/000000-turned"], found["made/mixed/000001-frame%2E002"]
    camera = json.loads(first["camera.json"])
    assert (camera["width"], camera["height"], camera["orientation"]) == (12, 16, 6)
    assert camera["K_px"] is None
    assert "depth.exr" not in first
    assert second["mask_moge2%2emask.png"] == mask.read()  # webdataset writes suffixes small
    assert "covisibility.npy" not in found["made/mixed/scene-0000"]
    other_order = replace(masked, masks=dict(reversed(masked.masks.items())))
    again = source(Scene(id="made/mixed", views=(turned, other_order)))
    assert not pack_scenes(again, tmp_path, shard_bytes=SMALL).written


def test_tar_bytes_are_pinned():
    # Fixed for good: other bytes here would make every pack look changed.
    members = [("a/b.c", b"hello"), ("n" * 120 + ".json", b"{}")]
    data = b"".join(tar_chunks(members))
    assert hashlib.sha256(data).hexdigest() == PINNED
    offsets, size = tar_layout((name, len(content)) for name, content in members)
    assert size == len(data)
    assert all(data[offsets[name] :].startswith(content) for name, content in members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.name, m.mode, m.mtime, m.uid, m.uname) for m in tar] == [
            (name, 0o644, 0, 0, "") for name, _ in members
        ]


PINNED = "1cce394215797e76f8e46d49adc60c7b90763c5b43e0b5b97758714611411ad7"


def test_splits_keep_the_scenes_that_were_packed(tmp_path):
    lists = {"test/made": ("made/a", "made/gone"), "train/made": ("made/gone",)}
    pack_scenes(source(scene("a"), splits=lists), tmp_path, shard_bytes=SMALL)
    assert ShardIndex.open(tmp_path).splits == {"test/made": ("made/a",)}
    assert pack_scenes(source(scene("a")), tmp_path, shard_bytes=SMALL).written
    assert ShardIndex.open(tmp_path).splits == {}
