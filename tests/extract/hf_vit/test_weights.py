"""Weights of other names, images that are no squares, and the library's own normalisation."""

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
from strata.errors import EncoderError
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.hf_vit import HfViT
from strata.extract.encoders.presets import load_preset
from strata.extract.encoders.registry import create

from ..compared import close
from .small_models import CLIP, HALF, IMAGENET, MLP, batch_of, loaded, normalised

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
