"""Features as u8: half the bytes, and everywhere the numbers they stand for, up to the stated error."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import zarr
from strata.kernels.quantized import QuantizedTokens, quantize
from strata.kernels.voxel_cosine import voxel_cosine
from strata.store.feature_store import FeatureStore
from strata.store.key import FeatureKey, Preprocess
from strata.store.layout import layer_group, layer_view_bytes
from strata.store.schema import SceneViews, ViewRow, make_bundle


@pytest.fixture
def both(pipeline):
    """A store with the layer norm as f32 and as u8."""
    pipeline.add("a")
    pipeline.add("b", seed=1)
    pipeline.extract(layers=["norm"], storage="f32")
    pipeline.extract(layers=["norm"], storage="u8")
    return FeatureStore.open(pipeline.root)


def blocks(store):
    return tuple(store.select("colour", storage=storage, scene="a").parts[0] for storage in ("f32", "u8"))


def test_tokens_are_within_half_a_level(both):
    exact, small = (block.tokens("norm") for block in blocks(both))
    assert small.dtype == np.float32
    level = (exact.max((1, 2), keepdims=True) - exact.min((1, 2), keepdims=True)) / 255
    assert (level > 0).all()
    assert (abs(small - exact) <= level / 2 + 1e-6).all()
    assert (abs(small - exact) > 0).any()


def test_every_way_of_reading_gives_the_same_numbers(both):
    _, small = blocks(both)
    whole, rows = small.tokens("norm"), [2, 0]
    buffer = np.empty((2, *whole.shape[1:]), np.float32)
    np.testing.assert_array_equal(small.tokens("norm", rows, buffer), whole[rows])
    np.testing.assert_array_equal(buffer, whole[rows])
    draw = np.random.default_rng(0)
    view, row, col = (draw.integers(0, size, 40) for size in whole.shape[:3])
    np.testing.assert_array_equal(small.gather("norm", view, row, col), whole[view, row, col])
    tensor = small.tensor("norm", rows)
    assert isinstance(tensor, QuantizedTokens)
    np.testing.assert_array_equal(tensor.dequantize().numpy(), whole[rows])
    stored = np.empty((2, *whole.shape[1:]), small.shape("tokens", "norm")[1])
    small.read("tokens", rows, layer="norm", out=stored)
    scale, offset = small.affine(rows, "norm")
    np.testing.assert_array_equal(stored * scale[:, None, None] + offset[:, None, None], whole[rows])
    (loaded,) = both.select("colour", storage="u8", scene="a").load()
    np.testing.assert_array_equal(loaded.tokens["norm"], whole)


def test_sampling_at_centres_gives_the_tokens(both):
    selection = both.select("colour", storage="u8", scene="a")
    block = selection.parts[0]
    token_from_px = np.vstack([block.token_from_source_px([1])[0], [0, 0, 1]])
    uv_px = (np.linalg.inv(token_from_px) @ [[2, 0], [3, 1], [1, 1]])[:2].T  # (col, row) (2, 3), (0, 1)
    taken = selection.sample("toy/a", "001", uv_px)["norm"]
    np.testing.assert_allclose(taken, block.tokens("norm", [1])[0, [3, 1], [2, 0]], rtol=1e-4)


def test_prefix_tokens_are_exact(both):
    exact, small = (block.prefix("norm") for block in blocks(both))
    np.testing.assert_array_equal(small, exact)


def test_the_most_exact_storage_is_taken_unless_asked(both):
    assert both.select("colour").parts[0].layers == {"norm": "f32"}


def test_plain_zarr_reads_the_numbers(both):
    _, small = blocks(both)
    layer = small._tokens("norm").group.folder
    group = zarr.open_group(layer, mode="r")
    tokens, scale, offset = (np.asarray(group[name]) for name in ("tokens", "scale", "offset"))
    assert tokens.dtype == np.uint8
    assert json.loads((layer / "tokens" / "zarr.json").read_text())["attributes"]["encoding"]
    numbers = tokens * scale[:, None, None] + offset[:, None, None]
    np.testing.assert_array_equal(numbers[list(small.rows)], small.tokens("norm"))


def test_views_that_are_not_finite_are_missing(pipeline, colour):
    pipeline.add("a")

    def spoil(tokens):
        return torch.where(torch.arange(3) == 1, tokens * torch.inf, tokens) if len(tokens) == 1 else tokens

    encoder = colour()
    encoder.poison = spoil  # the third view is a batch of its own
    pipeline.extract(encoder, layers=["norm"], storage="u8")
    block = FeatureStore.open(pipeline.root).select("colour").parts[0]
    assert block.missing == {"002": "norm is not finite in u8"}
    scale, _ = block._tokens("norm").affine([0, 2])
    assert np.isfinite(scale).all(1).tolist() == [True, False]
    assert np.isnan(block._tokens("norm").tokens([2])).all()


def test_a_channel_of_one_value_is_exact():
    tokens = torch.full((1, 3, 4, 2), -7.3)
    tokens[..., 1] = torch.arange(12.0).reshape(1, 3, 4)
    back = quantize(tokens).dequantize()
    assert back[..., 0].equal(tokens[..., 0])
    torch.testing.assert_close(back[..., 1], tokens[..., 1], atol=11 / 510 + 1e-6, rtol=0)


@pytest.mark.parametrize("storage", ["f16", "bf16", "f32", "u8"])
def test_bytes_of_a_view_are_those_of_all_arrays(storage):
    """What unit sizes and `plan` count."""
    scene = SceneViews(
        id="toy/a",
        digest="1" * 64,
        geometry="2" * 64,
        generation=1,
        views=(ViewRow(name="0", position=0, image_digest="3" * 64, geometry_digest="4" * 64),),
    )
    spec = layer_group(
        FeatureKey(encoder="e", weights="0" * 64, preprocess=Preprocess()),
        make_bundle((3, 5), [scene]),
        "norm",
        storage=storage,
        width=8,
        prefix=2,
        unit=1,
        needs_geometry=False,
        attributes={},
    )
    assert layer_view_bytes(storage, 15, 2, 8) == sum(array.row_bytes for array in spec.arrays.values())


def features(kind: str) -> torch.Tensor:
    """[2, 37, 37, 384] as backbones have them: noise, smooth maps, or smooth with four massive channels."""
    draw = torch.Generator().manual_seed(0)
    if kind == "random":
        return torch.randn(2, 37, 37, 384, generator=draw)
    coarse = torch.randn(2, 384, 6, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (37, 37), mode="bicubic").permute(0, 2, 3, 1)
    if kind == "smooth":
        return smooth
    scales = torch.exp(0.7 * torch.randn(384, generator=draw))
    shift = torch.zeros(384)
    shift[:4] = torch.tensor([150.0, -120.0, 90.0, 60.0])
    varied = 1 + 0.2 * torch.randn(2, 37, 37, 1, generator=draw)
    return smooth * scales + shift * varied


@pytest.mark.parametrize(
    ("kind", "mean", "p999"), [("random", 4e-5, 6e-5), ("smooth", 4e-5, 8e-5), ("massive", 1e-5, 2e-5)]
)
def test_cosine_to_the_exact_features(kind, mean, p999):
    exact = features(kind).half()
    away = 1 - torch.cosine_similarity(exact.double(), quantize(exact).dequantize().double(), dim=-1)
    assert 0 < away.mean() < mean
    assert away.flatten().quantile(0.999) < p999


def test_scores_are_the_same_up_to_the_error():
    """Mean cosines of corresponding tokens move by less than the tokens themselves do."""
    exact = features("smooth").half().flatten(1, 2)[None]
    ids = torch.randint(0, 400, (1, 2, 37 * 37), generator=torch.Generator().manual_seed(1))
    small = quantize(exact[0])
    fused = QuantizedTokens(values=small.values[None], scale=small.scale[None], offset=small.offset[None])
    scores = [voxel_cosine(tokens, ids) for tokens in (exact, fused)]
    for kind in ("corr", "noncorr"):
        one, other = (getattr(s, f"{kind}_sum") / getattr(s, f"{kind}_count") for s in scores)
        assert 0 < abs(one - other) < 8e-5
