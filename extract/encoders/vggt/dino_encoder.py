"""The patch embedding of a VGGT as an encoder by itself, once it was trained with the model.

Shapes: N images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from ....store.layers import resolve_layers
from ..base import EncoderInfo
from ..blocks import BlockEncoder
from ..presets import Preset
from ..weights import check_state, load_state, random_seed
from .build import seeded
from .config import DinoConfig, VGGTConfig
from .patch_embed import DinoPatchEmbed

FAMILY = "dinov2"
_UNUSED = "mask_token"


class DinoEncoder(BlockEncoder):
    """A vision transformer of DINOv2's kind, with VGGT's own arithmetic. `norm` is what the model reads."""

    @property
    def blocks(self) -> nn.ModuleList:
        return self._model.blocks

    def width(self, layer: str) -> int:
        resolve_layers((layer,), self._layers, self.info.depth)
        return self._model.width

    def prefix_names(self) -> tuple[str, ...]:
        """`cls`, then `reg0`, `reg1`, ..."""
        registers = self._model.register_tokens
        return ("cls", *(f"reg{i}" for i in range(0 if registers is None else registers.shape[1])))

    def state(self) -> Mapping[str, Tensor]:
        return {name: tensor for name, tensor in super().state().items() if name != _UNUSED}

    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        return self._model.embedded(images), lambda k, sequence: self.blocks[k](sequence)

    def final(self, sequence: Tensor) -> Tensor:
        return self._model.norm(sequence)

    def tapped(self, block: Any) -> Mapping[str, nn.Module]:
        return {"attn": block.attn, "mlp": block.mlp, "keys": block.attn}

    def taken(self, tap: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        if tap != "keys":
            return output
        projection: Any = module.qkv
        return linear(args[0], projection.weight.chunk(3)[1], projection.bias.chunk(3)[1])


def dino_preset(config: VGGTConfig, patch_embed: DinoPatchEmbed) -> Preset:
    """What a preset of a model's own patch embedding says."""
    own = config.encoder
    assert isinstance(own, DinoConfig)
    info = EncoderInfo(
        name="vggt",
        patch_size=patch_embed.patch_size,
        depth=own.depth,
        width=patch_embed.width,
        mean=_rgb(own.mean),
        std=_rgb(own.std),
    )
    sizes = {
        name: value for name, value in asdict(own).items() if name not in ("type", "mean", "std", "frozen")
    }
    return Preset(info=info, family=FAMILY, model={**sizes, "img_size": config.img_size})


def create_dino(model: Mapping[str, Any], info: EncoderInfo, weights: str) -> DinoEncoder:
    """The encoder of a preset, with random weights or those of a file.

    Raises:
        EncoderError: the weights are not there or do not fit.
    """
    sizes = dict(model)
    img_size = sizes.pop("img_size")
    config = DinoConfig(**sizes, mean=info.mean, std=info.std)
    seed = random_seed(weights)
    with seeded(seed or 0):
        built = DinoPatchEmbed(config, patch_size=info.patch_size, width=info.width, img_size=img_size)
    if seed is None:
        state = load_state(weights)
        check_state(state, built.state_dict(), weights)
        built.load_state_dict(state)
    return DinoEncoder(built, info)


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
