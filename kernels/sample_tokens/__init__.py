"""Bilinear sampling of token maps."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from ...errors import StrataError
from ..quantized import QuantizedTokens
from . import reference

__all__ = ["QuantizedTokens", "sample_tokens"]


def sample_tokens(tokens: Tensor | QuantizedTokens, rowcol: Tensor) -> Tensor:
    """Tokens at fractional positions; a whole coordinate is a token's centre and gives it exactly.

    A map covers rows [-0.5, R - 0.5] and columns [-0.5, C - 0.5]. Between the outermost centres and
    the border the outermost token holds; outside, and at NaN positions, the result is NaN. A token
    of weight zero has no influence, be it NaN. Differentiable in `tokens`; on a GPU equal input gives
    equal bits, of gradients too.

    Args:
        tokens: [..., R, C, D], any float dtype, or `QuantizedTokens`, which are widened on the fly.
        rowcol: [N, 2] (row, column) in tokens, the same for all maps, or [..., N, 2] of each map.

    Returns:
        [..., N, D] in the dtype of the tokens, float32 of quantized ones.

    Raises:
        StrataError: the positions belong to other maps.
    """
    maps = tokens.shape[:-3]
    if rowcol.shape[-1:] != (2,) or (rowcol.ndim != 2 and rowcol.shape[:-2] != maps):
        raise StrataError(
            f"positions {list(rowcol.shape)} do not go with tokens {list(tokens.shape)}.",
            where="sample_tokens",
            why="positions are [N, 2] for all maps, or as many as there are maps",
            fix=f"give [N, 2] or {[*maps, 'N', 2]}",
        )
    if tokens.device.type == "cuda" and tokens.dtype != torch.float64 and find_spec("triton"):
        from . import kernel

        return kernel.sample_tokens(tokens, rowcol)
    return reference.sample_tokens(tokens, rowcol)
