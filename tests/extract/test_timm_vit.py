"""The adapter against timm's own forward passes, on small models of the very classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from strata.errors import EncoderError, LayerError
from strata.extract.encoders.base import Encoder, EncoderInfo, ViewBatch
from strata.extract.encoders.registry import create
from strata.extract.encoders.timm_vit import TimmViT
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from .compared import close

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0, "dynamic_img_size": True}
VIT = {**SMALL, "img_size": 56, "patch_size": 14}
ROPE = {**SMALL, "img_size": 64, "patch_size": 16, "use_rot_pos_emb": True, "init_values": 0.3}
MODELS = {
    "vit": (VisionTransformer, VIT),
    "vit_registers": (
        VisionTransformer,
        {**VIT, "reg_tokens": 4, "no_embed_class": True, "init_values": 0.3},
    ),
    "vit_no_prefix": (
        VisionTransformer,
        {**VIT, "class_token": False, "global_pool": "avg", "qk_norm": True},
    ),
    "eva_dinov3": (
        Eva,
        {**ROPE, "num_reg_tokens": 4, "rope_type": "dinov3", "use_abs_pos_emb": False, "qkv_bias": False},
    ),
    "eva_biases": (Eva, {**ROPE, "rope_type": "cat", "qk_norm": True, "swiglu_mlp": True}),
    "eva_split_mixed": (Eva, {**ROPE, "rope_type": "mixed", "qkv_fused": False, "global_pool": "token"}),
}
GRIDS = {"native": (4, 4), "landscape": (3, 5), "portrait": (7, 2)}


def build(name: str) -> TimmViT:
    """The model with noise in every parameter, so that no bias, scale or embedding is without effect."""
    kind, kwargs = MODELS[name]
    model = kind(**kwargs)
    noise = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        offset = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        parameter.data = offset + 0.2 * torch.randn(parameter.shape, generator=noise)
    info = EncoderInfo(
        name=name, patch_size=kwargs["patch_size"], depth=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    return TimmViT(model, info)


def batch_of(encoder: Encoder, grid: tuple[int, int], sets: int = 1, views: int = 2) -> ViewBatch:
    height, width = (side * encoder.info.patch_size for side in grid)
    noise = torch.Generator().manual_seed(1)
    return ViewBatch(images=torch.rand(sets, views, 3, height, width, generator=noise), grid=grid)


def normalised(encoder: TimmViT, batch: ViewBatch) -> torch.Tensor:
    mean, std = torch.tensor(encoder.info.mean), torch.tensor(encoder.info.std)
    return (batch.images.flatten(0, 1) - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(params=MODELS)
def encoder(request) -> TimmViT:
    return build(request.param)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_equals_timm(encoder, grid):
    batch, model = batch_of(encoder, grid), encoder._model
    images, prefixes = normalised(encoder, batch), len(encoder.prefix_names())
    maps = encoder.forward(batch, ("block2", "patch_embed", "block0", "norm"))
    with torch.no_grad():
        raw = model.forward_intermediates(images, norm=False, output_fmt="NLC", intermediates_only=True)
        final = model.forward_features(images)
    for k in (0, 2):
        close(maps[f"block{k}"].tokens[0], raw[k].unflatten(1, grid))
    close(maps["norm"].tokens[0], final[:, prefixes:].unflatten(1, grid))
    if prefixes:
        close(maps["norm"].prefix[0], final[:, :prefixes])
    else:
        assert maps["norm"].prefix is None


def test_patch_embed_is_what_enters_the_first_block(encoder):
    batch, entered = batch_of(encoder, (3, 5)), []
    encoder._model.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    encoder._model.forward_features(normalised(encoder, batch))
    tokens = encoder.forward(batch, ("patch_embed",))["patch_embed"].tokens
    close(tokens[0].flatten(1, 2), entered[0][:, len(encoder.prefix_names()) :])


def test_branches_add_up_to_the_block(encoder):
    layers = ("block0", "block1.attn", "block1.mlp", "block1")
    before, attn, mlp, after = (m.tokens for m in encoder.forward(batch_of(encoder, (3, 5)), layers).values())
    block = encoder._model.blocks[1]
    attn_scale = block.gamma_1 if hasattr(block, "gamma_1") else getattr(block.ls1, "gamma", 1.0)
    mlp_scale = block.gamma_2 if hasattr(block, "gamma_2") else getattr(block.ls2, "gamma", 1.0)
    close(before + attn_scale * attn + mlp_scale * mlp, after)


def test_norm_tap_is_timms_normalised_intermediate(encoder):
    batch, model = batch_of(encoder, (3, 5)), encoder._model
    with torch.no_grad():
        images = normalised(encoder, batch)
        first, last = model.forward_intermediates(
            images, indices=[1, 2], norm=True, output_fmt="NLC", intermediates_only=True
        )
    maps = encoder.forward(batch, ("block2.norm", "block1.norm", "norm"))
    close(maps["block1.norm"].tokens[0].flatten(1, 2), first)
    close(maps["block2.norm"].tokens[0].flatten(1, 2), last)
    assert torch.equal(maps["block2.norm"].tokens, maps["norm"].tokens)


def test_keys_are_those_of_the_attention(encoder):
    batch, keys = batch_of(encoder, (3, 5)), []
    norm = encoder._model.blocks[1].attn.k_norm
    norm.register_forward_pre_hook(lambda _, args: keys.append(args[0]))
    maps, start = encoder.forward(batch, ("block1.keys",)), len(encoder.prefix_names())
    close(maps["block1.keys"].tokens[0].flatten(1, 2), keys[0].transpose(1, 2).flatten(2)[:, start:])
    assert maps["block1.keys"].tokens.shape[-1] == encoder.width("block1.keys")


def test_attention_and_mlp_taps_are_what_timms_modules_put_out(encoder):
    batch, out = batch_of(encoder, (3, 5)), {}
    block, start = encoder._model.blocks[1], len(encoder.prefix_names())
    for name in ("attn", "mlp"):
        getattr(block, name).register_forward_hook(lambda *args, name=name: out.update({name: args[2]}))
    with torch.no_grad():
        encoder._model.forward_features(normalised(encoder, batch))
    expected = dict(out)
    for name, tap in encoder.forward(batch, ("block1.attn", "block1.mlp")).items():
        close(tap.tokens[0].flatten(1, 2), expected[name.partition(".")[2]][:, start:])


@pytest.mark.parametrize(
    ("layers", "calls"),
    [((), 0), (("patch_embed",), 0), (("block0",), 1), (("block0", "block1.keys"), 2), (("norm",), 3)],
)
def test_stops_after_the_last_wanted_layer(encoder, layers, calls):
    ran = []
    for block in encoder._model.blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    assert set(encoder.forward(batch_of(encoder, (2, 2)), layers)) == set(layers)
    assert len(ran) == calls


def test_leaves_no_hooks_behind(encoder):
    batch, layers = batch_of(encoder, (2, 2)), ("block1.attn", "block1.keys")
    encoder.forward(batch, layers)
    with pytest.raises(RuntimeError, match="size"):
        encoder.forward(replace(batch, images=batch.images[:, :, :2]), layers)
    assert not any(module._forward_hooks for module in encoder._model.modules())


def test_a_model_of_one_size_gives_the_same_at_its_size():
    encoder = build("vit_registers")
    static = VisionTransformer(**{**MODELS["vit_registers"][1], "dynamic_img_size": False}).eval()
    static.load_state_dict(encoder._model.state_dict())
    batch = batch_of(encoder, (4, 4))
    with torch.no_grad():
        final = static.forward_features(normalised(encoder, batch))
    close(encoder.forward(batch, ("norm",))["norm"].tokens[0].flatten(1, 2), final[:, 5:])
    with pytest.raises(EncoderError, match="one size only"):
        TimmViT(static, encoder.info)


def test_sets_and_views_keep_their_places():
    encoder = build("vit_registers")
    batch = batch_of(encoder, (2, 3), sets=2, views=3)
    tokens = encoder.forward(batch, ("norm",))["norm"].tokens
    assert tokens.shape == (2, 3, 2, 3, 48)
    alone = replace(batch, images=batch.images[:1, 1:2])
    close(encoder.forward(alone, ("norm",))["norm"].tokens[0, 0], tokens[0, 1])


def test_prefix_names():
    assert build("vit").prefix_names() == ("cls",)
    assert build("vit_registers").prefix_names() == ("cls", "reg0", "reg1", "reg2", "reg3")
    assert build("vit_no_prefix").prefix_names() == ()
    assert create("timm:deit_tiny_distilled_patch16_224", "random:0").prefix_names() == ("cls", "dist")


def test_layers_are_listed_from_shallow_to_deep():
    layers = build("eva_dinov3").layers()
    assert (layers[0], layers[-1]) == ("patch_embed", "norm")
    taps = ("block1", "block1.attn", "block1.keys", "block1.mlp", "block1.norm")
    assert layers[6:11] == taps
    assert len(layers) == 17


def test_is_frozen_and_gives_no_gradients(encoder):
    assert not any(module.training for module in encoder._model.modules())
    assert not any(parameter.requires_grad for parameter in encoder._model.parameters())
    assert encoder.forward(batch_of(encoder, (2, 2)), ("norm",))["norm"].tokens.is_inference()


def test_16_bit_is_autocast_over_float32_weights(encoder):
    batch = batch_of(encoder, (3, 4))
    full = encoder.forward(batch, ("block2", "block2.keys"))
    half = encoder.to("cpu", torch.bfloat16).forward(batch, ("block2", "block2.keys"))
    assert half["block2.keys"].tokens.dtype == torch.bfloat16
    assert {p.dtype for p in encoder._model.parameters()} == {torch.float32}
    error = (half["block2"].tokens - full["block2"].tokens).norm() / full["block2"].tokens.norm()
    assert 0 < error < 0.05
    with pytest.raises(EncoderError, match="float64"):
        encoder.to("cpu", torch.float64)


def test_refuses_sizes_between_patches():
    encoder = build("vit")
    batch = ViewBatch(images=torch.rand(1, 1, 3, 70, 100), grid=(5, 7))
    with pytest.raises(EncoderError) as caught:
        encoder.forward(batch, ("norm",))
    assert "70 x 98 and 70 x 112" in caught.value.fix


def test_refuses_another_grid_than_the_images():
    encoder = build("vit")
    with pytest.raises(EncoderError, match=r"\(3, 2\)"):
        encoder.forward(replace(batch_of(encoder, (2, 3)), grid=(3, 2)), ("norm",))


def test_unknown_layers():
    encoder = build("vit")
    for layer in ("block3", "block0.values", "frame0"):
        with pytest.raises(LayerError):
            encoder.forward(batch_of(encoder, (2, 2)), (layer,))
        with pytest.raises(LayerError):
            encoder.width(layer)


def test_dinov2_small_at_an_odd_size():
    encoder = create("vit_small_patch14_dinov2", "random:0")
    tokens = encoder.forward(batch_of(encoder, (5, 7), views=1), ("block3",))["block3"].tokens
    assert tokens.shape == (1, 1, 5, 7, 384)
    assert tokens.isfinite().all()
