"""Features of whole view sets: encoded together, stored, and reused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from strata.errors import SceneError, SetsError
from strata.extract import bundle_pass
from strata.store.feature_store import FeatureStore
from strata.store.view_sets import read_sets

from .together import WORDS, Together, expected, extract, tokens_of, view_sets


def test_views_are_encoded_with_those_of_their_set(rooms):
    chosen = ("a:012", "a:204", "b:10", "b:0123")
    summary, encoder = extract(rooms, *chosen)
    assert (summary.views, summary.computed, summary.failed) == (12, 12, 0)
    # Sets of one size share a batch of four views at most; the first forward looks at values.
    assert sorted(encoder.seen[-4:]) == [(1, 2), (1, 3), (1, 3), (1, 4)]
    for one in view_sets(rooms, *chosen):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)
    a_view_in_two_sets = [
        tokens_of(rooms, one)[one.members.index("002")] for one in view_sets(rooms, *chosen[:2])
    ]
    assert np.abs(a_view_in_two_sets[0] - a_view_in_two_sets[1]).max() > 0.01


def test_sets_of_one_size_share_bundles_and_batches(rooms):
    chosen = ("a:01", "a:12", "b:01", "b:32", "b:20")
    _, encoder = extract(rooms, *chosen)
    bundles = [b for b in FeatureStore.open(rooms.root).catalog.bundles.values() if b.sets]
    assert [(len(b), b.together, len(b.sets)) for b in bundles] == [(10, 2, 5)]
    assert encoder.seen[-3:] == [(2, 2), (2, 2), (1, 2)]


@pytest.mark.parametrize("unit_views", [1, 3, 4])
def test_no_unit_ends_inside_a_set(rooms, unit_views: int):
    extract(rooms, "a:012", "a:123", "b:012", unit_views=unit_views)
    (folder,) = rooms.root.glob("features/*/*/norm/tokens")
    assert len(list(folder.glob("c.*"))) == 3


def test_the_same_command_again_computes_nothing(rooms, tree):
    extract(rooms, "a:012", "b:10")
    before = tree(rooms.root)
    summary, encoder = extract(rooms, "a:012", "b:10")
    assert (summary.computed, encoder.seen, tree(rooms.root)) == (0, [], before)


def test_only_new_sets_are_encoded(rooms):
    extract(rooms, "a:012", "a:123")
    summary, encoder = extract(rooms, "a:123", "a:234")
    assert summary.computed == 3
    assert encoder.seen == [(1, 3)]
    for one in view_sets(rooms, "a:012", "a:123", "a:234"):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)


def test_a_layer_added_later_joins_the_same_bundle(rooms):
    extract(rooms, "a:012", "b:10")
    summary, _ = extract(rooms, "a:012", "b:10", layers=["frame0"])
    assert summary.computed == 5
    features = FeatureStore.open(rooms.root).select("together")
    assert features.layers == ("frame0", "global0", "norm")


def test_views_alone_and_in_sets_live_side_by_side(rooms, colour):
    rooms.extract(colour())
    extract(rooms, "a:012", "b:10")
    store = FeatureStore.open(rooms.root)
    assert len(store.select("colour")) == 9
    assert len(store.select("together")) == 5
    labels = [str(name) for name in _labels(rooms.root, "together")]
    assert len(set(labels)) == 5
    assert all("@" in name for name in labels)


def _labels(root: Path, encoder: str) -> list[str]:
    found = []
    for bundle in root.glob(f"features/{encoder}@*/*"):
        if bundle.is_dir():
            found += list(zarr.open_array(bundle / "view", mode="r")[:])
    return found


def test_sets_are_sampled_where_none_are_given(rooms):
    summary, _ = extract(rooms, set_views=2, set_count=3)
    (name,) = FeatureStore.open(rooms.root).set_names()
    kept = read_sets(rooms.root / "sets" / f"{name}.json")
    assert summary.views == 2 * len(kept) > 0
    for one in kept:
        assert tokens_of(rooms, one).shape == (2, 4, 6, 3)


def test_a_broken_view_takes_its_set_with_it_and_no_other(rooms, monkeypatch, tree):
    prepare = bundle_pass.prepare

    def broken(scene, view, request):
        if (scene.id, view.name) == ("toy/a", "001"):
            raise SceneError("the image cannot be decoded.", where="here")
        return prepare(scene, view, request)

    monkeypatch.setattr(bundle_pass, "prepare", broken)
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16")
    assert (summary.failed, summary.computed, encoder.seen) == (2, 4, [(1, 2)])
    features = FeatureStore.open(rooms.root).select("together")
    assert features.left_out == {
        "toy/a/000": "001, a view of its set, cannot be used: the image cannot be decoded.",
        "toy/a/001": "the image cannot be decoded.",
    }
    assert [block.names for block in features.blocks()] == [(), ("002", "003")]
    monkeypatch.undo()
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16", retry="failed")
    assert (summary.failed, summary.computed, encoder.seen) == (0, 2, [(1, 2)])
    repaired, rooms.store = tree(rooms.root / "features"), "whole.zarr"
    extract(rooms, "a:01", "a:23", storage="f16")
    assert tree(rooms.root / "features") == repaired


def test_a_view_whose_numbers_do_not_fit_is_missing_alone(rooms):
    encoder = Together()
    encoder.poisoned = True
    summary, _ = extract(rooms, "a:01", "a:23", encoder=encoder, storage="f16")
    assert summary.failed == 2
    features = FeatureStore.open(rooms.root).select("together")
    assert [block.names for block in features.blocks()] == [("000",), ("002",)]
    assert set(features.left_out) == {"toy/a/001", "toy/a/003"}
    summary, encoder = extract(rooms, "a:01", "a:23", storage="f16", retry="failed")
    assert (summary.failed, summary.computed, encoder.seen) == (0, 2, [(2, 2)])
    for one in view_sets(rooms, "a:01", "a:23"):
        np.testing.assert_allclose(tokens_of(rooms, one), expected(rooms, one), atol=1e-3)


def test_a_scene_that_grew_keeps_the_sets_that_it_had(rooms, new_view):
    extract(rooms, "a:012", "b:10")
    rooms.change("a", lambda views: [*views, new_view("009", np.random.default_rng(9), 24, 16, 5)])
    summary, encoder = extract(rooms, "a:012", "b:10")
    assert (summary.computed, encoder.seen) == (0, [])
    assert len(FeatureStore.open(rooms.root).select("together")) == 5


def test_mixed_orientations_need_one_grid(pipeline, new_view):
    pipeline.add("a", views=3)
    pipeline.change("a", lambda views: [*views, new_view("009", np.random.default_rng(9), 16, 24, 4)])
    pipeline.source.scenes["toy/a"] = replace(
        pipeline.source.scenes["toy/a"], covisibility=np.ones((4, 4), np.float32)
    )
    with pytest.raises(SetsError, match="several token grids") as caught:
        pipeline.extract(Together(), **WORDS, set_views=4, set_count=2)
    assert "orient=scene" in caught.value.fix
    summary = pipeline.extract(Together(), **WORDS, set_views=4, set_count=2, orient="scene")
    assert summary.views > 0


def test_scenes_without_covisibility_need_sets(rooms):
    for name, scene in rooms.source.scenes.items():
        rooms.source.scenes[name] = replace(scene, covisibility=None)
    with pytest.raises(SetsError, match="no view sets to encode") as caught:
        extract(rooms)
    assert "sets=FILE" in caught.value.fix
    assert extract(rooms, "a:012")[0].views == 3
