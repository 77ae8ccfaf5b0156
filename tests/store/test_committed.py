"""Looking up what is committed: as little as is asked for, and whatever folders are called."""

from __future__ import annotations

import numpy as np
import pytest
from strata.errors import SelectionError
from strata.store.feature_store import FeatureStore


def key_folder(pipeline):
    (folder,) = pipeline.root.glob("features/colour@*")
    return folder


def test_words_of_a_folder_mean_nothing(filled):
    tokens = FeatureStore.open(filled.root).select("colour").load()[0].tokens["norm"]
    (bundle,) = (path for path in key_folder(filled).iterdir() if path.is_dir())
    bundle.rename(bundle.with_name("other.words@" + bundle.name.rsplit("@", 1)[1]))
    again = FeatureStore.open(filled.root).select("colour").load()[0].tokens["norm"]
    np.testing.assert_array_equal(again, tokens)


def test_layers_that_are_not_committed_are_not_there(filled):
    for document in key_folder(filled).glob("*/norm/zarr.json"):
        document.unlink()
    (key,) = FeatureStore.open(filled.root).keys()
    assert key.layers == ("block0",)
    assert [dict(layers) for layers in key.bundles.values()] == [{"block0": ("f16",)}]
    for document in key_folder(filled).glob("*/block0/zarr.json"):
        document.unlink()
    assert FeatureStore.open(filled.root).keys() == []
    with pytest.raises(SelectionError, match="no features of"):
        FeatureStore.open(filled.root).select("colour")


def test_a_scene_is_chosen_without_reading_other_bundles(filled):
    """A bundle of which nothing can be read does not stand in the way of the others."""
    filled.add("c", size=(16, 24))  # a bundle of its own
    filled.extract()
    store = FeatureStore.open(filled.root)
    (portrait,) = {row[0].id for row in store.catalog.rows["toy/c"]}
    (filled.root / "catalog" / f"{portrait}.views.json").write_text("no JSON")
    store = FeatureStore.open(filled.root)
    assert store.select("colour", layers=["norm"], scene="a").scenes == ("toy/a",)
