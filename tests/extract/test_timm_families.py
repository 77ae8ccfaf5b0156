"""Every family that timm runs, from the image on, on small models of its architectures.

A small model is timm's architecture with fewer channels and blocks, saved as a checkpoint and loaded
through the adapter. What is expected is made by timm alone: transform, positions, blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create
from strata.extract.encoders.timm_models import create_timm
from strata.extract.encoders.timm_vit import TimmViT
from strata.store.feature_store import FeatureStore
from strata.testing import check_encoder

from .compared import close

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3}
NAFLEX = {**SMALL, "pos_embed_grid_size": (4, 4)}


@dataclass(frozen=True)
class Family:
    """A preset, what makes its architecture small, and what its prefix tokens are called."""

    preset: str
    options: dict[str, Any]
    prefix: tuple[str, ...] = ("cls",)

    @property
    def architecture(self) -> str:
        return str(load_preset(self.preset).model)

    @property
    def patch(self) -> int:
        return load_preset(self.preset).info.patch_size


REGISTERS = ("cls", "reg0", "reg1", "reg2", "reg3")
FAMILIES = {
    "dinov2": Family("dinov2_base", {**SMALL, "img_size": 56}),
    "dinov2_registers": Family("dinov2_base_reg", {**SMALL, "img_size": 56}, REGISTERS),
    "dinov2_swiglu": Family("dinov2_giant", {**SMALL, "img_size": 56}),
    "dinov3": Family("dinov3_base", SMALL, REGISTERS),
    "dinov3_plus": Family("dinov3_huge_plus", SMALL, REGISTERS),
    "dinov3_7b": Family("dinov3_7b", SMALL, REGISTERS),
    "deit3": Family("deit3_base_16", {**SMALL, "img_size": 64}),
    "siglip2": Family("siglip2_base_16", {**SMALL, "img_size": 64}, ()),
    "siglip2_naflex": Family("siglip2_base_16_naflex", NAFLEX, ()),
    "radio": Family("radio_v3_base", NAFLEX, ("cls", *(f"reg{i}" for i in range(7)))),
    "radio_v4": Family("radio_v4_so400m", NAFLEX, ("cls", *(f"reg{i}" for i in range(9)))),
    "sam": Family(
        "sam_base",
        {**SMALL, "img_size": 64, "window_size": 3, "global_attn_indexes": (1,), "neck_chans": 16},
        (),
    ),
}
GRIDS = {"native": (4, 4), "landscape": (3, 5), "portrait": (7, 2)}


def library(family: Family) -> Any:
    """The model with noise in every parameter, so that no bias, scale or embedding is without effect."""
    any_size = (
        {}
        if family.preset.startswith(("radio", "sam", "siglip2_base_16_naflex"))
        else {"dynamic_img_size": True}
    )
    model: Any = timm.create_model(family.architecture, num_classes=0, **any_size, **family.options)
    noise = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = offset + 0.2 * torch.randn(parameter.shape, generator=noise)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any]) -> Callable[[str], TimmViT]:
    """By family, the model loaded from its checkpoint; `models` has the library's own."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def encoder(name: str) -> TimmViT:
        if name not in made:
            family, path = FAMILIES[name], folder / f"{name}.safetensors"
            models[name] = library(family)
            save_file(models[name].state_dict(), path)
            info = replace(load_preset(family.preset).info, depth=3, width=48)
            made[name] = create_timm({"architecture": family.architecture, **family.options}, info, str(path))
        return made[name]

    return encoder


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def pictures(family: Family, grid: tuple[int, int]) -> list[Image.Image]:
    height, width = (side * family.patch for side in grid)
    pixels = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    return [Image.fromarray(image) for image in pixels]


def batch_of(images: list[Image.Image], grid: tuple[int, int]) -> ViewBatch:
    pixels = np.stack([np.asarray(image) for image in images])
    return ViewBatch(images=torch.from_numpy(pixels).permute(0, 3, 1, 2)[None] / 255, grid=grid)


