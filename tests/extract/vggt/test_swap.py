"""Another encoder in the place of the patch embedding, and stored tokens in the place of the encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strata.errors import EncoderError
from strata.extract.encoders import registry
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from strata.extract.encoders.blocks import BlockEncoder
from strata.extract.encoders.registry import create
from strata.extract.encoders.vggt.model import VGGT

# The smallest of timm's own, 192 channels, patches of 16 pixels.
VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit() -> BlockEncoder:
    encoder = create(VIT, "random:0")
    assert isinstance(encoder, BlockEncoder)
    return encoder


@pytest.fixture
def squares() -> torch.Tensor:
    return torch.rand(1, 2, 3, 32, 48, generator=torch.Generator().manual_seed(2))


class Halves(Encoder):
    """Means of 4 x 4 cells, repeated to 16 channels; sees the set, so views differ by their place."""

    info = EncoderInfo(name="halves", patch_size=4, depth=0, context="set")

    def width(self, layer: str) -> int:
        return 16

    def layers(self) -> tuple[str, ...]:
        return ("norm",)

    @torch.inference_mode()
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        images = batch.images - batch.images.mean(dim=1, keepdim=True)
        rows, cols = batch.grid
        cells = images.unflatten(-1, (cols, 4)).unflatten(-3, (rows, 4)).mean((2, -1, -3))
        return {"norm": FeatureMap(tokens=cells[..., None].repeat(1, 1, 1, 1, 16))}

    def weights_digest(self) -> str:
        return "0" * 64

    def to(self, device: Any, dtype: torch.dtype) -> Encoder:
        return self


@torch.no_grad()
def test_any_width_and_patch(config: dict[str, Any], vit: BlockEncoder, squares: torch.Tensor):
    model = VGGT.from_config(config, encoder=vit).eval()
    assert model.config.patch_size == 16
    assert model.aggregator.projection.weight.shape == (16, 192)
    assert not [name for name in model.state_dict() if "patch_embed" in name]
    assert model(squares)["depth"].shape == (1, 2, 32, 48, 1)
    tokens = vit.forward(ViewBatch(images=squares, grid=(2, 3)), ("norm",))["norm"].tokens
    # The encoder's own normalisation, and no other, was applied.
    assert torch.equal(model.aggregator.encode(squares), tokens.flatten(2, 3))
    with pytest.raises(EncoderError, match="patch size 16"):
        model(torch.rand(1, 2, 3, 24, 32))


def test_equal_width_needs_no_projection(config: dict[str, Any], images: torch.Tensor):
    model = VGGT.from_config(config, encoder=Halves())
    assert model.aggregator.projection is None
    assert not [name for name in model.state_dict() if "projection" in name]
    assert model.eval()(images)["depth"].shape == (1, 3, 16, 24, 1)


def test_the_encoder_is_built_when_it_is_needed(
    config: dict[str, Any], squares: torch.Tensor, vit: BlockEncoder, monkeypatch: pytest.MonkeyPatch
):
    made = []
    monkeypatch.setattr(registry, "create", lambda name, weights: made.append((name, weights)) or vit)
    del config["patch_size"]
    section = {"name": VIT, "weights": "random:0"}
    model = VGGT.from_config({**config, "encoder": section}).eval()
    assert (model.config.patch_size, model.config.encoder.embed_dim) == (16, 192)
    with torch.no_grad():
        model(squares, tokens=torch.rand(1, 2, 6, 192))
        assert made == []
        model(squares)
        model(squares)
    assert made == [(VIT, "random:0")]


def test_frozen_encoders_have_no_graph(config: dict[str, Any], vit: BlockEncoder, squares: torch.Tensor):
    model = VGGT.from_config(config, encoder=vit).train()
    assert not model.aggregator.encode(squares).requires_grad
    assert not vit.module.training
    assert not list(model.aggregator.patch_embed.parameters())


def test_tokens_of_inference_mode_enter_the_graph(config: dict[str, Any], images: torch.Tensor):
    config |= {"embed_dim": 24, "num_heads": 3}
    model = VGGT.from_config(config, encoder=Halves()).train()
    model(images)["depth"].sum().backward()
    assert model.aggregator.projection.weight.grad.abs().sum() > 0


def test_encoders_of_blocks_can_be_trained(config: dict[str, Any], squares: torch.Tensor):
    encoder = {"name": VIT, "weights": "random:0", "layer": "block1", "frozen": False}
    model = VGGT.from_config({**config, "encoder": encoder, "patch_size": 16}).train()
    model(squares)["depth"].sum().backward()
    grads = {name: p.grad is not None for name, p in model.aggregator.patch_embed.named_parameters()}
    assert grads["model.blocks.1.mlp.fc2.weight"]
    assert not grads["model.blocks.2.mlp.fc2.weight"]
    with pytest.raises(EncoderError, match="cannot be trained"):
        VGGT.from_config({**config, "encoder": {"name": "halves", "frozen": False}}, encoder=Halves())


def test_encoders_that_need_geometry_are_refused(config: dict[str, Any]):
    with pytest.raises(EncoderError, match="needs scene_scale_m and token_point_world"):
        VGGT.from_config({**config, "encoder": "oracle_world"})


def test_an_encoder_of_another_patch_is_noticed(config: dict[str, Any], squares: torch.Tensor):
    encoder = {"name": VIT, "weights": "random:0", "embed_dim": 192}
    model = VGGT.from_config({**config, "encoder": encoder, "patch_size": 8})
    with pytest.raises(EncoderError, match="not the encoder") as caught:
        model(squares)
    assert "patch_size 8" in caught.value.why


@torch.no_grad()
def test_stored_tokens_give_the_same(tiny: VGGT, images: torch.Tensor):
    tokens, online = tiny.aggregator.encode(images), tiny(images)
    for given in (tokens, tokens.unflatten(2, (2, 3)), tokens.unflatten(2, (2, 3)).half()):
        stored = tiny(images, tokens=given)
        torch.testing.assert_close(stored["depth"], online["depth"], atol=1e-2, rtol=1e-2)
    assert torch.equal(tiny(images, tokens=tokens)["depth"], online["depth"])
    for given in (tokens, tokens[0], tokens[0].unflatten(1, (2, 3))):
        assert torch.equal(tiny(images[0], tokens=given)["depth"], online["depth"])
    alone = tiny(None, tokens=tokens.unflatten(2, (2, 3)))
    assert torch.equal(alone["depth"], online["depth"])
    assert "images" not in alone


@torch.no_grad()
def test_tokens_may_have_a_grid_of_their_own(tiny: VGGT):
    images, tokens = torch.rand(1, 2, 3, 20, 33), torch.rand(1, 2, 3, 5, 16)
    outputs = tiny(images, tokens=tokens, query_points=torch.ones(1, 1, 2))
    assert outputs["depth"].shape == (1, 2, 20, 33, 1)
    assert outputs["track"].shape == (1, 2, 1, 2)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.rand(1, 3, 6, 17), "17 channels"),
        (torch.rand(1, 3, 7, 16), "7 tokens a view"),
        (torch.rand(1, 2, 6, 16), "1 sets of 3 views"),
        (torch.rand(3, 16), "[B, V, R, C, D]"),
        (torch.full((1, 3, 2, 3, 16), torch.nan), "view 0, set 0, view 1"),
    ],
)
def test_bad_tokens(tiny: VGGT, images: torch.Tensor, tokens: torch.Tensor, says: str):
    with pytest.raises(EncoderError) as caught:
        tiny(images, tokens=tokens)
    assert says in str(caught.value)


def test_tokens_alone_need_a_grid(tiny: VGGT):
    with pytest.raises(EncoderError, match="do not do"):
        tiny(None, tokens=torch.rand(6))
    with pytest.raises(EncoderError, match="grid of tokens is not known"):
        tiny(None, tokens=torch.rand(1, 3, 6, 16))
