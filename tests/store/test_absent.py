"""What is not stored is told apart from what does not exist, with the command that adds it."""

from __future__ import annotations

import shlex
import shutil

import pytest
import strata
from strata.configs.load import load
from strata.configs.schema import ExtractConfig
from strata.errors import LayerError
from strata.extract.run import extract
from strata.store.feature_store import FeatureStore


@pytest.fixture
def store(pipeline) -> FeatureStore:
    """Layers block0 and norm of an encoder of two blocks, with words of its own."""
    pipeline.add("a")
    pipeline.extract(grid="aspect:5", fit="pad", filter="nearest")
    return FeatureStore.open(pipeline.root)


@pytest.mark.parametrize("asked", ["block1", "1/1"])
def test_the_command_of_the_error_adds_the_layer(store, pipeline, colour, asked):
    with pytest.raises(LayerError, match="the store has no layer 'block1' of colour") as caught:
        store.select("colour", layers=["norm", asked])
    assert "stored are block0, norm" in caught.value.why
    command = shlex.split(caught.value.fix.partition("add it: ")[2])
    assert command[:4] == ["strata", "extract", "run", f"shards={pipeline.folder / 'shards'}"]
    extract(load(ExtractConfig, command[3:]), encoder=colour())
    again = FeatureStore.open(pipeline.root)
    assert [key.name for key in again.keys()] == [key.name for key in store.keys()]
    assert again.select("colour", layers=["norm", "block1"]).layers == ("norm", "block1")


def test_without_a_record_the_command_leaves_open_where_the_shards_are(store):
    shutil.rmtree(store.root / "runs")
    with pytest.raises(LayerError) as caught:
        store.select("colour", layers=["block1"])
    assert "strata extract run shards=... store=" in caught.value.fix


@pytest.mark.parametrize("asked", ["block2", "block7.attn", "frame0"])
def test_a_layer_beyond_the_encoder_has_no_command(store, asked):
    with pytest.raises(LayerError, match=f"colour has no layer '{asked}'") as caught:
        store.select("colour", layers=[asked])
    assert "it has 2 blocks, counted from 0" in caught.value.why
    assert "extract" not in caught.value.fix


@pytest.mark.parametrize(("asked", "what"), [("blok1", "not a layer name"), ("3/2", "beyond the last block")])
def test_what_is_no_layer_at_all(store, asked, what):
    with pytest.raises(LayerError, match=what) as caught:
        store.select("colour", layers=[asked])
    assert "/" in asked or "did you mean block0" in caught.value.fix


def test_derived_features_are_not_extracted(store):
    features = store.select("colour", layers=["norm"])
    strata.materialise(strata.l2(features))
    with pytest.raises(LayerError, match="these derived features have no layer 'block1'") as caught:
        FeatureStore.open(store.root).select("colour-l2", layers=["block1"])
    assert "extract" not in caught.value.fix


def test_a_layer_of_some_scenes_comes_with_the_command_for_all(pipeline):
    for name in ("a", "b", "c"):
        pipeline.add(name)
    pipeline.extract(layers=["norm"])
    pipeline.extract(layers=["block1"], scene="toy/a")
    with pytest.raises(LayerError, match="for some of the scenes only") as caught:
        FeatureStore.open(pipeline.root).select("colour", layers=["block1"])
    assert f"store={pipeline.root} encoder=colour layers=block1 grid=aspect:6" in caught.value.fix


def test_a_part_without_the_layer_speaks_of_itself(store):
    with pytest.raises(LayerError, match="the selection has no layer 'block0'"):
        store.select("colour", layers=["norm"]).where(layers=["block0"])
