"""timm's image encoder of Segment Anything: attention in windows, no prefix token, a neck at the end.

`norm` is what comes out of the neck, as `forward_features` gives it, with the neck's own width. Other
layers are those of `timm_vit.py`. A window that sticks out of the grid is filled with zeros, as timm does.

Shapes: N = B V images, R C token rows and columns, D channels, M windows of W x W tokens of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import window_unpartition
from torch import Tensor, nn

from ...store.layers import resolve_layers
from .base import EncoderInfo, FeatureMap
from .blocks import BlockEncoder
from .timm_vit import TimmViT


class TimmSam(TimmViT):
    """A VisionTransformerSAM of timm. Its sequences are maps [N, R, C, D].

    Args:
        model: the VisionTransformerSAM.
        info: what it declares.
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        BlockEncoder.__init__(self, model, info)  # it takes images of any size without an option

    def width(self, layer: str) -> int:
        (name,) = resolve_layers((layer,), self._layers, self.info.depth)
        return self._model.num_features if name.split(".")[-1] == "norm" else self._model.embed_dim

    def prefix_names(self) -> tuple[str, ...]:
        return ()

    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        model = self._model
        tokens = model.patch_embed(images)  # [N, R, C, D]
        if model.pos_embed is not None:
            tokens = tokens + resample_abs_pos_embed_nhwc(model.pos_embed, tokens.shape[1:3])
        return model.norm_pre(tokens), lambda k, tokens: self.blocks[k](tokens)

    def tapped(self, block: Any) -> Mapping[str, nn.Module]:
        return {"attn": block.attn, "mlp": block.mlp, "keys": block.attn}

    def final(self, sequence: Tensor) -> Tensor:
        return self._model.neck(sequence.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _feature_map(self, sequence: Tensor, sets: Sequence[int], grid: tuple[int, int]) -> FeatureMap:
        if sequence.dim() == 3:  # what an MLP sees, [N, R C, D]
            sequence = sequence.unflatten(1, grid)
        elif sequence.shape[1:3] != grid:  # what attention in windows sees, [M, W, W, D]
            side = sequence.shape[1]
            rows, cols = (-(-length // side) * side for length in grid)
            sequence = window_unpartition(sequence, side, grid, (rows, cols))
        return FeatureMap(tokens=sequence.unflatten(0, tuple(sets)))
