"""timm's NaFlexVit: transformers whose positions fit images of any size and aspect by design.

RADIO and the NaFlex variants of SigLIP 2. Blocks and norms are those of `timm_vit.py`; what differs is how
patches, positions and prefix tokens come together.

Shapes: N = B V images, S = T + R C tokens of a sequence, D channels.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .base import EncoderInfo
from .blocks import BlockEncoder
from .timm_vit import TimmViT


class TimmNaFlex(TimmViT):
    """A NaFlexVit of timm, on batches of whole images of one size.

    Args:
        model: the NaFlexVit.
        info: what it declares.
    """

    def __init__(self, model: nn.Module, info: EncoderInfo) -> None:
        BlockEncoder.__init__(self, model, info)  # it takes images of any size without an option

    def prefix_names(self) -> tuple[str, ...]:
        """`cls` where the model has one, then `reg0`, `reg1`, ..."""
        embeds = self._model.embeds
        registers = 0 if embeds.reg_token is None else embeds.reg_token.shape[1]
        return (*(("cls",) if embeds.cls_token is not None else ()), *(f"reg{i}" for i in range(registers)))

    def embedded(self, images: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        parts = self._model._forward_embeds(images, None, None, None)
        rope = parts["rope_embeds"]
        per_block = list(rope) if rope is not None and self._model.rope_is_mixed else None

        def run_block(k: int, sequence: Tensor) -> Tensor:
            if rope is None:
                return self.blocks[k](sequence)
            return self.blocks[k](sequence, rope=rope if per_block is None else per_block[k])

        return parts["patches"], run_block
