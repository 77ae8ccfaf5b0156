"""One adapter for every timm vision transformer of the VisionTransformer and Eva families.

The layers of `blocks.py` are timm's own up to rounding: `block<k>` is what
`forward_intermediates(norm=False)` gives, `norm` what `forward_features` gives; models that normalise
after pooling instead have no final norm, and `norm` is their last block.

Shapes: N = B V images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import linear

from ...errors import EncoderError
from ...store.layers import resolve_layers
from .base import EncoderInfo, no_overlap
from .blocks import BlockEncoder, block_number

_TAPS = {"attn": "attn", "mlp": "mlp", "keys": "attn"}  # tap -> the module it reads


class TimmViT(BlockEncoder):
    """A timm ViT.

    Args:
        model: a VisionTransformer or Eva (or a subclass) created with `dynamic_img_size=True`.
        info: what it declares; `registry.create` fills it from the model's pretrained config.

    Raises:
        EncoderError: the model was created for one image size only.
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        if not getattr(model, "dynamic_img_size", False):
            raise EncoderError(
                f"{type(model).__name__} takes images of one size only.",
                where=info.name,
                why="views of several sizes and orientations go through one encoder",
                fix="create the model with dynamic_img_size=True",
            )
        super().__init__(model, info)

    @property
    def blocks(self) -> nn.ModuleList:
        return self._model.blocks

    def width(self, layer: str) -> int:
        (name,) = resolve_layers((layer,), self._layers, self.info.depth)
        if not name.endswith(".keys"):
            return self._model.embed_dim
        return _key_projection(self.blocks[block_number(name)].attn)[0].shape[0]

    def prefix_names(self) -> tuple[str, ...]:
        """`cls`, `dist`, `reg0`, `reg1`, ...: those that the model has, in the order of its sequence."""
        model = self._model
        named = [name for name in ("cls", "dist") if getattr(model, f"{name}_token", None) is not None]
        return (*named, *(f"reg{i}" for i in range(model.num_prefix_tokens - len(named))))

    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        model = self._model
        embedded = model._pos_embed(model.patch_embed(images))
        sequence, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        per_block = getattr(model, "rope_mixed", False)  # learned rotary embeddings, one for each block

        def run_block(k: int, sequence: Tensor) -> Tensor:
            if rope is None:
                return self.blocks[k](sequence)
            return self.blocks[k](sequence, rope=rope[k] if per_block else rope)

        return model.norm_pre(sequence), run_block

    def embed_every(self, stride: int) -> None:
        embedding: Any = getattr(self._model, "patch_embed", None)
        known = isinstance(self._model, VisionTransformer | Eva)
        if not known or not isinstance(getattr(embedding, "proj", None), nn.Conv2d):
            raise no_overlap(self.info, stride)
        embedding.proj.stride = (stride, stride)
        # timm resamples positions to the grid that comes out; what it checks is whole patches side by side.
        embedding.img_size = None

    def final(self, sequence: Tensor) -> Tensor:
        return self._model.norm(sequence)

    def tapped(self, block: Any) -> Mapping[str, nn.Module]:
        return {tap: getattr(block, module) for tap, module in _TAPS.items() if hasattr(block, module)}

    def taken(self, tap: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        return linear(args[0], *_key_projection(module)) if tap == "keys" else output


def _key_projection(attention: Any) -> tuple[Tensor, Tensor | None]:
    """Weight [D, D] and bias [D] that make keys of the attention's input.

    EVA keeps its biases beside the fused projection, where the keys' is always zero.
    """
    if attention.qkv is None:
        return attention.k_proj.weight, attention.k_proj.bias
    bias = attention.qkv.bias
    return attention.qkv.weight.chunk(3)[1], None if bias is None else bias.chunk(3)[1]
