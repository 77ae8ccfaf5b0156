"""Tokens as the store's small form holds them: 8 bits, affine per view and channel.

The 256 levels of a channel lie evenly between its least and its greatest value in one view. An error is at
most half a level, (greatest - least) / 510, and a channel of large values costs the others nothing.

Shapes: ... any batch dimensions, * those of one map (P tokens, or R C rows and columns), D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import StrataError


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTokens:
    """Tokens of the value `values * scale + offset`, in float32.

    Attributes:
        values: [..., *, D] uint8.
        scale, offset: [..., D] float32. NaN for a view without features: its tokens are NaN.

    Raises:
        StrataError: the dtype is another, or the shapes do not belong together.
    """

    values: Tensor
    scale: Tensor
    offset: Tensor

    def __post_init__(self) -> None:
        batch, width = self.scale.shape[:-1], self.scale.shape[-1:]
        shape = self.values.shape
        fits = self.values.ndim > self.scale.ndim and shape[: len(batch)] == batch and shape[-1:] == width
        if self.values.dtype != torch.uint8 or not fits or self.offset.shape != self.scale.shape:
            raise StrataError(
                f"tokens {self.values.dtype} {list(shape)} do not go with scale {list(self.scale.shape)} "
                f"and offset {list(self.offset.shape)}.",
                where="QuantizedTokens",
                why="values are uint8 [..., P, D] or [..., R, C, D], scale and offset [..., D]",
                fix="give the arrays of one layer as the store holds them",
            )

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def dequantize(self) -> Tensor:
        """[..., *, D] float32."""
        places = (1,) * (self.values.ndim - self.scale.ndim)
        scale, offset = (
            affine.float().reshape(*affine.shape[:-1], *places, affine.shape[-1])
            for affine in (self.scale, self.offset)
        )
        return self.values * scale + offset


def quantize(tokens: Tensor) -> QuantizedTokens:
    """The small form of tokens [B, *, D], any float dtype, on their device.

    A view with a number that is not finite has a scale or offset that is not finite.
    """
    wide = tokens.float().flatten(1, -2)  # [B, P, D]
    least, greatest = wide.aminmax(dim=1)  # [B, D]
    scale = (greatest - least) / 255
    step = scale.where(scale > 0, 1)  # a channel of one value is its offset
    values = ((wide - least[:, None]) / step[:, None]).round_().clamp_(0, 255).to(torch.uint8)
    return QuantizedTokens(values=values.reshape(tokens.shape), scale=scale, offset=least)
