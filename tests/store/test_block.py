"""Blocks: rows of one scene with everything that belongs to them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from strata.errors import LayerError, SelectionError
from strata.store.feature_store import FeatureStore
from strata.store.layers import best_storage


def block_of(pipeline, scene="b", **options):
    return FeatureStore.open(pipeline.root).select("colour", scene=scene, **options).parts[0]


def test_what_a_block_says_of_itself(filled):
    block = block_of(filled)
    views = filled.source.scenes["toy/b"].views
    assert (block.scene, len(block), block.grid, block.patch) == ("toy/b", 3, (4, 6), 4)
    assert block.names == ("000", "001", "002")
    assert block.positions == (0, 1, 2)
    assert block.image_digests == tuple(view.image_digest for view in views)
    assert block.rows == (3, 4, 5)
    assert block.width("norm") == 3
    assert block.prefix_names("norm") == ("cls",)
    assert block.scene_scale_m == pytest.approx(2.1, abs=1e-3)


def test_rows_pick_views_of_the_block(filled):
    block = block_of(filled)
    for read in (
        lambda rows: block.tokens("norm", rows),
        lambda rows: block.prefix("norm", rows),
        lambda rows: block.token_points(rows).world,
        lambda rows: block.geometry(rows).depth_m,
        lambda rows: block.cameras(rows)[1],
        block.images,
        block.token_from_source_px,
    ):
        np.testing.assert_array_equal(read([2, 0]), read(None)[[2, 0]])
        assert len(read([])) == 0


def test_geometry_is_that_of_the_scene(filled):
    block = block_of(filled)
    geometry, views = block.geometry(), filled.source.scenes["toy/b"].views
    assert geometry.valid.all()
    np.testing.assert_allclose(geometry.depth_m[:, 0, 0], [2.0, 2.1, 2.2], rtol=1e-3)
    np.testing.assert_allclose(geometry.K_px[1], views[1].K_px, atol=1e-6)
    np.testing.assert_allclose(geometry.cam_from_world[2] @ views[2].world_from_cam, np.eye(4), atol=1e-12)
    K_px, cam_from_world = block.cameras()
    np.testing.assert_array_equal(K_px, geometry.K_px)
    np.testing.assert_array_equal(cam_from_world, geometry.cam_from_world)


def test_views_without_depth_have_none_of_it(filled):
    from dataclasses import replace

    filled.change("b", lambda views: [views[0], replace(views[1], depth=None), views[2]])
    filled.extract()
    geometry = block_of(filled).geometry()
    assert (geometry.depth_m[1] == 0).all()
    assert not geometry.valid[1].any()


def test_layers_outside_the_selection(filled):
    with pytest.raises(LayerError) as caught:
        block_of(filled, layers=["norm"]).tokens("nrom")
    assert "norm" in caught.value.fix


def test_tokens_go_into_a_buffer(filled):
    out = np.zeros((5, 4, 6, 3), np.float16)
    block = block_of(filled)
    block.tokens("norm", out=out[1:4])
    np.testing.assert_array_equal(out[1:4], block.tokens("norm"))
    assert not out[[0, 4]].any()


def test_parts_that_were_not_kept(filled):
    import shutil

    shutil.rmtree(filled.root / "points")
    with pytest.raises(SelectionError) as caught:
        block_of(filled).token_points()
    assert "points" in caught.value.what
    with pytest.raises(SelectionError):
        _ = block_of(filled).scene_scale_m


def test_the_most_exact_storage():
    assert best_storage(["u8", "bf16", "f16", "f32"]) == "f32"
    assert best_storage(["u8", "bf16"]) == "bf16"


def test_many_scenes_in_one_bundle_open_few_files(pipeline):
    """Blocks of one store share its readers, so that ten thousand scenes need no ten thousand handles."""
    for k in range(30):
        pipeline.add(f"s{k}", views=1)
    pipeline.extract(unit_views=None, batch=30)
    selection = FeatureStore.open(pipeline.root).select("colour")
    before = len(os.listdir("/proc/self/fd"))
    selection.load()
    assert len(os.listdir("/proc/self/fd")) - before == 2
