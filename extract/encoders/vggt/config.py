"""Everything that can be chosen about a VGGT. The defaults are the released model of 1.26 billion weights.

Names are those that checkpoints and papers use, so that a dict from elsewhere means the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class DinoConfig:
    """A vision transformer of DINOv2's kind, trained as part of the model.

    Attributes:
        embed_dim: channels; none = those of the model. Other channels are led over by a linear layer.
        frozen: neither trained nor part of the graph.
        mean, std: normalisation of images in [0, 1].
    """

    type: str = "dinov2"
    depth: int = 24
    num_heads: int = 16
    num_register_tokens: int = 4
    mlp_ratio: float = 4.0
    init_values: float = 1.0
    embed_dim: int | None = None
    frozen: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """One convolution: each patch by itself. Attributes as in `DinoConfig`."""

    type: str = "conv"
    embed_dim: int | None = None
    frozen: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True, kw_only=True)
class RegisteredConfig:
    """An encoder of the registry (`strata encoders ls`), with the normalisation that it itself applies.

    Attributes:
        name: as `encoder=` of the command line takes it.
        weights: hub, random:<seed> or a path.
        layer: whose tokens take the place of the patch embedding's.
        frozen: neither trained, nor part of the graph, nor saved with the model.
        embed_dim, patch_size: its own; none = asked of the encoder.
        digest: sha256 of its weights, as `Encoder.weights_digest` says; none = any.
    """

    type: str = "registered"
    name: str
    weights: str = "hub"
    layer: str = "norm"
    frozen: bool = True
    embed_dim: int | None = None
    patch_size: int | None = None
    digest: str | None = None


EncoderConfig = DinoConfig | ConvConfig | RegisteredConfig


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """The camera head: `iters` refinements by a trunk of `trunk_depth` blocks."""

    trunk_depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0
    init_values: float = 0.01
    iters: int = 4


@dataclass(frozen=True, kw_only=True)
class DPTConfig:
    """The dense heads, and the features that are tracked.

    Attributes:
        features: channels of the fusion.
        out_channels: of the four levels.
        intermediate_layer_idx: the blocks that the levels read; none = spread over the depth.
    """

    features: int = 256
    out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    intermediate_layer_idx: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """The track head.

    Attributes:
        features: channels of the tracked feature map.
        stride: image pixels per pixel of that map.
        corr_levels, corr_radius: of the correlation pyramid.
        hidden_size, depth, num_heads, mlp_ratio, num_virtual_tracks: of the update transformer.
        iters: refinements.
        max_scale: pixels by which motion is divided.
    """

    features: int = 128
    stride: int = 2
    corr_levels: int = 7
    corr_radius: int = 4
    hidden_size: int = 384
    depth: int = 6
    num_heads: int = 8
    mlp_ratio: float = 4.0
    num_virtual_tracks: int = 64
    iters: int = 4
    max_scale: float = 518.0


@dataclass(frozen=True, kw_only=True)
class VGGTConfig:
    """A VGGT.

    Attributes:
        img_size: pixels of the square image that the encoder's position embedding is made for.
        patch_size: pixels per token side; where the encoder is a registered one, its own.
        embed_dim, depth, num_heads, mlp_ratio, init_values, qk_norm: of the alternating attention;
            `depth` counts pairs of a frame block and a global block.
        num_register_tokens: per view, beside the camera token.
        rope_freq: base of the rotary position embedding.
        encoder: what turns images into tokens.
        camera_head, track_head: none = without.
        enable_depth, enable_point: with or without these heads.
        dpt: of the dense heads and of the tracked features.
        head_frames: views that pass through a dense head at once; bounds memory, changes no number.
        seed: of random weights; none = the global generator.
    """

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_register_tokens: int = 4
    init_values: float = 0.01
    qk_norm: bool = True
    rope_freq: float = 100.0
    encoder: EncoderConfig = field(default_factory=DinoConfig)
    camera_head: CameraConfig | None = field(default_factory=CameraConfig)
    dpt: DPTConfig = field(default_factory=DPTConfig)
    track_head: TrackConfig | None = field(default_factory=TrackConfig)
    enable_depth: bool = True
    enable_point: bool = True
    head_frames: int = 8
    seed: int | None = None

    def __post_init__(self) -> None:
        from .config_rules import check_config

        check_config(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VGGTConfig:
        """The config of a dict with any of the names above, and of sections with theirs.

        `encoder` may be the name of a registered encoder. `enable_camera` and `enable_track` = False
        stand for a head that is none.

        Raises:
            ConfigError: a name is unknown, or a value of the wrong type or out of range.
        """
        from .config_parse import parsed_config

        return parsed_config(values)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes; JSON keeps it."""
        return asdict(self)

    @property
    def dpt_layers(self) -> tuple[int, ...]:
        """The blocks that the dense heads read: 4, 11, 17 and 23 of 24."""
        if self.dpt.intermediate_layer_idx is not None:
            return self.dpt.intermediate_layer_idx
        return (self.depth // 5, *(max(0, k * self.depth // 4 - 1) for k in (2, 3, 4)))
