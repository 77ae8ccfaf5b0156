"""An index that is missing, of another version, malformed or changed."""

from __future__ import annotations

import pytest
from strata.errors import ShardError
from strata.extract.shards import ShardIndex

from .decorated_rooms import edit, first_scene


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


MALFORMED_AT_OPEN = {
    "no scenes": lambda index: index.pop("scenes"),
    "scenes are numbers": lambda index: index.update(scenes=[1, 2]),
    "splits are a list": lambda index: index.update(splits=[]),
    "a scene without views": lambda index: first_scene(index).update(views=[]),
    "a scene without id": lambda index: first_scene(index).pop("id"),
    "an id that leaves the folder": lambda index: first_scene(index).update(id="../x"),
    "a shard elsewhere": lambda index: index["shards"][0].update(name="../shard-000000.tar"),
    "a scale of text": lambda index: first_scene(index).update(scene_scale_m="far"),
    "two scenes of one id": lambda index: index["scenes"].append(first_scene(index)),
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
    edit(copied, lambda index: MALFORMED_VIEWS[kind](first_scene(index)["views"][1]))
    index = ShardIndex.open(copied)
    assert len(index.scenes[1].views) == 4
    with pytest.raises(ShardError, match="index of the shards is damaged"):
        _ = index.scenes[0].views


def test_an_entry_that_was_changed_is_refused_when_its_scene_is_read(copied):
    edit(copied, lambda index: first_scene(index).update(scene_scale_m=2.0))
    with pytest.raises(ShardError, match="index of the shards is damaged") as caught:
        _ = ShardIndex.open(copied).scenes[0].views
    assert "not as it was written" in caught.value.why


def test_an_index_without_shards_is_refused(copied):
    edit(copied, lambda index: index.update(shards=[]))
    with pytest.raises(ShardError, match="index of the shards is damaged"):
        ShardIndex.open(copied)


def test_covisibility_of_another_number_of_views_is_refused(copied):
    edit(copied, lambda index: first_scene(index)["views"].pop())
    with pytest.raises(ShardError, match="covisibility"):
        ShardIndex.open(copied).scenes[0].covisibility()
