"""Encoders behind the interface of 3DFeatProbe's feature extractors: its options in, its dictionaries out.

    extractor = feature_extractor("feature_extractor/dinov2", backbone="base", use_timm=True)
    extractor.forward_features(images)["x_norm_patchtokens"]                        # [N, P, D]

Numbers are those of our encoders: where 3DFeatProbe's are wrong, they differ
(docs/coming-from-3dfeatprobe.md says where).

Shapes: B sets, S views, N = B S images, T prefix tokens, R C token rows and columns, P = R C, D channels,
H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, EncoderError, did_you_mean
from .base import Encoder, FeatureMap, ViewBatch
from .model_ids import encoder_of
from .registry import create

Features = dict[str, Any]
_OPTIONS = ("backbone", "use_timm", "with_registers", "checkpoint_path", "preprocess_images", "layer_types")
_KINDS = ("patch_embed", "frame", "global")


def feature_extractor(
    model_id: str,
    model_config: Mapping[str, Any] | None = None,
    data_norm_type: str = "identity",
    **options: Any,
) -> FeatureExtractor:
    """The extractor that a config of 3DFeatProbe describes.

    Args:
        model_id: `feature_extractor/<name>`, or the name alone.
        model_config, options: `backbone`, `use_timm`, `with_registers`, `checkpoint_path` (None = the
            published weights, or what `weights=` takes), `preprocess_images`, `layer_types`.
        data_norm_type: `identity`; the encoder normalises images itself.

    Raises:
        ConfigError: an option is unknown or out of range.
        EncoderError: there is no such extractor, or its weights are out of reach.
    """
    values = {**(model_config or {}), **options}
    _check_options(values)
    if data_norm_type != "identity":
        raise ConfigError(
            f"data_norm_type={data_norm_type} would normalise images twice.",
            where="data_norm_type",
            why="an encoder takes images in [0, 1] and normalises them itself",
            fix="leave it out",
        )
    chosen = {name: values[name] for name in ("backbone", "use_timm", "with_registers") if name in values}
    encoder = create(encoder_of(model_id, **chosen), values.get("checkpoint_path") or "hub")
    return FeatureExtractor(
        encoder,
        preprocess_images=values.get("preprocess_images", True),
        layer_types=values.get("layer_types", ("all",)),
    )


def _check_options(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in _OPTIONS:
            raise ConfigError(
                f"a feature extractor has no option {name!r}.",
                where=f"{name}={values[name]}",
                why=f"there are {', '.join(_OPTIONS)}",
                fix=did_you_mean(name, _OPTIONS),
            )


class FeatureExtractor:
    """One encoder behind the other interface.

    Args:
        encoder: of views (one dictionary comes out), or of sets with `frame<k>` and `global<k>` layers
            (a dictionary of them by layer).
        preprocess_images: normalise images and pad them to whole patches; else they come normalised.
        layer_types: of an encoder of sets: of `patch_embed`, `frame`, `global`, or `all`.

    Raises:
        ConfigError: a layer type is unknown.
    """

    def __init__(
        self, encoder: Encoder, *, preprocess_images: bool = True, layer_types: Any = ("all",)
    ) -> None:
        self.encoder, self.preprocess_images = encoder, preprocess_images
        self.model = getattr(encoder, "module", encoder)
        self.patch_size, self.embed_dim = encoder.info.patch_size, encoder.width("norm")
        self.layers = self._layers([layer_types] if isinstance(layer_types, str) else list(layer_types))
        self._device = torch.device("cpu")

    @property
    def img_size(self) -> int | None:
        """Side in pixels of the images that the model was made for, where it says so."""
        patches, config = getattr(self.model, "patch_embed", None), getattr(self.model, "config", None)
        size = getattr(patches, "img_size", None) or getattr(config, "image_size", None)
        return size[0] if isinstance(size, tuple | list) else size

    def to(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> FeatureExtractor:
        """The extractor itself, on that device, computing in that dtype."""
        self.encoder, self._device = self.encoder.to(device, dtype), torch.device(device)
        return self

    def __call__(self, images: Tensor, unflatten_patches: bool = False) -> Features:
        return self.forward_features(images, unflatten_patches)

    def forward_features(self, images: Tensor, unflatten_patches: bool = False) -> Features:
        """Features of images [N, 3, H, W] or [B, S, 3, H, W], f32 in [0, 1] or u8.

        Args:
            unflatten_patches: [R, C] in the place of [P].

        Returns:
            `x_norm` [N, T + P, D], `x_norm_clstoken` [N, D] (where there is one) and `x_norm_patchtokens`
            [N, P, D], after the final norm. Of an encoder of sets, by layer (`patch_embed`,
            `aggregator_frame-<k>-0`, `aggregator_global-<k>-0`), `x_norm_patchtokens`: [N, P, D] of
            `patch_embed`, [B, S, P, D] of the others.

        Raises:
            EncoderError: images of another shape, or that do not fit the patch size.
        """
        if images.ndim not in (4, 5) or images.shape[-3] != 3:
            raise EncoderError(
                f"images have shape {list(images.shape)}.",
                where="forward_features",
                why="[N, 3, H, W] or [B, S, 3, H, W] is expected",
                fix="give a batch of colour images, channels before rows and columns",
            )
        views = images if images.ndim == 5 else images[:, None]
        views = self._prepared(views.to(self._device))
        grid = tuple(side // self.patch_size for side in views.shape[-2:])
        maps = self.encoder.forward(ViewBatch(images=views, grid=(grid[0], grid[1])), self.layers)
        if self.layers == ("norm",):
            return _single(maps["norm"], unflatten_patches)
        return {_key(layer): _patches(layer, maps[layer], unflatten_patches) for layer in self.layers}

    def _layers(self, kinds: list[str]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in (*_KINDS, "all"):
                fix = did_you_mean(str(kind), (*_KINDS, "all"))
                raise ConfigError(f"layer_types={kind} is not known.", where="layer_types", fix=fix)
        if self.encoder.info.context == "view":
            return ("norm",)
        wanted = tuple(_KINDS) if "all" in kinds else tuple(kinds)
        return tuple(layer for layer in self.encoder.layers() if layer.rstrip("0123456789") in wanted)

    def _prepared(self, views: Tensor) -> Tensor:
        """[B, S, 3, H, W] in [0, 1], of whole patches; what is added is 0 when it is normalised."""
        views = views.float() / 255 if views.dtype == torch.uint8 else views.float()
        info = self.encoder.info
        mean, std = (torch.tensor(v, device=views.device)[:, None, None] for v in (info.mean, info.std))
        if not self.preprocess_images:
            return views * std + mean
        height, width = views.shape[-2:]
        down, across = -height % self.patch_size, -width % self.patch_size
        padded = mean.expand(*views.shape[:2], 3, height + down, width + across).clone()
        top, left = down // 2, across // 2
        padded[..., top : top + height, left : left + width] = views
        return padded


def _single(out: FeatureMap, unflatten: bool) -> Features:
    patches = out.tokens.flatten(0, 1)  # [N, R, C, D]
    prefix = patches.new_empty(len(patches), 0, patches.shape[-1]) if out.prefix is None else out.prefix
    prefix = prefix.reshape(len(patches), -1, patches.shape[-1])
    flat = patches.flatten(1, 2)
    features = {"x_norm": torch.cat((prefix, flat), 1), "x_norm_patchtokens": patches if unflatten else flat}
    if "cls" in out.prefix_names:
        features["x_norm_clstoken"] = prefix[:, out.prefix_names.index("cls")]
    return features


def _key(layer: str) -> str:
    """`aggregator_frame-7-0` of `frame7`."""
    kind = layer.rstrip("0123456789")
    return layer if kind == "patch_embed" else f"aggregator_{kind}-{layer.removeprefix(kind)}-0"


def _patches(layer: str, out: FeatureMap, unflatten: bool) -> Features:
    tokens = out.tokens if unflatten else out.tokens.flatten(2, 3)
    return {"x_norm_patchtokens": tokens.flatten(0, 1) if layer == "patch_embed" else tokens}
