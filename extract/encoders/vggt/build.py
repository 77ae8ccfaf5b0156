"""From a config to the patch embedding of a VGGT, its own or a registered encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ..base import Encoder
from .config import ConvConfig, DinoConfig, RegisteredConfig, VGGTConfig
from .patch_embed import ConvPatchEmbed, DinoPatchEmbed
from .registered import RegisteredPatchEmbed

PatchEmbed = DinoPatchEmbed | ConvPatchEmbed | RegisteredPatchEmbed


def with_encoder(config: VGGTConfig, encoder: Encoder | None) -> VGGTConfig:
    """The config with this encoder in it; what it says already of a registered one is said of this one."""
    if encoder is None:
        return config
    named = config.encoder
    if not isinstance(named, RegisteredConfig):
        named = RegisteredConfig(name=encoder.info.name)
    asked = replace(named, patch_size=encoder.info.patch_size, embed_dim=None, digest=None)
    return replace(config, encoder=asked)


def patch_embedding(config: VGGTConfig, encoder: Encoder | None = None) -> PatchEmbed:
    """What the config names; the encoder itself, if it is there already."""
    own, width = config.encoder, config.encoder.embed_dim or config.embed_dim
    if isinstance(own, DinoConfig):
        return DinoPatchEmbed(own, patch_size=config.patch_size, width=width, img_size=config.img_size)
    if isinstance(own, ConvConfig):
        return ConvPatchEmbed(own, patch_size=config.patch_size, width=width)
    return RegisteredPatchEmbed(own, encoder)


def settled(config: VGGTConfig, patch_embed: PatchEmbed) -> VGGTConfig:
    """The config with what only the encoder knows, so that tokens in its place need it no more."""
    if not isinstance(config.encoder, RegisteredConfig):
        return config
    patch_size, width = patch_embed.patch_size, patch_embed.width
    encoder = replace(config.encoder, patch_size=patch_size, embed_dim=width)
    return replace(config, encoder=encoder, patch_size=patch_size)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of this seed, and the generator as it was afterwards; none = the generator's own."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
