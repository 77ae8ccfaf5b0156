"""Selections: which views, which layers, what is loaded, and features at source pixels."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from strata.errors import LayerError, SelectionError
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet


@pytest.fixture
def filled(pipeline):
    for name in ("s10", "s9", "x"):
        pipeline.add(name)
    pipeline.extract()
    return pipeline


def select(pipeline, **options):
    return FeatureStore.open(pipeline.root).select("colour", **options)


def test_views_come_in_natural_order_of_scenes(filled):
    selection = select(filled)
    assert selection.scenes == ("toy/s9", "toy/s10", "toy/x")
    assert len(selection) == 9
    assert [(row["scene"], row["frame"]) for row in selection.table()] == [
        (scene, f"{k:03d}") for scene in selection.scenes for k in range(3)
    ]
    assert selection.table()[3].keys() == {
        "scene", "frame", "position", "grid", "bundle", "row", "storage", "image_digest",
    }  # fmt: skip
    views = filled.source.scenes["toy/s10"].views
    assert [row["image_digest"] for row in selection.table()[3:6]] == [v.image_digest for v in views]


@pytest.mark.parametrize(
    ("options", "scenes"),
    [
        ({"scene": "toy/s*"}, ["s9", "s10"]),
        ({"scene": "s9"}, ["s9"]),
        ({"scene": "*"}, ["s9", "s10", "x"]),
        ({"dataset": "toy"}, ["s9", "s10", "x"]),
        ({"split": "test/toy"}, ["s10"]),
        ({"split": "test"}, ["s10"]),
        ({"dataset": "toy", "scene": "[sx]*", "split": "test"}, ["s10"]),
    ],
    ids=str,
)
def test_filters_of_scenes(filled, options, scenes):
    assert [scene.partition("/")[2] for scene in select(filled, **options).scenes] == scenes


def test_filters_of_views(filled):
    views = filled.source.scenes["toy/x"].views
    one = ViewSet(
        scene="toy/x", members=("002", "000"), images=(views[2].image_digest, views[0].image_digest)
    )
    kept = select(filled, sets=[one])
    assert [row["frame"] for row in kept.table()] == ["000", "002"]
    assert kept.scenes == ("toy/x",)
    named = select(filled, views=["toy/s9/001", "toy/x/001", "toy/x/none"])
    assert [(row["scene"], row["frame"]) for row in named.table()] == [("toy/s9", "001"), ("toy/x", "001")]


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"scene": "toy/s8"}, "toy/s9"),
        ({"split": "tset"}, "test/toy"),
        ({"dataset": "toys"}, "toy/"),
        ({"views": ["toy/x/9"]}, "extract"),
        ({"scene": "toy/x", "version": "f" * 64}, "extract"),
    ],
    ids=str,
)
def test_a_selection_of_nothing_is_an_error(filled, options, fix):
    with pytest.raises(SelectionError) as caught:
        select(filled, **options)
    assert fix in caught.value.fix
    assert "changed" not in caught.value.what


def test_a_scene_that_was_never_extracted_is_not_called_misspelt(filled, colour):
    filled.extract(colour(frozenset({"token_point_world"})), scene="toy/x", storage="f16")
    with pytest.raises(SelectionError) as caught:
        FeatureStore.open(filled.root).select("points", scene="toy/s9")
    assert "extract" in caught.value.fix


def test_layers(filled):
    assert select(filled).layers == ("block0", "norm")
    assert select(filled, layers=["last", "1/2", "norm"]).layers == ("norm", "block0")
    assert select(filled, layers="norm").layers == ("norm",)
    with pytest.raises(LayerError) as caught:
        select(filled, layers=["block1"])
    assert "block0" in caught.value.why


def test_layers_that_only_some_scenes_have(filled):
    filled.add("y", views=30)
    filled.extract(layers=["block0"])
    assert select(filled).layers == ("block0",)
    assert select(filled, scene="x").layers == ("block0", "norm")
    with pytest.raises(LayerError) as caught:
        select(filled, layers=["last"])
    assert "some of the scenes only" in caught.value.what
    assert caught.value.why == "all of them have block0"


def test_of_two_bundles_the_one_with_the_asked_layer_is_taken(pipeline):
    """`last` is resolved before bundles are compared: the other one has more layers, but not this."""
    for name in ("a", "b", "c", "d"):
        pipeline.add(name)
    pipeline.extract(layers=["block0", "block1"])
    pipeline.extract(layers=["norm"], scene="toy/a")
    assert len(FeatureStore.open(pipeline.root).catalog.current("toy/a")) == 2
    assert select(pipeline, scene="a", layers=["last"]).layers == ("norm",)
    assert select(pipeline, scene="a", layers=["block1"]).layers == ("block1",)


def test_load_is_what_the_blocks_hold(filled, new_view):
    upright = [new_view(f"p{k}", np.random.default_rng(k), 16, 24, k) for k in range(2)]
    filled.change("x", lambda views: [*views, *upright])
    filled.extract()
    selection = select(filled)
    loaded = selection.load()
    assert [(features.grid, len(features.views)) for features in loaded] == [((4, 6), 9), ((6, 4), 2)]
    assert loaded[1].views == ("toy/x/p0", "toy/x/p1")
    for features in loaded:
        blocks = [block for block in selection.blocks() if block.grid == features.grid]
        assert features.views == tuple(f"{b.scene}/{name}" for b in blocks for name in b.names)
        for layer in selection.layers:
            whole = np.concatenate([block.tokens(layer) for block in blocks])
            np.testing.assert_array_equal(features.tokens[layer], whole)
    assert selection.nbytes == sum(t.nbytes for features in loaded for t in features.tokens.values())


def test_values_are_the_encoders(filled):
    """Means of the cells of the image, computed here from the source picture."""
    from strata.extract.scenes.decode import decode_image

    view = filled.source.scenes["toy/s9"].views[1]
    image = decode_image(view) / 255.0
    cells = image.reshape(4, 4, 6, 4, 3).mean((1, 3))
    features = select(filled, scene="s9").load()[0]
    np.testing.assert_allclose(features.tokens["norm"][1], cells + 2, atol=2e-3)
    np.testing.assert_allclose(features.tokens["block0"][1], cells, atol=1e-3)


def test_storages_are_taken_in_order_of_exactness(filled):
    filled.extract(storage="bf16", layers=["norm"])
    assert {block.layers["norm"] for block in select(filled).blocks()} == {"f16"}
    filled.extract(storage="f32", layers=["norm"])
    selection = select(filled)
    assert {tuple(block.layers.values()) for block in selection.blocks()} == {("f16", "f32")}
    assert selection.load()[0].tokens["norm"].dtype == np.float32
    assert selection.nbytes == 9 * 24 * 3 * (2 + 4)
    exact = selection.load()[0].tokens["norm"]
    for storage, tolerance in (("f16", 2e-3), ("bf16", 2e-2)):
        stored = select(filled, storage=storage, layers=["norm"])
        tokens = stored.load()[0].tokens["norm"]
        assert stored.nbytes == tokens.nbytes
        np.testing.assert_allclose(tokens, exact, atol=tolerance)
        assert (tokens != exact).any()
    with pytest.raises(SelectionError) as caught:
        select(filled, storage="bf16")
    assert "'block0' is not stored as 'bf16'" in caught.value.what
    with pytest.raises(SelectionError) as caught:
        select(filled, storage="f23", layers=["norm"])
    assert "f32" in caught.value.fix


def test_bytes_of_scenes_in_mixed_storages(filled):
    filled.extract(storage="f32", scene="toy/s9", layers=["block1"])
    filled.extract(storage="f16", scene="toy/s10", layers=["block1"])
    selection = select(filled, layers=["block1"], scene="s*")
    assert [block.layers["block1"] for block in selection.blocks()] == ["f32", "f16"]
    (features,) = selection.load()
    assert features.tokens["block1"].dtype == np.float32
    assert selection.nbytes == features.tokens["block1"].nbytes


def test_the_fingerprint_says_what_was_selected(filled, tmp_path):
    prints = {
        "all": select(filled).fingerprint,
        "one layer": select(filled, layers=["norm"]).fingerprint,
        "other order": select(filled, layers=["norm", "block0"]).fingerprint,
        "fewer scenes": select(filled, scene="s*").fingerprint,
        "fewer views": select(filled, views=["toy/s9/000"]).fingerprint,
    }
    shutil.copytree(filled.root, tmp_path / "elsewhere.zarr")
    moved = FeatureStore.open(tmp_path / "elsewhere.zarr").select("colour")
    assert moved.fingerprint == prints["all"]
    filled.extract(storage="f32")
    prints["other storage"] = select(filled).fingerprint
    assert select(filled, storage="f16").fingerprint == prints["all"]
    filled.change("x", lambda views: [*views[:2]])
    filled.extract()
    prints["changed scene"] = select(filled, storage="f16").fingerprint
    assert len(set(prints.values())) == len(prints)


def test_the_fingerprint_changes_with_geometry(filled):
    from dataclasses import replace

    before = select(filled).fingerprint
    filled.change("x", lambda views: [replace(views[0], depth=None), *views[1:]])
    filled.extract()
    assert select(filled).fingerprint != before


def bilinear(tokens: np.ndarray, row: float, col: float) -> np.ndarray:
    """At a position in tokens, by the definition; beyond the outermost centres they hold."""
    rows, cols = tokens.shape[:2]
    if not (-0.5 <= row <= rows - 0.5 and -0.5 <= col <= cols - 0.5):
        return np.full(tokens.shape[2], np.nan)
    row, col = np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)
    total = np.zeros(tokens.shape[2])
    for r in range(rows):
        for c in range(cols):
            total += max(0, 1 - abs(row - r)) * max(0, 1 - abs(col - c)) * tokens[r, c]
    return total


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_sample_is_bilinear_at_source_pixels(pipeline, fit):
    """A source of 30 x 16 for a target of 24 x 16: cut, bordered or squeezed."""
    pipeline.add("a", size=(30, 16))
    pipeline.extract(fit=fit, grid=[4, 6], storage="f32")
    selection = select(pipeline, layers=["norm"])
    rng = np.random.default_rng(0)
    uv_px = np.concatenate(
        [rng.uniform(-2, [32, 18], (40, 2)), [[0, 0], [29, 15], [14.5, 7.5], [-0.5, -0.5]]]
    )
    found = selection.sample("toy/a", "001", uv_px)["norm"]
    tokens = selection.load()[0].tokens["norm"][1].astype(np.float64)
    # Pixels of the target are 4 to a token; where the source lies in it, by each fit's definition.
    sx, sy, left, top = {"crop": (1, 1, 3, 0), "pad": (0.8, 13 / 16, 0, -1), "stretch": (0.8, 1, 0, 0)}[fit]
    expected = [
        bilinear(tokens, ((v + 0.5) * sy - top) / 4 - 0.5, ((u + 0.5) * sx - left) / 4 - 0.5)
        for u, v in uv_px
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    outside = np.isnan(found).any(1)
    assert outside.any()
    assert not outside.all()
    assert found.dtype == np.float32


def test_sample_names_what_is_not_there(filled):
    selection = select(filled, scene="s*")
    with pytest.raises(SelectionError, match="'toy/x' is not in the selection"):
        selection.sample("toy/x", "000", np.zeros((1, 2)))
    with pytest.raises(SelectionError) as caught:
        selection.sample("toy/s9", "00", np.zeros((1, 2)))
    assert "000" in caught.value.fix
    assert selection.sample("toy/s9", "000", np.zeros((0, 2)))["norm"].shape == (0, 3)


def test_one_scene_of_a_selection(filled):
    one = select(filled).scene("toy/s10")
    assert (one.scenes, len(one)) == (("toy/s10",), 3)
    assert "1 scene, 3 views" in repr(one)
