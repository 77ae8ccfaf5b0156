"""Scenes that come, change and go: what changed is stale and computed again, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strata.errors import SelectionError, StoreError
from strata.extract import run
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob
from strata.store.feature_store import FeatureStore
from strata.store.maintain.verify import verify


@pytest.fixture
def filled(pipeline):
    for name in ("b", "d", "f"):
        pipeline.add(name)
    return pipeline


def computed(pipeline, colour, needs=frozenset(), **options):
    """Views that go through the encoder."""
    encoder = colour(needs)
    pipeline.extract(encoder, storage="f16", **options)
    return sum(encoder.seen)


def select(pipeline, **options):
    return FeatureStore.open(pipeline.root).select("colour", **options)


@pytest.mark.parametrize("name", ["a", "c", "g"], ids=["before", "between", "after"])
def test_a_new_scene_costs_that_scene(filled, colour, name):
    assert computed(filled, colour) == 9
    filled.add(name, views=4)
    assert computed(filled, colour) == 4
    assert len(select(filled)) == 13
    assert select(filled).scenes == tuple(sorted(["toy/b", "toy/d", "toy/f", f"toy/{name}"]))


def test_a_split_first_and_all_later(filled, colour):
    assert computed(filled, colour, split="test") == 3
    assert computed(filled, colour) == 6
    assert computed(filled, colour) == 0
    assert len(FeatureStore.open(filled.root).catalog.bundles) == 2


def test_layers_are_added_without_rewriting(filled, colour, tree):
    computed(filled, colour, layers=["block0"])
    before = tree(filled.root)
    assert computed(filled, colour, layers=["block0", "norm"]) == 9
    after = tree(filled.root)
    assert {name: after[name] for name in before} == before
    assert select(filled).layers == ("block0", "norm")


@pytest.mark.parametrize(
    ("edit", "views"),
    [
        (lambda views: [views[0], replace(views[1], image=views[2].image), views[2]], 3),
        (lambda views: views[:2], 2),
        (lambda views: [*views, replace(views[0], name="900")], 4),
    ],
    ids=["changed", "removed", "added"],
)
def test_a_scene_packed_again_is_stale_and_computed_again(filled, colour, edit, views):
    computed(filled, colour)
    old = select(filled).scene("toy/d").fingerprint
    filled.change("d", edit)
    assert computed(filled, colour) == views
    store = FeatureStore.open(filled.root)
    assert store.catalog.stale() == ["toy/d"]
    now = store.select("colour")
    assert len(now) == 6 + views
    assert now.scene("toy/d").fingerprint != old
    current = {view.image_digest for view in filled.source.scenes["toy/d"].views}
    assert set(now.scene("toy/d").parts[0].image_digests) == current


def test_an_old_version_can_be_named_and_comes_back(filled, colour):
    before = filled.source.scenes["toy/d"]
    computed(filled, colour)
    filled.change("d", lambda views: views[:2])
    computed(filled, colour)
    assert len(select(filled, scene="d", version=before.digest[:8])) == 3
    filled.source.scenes["toy/d"] = before
    assert computed(filled, colour) == 0
    assert len(select(filled, scene="d")) == 3


def test_a_changed_scene_is_never_served_stale(filled, colour):
    computed(filled, colour)
    other = colour()
    other.info = replace(other.info, name="other")
    filled.change("d", lambda views: views[:2])
    filled.extract(other)
    with pytest.raises(SelectionError) as caught:
        select(filled, scene="toy/d")
    assert "toy/d changed" in caught.value.what
    assert select(filled).stale == ("toy/d",)
    assert select(filled).scenes == ("toy/b", "toy/f")


def mended(views):
    deeper = write_exr(np.full((16, 24), 3.0, np.float32))
    return [replace(view, depth=Blob(suffix="exr", data=deeper)) for view in views]


def test_mended_depth_costs_no_features(filled, colour):
    computed(filled, colour)
    old = select(filled).scene("toy/d").parts[0]
    assert old.scene_scale_m == pytest.approx(2.1, abs=1e-3)
    filled.change("d", mended)
    assert computed(filled, colour) == 0
    block = select(filled).scene("toy/d").parts[0]
    assert block.scene_scale_m == pytest.approx(3.0)
    assert np.nanmedian(block.token_points().world[..., 2]) == pytest.approx(3.0)
    assert np.median(block.geometry().depth_m) == pytest.approx(3.0)
    assert old.bundle.id == block.bundle.id
    assert old.bundle.geometry != block.bundle.geometry


def test_mended_depth_costs_that_scene_for_an_encoder_that_needs_points(filled, colour):
    needs = frozenset({"token_point_world"})
    assert computed(filled, colour, needs) == 9
    filled.change("d", mended)
    assert computed(filled, colour, needs) == 3
    store = FeatureStore.open(filled.root)
    loaded = {name: store.select("points", scene=name).load()[0].tokens["block0"] for name in ("b", "d")}
    depth = {name: np.median(tokens[..., 2]) for name, tokens in loaded.items()}
    assert depth == {"b": pytest.approx(2.1, abs=0.01), "d": pytest.approx(3.0)}


def test_before_mended_geometry_is_extracted_the_old_is_not_served(filled, colour, monkeypatch):
    computed(filled, colour)
    filled.change("d", mended)
    monkeypatch.setattr("strata.extract.run.work_locally", lambda *args: None)
    computed(filled, colour)
    block = select(filled).scene("toy/d").parts[0]
    assert block.tokens("norm").shape[0] == 3
    with pytest.raises(SelectionError) as caught:
        block.token_points()
    assert "extract run" in caught.value.fix


def test_packed_again_after_an_interruption_only_that_scene_is_lost(filled, colour, monkeypatch):
    """Shards of the other scenes that were written are used; the old scene's rows are given up."""
    from strata.extract.worker import Worker

    written = []
    timed = Worker._timed

    def stop(self, write):
        if len(written) == 12:
            raise KeyboardInterrupt
        written.append(timed(self, write))
        return written[-1]

    monkeypatch.setattr(Worker, "_timed", stop)
    with pytest.raises(KeyboardInterrupt):
        computed(filled, colour)
    monkeypatch.undo()
    filled.change("f", lambda views: [replace(views[0], image=views[1].image), *views[1:]])
    assert 3 <= computed(filled, colour) < 9
    selection = select(filled)
    assert len(selection) == 9
    assert selection.left_out == {}
    store = FeatureStore.open(filled.root)
    assert store.catalog.stale() == ["toy/f"]
    current = [view.image_digest for view in filled.source.scenes["toy/f"].views]
    assert list(selection.scene("toy/f").parts[0].image_digests) == current


