"""Opening a store, what it says of its keys, and which key is meant."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from strata.errors import ConfigError, SelectionError, StoreError, StoreMismatchError
from strata.store.feature_store import FeatureStore
from strata.store.key import FeatureKey, Preprocess
from strata.store.schema import ViewSet
from strata.store.split_lists import Split
from strata.store.view_sets import write_sets


@pytest.fixture
def filled(pipeline):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    return pipeline


def test_a_store_that_is_not_one(tmp_path):
    with pytest.raises(StoreError) as caught:
        FeatureStore.open(tmp_path / "none")
    assert "no such folder" in caught.value.why
    with pytest.raises(StoreError, match="is not a store"):
        FeatureStore.open(tmp_path)
    for document in ('{"attributes": {"format": "other"}}', "[]", '{"attributes": [1]}', "{}"):
        (tmp_path / "zarr.json").write_text(document)
        with pytest.raises(StoreError) as caught:
            FeatureStore.open(tmp_path)
        assert caught.value.where == str(tmp_path)


def test_a_store_of_another_version(tmp_path):
    FeatureStore.create(tmp_path / "s")
    document = json.loads((tmp_path / "s" / "zarr.json").read_text())
    document["attributes"]["version"] = 2
    (tmp_path / "s" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        FeatureStore.create(tmp_path / "s")
    assert "version 2" in caught.value.what


def test_a_path_that_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(StoreError, match="taken"):
            FeatureStore.create(path)


def test_what_a_killed_creation_left_does_not_take_the_path(tmp_path):
    from strata.store.processes import machine

    (tmp_path / f".zarr.json.{machine()}-999999999-0.partial").write_text("{")
    (tmp_path / ".zarr.json.elsewhere-7-0.partial").write_text("{")
    assert FeatureStore.create(tmp_path).keys() == []
    assert FeatureStore.create(tmp_path).root == tmp_path


def test_unknown_checks_are_refused(filled):
    with pytest.raises(ConfigError) as caught:
        FeatureStore.open(filled.root, check="allways")
    assert "always" in caught.value.fix


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("attributes"),
        lambda d: d["attributes"].pop("feature_key"),
        lambda d: d["attributes"].update(depth="many"),
        lambda d: d["attributes"].update(feature_key="{"),
        lambda d: d["attributes"].update(feature_key='["x"]'),
        lambda d: d["attributes"].update(feature_key=d["attributes"]["feature_key"].replace("crop", "corp")),
        lambda d: d["attributes"].update(feature_key=d["attributes"]["feature_key"].replace("crop", "pad")),
        lambda d: d["attributes"].update(
            feature_key=d["attributes"]["feature_key"].replace("stride", "strides")
        ),
    ],
)
def test_a_damaged_key_is_named(filled, edit):
    path = next(filled.root.glob("features/colour@*/zarr.json"))
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        FeatureStore.open(filled.root).keys()
    assert caught.value.where == str(path)
    assert "feature key's document is damaged" in caught.value.what


def test_keys_without_a_committed_layer_are_not_listed(filled):
    store = FeatureStore.open(filled.root)
    assert [key.layers for key in store.keys()] == [("norm",)]
    store.declare_key(FeatureKey(encoder="other", weights="0" * 64), 4, 2)
    assert [key.key.encoder for key in store.keys()] == ["colour"]
    next(filled.root.glob("features/colour@*/toy.a@*/norm/zarr.json")).unlink()
    assert store.keys() == []


def test_the_words_of_a_bundles_folder_do_not_count(filled):
    folder = next(filled.root.glob("features/colour@*/toy.a@*"))
    expected = FeatureStore.open(filled.root).select("colour").load()[0].tokens["norm"]
    folder.rename(folder.with_name("renamed@" + folder.name.rpartition("@")[2]))
    assert (FeatureStore.open(filled.root).select("colour").load()[0].tokens["norm"] == expected).all()


@pytest.fixture
def several(filled):
    filled.extract(layers=["norm"], fit="pad")
    filled.extract(layers=["norm"], grid=[2, 3])
    return FeatureStore.open(filled.root)


def test_an_encoder_with_several_keys_lists_them_with_what_differs(several):
    with pytest.raises(SelectionError) as caught:
        several.stored_key("colour")
    assert "3 keys" in caught.value.what
    assert all(key.name in caught.value.why for key in several.keys())
    assert "preprocess." in caught.value.why
    named = caught.value.fix.partition("encoder=")[2]
    assert several.stored_key(named).name == named


def test_a_prefix_or_a_field_narrows(several):
    for key in several.keys():
        assert several.stored_key(f"colour@{key.key.id[:5]}") == key
    assert several.stored_key("colour", fit="pad").key.preprocess.fit == "pad"
    assert several.stored_key("colour", grid=(2, 3)).key.preprocess.grid == (2, 3)
    assert several.stored_key("colour", grid=[2, 3], fit="crop").key.preprocess == Preprocess(grid=(2, 3))


def test_other_settings_name_the_fields_that_differ(several):
    with pytest.raises(StoreMismatchError) as caught:
        several.stored_key("colour", fit="pad", compute="bfloat16")
    assert caught.value.why == "compute: stored float32, asked bfloat16"
    with pytest.raises(StoreMismatchError, match="other settings"):
        several.stored_key("colour", grid=(3, 2))


def test_unknown_names_are_said(several):
    with pytest.raises(SelectionError) as caught:
        several.stored_key("color")
    assert "did you mean colour" in caught.value.fix
    with pytest.raises(SelectionError, match="no features"):
        several.stored_key("colour@ffffffffffff")
    with pytest.raises(ConfigError) as unknown:
        several.select("colour", layer=["norm"])
    assert "layers" in unknown.value.fix


def test_a_timm_name_without_its_tag(filled, colour):
    encoder = colour()
    encoder.info = replace(encoder.info, name="vit_small.lvd142m")
    filled.extract(encoder, layers=["norm"])
    assert FeatureStore.open(filled.root).stored_key("vit_small").key.encoder == "vit_small.lvd142m"


def test_splits_and_sets_are_kept(filled):
    store = FeatureStore.open(filled.root)
    assert store.splits() == {"test/toy": Split(name="test/toy", scenes=("toy/a",))}
    sets = store.view_sets()
    assert {view_set.scene for view_set in sets} == {"toy/a"}
    name = next(filled.root.glob("sets/*.json")).stem
    assert store.view_sets(name) == sets
    one = ViewSet(scene="toy/a", members=("000",), images=("0" * 64,))
    write_sets(filled.root / "sets" / "mine.json", [one], sampler={})
    assert store.view_sets("mine") == [one]
    with pytest.raises(SelectionError, match="choices of view sets"):
        store.view_sets()
    with pytest.raises(SelectionError, match="no view sets none"):
        store.view_sets("none")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', '{"name": "x", "scenes": [1]}'])
def test_a_damaged_split_is_named(filled, text):
    path = filled.root / "splits" / "test.toy.json"
    path.write_text(text)
    with pytest.raises(StoreError) as caught:
        FeatureStore.open(filled.root).splits()
    assert caught.value.where == str(path)


def test_it_prints_what_it_has(filled, tmp_path):
    store = FeatureStore.open(filled.root)
    assert "1 scene, keys: colour@" in repr(store)
    shutil.copytree(filled.root, tmp_path / "copy")
    assert FeatureStore.open(tmp_path / "copy").keys() == store.keys()
