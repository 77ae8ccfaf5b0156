"""VGGT: images of a scene to cameras, depth, points and tracks, all in the first camera's frame.

    model = strata.VGGT.from_pretrained("facebook/VGGT-1B").to("cuda")
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        predictions = model(images)

Shapes: B sets, V views, R C token rows and columns, T prefix tokens, N = T + R C tokens of a view,
D channels, P query points, K refinements, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import EncoderError
from ..base import Encoder
from .aggregator import Aggregator
from .build import patch_embedding, seeded, settled, with_encoder
from .camera_head import CameraHead
from .config import VGGTConfig
from .dpt_head import DPTHead, depth_and_confidence, points_and_confidence
from .inputs import Inputs, checked_inputs
from .track_head import TrackHead


class VGGT(nn.Module):
    """The model, with random weights; `from_pretrained` reads others.

    Args:
        config: what to build.
        encoder: takes the place of the patch embedding; of a registered one that the config names, layer
            and other settings stay.

    Attributes:
        config: what was built, with what had to be asked of the encoder.
        weights: where the weights come from; `random` until some are read.
    """

    def __init__(self, config: VGGTConfig | None = None, *, encoder: Encoder | None = None) -> None:
        super().__init__()
        config = with_encoder(VGGTConfig() if config is None else config, encoder)
        self.weights = "random"
        with seeded(config.seed):
            patch_embed = patch_embedding(config, encoder)
            self.config = settled(config, patch_embed)
            self.aggregator = Aggregator(config, patch_embed)
            dim, dpt, track, camera = 2 * config.embed_dim, config.dpt, config.track_head, config.camera_head
            self.camera_head = CameraHead(dim, camera) if camera else None
            self.depth_head = DPTHead(dim, dpt, channels=2) if config.enable_depth else None
            self.point_head = DPTHead(dim, dpt, channels=4) if config.enable_point else None
            self.track_head = TrackHead(dim, dpt, track) if track else None
        if config.encoder.frozen:
            self.aggregator.freeze_encoder()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | VGGTConfig, *, encoder: Encoder | None = None) -> VGGT:
        """A model with random weights.

        Args:
            config: a dict of the names of `VGGTConfig`, some of them or all.
            encoder: takes the place of the patch embedding; of a registered one that the config names, layer
            and other settings stay.

        Raises:
            ConfigError: a name is unknown, or sizes do not fit each other.
            EncoderError: the encoder is unknown or cannot be used.
        """
        if not isinstance(config, VGGTConfig):
            config = VGGTConfig.from_dict(config)
        return cls(config, encoder=encoder)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        encoder: str | Mapping[str, Any] | Encoder | None = None,
    ) -> VGGT:
        """A model with the weights of a repository of the hub, a folder, or a file; in eval mode.

        Args:
            source: `owner/name`, a folder with `model.safetensors` and `config.json`, or a `.safetensors`
                or torch checkpoint.
            config: what differs from the checkpoint's own config; a head that it leaves out is not read.
            encoder: takes the place of the checkpoint's patch embedding, whose weights are not read.

        Raises:
            ConfigError: the config does not do.
            EncoderError: the weights are out of reach, or are those of another config.
        """
        from .checkpoint import read_model

        return read_model(cls, str(source), config or {}, encoder)

    def save(self, path: str | Path) -> Path:
        """Write weights and config, whole or not at all, as a folder, or as one file `*.safetensors`.

        `from_pretrained` reads both. A frozen registered encoder is named in the config, not copied.

        Raises:
            StoreError: the place cannot be written, or the disk is full.
        """
        from .checkpoint import write_model

        return write_model(self, Path(path))

    @property
    def checkpointing(self) -> bool:
        """Whether training computes activations again in the backward pass instead of keeping them."""
        return self.aggregator.checkpointing

    @checkpointing.setter
    def checkpointing(self, active: bool) -> None:
        for module in (self.aggregator, self.aggregator.patch_embed):
            module.checkpointing = active  # type: ignore[assignment]

    def freeze_encoder(self) -> None:
        """From now on the patch embedding is neither trained nor part of the graph."""
        self.aggregator.freeze_encoder()

    def forward(
        self,
        images: Tensor | Sequence[Tensor] | None,
        query_points: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> dict[str, Any]:
        """Predictions for every set of views. Heads compute in full precision under autocast; tracks do not.

        Args:
            images: [B, V, 3, H, W] (or [V, 3, H, W]) in [0, 1], not normalised; H and W are multiples of
                the patch size. None beside tokens with a grid: patches then have their own size.
            query_points: [B, P, 2] (or [P, 2]) (x, y) in pixels of the first view, to be tracked.
            tokens: [B, V, R, C, D] or [B, V, R C, D] in place of the patch embedding's. With a grid of
                their own, the images' size is that of the outputs alone.

        Returns:
            Of the heads that there are:
            `pose_enc` [B, V, 9], `pose_enc_list` K of them: see `pose_encoding.decode_pose`;
            `depth` [B, V, H, W, 1] z-depth, `depth_conf` [B, V, H, W] > 1;
            `world_points` [B, V, H, W, 3], `world_points_conf` [B, V, H, W] > 1;
            with query points `track` [B, V, P, 2] (x, y) in pixels, `vis` and `conf` [B, V, P] in [0, 1];
            in eval mode `images`, as they were given. Lengths have no metric unit.

        Raises:
            EncoderError: the input does not do; the message says what is expected. Numbers are looked at
                for NaN, except in compiled code and when training on an accelerator.
        """
        inputs = self._checked(images, query_points, tokens)
        layers = self._aggregated(inputs, self._read_by_heads(inputs))
        with torch.autocast(self.aggregator.camera_token.device.type, enabled=False):
            outputs = self._cameras(layers) | self._dense(layers, inputs)
        if inputs.query_points is not None:
            outputs |= self._tracks(layers, inputs)
        if not self.training and inputs.images is not None:
            outputs["images"] = inputs.images
        return outputs

    def aggregate(
        self,
        images: Tensor | Sequence[Tensor] | None,
        layers: Collection[int],
        tokens: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Tokens of these blocks, without the heads; blocks behind the last of them are not run.

        Args:
            images, tokens: as of `forward`.
            layers: numbers of blocks, from 0.

        Returns:
            By block [B, V, N, 2 D]: D channels after its frame attention, D after its global attention. The
            first T = 1 + registers tokens of a view are its prefix.

        Raises:
            EncoderError: the input does not do, or there is no such block.
        """
        outside = [layer for layer in layers if not 0 <= layer < self.config.depth]
        if outside:
            raise EncoderError(
                f"this VGGT has no block {outside[0]}.",
                where="layers",
                why=f"its blocks are 0 to {self.config.depth - 1}",
            )
        return self._aggregated(self._checked(images, None, tokens), layers)

    def _checked(
        self, images: Tensor | Sequence[Tensor] | None, query_points: Tensor | None, tokens: Tensor | None
    ) -> Inputs:
        if query_points is not None and self.track_head is None:
            raise EncoderError(
                "this VGGT tracks no points.",
                where="query_points",
                why="its config has track_head none",
                fix="leave query_points out",
            )
        weights = self.aggregator.camera_token
        waits = self.training and weights.device.type != "cpu"
        return checked_inputs(
            images,
            query_points,
            tokens,
            patch_size=self.config.patch_size,
            dtype=weights.dtype,
            look=not (waits or torch.compiler.is_compiling()),
        )

    def _read_by_heads(self, inputs: Inputs) -> set[int]:
        last = {self.config.depth - 1} if self.camera_head is not None else set()
        dense = self.depth_head is not None or self.point_head is not None or inputs.query_points is not None
        return last | set(self.config.dpt_layers) if dense else last

    def _aggregated(self, inputs: Inputs, keep: Collection[int]) -> dict[int, Tensor]:
        tokens = inputs.tokens
        if tokens is None:
            assert inputs.images is not None
            tokens = self.aggregator.encode(inputs.images)
        self._check_width(tokens)
        return self.aggregator(tokens, inputs.grid, keep)

    def _check_width(self, tokens: Tensor) -> None:
        width = self.aggregator.patch_embed.width
        if tokens.shape[-1] != width:
            raise EncoderError(
                f"tokens of {tokens.shape[-1]} channels do not fit.",
                where="tokens",
                why=f"the model's patch embedding has {width}",
                fix="give tokens of that very encoder and layer, or build the model for yours",
            )

    def _cameras(self, layers: Mapping[int, Tensor]) -> dict[str, Any]:
        if self.camera_head is None:
            return {}
        poses = self.camera_head(layers[self.config.depth - 1][:, :, 0])
        return {"pose_enc": poses[-1], "pose_enc_list": poses}

    def _dense(self, layers: Mapping[int, Tensor], inputs: Inputs) -> dict[str, Tensor]:
        outputs = {}
        for head, name, split in (
            (self.depth_head, "depth", depth_and_confidence),
            (self.point_head, "world_points", points_and_confidence),
        ):
            if head is not None:
                values, confidence = self._in_chunks(layers, inputs, head, split)
                outputs |= {name: values, f"{name}_conf": confidence}
        return outputs

    def _tracks(self, layers: Mapping[int, Tensor], inputs: Inputs) -> dict[str, Tensor]:
        assert self.track_head is not None
        assert inputs.query_points is not None
        (features,) = self._in_chunks(layers, inputs, self.track_head.features, lambda x: (x,))
        tracks, visibility, confidence = self.track_head.tracker(features, inputs.query_points)
        return {"track": tracks[-1], "vis": visibility, "conf": confidence}

    def _in_chunks(
        self,
        layers: Mapping[int, Tensor],
        inputs: Inputs,
        head: Callable[..., Tensor],
        split: Callable[[Tensor], Sequence[Tensor]],
    ) -> list[Tensor]:
        """What `split` makes of the head's maps, [B, V, ...] each, computed for some views at a time."""
        prefix, (height, width) = self.aggregator.prefix, inputs.size
        read = [layers[k] for k in self.config.dpt_layers]
        views = [tokens.flatten(0, 1) for tokens in read]  # [B V, N, 2 D]
        parts = []
        for start in range(0, len(views[0]), self.config.head_frames):
            some = [tokens[start : start + self.config.head_frames, prefix:] for tokens in views]
            parts.append(split(head(some, inputs.grid, inputs.size, width / height)))
        return [torch.cat(part).unflatten(0, read[0].shape[:2]) for part in zip(*parts, strict=True)]