def as_timm_sees(family: Family, images: list[Image.Image]) -> torch.Tensor:
    """The images through timm's own transform for these weights, at the size that they have."""
    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.get_pretrained_cfg(family.architecture).to_dict()
    )
    size = (3, images[0].height, images[0].width)
    transform: Any = timm.data.create_transform(**{**config, "input_size": size, "crop_pct": 1.0})
    return torch.stack([transform(image) for image in images])


@torch.no_grad()
def expected(model: Any, images: torch.Tensor, prefix: int) -> dict[str, torch.Tensor]:
    """By layer, what timm computes, [N, S, D]; SAM's maps [N, D, R, C] are flattened row by row."""
    entered: list[torch.Tensor] = []
    handle = model.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    final = model.forward_features(images)
    handle.remove()
    if final.dim() == 4:
        raw = model.forward_intermediates(images, intermediates_only=True)
        rows = {f"block{k}": block.flatten(2).transpose(1, 2) for k, block in enumerate(raw)}
        return {"patch_embed": entered[0].flatten(1, 2), **rows, "norm": final.flatten(2).transpose(1, 2)}
    options = {"norm": False, "output_fmt": "NLC", "intermediates_only": True, "return_prefix_tokens": True}
    raw = model.forward_intermediates(images, **options)
    blocks = [torch.cat((part[1], part[0]), dim=1) if prefix else part for part in raw]
    return {"patch_embed": entered[0], **{f"block{k}": x for k, x in enumerate(blocks)}, "norm": final}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_equals_timm_from_the_image_on(
    name: str, grid: tuple[int, int], encoders: Callable[[str], TimmViT], models: dict[str, Any]
):
    family, encoder = FAMILIES[name], encoders(name)
    images, prefix = pictures(family, grid), len(family.prefix)
    layers = expected(models[name], as_timm_sees(family, images), prefix)
    maps = encoder.forward(batch_of(images, grid), tuple(layers))
    assert set(maps) == {"patch_embed", "block0", "block1", "block2", "norm"}
    for layer, sequence in layers.items():
        close(maps[layer].tokens[0], sequence[:, prefix:].unflatten(1, grid))
        assert maps[layer].prefix_names == family.prefix
        if prefix:
            close(maps[layer].prefix[0], sequence[:, :prefix])


def test_keeps_the_contract(name: str, encoders: Callable[[str], TimmViT]):
    encoder = encoders(name)
    assert encoder.prefix_names() == FAMILIES[name].prefix
    check_encoder(encoder)


@pytest.mark.parametrize("of", ["dinov2_registers", "dinov3", "sam"])
def test_grid_and_pixels_ask_for_the_same(of: str, encoders: Callable[[str], TimmViT], pipeline):
    encoder, rows, cols = encoders(of), 3, 5
    pixels = [rows * encoder.info.patch_size, cols * encoder.info.patch_size]
    pipeline.add("a")
    words = {"layers": ["block1", "norm"], "views": "none"}
    pipeline.extract(encoder, grid=[rows, cols], **words)
    pipeline.extract(encoder, pixels=pixels, **words)
    store = FeatureStore.open(pipeline.root)
    by_grid = store.select(encoder.info.name, grid=[rows, cols], pixels=None).load()
    by_pixels = store.select(encoder.info.name, pixels=pixels).load()
    assert [part.grid for part in by_grid] == [part.grid for part in by_pixels] == [(rows, cols)]
    for layer in ("block1", "norm"):
        assert np.array_equal(by_grid[0].tokens[layer], by_pixels[0].tokens[layer])


