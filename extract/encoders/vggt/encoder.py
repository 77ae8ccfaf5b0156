"""VGGT as an encoder of whole view sets: what its alternating attention knows of every view, layer by layer.

Layers:

`patch_embed`   what enters the first block: camera and register tokens, then the patch embedding's tokens
`frame<k>`      after the attention within each view of pair k
`global<k>`     after the attention among all views of pair k
`norm`          after the last pair, which no norm follows

Shapes: B sets, V views, R C token rows and columns, T prefix tokens (camera, registers), N = T + R C tokens
of a view, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import EncoderError
from ....store.key import canonical_json
from ....store.layers import resolve_layers
from ..base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from ..digest_cache import cached_digest
from ..image_size import token_grid
from ..weights import random_seed, state_digest
from .checkpoint import find_weights
from .model import VGGT
from .registered import RegisteredPatchEmbed

_NO_HEADS = {"camera_head": None, "track_head": None, "enable_depth": False, "enable_point": False}
_INSTEAD = "weights=FOLDER; weights=random:0 needs no download"
# What the config says of where weights came from, and what changes no number here.
_NOT_OF_THE_NUMBERS = ("seed", "head_frames", "dpt", "init_values", *_NO_HEADS)


def create_vggt(model: Mapping[str, Any], info: EncoderInfo, weights: str) -> VGGTEncoder:
    """The encoder with the released weights (`hub`), `random:<seed>`, or those of a folder or file.

    A folder that training or `VGGT.save` wrote brings its own config: sizes, and any encoder inside.

    Args:
        model: config of the preset, and `repository` of its weights if there are any.
        info: what it declares; sizes of the weights' config take the place of its own.

    Raises:
        EncoderError: the weights are out of reach or do not fit.
    """
    values, seed = dict(model), random_seed(weights)
    repository = values.pop("repository", None)
    if seed is not None:
        # Layer scales at 1: with those of training's start, every block of a random floor is the identity.
        built = VGGT.from_config({**values, **_NO_HEADS, "init_values": 1.0, "seed": seed})
    elif weights == "hub" and repository is None:
        raise EncoderError(
            f"{info.name} has no weights on the hub.",
            where="weights",
            why="it was never trained",
            fix="give weights=random:0, or weights=PATH of a model that training exported",
        )
    else:
        source = repository if weights == "hub" else weights
        file, _ = find_weights(source, _INSTEAD)
        return VGGTEncoder(VGGT.from_pretrained(source, config=_NO_HEADS), info, file)
    return VGGTEncoder(built, info)


class VGGTEncoder(Encoder):
    """Frozen; weights stay float32, 16-bit dtypes compute under autocast.

    Args:
        model: its heads are not used.
        info: what it declares; what the model says of itself takes the place of it.
        file: that the weights came from, if one did; the digest is remembered with it.
    """

    def __init__(self, model: VGGT, info: EncoderInfo, file: Path | None = None) -> None:
        self._config, self._file = model.config, file
        self._aggregator: Any = model.eval().requires_grad_(False).aggregator
        embed = self._aggregator.patch_embed
        normalised = embed.encoder.info if isinstance(embed, RegisteredPatchEmbed) else embed
        self.info = replace(
            info,
            patch_size=model.config.patch_size,
            depth=model.config.depth,
            width=model.config.embed_dim,
            mean=tuple(normalised.mean),
            std=tuple(normalised.std),
            context="set",
        )
        self._device, self._dtype = self._aggregator.camera_token.device, torch.float32

    def width(self, layer: str) -> int:
        resolve_layers((layer,), self.layers(), self.info.depth)
        return self.info.width

    def layers(self) -> tuple[str, ...]:
        pairs = [name for k in range(self.info.depth) for name in (f"frame{k}", f"global{k}")]
        return ("patch_embed", *pairs, "norm")

    def prefix_names(self) -> tuple[str, ...]:
        """`camera`, then `reg0`, `reg1`, ..."""
        return ("camera", *(f"reg{i}" for i in range(self._config.num_register_tokens)))

    @torch.inference_mode()
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        wanted = resolve_layers(layers, self.layers(), self.info.depth)
        grid = token_grid(self.info, batch)
        images = batch.images.to(self._device, torch.float32)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            sequences = self._run(images, grid, {self._step(layer) for layer in wanted})
        return {layer: self._feature_map(sequences[self._step(layer)], grid) for layer in wanted}

    def weights_digest(self) -> str:
        return self._digest

    def to(self, device: str | torch.device, dtype: torch.dtype) -> VGGTEncoder:
        self.info.check_computes(dtype)
        self._device, self._dtype = torch.device(device), dtype
        self._aggregator.to(self._device)
        return self

    @cached_property
    def _digest(self) -> str:
        """Over the tensors, and the settings that change the numbers and that no tensor tells."""
        embed, settings = self._aggregator.patch_embed, asdict(self._config)
        settings = {name: value for name, value in settings.items() if name not in _NOT_OF_THE_NUMBERS}
        if isinstance(embed, RegisteredPatchEmbed):
            settings["encoder"] = {
                **settings["encoder"],
                "weights": None,
                "digest": embed.encoder.weights_digest(),
            }
        text = torch.tensor(list(canonical_json(settings).encode()))
        state = {**self._aggregator.state_dict(), "settings": text}
        if self._file is None:
            return state_digest(state)
        return cached_digest(self._file, state, lambda: state_digest(state))

    def _step(self, layer: str) -> str:
        return f"global{self.info.depth - 1}" if layer == "norm" else layer

    def _run(self, images: Tensor, grid: tuple[int, int], wanted: set[str]) -> dict[str, Tensor]:
        """Sequences [B, V, N, D] of the wanted steps; the model stops at the deepest of them."""
        order = self.layers()
        steps = 1 + max((order.index(name) for name in wanted), default=-1)
        if not steps:
            return {}
        sequences = self._aggregator.steps(self._aggregator.encode(images), grid)
        return {name: sequence for name, sequence in islice(sequences, steps) if name in wanted}

    def _feature_map(self, sequence: Tensor, grid: tuple[int, int]) -> FeatureMap:
        names = self.prefix_names()
        tokens = sequence[:, :, len(names) :].unflatten(2, grid)  # [B, V, R, C, D]
        return FeatureMap(tokens=tokens, prefix=sequence[:, :, : len(names)], prefix_names=names)
