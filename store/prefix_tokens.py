"""Tokens that look at the whole image, by name: the class token, registers.

Shapes: V views, T prefix tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import SelectionError, did_you_mean
from .block import Block


def prefix_tokens(blocks: Sequence[Block], layer: str, name: str) -> np.ndarray:
    """[V, D] of one prefix token over the blocks' views, f16 or f32 as stored.

    Raises:
        SelectionError: the encoder has no prefix token of that name.
    """
    places = [_place(block, layer, name) for block in blocks]
    return np.concatenate([b.prefix(layer)[:, place] for b, place in zip(blocks, places, strict=True)])


def _place(block: Block, layer: str, name: str) -> int:
    names = block.prefix_names(layer)
    if name not in names:
        raise SelectionError(
            f"{block.stored_key.key.encoder} has no prefix token {name!r}.",
            where=f"{block.stored_key.name}, layer {layer}",
            why=f"it has {', '.join(names) or 'none'}",
            fix=did_you_mean(name, names) if names else "select an encoder with a class token or registers",
        )
    return names.index(name)
