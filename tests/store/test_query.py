"""Queries on selections: layers of several bundles, set algebra, filters, fields read together, tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from strata.errors import LayerError, SelectionError
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet


@pytest.fixture
def filled(pipeline):
    for name in ("a", "b", "c"):
        pipeline.add(name)
    pipeline.extract()
    return pipeline


@pytest.fixture
def apart(pipeline):
    """Scene a has block0 in a bundle with b, c, d, and norm in another of its own."""
    for name in ("a", "b", "c", "d"):
        pipeline.add(name)
    pipeline.extract(layers=["block0"])
    pipeline.extract(layers=["norm"], scene="toy/b")
    return pipeline


def select(pipeline, **options):
    return FeatureStore.open(pipeline.root).select("colour", **options)


def frames(selection):
    return [f"{row['scene'][4:]}{row['frame'][-1]}" for row in selection.table()]


def test_layers_of_two_bundles_are_joined_view_by_view(apart, new_pipeline, tmp_path):
    joined = select(apart, scene="b", layers=["norm", "block0"])
    assert len({place.bundle.id for place in joined.parts[0].places.values()}) == 2
    whole = new_pipeline(tmp_path / "whole")
    whole.add("b")
    whole.extract()
    (mine,), (expected,) = joined.load(), select(whole, layers=["norm", "block0"]).load()
    assert mine.views == expected.views
    for layer in ("norm", "block0"):
        np.testing.assert_array_equal(mine.tokens[layer], expected.tokens[layer])
    assert select(apart, scene="b").layers == ("block0", "norm")
    assert joined.fingerprint == select(whole, layers=["norm", "block0"]).fingerprint
    part = select(apart, layers=["norm", "block0"], views=["toy/b/002"])
    np.testing.assert_array_equal(part.load()[0].tokens["norm"], expected.tokens["norm"][2:])
    with pytest.raises(LayerError):
        select(apart, layers=["norm", "block0"])


def test_a_view_that_one_bundle_lacks_is_left_out_of_the_joined(apart, colour):
    encoder = colour()
    encoder.poison = lambda tokens: tokens.where(torch.tensor(float(len(encoder.seen)) != 1), torch.nan)
    apart.extract(encoder, layers=["block1"], scene="toy/c", batch=1, storage="f16")
    selection = select(apart, scene="c", layers=["block0", "block1"])
    assert frames(selection) == ["c1", "c2"]
    assert list(selection.left_out) == ["toy/c/000"]
    alone = select(apart, scene="c", layers=["block0"]).load()[0].tokens["block0"]
    np.testing.assert_array_equal(selection.load()[0].tokens["block0"], alone[1:])
    np.testing.assert_allclose(selection.load()[0].tokens["block1"], alone[1:] + 1, atol=2e-3)


def test_bundles_of_another_version_are_not_joined(apart, new_view):
    old = select(apart, scene="b").parts[0].scene_row.digest
    apart.change("b", lambda views: [*views[:2], new_view("new", np.random.default_rng(9), 24, 16)])
    apart.extract(layers=["block0"], scene="toy/b")
    assert select(apart, scene="b").layers == ("block0",)
    with pytest.raises(LayerError):
        select(apart, scene="b", layers=["norm", "block0"])
    assert select(apart, scene="b", version=old).layers == ("block0", "norm")


def test_of_two_bundles_the_one_with_the_asked_storage_is_taken(apart):
    apart.extract(layers=["norm"], scene="toy/b", storage="f32")
    assert set(select(apart, scene="b").parts[0].layers.values()) == {"f16", "f32"}
    kept = select(apart, scene="b", storage="f16", layers=["norm", "block0"])
    assert kept.parts[0].layers == {"norm": "f16", "block0": "f16"}


def test_set_algebra(filled):
    every, ab, bc = select(filled), select(filled, scene="[ab]"), select(filled, scene="[bc]")
    some = select(filled, views=["toy/b/002", "toy/a/000", "toy/b/000"])
    assert frames(ab | bc) == frames(every)
    assert (ab | bc).fingerprint == every.fingerprint
    assert frames(bc | some) == ["a0", "b0", "b1", "b2", "c0", "c1", "c2"]
    assert frames(ab & bc) == ["b0", "b1", "b2"]
    assert frames(some & bc) == ["b0", "b2"]
    assert frames(every - some) == ["a1", "a2", "b1", "c0", "c1", "c2"]
    assert len(ab & select(filled, scene="c")) == 0
    both = (every - some) | some
    assert both.fingerprint == every.fingerprint
    assert len(both.parts) == 3
    for mine, whole in zip(both.load(), every.load(), strict=True):
        np.testing.assert_array_equal(mine.tokens["norm"], whole.tokens["norm"])


@pytest.mark.parametrize(
    ("other", "what"), [({"layers": ["norm"]}, "layers"), ({"encoder": "points"}, "keys")], ids=str
)
def test_selections_that_do_not_go_together(filled, colour, other, what):
    filled.extract(colour(frozenset({"token_point_world"})), storage="f16")
    encoder, words = other.get("encoder", "colour"), {k: v for k, v in other.items() if k != "encoder"}
    theirs = FeatureStore.open(filled.root).select(encoder, **words)
    for operation in ("__or__", "__and__", "__sub__"):
        with pytest.raises(SelectionError, match=f"different {what}"):
            getattr(select(filled), operation)(theirs)


def test_two_versions_of_a_scene_are_not_united(filled):
    old = select(filled, scene="a").parts[0].scene_row.digest
    filled.change("a", lambda views: views[:2])
    filled.extract()
    with pytest.raises(SelectionError, match="toy/a would be selected in two versions"):
        select(filled).__or__(select(filled, scene="a", version=old))


def test_where_is_select_again(filled):
    every = select(filled)
    views = filled.source.scenes["toy/b"].views
    one = ViewSet(scene="toy/b", members=("001",), images=(views[1].image_digest,))
    for words in (
        {"scene": "[ab]"},
        {"dataset": "toy", "split": "test"},
        {"sets": [one]},
        {"views": ["toy/a/001", "toy/c/000"]},
        {"layers": ["last"]},
        {"scene": "b", "layers": ["norm", "block0"], "views": ["toy/b/002"]},
    ):
        assert every.where(**words).fingerprint == select(filled, **words).fingerprint, words
    with pytest.raises(SelectionError, match="no view of the selection fits"):
        every.where(scene="z")
    with pytest.raises(LayerError):
        every.where(layers=["norm"]).where(layers=["block0"])


def test_fields_of_the_same_rows_come_together(filled):
    from dataclasses import replace

    filled.change("b", lambda views: [views[0], replace(views[1], depth=None), views[2]])
    filled.extract()
    selection = select(filled)
    fields = (
        "tokens",
        "prefix",
        "image",
        "depth_m",
        "K_px",
        "cam_from_world",
        "token_point_world",
        "token_valid",
    )
    views = ["toy/c/001", "toy/b/001", "toy/a/002", "toy/c/000"]
    read = selection.read(views, fields)
    assert (read.views, read.grid, len(read)) == (tuple(views), (4, 6), 4)
    for i, name in enumerate(views):
        block = selection.scene(name[:5]).parts[0]
        row = [int(name[-1])]
        geometry, points = block.geometry(row), block.token_points(row)
        for mine, expected in (
            (read.tokens["norm"], block.tokens("norm", row)),
            (read.prefix["block0"], block.prefix("block0", row)),
            (read.image, block.images(row)),
            (read.depth_m, geometry.depth_m),
            (read.cam_from_world, geometry.cam_from_world),
            (read.K_px, geometry.K_px),
            (read.token_point_world, points.world),
            (read.token_valid, points.valid),
        ):
            np.testing.assert_array_equal(mine[i], expected[0])
    assert read.depth_m[1].max() == 0 < read.depth_m[0].min()
    (loaded,) = selection.load(fields)
    np.testing.assert_array_equal(loaded.depth_m[[7, 4, 2, 6]], read.depth_m)
    assert selection.load()[0].depth_m is None
    np.testing.assert_array_equal(selection.read([7, 4]).tokens["norm"], read.tokens["norm"][:2])


def test_depth_outside_the_masks_is_none(filled):
    (features,) = select(filled, scene="a").load(["depth_m"])
    valid = np.ones((3, 16, 24), bool)
    valid[1, :8] = False
    block = select(filled, scene="a").parts[0]
    from strata.store.arrays import encode_chunk
    from strata.store.shard_io import shard_parts

    group = block._group("valid", "")
    spec = group.array("valid").spec
    chunks = [encode_chunk(spec, one) for one in valid]
    Path(str(group.folder), "valid", spec.file(0)).write_bytes(b"".join(shard_parts(chunks[:2])))
    (masked,) = select(filled, scene="a").load(["depth_m"])
    np.testing.assert_array_equal(masked.depth_m, np.where(valid, features.depth_m, 0))
    np.testing.assert_array_equal(select(filled, scene="a").parts[0].geometry().depth_m, masked.depth_m)


def test_what_cannot_be_read_together(filled, new_view):
    upright = [new_view("p", np.random.default_rng(1), 16, 24)]
    filled.change("b", lambda views: [*views, *upright])
    filled.extract(views="geometry")
    selection = select(filled, scene="b")
    with pytest.raises(SelectionError, match="several token grids"):
        selection.read(["toy/b/000", "toy/b/p"])
    with pytest.raises(SelectionError, match="no field 'depth'") as caught:
        selection.load(["depth"])
    assert "depth_m" in caught.value.fix
    with pytest.raises(SelectionError, match="no images"):
        selection.load(["image"])
    with pytest.raises(SelectionError, match="'toy/b/q' is not in the selection"):
        selection.read(["toy/b/q"])
    with pytest.raises(SelectionError, match="no view number 9"):
        selection.read([0, 9])
    with pytest.raises(SelectionError, match="no view is asked for"):
        selection.read([])


@pytest.mark.parametrize("storage", ["f16", "bf16"])
def test_gather_is_an_index(filled, new_view, storage):
    filled.change("b", lambda views: [*views, new_view("p", np.random.default_rng(1), 16, 24)])
    filled.extract(storage=storage)
    selection = select(filled, storage=storage)
    rng = np.random.default_rng(0)
    view = rng.integers(0, len(selection), 50)
    tall = np.array([row["grid"] == (6, 4) for row in selection.table()])[view]
    row, col = rng.integers(0, np.where(tall, 6, 4)), rng.integers(0, np.where(tall, 4, 6))
    found = selection.gather(view, row, col)
    assert tall.any()
    assert found["norm"].dtype == (np.float16 if storage == "f16" else np.float32)
    for layer in selection.layers:
        for n in range(50):
            expected = selection.read([view[n]]).tokens[layer][0, row[n], col[n]]
            np.testing.assert_array_equal(found[layer][n], expected)
    named = selection.gather(["toy/b/p"], [5], [3])["norm"]
    np.testing.assert_array_equal(named[0], selection.read(["toy/b/p"]).tokens["norm"][0, 5, 3])
    assert selection.gather([], [], [])["norm"].shape == (0, 3)
    for bad in (([0], [4], [0]), ([0], [0], [-1]), ([99], [0], [0]), ([0, 1], [0], [0])):
        with pytest.raises(SelectionError):
            selection.gather(*bad)


def test_torch_keeps_what_is_stored(filled):
    filled.extract(storage="bf16", layers=["norm"])
    (half,) = select(filled).to_torch(["tokens", "depth_m"])
    assert half.tokens["norm"].dtype == torch.float16
    assert half.depth_m.dtype == torch.float32
    brain = select(filled, storage="bf16", layers=["norm"])
    (tensors,), (arrays,) = brain.to_torch(), brain.load()
    assert tensors.tokens["norm"].dtype == torch.bfloat16
    np.testing.assert_array_equal(tensors.tokens["norm"].float().numpy(), arrays.tokens["norm"])


def test_xarray_has_labels(filled):
    (dataset,) = select(filled, scene="[bc]").to_xarray(["tokens", "prefix", "depth_m", "token_valid"])
    assert dataset["norm"].dims == ("view", "row", "col", "channel")
    picked = dataset.sel(view="toy/c/001")
    block = select(filled, scene="c").parts[0]
    np.testing.assert_array_equal(picked["norm"], block.tokens("norm", [1])[0])
    np.testing.assert_array_equal(picked["block0.prefix"], block.prefix("block0", [1])[0])
    np.testing.assert_array_equal(picked["depth_m"], block.geometry([1]).depth_m[0])
    assert dataset["scene"].values.tolist() == ["toy/b"] * 3 + ["toy/c"] * 3
    assert dataset.attrs["fingerprint"] == select(filled, scene="[bc]").fingerprint


def test_pages_of_notebooks(filled):
    selection = select(filled, scene="[bc]")
    html = selection._repr_html_()
    for text in (selection.fingerprint, "toy/c", "4x6", "block0, norm", "f16"):
        assert text in html
    assert "toy/a" not in html
    assert selection.stored_key.name in selection.store._repr_html_()


def test_what_was_loaded_is_told_by_its_shapes(filled):
    selection = select(filled)
    features = selection.load(["tokens", "depth_m"])[0]
    assert repr(features).startswith(f"GridFeatures({len(features)} views, grid {features.grid}: ")
    assert f"norm {list(features.tokens['norm'].shape)}" in repr(features)
    assert "depth_m [" in repr(features)
    assert len(repr(features)) < 300
    loader = selection.loader(batch=2)
    assert f"in {len(loader)} batches" in repr(loader)
    assert repr(next(iter(loader))).startswith("Batch(")


@pytest.mark.parametrize("uv_px", [[40, 30], [[1, 2, 3]]])
def test_pixels_that_are_none(filled, uv_px):
    selection = select(filled)
    row = selection.table()[0]
    with pytest.raises(SelectionError, match="no pixels"):
        selection.sample(row["scene"], row["frame"], uv_px)


def test_tokens_between_tokens_are_not_gathered(filled):
    with pytest.raises(SelectionError, match="whole numbers"):
        select(filled).gather([0], np.array([0.5]), np.array([0]))