def test_portrait_and_landscape_lie_in_two_bundles(pipeline, colour, new_view):
    rng = np.random.default_rng(0)
    pipeline.add("mixed", views=2)
    upright = [new_view(f"p{k}", rng, 16, 24, k) for k in range(2)]
    pipeline.change("mixed", lambda views: [views[0], upright[0], views[1], upright[1]])
    assert computed(pipeline, colour) == 4
    grids = {features.grid: features.views for features in select(pipeline).load()}
    assert grids == {
        (4, 6): ("toy/mixed/000", "toy/mixed/001"),
        (6, 4): ("toy/mixed/p0", "toy/mixed/p1"),
    }
    assert computed(pipeline, colour, orient="scene") == 4
    store = FeatureStore.open(pipeline.root)
    one = store.select("colour", orient="scene").load()
    assert [features.grid for features in one] == [(4, 6)]
    assert one[0].views == tuple(f"toy/mixed/{name}" for name in ("000", "p0", "001", "p1"))


def test_views_kept_later(filled, colour):
    computed(filled, colour, views="none")
    block = select(filled).parts[0]
    assert block.token_points().valid.all()
    for read in (block.images, block.geometry):
        with pytest.raises(SelectionError) as caught:
            read()
        assert "views=" in caught.value.fix
    assert block.token_from_source_px().shape == (3, 2, 3)
    assert computed(filled, colour, views="all") == 0
    assert select(filled).parts[0].images().shape == (3, 16, 24, 3)
    assert select(filled).parts[0].geometry().depth_m.shape == (3, 16, 24)


def test_what_another_run_mended_since_planning_is_not_lost(filled, colour, monkeypatch):
    """Two runs with other shards, each of which mends one scene of the same bundle."""
    computed(filled, colour)
    bundle = next(b for b in FeatureStore.open(filled.root).catalog.bundles.values() if len(b.scenes) > 1)
    one, other = (row.id.partition("/")[2] for row in bundle.scenes[:2])
    declare, mended_scenes = run._declare, filled.source.scenes

    def slow(store, plan, config):
        """Between planning and the records, the other run begins and ends."""
        monkeypatch.setattr(run, "_declare", declare)
        filled.source.scenes = dict(before)
        filled.change(other, mended)
        computed(filled, colour)
        declare(FeatureStore.create(plan.root), plan, config)

    before = dict(mended_scenes)
    filled.change(one, mended)
    mine = filled.source.scenes
    monkeypatch.setattr(run, "_declare", slow)
    with pytest.raises(StoreError, match="another run changed") as caught:
        computed(filled, colour)
    assert "run the same command again" in caught.value.fix
    assert verify(filled.root).faults == []
    filled.source.scenes = mine
    computed(filled, colour)
