"""The conformance kit passes what keeps the contract, and catches each way of breaking it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from strata.errors import EncoderError
from strata.extract.encoders.base import EncoderInfo, FeatureMap
from strata.extract.encoders.oracles import RgbOracle
from strata.extract.encoders.registry import create
from strata.store.layers import resolve_layers
from strata.testing import check_encoder, random_batch


class Colours(RgbOracle):
    """A sound encoder that the tests below break in one place each."""

    def __init__(self, **declared):
        super().__init__(EncoderInfo(**{"name": "colours", "patch_size": 4, "depth": 0, **declared}))

    def forward(self, batch, layers):
        maps = super().forward(batch, layers)
        return {layer: self.spoil(output, batch) for layer, output in maps.items()}

    def spoil(self, output: FeatureMap, batch) -> FeatureMap:
        return output


class Transposed(Colours):
    def spoil(self, output, batch):
        rows, cols = batch.grid
        return FeatureMap(
            tokens=output.tokens.transpose(2, 3).reshape(*batch.images.shape[:2], rows, cols, 3)
        )


class SetsAndViewsSwapped(Colours):
    def spoil(self, output, batch):
        return FeatureMap(tokens=output.tokens.transpose(0, 1))


class BatchStatistics(Colours):
    def spoil(self, output, batch):
        return FeatureMap(tokens=output.tokens - output.tokens.mean((0, 1)))


class Random(Colours):
    def spoil(self, output, batch):
        return FeatureMap(tokens=output.tokens + torch.rand_like(output.tokens))


class NotFinite(Colours):
    def spoil(self, output, batch):
        return FeatureMap(tokens=output.tokens.log() * 0 / 0)


class WrongWidth(Colours):
    def width(self, layer):
        return 4


class WrongPrefix(Colours):
    def prefix_names(self):
        return ("cls",)


class Blind(Colours):
    def spoil(self, output, batch):
        return FeatureMap(tokens=torch.ones_like(output.tokens))


class NoNorm(Colours):
    def layers(self):
        return ("block0",)


class WrongDepth(Colours):
    def __init__(self):
        super().__init__(depth=12)


class Disordered(Colours):
    def layers(self):
        return ("norm", "patch_embed")


class ExtraLayer(Colours):
    def forward(self, batch, layers):
        maps = super().forward(batch, layers)
        return {**maps, "patch_embed": maps["norm"]}


class AnyLayer(Colours):
    def forward(self, batch, layers):
        maps = super().forward(batch, ("norm",))
        return dict.fromkeys(layers, maps["norm"])


class AnySize(Colours):
    def forward(self, batch, layers):
        rows, cols = (side * 4 for side in batch.grid)
        padded = torch.nn.functional.interpolate(batch.images.flatten(0, 1), (rows, cols))
        return super().forward(replace(batch, images=padded.unflatten(0, batch.images.shape[:2])), layers)


class UnstableDigest(Colours):
    def weights_digest(self):
        return "weights"


class UnknownNeed(Colours):
    def __init__(self):
        super().__init__(needs=frozenset({"normals"}))


class KeysOfAnotherCell(Colours):
    """Its one tap comes row by row from the bottom."""

    def __init__(self):
        super().__init__(depth=1)

    def layers(self):
        return ("patch_embed", "block0", "block0.keys", "norm")

    def forward(self, batch, layers):
        output = super().forward(batch, ("norm",))["norm"]
        turned = FeatureMap(tokens=output.tokens.flip(2))
        resolve_layers(layers, self.layers(), 1)
        return {layer: turned if layer == "block0.keys" else output for layer in layers}

    def width(self, layer):
        return 3


FAULTS = {
    Transposed: "moves the token",
    SetsAndViewsSwapped: "with what else is in the batch|moves the token",
    BatchStatistics: "with what else is in the batch",
    Random: "differs between two runs",
    NotFinite: "not finite",
    WrongWidth: "have shape",
    WrongPrefix: "are called",
    Blind: "moves the token",
    KeysOfAnotherCell: "of block0.keys most",
    NoNorm: "no layer `norm`",
    WrongDepth: "depth=12",
    Disordered: "not ordered",
    ExtraLayer: "it returns",
    AnyLayer: "an unknown layer raises nothing",
    AnySize: "images that end inside a patch raises nothing",
    UnstableDigest: "no stable sha256",
    UnknownNeed: "unknown fields",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_catches(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]) as caught:
        check_encoder(fault())
    assert "encoder colours" in str(caught.value)
    assert "fix " in str(caught.value)


def test_passes_what_is_sound():
    check_encoder(Colours())
    check_encoder(Colours(), size=7)


@pytest.mark.parametrize("name", ["oracle_world", "oracle_camera", "oracle_rgb"])
def test_oracles_keep_the_contract(name):
    check_encoder(create(name))


@pytest.mark.parametrize("name", ["oracle_position", "oracle_constant"])
def test_blind_oracles_keep_the_rest_of_it(name):
    check_encoder(create(name), sees_content=False)
    with pytest.raises(AssertionError, match="moves the token"):
        check_encoder(create(name))


@pytest.mark.parametrize("name", ["vit_tiny_demo", "test_vit3", "vit_tiny_patch16_dinov3_qkvb"])
def test_vision_transformers_keep_the_contract(name):
    check_encoder(create(name, "random:0"), size=4)


def test_views_of_a_set_may_see_each_other():
    class SetMean(Colours):
        def spoil(self, output, batch):
            return FeatureMap(tokens=output.tokens - 0.1 * output.tokens.mean(1, keepdim=True))

    check_encoder(SetMean(context="set"))
    with pytest.raises(AssertionError, match="context=set"):
        check_encoder(SetMean())


def test_random_batch_has_what_the_encoder_needs():
    batch = random_batch(create("oracle_world"), (2, 3), sets=1, views=3)
    assert batch.images.shape == (1, 3, 3, 28, 42)
    assert batch.token_point_world is not None
    assert batch.token_point_world.shape == (1, 3, 2, 3, 3)
    assert batch.depth_m is None


def test_errors_are_of_the_promised_kind():
    class Crash(Colours):
        def forward(self, batch, layers):
            try:
                return super().forward(batch, layers)
            except EncoderError as error:
                raise ValueError from error

    with pytest.raises(AssertionError, match="raises ValueError instead of EncoderError"):
        check_encoder(Crash())
