"""The adapter against the library's own forward passes, on small saved models of the very classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from strata.errors import EncoderError, LayerError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.hf_vit import HfViT
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create
from strata.testing import check_encoder

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "patch_size": 14,
    "image_size": 56,
}
MLP = {**SMALL, "intermediate_size": 96}
MODELS = {
    "dinov2": ("Dinov2", {**SMALL, "mlp_ratio": 2}),
    "dinov2_swiglu": ("Dinov2", {**SMALL, "use_swiglu_ffn": True}),
    "registers": ("Dinov2WithRegisters", {**SMALL, "num_register_tokens": 2}),
    "clip": ("CLIPVision", MLP),
    "mae": ("ViTMAE", {**MLP, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 1}),
    "vit": ("ViT", MLP),
    "siglip": ("SiglipVision", MLP),
    "dinov3": ("DINOv3ViT", {**MLP, "num_register_tokens": 2}),
    "dinov3_gated": ("DINOv3ViT", {**MLP, "use_gated_mlp": True, "query_bias": False, "value_bias": False}),
    "ijepa": ("IJepa", MLP),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NORMALISATION = {"clip": CLIP, "vit": HALF, "siglip": HALF}
ANY_SIZE = ("dinov2", "registers", "dinov3")  # interpolate without being told to
FINAL_NORMS = ("layernorm", "post_layernorm", "norm")
GRIDS = {"native": (4, 4), "landscape": (3, 5), "portrait": (7, 2), "as_many_tokens": (2, 8)}


def library(name: str, **settings: Any) -> Any:
    """The model with noise in every parameter, so that no bias, scale or embedding is without effect."""
    family, config = MODELS[name]
    made = getattr(transformers, f"{family}Config")(**config, **settings)
    model = getattr(transformers, f"{family}Model")(made).eval()
    noise = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        offset = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        parameter.data = offset + 0.2 * torch.randn(parameter.shape, generator=noise)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            library(name).save_pretrained(root / name)
        return root / name

    return folder


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(name: str, saved: Callable[[str], Path]) -> HfViT:
    return loaded(saved(name))


def loaded(folder: Path, weights: str = "hub") -> HfViT:
    encoder = create(f"hf:{folder}", weights)
    assert isinstance(encoder, HfViT)
    return encoder


def batch_of(grid: tuple[int, int], views: int = 2) -> ViewBatch:
    noise = torch.Generator().manual_seed(1)
    return ViewBatch(images=torch.rand(1, views, 3, 14 * grid[0], 14 * grid[1], generator=noise), grid=grid)


def normalised(name: str, batch: ViewBatch) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALISATION.get(name, IMAGENET))
    return (batch.images[0] - mean) / std


@torch.no_grad()
def expected(name: str, batch: ViewBatch) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The library's hidden states and final output, [N, S, D], tokens in the order of the image."""
    model, images = library(name), normalised(name, batch)
    options = {} if name.startswith(ANY_SIZE) else {"interpolate_pos_encoding": True}
    if name == "mae":
        model.config.mask_ratio = 0.0
    out = model(images, output_hidden_states=True, **options)
    states, last = list(out.hidden_states), out.last_hidden_state
    if name == "mae":  # its tokens come shuffled
        order = torch.cat((torch.zeros(len(images), 1, dtype=torch.long), 1 + out.ids_restore), 1)
        states, last = [s.gather(1, order[..., None].expand_as(s)) for s in states], last
        last = last.gather(1, order[..., None].expand_as(last))
    return states, model.post_layernorm(last) if name == "clip" else last


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_equals_the_library(name: str, encoder: HfViT, grid: tuple[int, int]):
    batch = batch_of(grid)
    states, last = expected(name, batch)
    layers = {"patch_embed": states[0], **{f"block{k}": states[k + 1] for k in range(3)}, "norm": last}
    maps, prefixes = encoder.forward(batch, tuple(layers)), len(encoder.prefix_names())
    for layer, sequence in layers.items():
        close(maps[layer].tokens[0], sequence[:, prefixes:].unflatten(1, grid))
        prefix = maps[layer].prefix
        assert (prefix is None) == (prefixes == 0)
        if prefix is not None:
            close(prefix[0], sequence[:, :prefixes])


