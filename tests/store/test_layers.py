"""The layer grammar, and shares of the depth."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from strata.errors import LayerError
from strata.store.layers import check_layer, layer_order, resolve_layers, split_stored, stored_name


def blocks(depth):
    return (*(f"block{i}" for i in range(depth)), "norm")


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 10, 12, 24, 40])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 7])
def test_shares_of_the_depth(depth, m):
    for k in range(1, m + 1):
        block = max(1, math.floor(Fraction(k * depth, m) + Fraction(1, 2))) - 1
        assert resolve_layers([f"{k}/{m}"], blocks(depth), depth) == (f"block{block}",)


def test_the_defaults_of_a_vit():
    wanted = ["1/4", "1/2", "3/4", "last"]
    assert resolve_layers(wanted, blocks(12), 12) == ("block2", "block5", "block8", "norm")
    assert resolve_layers(wanted, blocks(2), 2) == ("block0", "block1", "norm")


def test_shares_of_a_set_encoder_are_its_global_attentions():
    pairs = (*(f"{kind}{k}" for k in range(24) for kind in ("frame", "global")), "norm")
    wanted = ["1/4", "1/2", "frame7", "last"]
    assert resolve_layers(wanted, pairs, 24) == ("global5", "global11", "frame7", "norm")
    with pytest.raises(LayerError) as caught:
        resolve_layers(["block5"], pairs, 24)
    assert caught.value.why == "it has frame0 to frame23, global0 to global23, norm"


def test_encoders_without_blocks_have_one_layer():
    assert resolve_layers(["1/4", "1/2", "3/4", "last"], ("norm",), 0) == ("norm",)


def test_the_order_asked_is_kept_and_duplicates_dropped():
    assert resolve_layers(["norm", "block3", "1/3", "last"], blocks(12), 12) == ("norm", "block3")
    assert resolve_layers((name for name in ("norm", "block0")), blocks(2), 2) == ("norm", "block0")
    assert resolve_layers("block1", blocks(2), 2) == ("block1",)


@pytest.mark.parametrize(
    ("asked", "fix"),
    [("blok5", "did you mean block5"), ("block12", "block1"), ("0/4", "known names"), ("", "known names")],
)
def test_an_unknown_layer_names_what_there_is(asked, fix):
    with pytest.raises(LayerError) as caught:
        resolve_layers([asked], blocks(12), 12)
    assert repr(asked) in caught.value.what
    assert caught.value.why == "it has block0 to block11, norm"
    assert fix in caught.value.fix


def test_a_share_beyond_the_last_block():
    with pytest.raises(LayerError, match="beyond the last block"):
        resolve_layers(["5/4"], blocks(12), 12)


@pytest.mark.parametrize(
    "name", ["block0", "block11.attn", "block3.keys", "norm", "patch_embed", "frame7", "global0.mlp"]
)
def test_names_in_the_grammar(name):
    assert check_layer(name) == name
    for storage in ("f16", "f32", "bf16", "u8"):
        assert split_stored(stored_name(name, storage)) == (name, storage)
    assert stored_name(name, "f16") == name


@pytest.mark.parametrize(
    "name", ["block", "block01", "last", "block1.q", "../norm", "norm@f99", "Block1", "1/2"]
)
def test_names_outside_the_grammar(name):
    with pytest.raises(LayerError):
        check_layer(name)


def test_shallow_to_deep():
    names = ["norm", "block10", "block2.mlp", "patch_embed", "block2"]
    assert sorted(names, key=layer_order) == ["patch_embed", "block2", "block2.mlp", "block10", "norm"]
