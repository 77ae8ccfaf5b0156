"""The one rule on image sizes: whole patches only.

Shapes: B sets, V views, R C token rows and columns, H W pixels.
"""

from __future__ import annotations

from ...errors import EncoderError
from .base import EncoderInfo, ViewBatch


def token_grid(info: EncoderInfo, batch: ViewBatch) -> tuple[int, int]:
    """(R, C) of the batch's images [B, V, 3, H, W].

    Raises:
        EncoderError: H or W is no multiple of the patch size, or the batch declares another grid.
    """
    patch, (height, width) = info.patch_size, batch.images.shape[-2:]
    check_whole_patches(info.name, (height, width), patch, "preprocess with grid=[rows,cols] in tokens")
    grid = (height // patch, width // patch)
    if tuple(batch.grid) != grid:
        raise EncoderError(
            f"the batch declares a grid of {batch.grid} tokens, its images have {grid}.",
            where="grid",
            why=f"{info.name} sees {height} x {width} pixels with patch size {patch}",
            fix="preprocess with the encoder's own patch size",
        )
    return grid


def check_whole_patches(name: str, size: tuple[int, int], patch: int, remedy: str) -> None:
    """Nothing, if (height, width) in pixels are multiples of the patch size.

    Raises:
        EncoderError: they are not; it names the nearest sizes, and the remedy after them.
    """
    height, width = size
    if height % patch or width % patch:
        raise EncoderError(
            f"{name} cannot look at images of {height} x {width} pixels.",
            where="images",
            why=f"height and width must be multiples of its patch size {patch}",
            fix=f"the nearest sizes that fit are {_nearest_sizes(height, width, patch)}; {remedy}",
        )


def _nearest_sizes(height: int, width: int, patch: int) -> str:
    """`70 x 98 and 84 x 112`: the next size below and above, sides that fit left alone."""
    below = [max(1, side // patch) * patch for side in (height, width)]
    above = [-(-side // patch) * patch for side in (height, width)]
    sizes = dict.fromkeys(f"{h} x {w}" for h, w in (below, above))
    return " and ".join(sizes)
