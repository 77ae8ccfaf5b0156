"""Bilinear sampling of token maps."""

from __future__ import annotations

from torch import Tensor

from . import reference

__all__ = ["sample_tokens"]


def sample_tokens(tokens: Tensor, rowcol: Tensor) -> Tensor:
    """Tokens at fractional positions; a whole coordinate is a token's centre and gives it exactly.

    Args:
        tokens: [..., R, C, D], any float dtype.
        rowcol: [N, 2] (row, column) in tokens.

    Returns:
        [..., N, D] in the dtype of the tokens: bilinear between centres, the outermost token up to
        half a token beyond its centre, NaN outside. Differentiable in `tokens`.
    """
    return reference.sample_tokens(tokens, rowcol)