def test_keeps_the_contract(encoder: HfViT):
    check_encoder(encoder)


def test_is_called_like_its_folder_and_says_what_it_is(name: str, encoder: HfViT):
    info = encoder.info
    assert (info.name, info.patch_size, info.depth, info.width) == (f"hf:{name}", 14, 3, 48)
    assert (info.mean, info.std) == NORMALISATION.get(name, IMAGENET)


def test_a_bright_patch_moves_its_own_token_in_every_block(encoder: HfViT):
    batch, layers = batch_of((3, 5), views=1), ("patch_embed", "block0", "block2")
    brighter = ViewBatch(images=batch.images.clone(), grid=batch.grid)
    brighter.images[..., 14:28, 42:56] += 1
    before, after = encoder.forward(batch, layers), encoder.forward(brighter, layers)
    for layer in layers:
        moved = (after[layer].tokens - before[layer].tokens)[0, 0].norm(dim=-1)
        assert divmod(int(moved.argmax()), 5) == (1, 3)


def test_branches_add_up_to_the_block(encoder: HfViT):
    layers = ("block0", "block1.attn", "block1.mlp", "block1")
    before, attn, mlp, after = (m.tokens for m in encoder.forward(batch_of((3, 5)), layers).values())
    block: Any = encoder.blocks[1]
    scales = [getattr(getattr(block, f"layer_scale{i}", None), "lambda1", 1.0) for i in (1, 2)]
    close(before + scales[0] * attn + scales[1] * mlp, after)


def test_norm_tap_is_the_block_after_the_final_norm(encoder: HfViT):
    maps = encoder.forward(batch_of((3, 5)), ("block1", "block1.norm", "block2.norm", "norm"))
    final = next(m for n, m in encoder.module.named_children() if n in FINAL_NORMS)
    close(final(maps["block1"].tokens), maps["block1.norm"].tokens)
    assert torch.equal(maps["block2.norm"].tokens, maps["norm"].tokens)


TAPPED = {"attn": ("attention", "self_attn"), "mlp": ("mlp",), "keys": ("k_proj", "key")}


def test_taps_are_what_the_librarys_modules_put_out(name: str, encoder: HfViT):
    batch, model, out, start = batch_of((3, 5)), library(name), {}, len(encoder.prefix_names())
    block = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)[1]
    for tap, modules in TAPPED.items():
        module = next(m for n, m in block.named_modules() if n.rpartition(".")[2] in modules)
        module.register_forward_hook(lambda *args, tap=tap: out.update({tap: args[2]}))
    options = {} if name.startswith(("dinov2", "registers")) else {"interpolate_pos_encoding": True}
    if name == "mae":
        model.config.mask_ratio, options["noise"] = 0.0, torch.arange(15.0).expand(2, -1)
    with torch.no_grad():
        model(normalised(name, batch), **options)
    for tap in TAPPED:
        own = out[tap][0] if isinstance(out[tap], tuple) else out[tap]
        close(
            encoder.forward(batch, (f"block1.{tap}",))[f"block1.{tap}"].tokens[0].flatten(1, 2),
            own[:, start:],
        )
    assert encoder.width("block1.keys") == 48


@pytest.mark.parametrize(
    ("layers", "calls"),
    [((), 0), (("patch_embed",), 0), (("block0",), 1), (("block0", "block1.keys"), 2), (("norm",), 3)],
)
def test_stops_after_the_last_wanted_layer(encoder: HfViT, layers: tuple[str, ...], calls: int):
    ran = []
    handles = [block.register_forward_hook(lambda *_: ran.append(1)) for block in encoder.blocks]
    assert set(encoder.forward(batch_of((2, 2)), layers)) == set(layers)
    assert len(ran) == calls
    assert len(handles) == 3


def test_prefix_names(saved: Callable[[str], Path]):
    kinds = ("dinov2", "registers", "siglip", "ijepa")
    names = {name: loaded(saved(name)).prefix_names() for name in kinds}
    assert names == {
        "dinov2": ("cls",),
        "registers": ("cls", "reg0", "reg1"),
        "siglip": (),
        "ijepa": (),
    }


