"""Reading groups: what is not committed or damaged is said so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from strata.errors import StoreError
from strata.store.feature_store import FeatureStore
from strata.store.group import StoredGroup


@pytest.fixture
def layer(pipeline):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    return next(pipeline.root.glob("features/colour@*/toy.a@*/norm"))


def test_a_group_without_its_document_is_not_there(layer):
    group = StoredGroup(layer)
    assert group.committed
    assert group.has("tokens")
    assert not group.has("depth_m")
    (layer / "zarr.json").unlink()
    assert not StoredGroup(layer).committed
    assert not StoredGroup(layer).has("tokens")
    with pytest.raises(StoreError) as caught:
        StoredGroup(layer).array("tokens")
    assert caught.value.where == str(layer)
    assert "extract run" in caught.value.fix


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"codecs": [1]}'])
def test_a_damaged_document_of_an_array_is_named(layer, text):
    (layer / "tokens" / "zarr.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        StoredGroup(layer).read("tokens", [0])
    assert caught.value.where == str(layer / "tokens" / "zarr.json")


def test_an_array_that_is_not_there(layer):
    with pytest.raises(StoreError) as caught:
        StoredGroup(layer).read("depth_m", [0])
    assert caught.value.where == str(layer / "depth_m" / "zarr.json")


def test_attributes(layer):
    assert StoredGroup(layer).array_attributes("prefix") == {"names": ["cls"]}
    stored = json.loads((layer / "zarr.json").read_text())["attributes"]
    assert {**StoredGroup(layer).attributes, "crc32c": stored["crc32c"]} == stored


def test_readers_of_one_store_share_a_group(layer):
    store = FeatureStore.open(layer.parents[3])
    assert store.group(layer) is store.group(layer)
    np.testing.assert_array_equal(
        store.group(layer).read("tokens", [1]), StoredGroup(layer).read("tokens", [1])
    )
