"""The one rule on image sizes: whole patches only.

Shapes: B sets, V views, R C token rows and columns, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import EncoderError
from .base import EncoderInfo, ViewBatch


def token_grid(info: EncoderInfo, batch: ViewBatch) -> tuple[int, int]:
    """(R, C) of the batch's images [B, V, 3, H, W].

    Raises:
        EncoderError: H or W does not end with a patch, or the batch declares another grid.
    """
    height, width = batch.images.shape[-2:]
    patch, stride = info.patch_size, info.stride or info.patch_size
    check_whole_patches(
        info.name, (height, width), patch, "preprocess with grid=[rows,cols] in tokens", stride
    )
    grid = ((height - patch) // stride + 1, (width - patch) // stride + 1)
    if tuple(batch.grid) != grid:
        raise EncoderError(
            f"the batch declares a grid of {batch.grid} tokens, its images have {grid}.",
            where="grid",
            why=f"{info.name} sees {height} x {width} pixels with patch size {patch}"
            + (f" and stride {stride}" if info.stride else ""),
            fix="preprocess with the encoder's own patch size and stride",
        )
    return grid


def overlapping(info: EncoderInfo, stride: int) -> EncoderInfo:
    """What an encoder declares whose patches are made to overlap; at a stride of a patch they do not.

    Raises:
        EncoderError: the patch size is no multiple of the stride.
    """
    patch = info.patch_size
    strides = [step for step in range(1, patch + 1) if patch % step == 0]
    if stride not in strides:
        raise EncoderError(
            f"{info.name} cannot have a token every {stride} pixels.",
            where=f"stride={stride}",
            why=f"its patches of {patch} pixels overlap evenly at strides that divide {patch}",
            fix=f"write stride= one of {', '.join(map(str, strides))}",
        )
    return replace(info, stride=None if stride == patch else stride)


def check_whole_patches(
    name: str, size: tuple[int, int], patch: int, remedy: str, stride: int | None = None
) -> None:
    """Nothing, if (height, width) in pixels end with a patch, one every `stride` pixels (None = a patch).

    Raises:
        EncoderError: they do not; it names the nearest sizes, and the remedy after them.
    """
    step, (height, width) = stride or patch, size
    if any(side < patch or (side - patch) % step for side in size):
        rule = (
            f"must be multiples of its patch size {patch}"
            if step == patch
            else f"must be its patch size {patch} plus multiples of its stride {step}"
        )
        raise EncoderError(
            f"{name} cannot look at images of {height} x {width} pixels.",
            where="images",
            why=f"height and width {rule}",
            fix=f"the nearest sizes that fit are {_nearest_sizes(size, patch, step)}; {remedy}",
        )


def _nearest_sizes(size: tuple[int, int], patch: int, step: int) -> str:
    """`70 x 98 and 84 x 112`: the next size below and above, sides that fit left alone."""
    below = [patch + max(0, (side - patch) // step) * step for side in size]
    above = [low if low >= side else low + step for low, side in zip(below, size, strict=True)]
    sizes = dict.fromkeys(f"{h} x {w}" for h, w in (below, above))
    return " and ".join(sizes)
