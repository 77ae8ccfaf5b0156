"""Splits and view sets that a store keeps beside its features."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from strata.configs.schema import SetsOptions
from strata.errors import StoreError
from strata.extract.pack import pack_scenes
from strata.extract.shards import ShardIndex
from strata.extract.store_lists import keep_sets, keep_splits
from strata.store.split_lists import Split
from strata.store.view_sets import read_sets

OPTIONS = SetsOptions(set_views=2, set_count=3)


@pytest.fixture
def packed(pipeline):
    for name in ("a", "s10", "s9"):
        pipeline.add(name, views=6)

    def pack():
        pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
        return ShardIndex.open(pipeline.folder / "shards").scenes

    return pack


def sets_by_scene(path):
    found: dict[str, list[str]] = {}
    for view_set in read_sets(path):
        found.setdefault(view_set.scene, []).append(view_set.digest)
    return found


def test_a_split_takes_the_scenes_of_both_shards(tmp_path):
    keep_splits(tmp_path, {"test/toy": ("toy/s10", "toy/a"), "train": ("toy/x",)})
    keep_splits(tmp_path, {"test/toy": ("toy/s9", "toy/a")})
    path = tmp_path / "splits" / "test.toy.json"
    assert Split.from_dict(json.loads(path.read_text())) == Split(
        name="test/toy", scenes=("toy/a", "toy/s9", "toy/s10")
    )
    assert (tmp_path / "splits" / "train.json").exists()
    with pytest.raises(StoreError, match="one file"):
        keep_splits(tmp_path, {"test.toy": ("toy/b",)})
    before = path.stat().st_ino
    keep_splits(tmp_path, {"test/toy": ("toy/a",)})
    assert path.stat().st_ino == before
    path.write_text("[]")
    with pytest.raises(StoreError) as caught:
        keep_splits(tmp_path, {"test/toy": ("toy/a",)})
    assert caught.value.where == str(path)


def test_sets_of_new_scenes_join_those_of_before(packed, tmp_path):
    scenes = packed()
    path = keep_sets(tmp_path, scenes[1:], OPTIONS)
    before = sets_by_scene(path)
    assert keep_sets(tmp_path, scenes[:1], OPTIONS) == path
    after = sets_by_scene(path)
    assert list(after) == ["toy/a", "toy/s9", "toy/s10"]
    assert {scene: after[scene] for scene in before} == before
    data = path.read_bytes()
    keep_sets(tmp_path, scenes, OPTIONS)
    assert sets_by_scene(path) == after
    keep_sets(tmp_path, scenes, OPTIONS)
    assert data.count(b'"digest"') == path.read_bytes().count(b'"digest"')


def test_the_sets_of_a_changed_scene_alone_are_replaced(packed, pipeline, tmp_path):
    path = keep_sets(tmp_path, packed(), OPTIONS)
    before = sets_by_scene(path)
    pipeline.change("s9", lambda views: [replace(view, image=views[0].image) for view in views])
    keep_sets(tmp_path, packed(), OPTIONS)
    after = sets_by_scene(path)
    assert after["toy/s9"] != before["toy/s9"]
    assert {name: after[name] for name in ("toy/a", "toy/s10")} == {
        name: before[name] for name in ("toy/a", "toy/s10")
    }
    digests = {view.image_digest for view in pipeline.source.scenes["toy/s9"].views}
    members = [s for s in read_sets(path) if s.scene == "toy/s9"]
    assert all(set(view_set.images) <= digests for view_set in members)


def test_every_choice_of_options_has_its_file(packed, tmp_path):
    scenes = packed()
    paths = {
        keep_sets(tmp_path, scenes, options)
        for options in (OPTIONS, replace(OPTIONS, set_seed=1), replace(OPTIONS, set_views=3))
    }
    assert len(paths) == 3
    assert all(len(view_set.members) <= 3 for path in paths for view_set in read_sets(path))


def test_scenes_without_covisibility_are_named(packed, pipeline, tmp_path):
    scene = pipeline.source.scenes["toy/a"]
    pipeline.source.scenes["toy/a"] = replace(scene, covisibility=None)
    path = keep_sets(tmp_path, packed(), OPTIONS)
    assert "toy/a" not in sets_by_scene(path)
    skipped = json.loads(path.read_text())["skipped"]
    assert skipped == [{"scene": "toy/a", "reason": "it has no covisibility"}]
