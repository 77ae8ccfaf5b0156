"""Features at pixels of a source image.

Shapes: N points, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import SelectionError, did_you_mean
from ..kernels.sample_tokens import sample_tokens
from .block import Block
from .set_runs import seen_in_several

if TYPE_CHECKING:
    from .selection import Selection


def sample(selection: Selection, scene: str, view: str, uv_px: np.ndarray) -> dict[str, np.ndarray]:
    """By layer, [N, D] f32 of a view at pixels [N, 2] of its source; see `Selection.sample`.

    Raises:
        SelectionError: the view is not in the selection, or `uv_px` is no list of pixels.
    """
    block, i = _find(selection.scene(scene), scene, view)
    pixels = np.asarray(uv_px, np.float64)
    if pixels.ndim != 2 or pixels.shape[1] != 2:
        raise SelectionError(
            "these are no pixels.",
            where=f"uv_px of shape {list(pixels.shape)}",
            why="it is [N, 2]: column and row of each pixel of the source image",
            fix="write [[40, 30]] for one pixel",
        )
    uv1 = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    colrow = uv1 @ block.token_from_source_px([i])[0].T
    rowcol = torch.from_numpy(np.ascontiguousarray(colrow[:, ::-1], np.float32))
    return {layer: sample_tokens(_map(block, layer, i), rowcol)[0].numpy() for layer in selection.layers}


def _map(block: Block, layer: str, i: int) -> Any:
    """[1, R, C, D] f32, or u8 that is widened where it is sampled."""
    tokens = block.tensor(layer, [i])
    return tokens.float() if isinstance(tokens, torch.Tensor) else tokens


def _find(part: Selection, scene: str, view: str) -> tuple[Block, int]:
    found = [block for block in part.parts if view in block.names]
    if len(found) > 1:
        raise seen_in_several(f"{scene}/{view}", len(found), part.key.encoder)
    for block in found:
        return block, block.names.index(view)
    raise SelectionError(
        f"view {view!r} is not in the selection.",
        where=scene,
        why=part.left_out.get(f"{scene}/{view}", ""),
        fix=did_you_mean(view, [name for block in part.parts for name in block.names]),
    )