def test_windows_of_sam_come_back_in_their_places(encoders: Callable[[str], TimmViT]):
    """Taps inside attention see windows of 3 x 3 tokens, some filled up with zeros."""
    encoder, grid = encoders("sam"), (4, 5)
    images = pictures(FAMILIES["sam"], grid)
    layers = ("patch_embed", "block0.attn", "block0.mlp", "block0", "block0.keys", "block1.keys")
    maps = {layer: out.tokens for layer, out in encoder.forward(batch_of(images, grid), layers).items()}
    close(maps["patch_embed"] + maps["block0.attn"] + maps["block0.mlp"], maps["block0"])
    for k, entered in ((0, "patch_embed"), (1, "block0")):
        block: Any = encoder.blocks[k]
        keys = block.attn.qkv(block.norm1(maps[entered])).chunk(3, dim=-1)[1]
        close(maps[f"block{k}.keys"], keys)
    assert encoder.width("norm") == 16


def test_stops_after_the_last_wanted_layer(name: str, encoders: Callable[[str], TimmViT]):
    encoder, ran = encoders(name), []
    handles = [block.register_forward_hook(lambda *_: ran.append(1)) for block in encoder.blocks]
    batch = batch_of(pictures(FAMILIES[name], (2, 3)), (2, 3))
    for layers, calls in ((("patch_embed",), 0), (("block0", "block1"), 2), (("norm",), 3)):
        ran.clear()
        encoder.forward(batch, layers)
        assert len(ran) == calls
    for handle in handles:
        handle.remove()


def test_dinov3_of_timm_and_of_transformers_are_one_model(tmp_path: Path, encoders: Callable[[str], TimmViT]):
    """At any size: rotary positions are a function of the place alone."""
    encoder, grid = encoders("dinov3_plus"), (3, 5)
    state = {name: tensor for name, tensor in encoder.state().items() if "rope" not in name}
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 16}
    hidden = state["blocks.0.mlp.fc2.weight"].shape[1]
    more = {
        "intermediate_size": hidden,
        "num_register_tokens": 4,
        "use_gated_mlp": True,
        "hidden_act": "silu",
    }
    values: Any = load_preset("dinov3_huge_plus_hf").model
    config = transformers.DINOv3ViTConfig(**{**values, **sizes, **more})
    config.save_pretrained(tmp_path)
    save_file(in_hub_names(state), tmp_path / "model.safetensors")
    batch = batch_of(pictures(FAMILIES["dinov3_plus"], grid), grid)
    ours, theirs = (e.forward(batch, ("block1", "norm")) for e in (encoder, create(f"hf:{tmp_path}")))
    for layer in ours:
        close(ours[layer].tokens, theirs[layer].tokens)
        close(ours[layer].prefix, theirs[layer].prefix)


HUB_NAMES = (
    ("patch_embed.proj", "embeddings.patch_embeddings"),
    ("reg_token", "embeddings.register_tokens"),
    ("cls_token", "embeddings.cls_token"),
    ("blocks.", "layer."),
    ("attn.proj", "attention.o_proj"),
    ("gamma_1", "layer_scale1.lambda1"),
    ("gamma_2", "layer_scale2.lambda1"),
    ("mlp.fc1_g", "mlp.gate_proj"),
    ("mlp.fc1_x", "mlp.up_proj"),
    ("mlp.fc2", "mlp.down_proj"),
)


def in_hub_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a DINOv3 of timm as checkpoints of the hub name them."""
    named = {"embeddings.mask_token": torch.zeros(1, 1, 48)}
    for name, tensor in state.items():
        for timms, hubs in HUB_NAMES:
            name = name.replace(timms, hubs)
        if "qkv" in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                named[name.replace("attn.qkv", f"attention.{part}_proj")] = third.clone()
        else:
            named[name] = tensor
    layers = {name.partition(".attention")[0] for name in named if ".attention." in name}
    # timm leaves out biases that are zero in all released weights.
    for layer in layers:
        for part in ("q", "v"):
            named.setdefault(f"{layer}.attention.{part}_proj.bias", torch.zeros(48))
    return named