def test_layers_that_are_not_there(encoder: HfViT):
    for layer in ("block3", "block0.values"):
        with pytest.raises(LayerError):
            encoder.forward(batch_of((2, 2)), (layer,))
        with pytest.raises(LayerError):
            encoder.width(layer)


def test_is_frozen_and_autocasts_16_bit(encoder: HfViT):
    batch = batch_of((3, 4))
    full = encoder.forward(batch, ("block2", "block2.keys"))
    half = encoder.to("cpu", torch.bfloat16).forward(batch, ("block2", "block2.keys"))
    assert half["block2.keys"].tokens.dtype == torch.bfloat16
    assert {(p.dtype, p.requires_grad) for p in encoder._model.parameters()} == {(torch.float32, False)}
    assert not any(module.training for module in encoder._model.modules())
    error = (half["block2"].tokens - full["block2"].tokens).norm() / full["block2"].tokens.norm()
    assert 0 < error < 0.05


HUB_NAMES = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
)


def in_hub_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a DINOv2 of timm as checkpoints of the hub name them."""
    named = {}
    for name, tensor in state.items():
        for timms, hubs in HUB_NAMES:
            name = name.replace(timms, hubs)
        if "qkv" in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                named[name.replace("attn.qkv", f"attention.attention.{part}")] = third.clone()
        else:
            named["layer" + name if name.startswith("norm.") else name] = tensor
    return named


def test_dinov2_of_transformers_and_of_timm_are_one_model(tmp_path: Path, saved: Callable[[str], Path]):
    """At the native grid; elsewhere the two interpolate positions by different rules."""
    model: Any = timm.create_model(
        "vit_small_patch14_dinov2", img_size=56, embed_dim=48, depth=3, num_heads=3, mlp_ratio=2
    )
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    save_file(in_hub_names(model.state_dict()), tmp_path / "weights.safetensors")
    batch = batch_of((4, 4))
    with torch.no_grad():
        final = model.eval().forward_features(normalised("dinov2", batch))
    tokens = loaded(saved("dinov2"), str(tmp_path / "weights.safetensors")).forward(batch, ("norm",))["norm"]
    close(tokens.tokens[0].flatten(1, 2), final[:, 1:])


def test_images_and_patches_that_are_no_squares_are_refused(tmp_path: Path):
    transformers.ViTConfig(**{**MLP, "image_size": [56, 28]}).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="no ViTModel that Strata can run") as caught:
        create(f"hf:{tmp_path}", "random:0")
    assert "image_size is [56, 28]" in caught.value.why


PROCESSORS = {
    "dinov2_base_hf": ("BitImageProcessor", IMAGENET),
    "dinov2_base_reg_hf": ("BitImageProcessor", IMAGENET),
    "dinov3_base_hf": ("DINOv3ViTImageProcessor", IMAGENET),
    "clip_base_16": ("CLIPImageProcessor", CLIP),
    "mae_base": ("ViTImageProcessor", IMAGENET),
    "dino_base_16": ("ViTImageProcessor", IMAGENET),
    "ijepa_huge_14": ("ViTImageProcessor", IMAGENET),
    "vit_base_in21k": ("ViTImageProcessor", HALF),
    "siglip_base_16": ("SiglipImageProcessor", HALF),
}


@pytest.mark.parametrize("preset", PROCESSORS)
def test_images_are_normalised_as_the_librarys_processor_does(preset: str, saved: Callable[[str], Path]):
    """A preset's mean and std, on the way from 8-bit pixels to what the model sees."""
    processor, (mean, std) = PROCESSORS[preset]
    make: Any = getattr(transformers, processor)
    made = make(do_resize=False, do_center_crop=False, image_mean=list(mean), image_std=list(std))
    pixels = np.random.default_rng(3).integers(0, 256, (28, 42, 3), np.uint8)
    theirs = made(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    entered: list[torch.Tensor] = []
    encoder = HfViT(loaded(saved("vit")).module, replace(load_preset(preset).info, depth=3, patch_size=14))
    model: Any = encoder.module
    model.embeddings.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None, None] / 255
    encoder.forward(ViewBatch(images=images, grid=(2, 3)), ("patch_embed",))
    torch.testing.assert_close(entered[0], theirs, atol=2e-6, rtol=0)
