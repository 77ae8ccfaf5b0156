"""Small models of each architecture with random weights, and what the library itself makes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from strata.extract.encoders.base import ViewBatch
from strata.extract.encoders.hf_vit import HfViT
from strata.extract.encoders.registry import create

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
