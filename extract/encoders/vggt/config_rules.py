"""What the sizes of a VGGT must fulfil together, checked before a weight is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ....errors import ConfigError

if TYPE_CHECKING:
    from .config import VGGTConfig


def check_config(config: VGGTConfig) -> None:
    """Nothing, if a model can be built.

    Raises:
        ConfigError: it cannot; every fault is listed.
    """
    faults = [*_attention(config), *_dense(config), *_tracks(config)]
    if faults:
        raise ConfigError(
            "a VGGT of these sizes cannot be built.",
            where="the config of VGGT",
            why="\n".join(faults),
            fix="change one of the numbers named",
        )


def _attention(config: VGGTConfig) -> Iterator[str]:
    if config.embed_dim % config.num_heads or (config.embed_dim // config.num_heads) % 4:
        yield (
            f"embed_dim {config.embed_dim} over num_heads {config.num_heads} must be a multiple of 4: "
            "half of a head turns with the row, half with the column, in pairs"
        )
    encoder = config.encoder
    if encoder.type == "dinov2":
        width = encoder.embed_dim or config.embed_dim
        if width % encoder.num_heads:  # type: ignore[union-attr]
            yield f"encoder: {width} channels do not divide into {encoder.num_heads} heads"  # type: ignore[union-attr]
        if config.img_size % config.patch_size:
            yield f"img_size {config.img_size} is no multiple of patch_size {config.patch_size}"
    camera = config.camera_head
    if camera and (2 * config.embed_dim) % camera.num_heads:
        yield f"camera_head: {2 * config.embed_dim} channels do not divide into {camera.num_heads} heads"


def _dense(config: VGGTConfig) -> Iterator[str]:
    dpt = config.dpt
    if len(config.dpt_layers) != 4 or len(dpt.out_channels) != 4:
        yield "dpt: four out_channels and four intermediate_layer_idx are expected"
    outside = [layer for layer in config.dpt_layers if not 0 <= layer < config.depth]
    if outside:
        yield f"dpt.intermediate_layer_idx {outside} lies outside the blocks 0 to {config.depth - 1}"
    if any(channels % 4 for channels in dpt.out_channels) or dpt.features % 8:
        yield "dpt: out_channels must be multiples of 4, features of 8, for the position map to fit"


def _tracks(config: VGGTConfig) -> Iterator[str]:
    track = config.track_head
    if track and track.features % 4:
        yield f"track_head.features {track.features} must be a multiple of 4"
    if track and track.hidden_size % track.num_heads:
        yield f"track_head: {track.hidden_size} channels do not divide into {track.num_heads} heads"
