"""MuM: a ViT-L/16 with rotary positions that was trained to complete many views of a scene.

Its arithmetic is that of timm's Eva with DINOv3's rotary embedding, and both official files go into it
name by name: of the full autoencoder the decoder is left out. Two settings differ between the two
official classes. Ours are a LayerNorm eps of 1e-5, with which the weights were trained, and a rotary
table of float32, made anew: the one in the encoder's file may be rounded to bfloat16.

Nordström et al., "MuM: Multi-View Masked Image Modeling for 3D Vision", 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from .base import EncoderInfo
from .released import released_file
from .timm_vit import TimmViT
from .weights import check_state, load_state, random_seed

_EPS = 1e-5
_NOT_OF_THE_ENCODER = ("decoder_", "mask_token", "rope_embed_decoder.", "rope_embed.periods")


def create_mum(model: Mapping[str, Any], info: EncoderInfo, weights: str) -> TimmViT:
    """The encoder with the released weights (`hub`), `random:<seed>`, or either official file.

    Args:
        model: `url` of the released weights, and `embed_dim`, `depth` and `num_heads`.
        info: what it declares.

    Raises:
        EncoderError: the weights are out of reach or do not fit.
    """
    sizes = dict(model)
    url, seed = sizes.pop("url"), random_seed(weights)
    if seed is not None:
        return TimmViT(_build(sizes, seed=seed, patch_size=info.patch_size), info)
    path = released_file(url) if weights == "hub" else Path(weights)
    state = encoder_state(load_state(path))  # before the model, which takes a while to make
    built = _build(sizes, seed=0, patch_size=info.patch_size)
    check_state(state, built.state_dict(), path)
    built.load_state_dict(state)
    return TimmViT(built, info).filled_from(path)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors of either official file."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_NOT_OF_THE_ENCODER)}


def _build(sizes: Mapping[str, Any], *, seed: int, patch_size: int) -> Eva:
    """The model with timm's own initialisation; the global random state is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Eva(
            **sizes,
            patch_size=patch_size,
            num_classes=0,
            global_pool="",
            # With its default, `eva`, keys would have no bias.
            attn_type="rope",
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            rope_temperature=100.0,
            rope_rotate_half=True,
            use_post_transformer_norm=True,
            use_fc_norm=False,
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=_EPS),
        )
