"""Views without features: named in `missing`, left out by `select`, computed again on request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from strata.errors import SceneError, SelectionError
from strata.extract import bundle_pass
from strata.store.feature_store import FeatureStore


@pytest.fixture
def one_bad_view(pipeline, monkeypatch):
    """The second view of toy/b cannot be decoded any more after packing."""
    pipeline.add("a")
    pipeline.add("b")
    prepare = bundle_pass.prepare

    def broken(scene, view, request):
        if (scene.id, view.name) == ("toy/b", "001"):
            raise SceneError("the image cannot be decoded.", where="here")
        return prepare(scene, view, request)

    monkeypatch.setattr(bundle_pass, "prepare", broken)
    return pipeline


def select(pipeline, **options):
    return FeatureStore.open(pipeline.root).select("colour", **options)


def test_the_rest_of_the_bundle_is_published(one_bad_view):
    summary = one_bad_view.extract()
    assert (summary.failed, summary.computed) == (1, 6)
    selection = select(one_bad_view)
    assert len(selection) == 5
    assert selection.left_out == {"toy/b/001": "the image cannot be decoded."}
    assert selection.scene("toy/b").parts[0].names == ("000", "002")
    failed = (one_bad_view.root / "runs" / f"{summary.run}.failed.jsonl").read_text().splitlines()
    assert [json.loads(line)["view"] for line in failed] == ["001"]


def test_its_rows_are_nan_for_any_zarr_reader(one_bad_view):
    import zarr

    one_bad_view.extract()
    folder = next(one_bad_view.root.glob("features/colour@*/toy.a*/norm"))
    group: Any = zarr.open_group(folder, mode="r")
    tokens, prefix = group["tokens"][:], group["prefix"][:]
    assert np.isnan(tokens[4]).all()
    assert np.isnan(prefix[4]).all()
    assert np.isfinite(np.delete(tokens, 4, 0)).all()
    assert dict(group["tokens"].attrs)["missing"] == {"4": "the image cannot be decoded."}


def test_retry_computes_the_failed_view_alone(
    one_bad_view, colour, monkeypatch, tree, tmp_path, new_pipeline
):
    one_bad_view.extract()
    encoder = colour()
    assert one_bad_view.extract(encoder).computed == 0
    monkeypatch.undo()
    one_bad_view.extract(encoder, retry="failed")
    assert sum(encoder.seen) == 1
    assert len(select(one_bad_view)) == 6
    whole = new_pipeline(tmp_path / "whole", source=one_bad_view.source)
    whole.extract()
    layers = [name for name in tree(whole.root) if name.startswith("features")]
    assert {name: tree(one_bad_view.root)[name] for name in layers} == {
        name: tree(whole.root)[name] for name in layers
    }


def test_the_reason_survives_an_interruption(one_bad_view, monkeypatch):
    from strata.extract import extraction

    with monkeypatch.context() as patch:
        patch.setattr(
            extraction, "commit_bundle", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            one_bad_view.extract()
    one_bad_view.extract()
    assert select(one_bad_view).left_out == {"toy/b/001": "the image cannot be decoded."}


def test_numbers_beyond_float16_are_missing_not_infinite(pipeline, colour):
    pipeline.add("a")
    encoder = colour()

    def poison(tokens):
        return torch.where(tokens.amax() > 1.9, tokens * 1e5, tokens)

    encoder.poison = poison
    summary = pipeline.extract(encoder, storage="f16")
    assert summary.failed == 3
    with pytest.raises(SelectionError) as caught:
        select(pipeline, layers=["norm"])
    assert "norm is not finite in f16" in caught.value.why
    assert len(select(pipeline, layers=["block0"])) == 3


def test_auto_storage_takes_bf16_for_large_layers(pipeline, colour):
    pipeline.add("a")
    encoder = colour()
    encoder.poison = lambda tokens: torch.where(tokens.amax() > 1.9, tokens * 1e5, tokens)
    assert pipeline.extract(encoder, storage="auto").failed == 0
    block = select(pipeline).parts[0]
    assert block.layers == {"block0": "f16", "norm": "bf16"}
    small, large = block.tokens("block0").astype(np.float32), block.tokens("norm")
    assert large.dtype == np.float32
    np.testing.assert_allclose(large, (small + 2) * 1e5, rtol=5e-3)
    assert pipeline.extract(colour(), storage="auto").computed == 0


def test_a_view_without_depth_has_image_features_and_no_point(pipeline, colour):
    pipeline.add("a")
    pipeline.change("a", lambda views: [views[0], replace(views[1], depth=None), views[2]])
    pipeline.extract()
    block = select(pipeline).parts[0]
    assert len(block) == 3
    assert block.token_points().valid.all((1, 2)).tolist() == [True, False, True]
    assert np.isnan(block.token_points().world[1]).all()
    summary = pipeline.extract(colour(frozenset({"token_point_world"})))
    assert (summary.failed, summary.missing) == (0, 1)
    geometric = FeatureStore.open(pipeline.root).select(f"points@{summary.key.id}")
    assert geometric.left_out == {"toy/a/001": "the view has no token_point_world"}
