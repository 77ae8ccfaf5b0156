"""What a VGGT is given, checked and brought to one form.

Shapes: B sets, V views, R C token rows and columns, D channels, P points, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import EncoderError, first_few
from ..image_size import check_whole_patches

_LOAD = "`strata.extract.encoders.vggt.preprocess.load_images` reads files so"


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Images, tokens in their place, or both, and query points.

    Attributes:
        images: [B, V, 3, H, W] in [0, 1].
        tokens: [B, V, R C, D].
        query_points: [B, P, 2] (x, y) in pixels of the first view.
        grid: (R, C).
        size: (H, W) in pixels.
    """

    images: Tensor | None
    tokens: Tensor | None
    query_points: Tensor | None
    grid: tuple[int, int]
    size: tuple[int, int]


def checked_inputs(
    images: Tensor | Sequence[Tensor] | None,
    query_points: Tensor | None,
    tokens: Tensor | None,
    *,
    patch_size: int,
    dtype: torch.dtype,
    look: bool,
) -> Inputs:
    """The inputs with all their dimensions.

    Args:
        images: [B, V, 3, H, W], [V, 3, H, W], or V of [3, H, W]; none only beside tokens.
        query_points: [B, P, 2] or [P, 2].
        tokens: [B, V, R, C, D] or [B, V, R C, D]; B may be missing where images have none.
        patch_size: pixels per token side.
        dtype: of the model.
        look: whether to read the numbers for NaN, for which the host waits for the device.

    Raises:
        EncoderError: a shape, a size or a number does not do.
    """
    pictures = None if images is None else _images(images)
    cells = None if tokens is None else _tokens(tokens, pictures)
    pictures = pictures[None] if pictures is not None and pictures.dim() == 4 else pictures
    grid = _grid(pictures, cells, patch_size)
    size = (grid[0] * patch_size, grid[1] * patch_size)
    if pictures is not None:
        pictures, size = pictures.to(dtype), (pictures.shape[-2], pictures.shape[-1])
    if cells is not None and cells.dim() == 5:
        cells = cells.flatten(2, 3)
    sets = next(len(given) for given in (pictures, cells) if given is not None)
    points = None if query_points is None else _query_points(query_points, sets)
    if look:
        for name, values in (("images", pictures), ("tokens", cells), ("query_points", points)):
            _check_finite(name, values)
    return Inputs(images=pictures, tokens=cells, query_points=points, grid=grid, size=size)


def _images(images: Tensor | Sequence[Tensor]) -> Tensor:
    """[B, V, 3, H, W] or [V, 3, H, W]."""
    if not isinstance(images, Tensor):
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            raise _bad(
                "images",
                "images of one set have one size.",
                f"these have {first_few(sorted(sizes))} (channels, height, width)",
                f"bring them to one size; {_LOAD}",
            )
        images = torch.stack(list(images)) if sizes else torch.empty(0, 3, 1, 1)
    shape = list(images.shape)
    if images.dim() not in (4, 5) or shape[-3] != 3:
        raise _bad(
            "images",
            f"images of shape {shape} are none.",
            "[B, V, 3, H, W] or [V, 3, H, W] is expected: red, green and blue",
            f"repeat the one channel of grey images, and put those with alpha on white; {_LOAD}",
        )
    if 0 in shape:
        raise _bad("images", "there are no views.", f"the shape is {shape}", "give one view at least")
    if not images.is_floating_point():
        raise _bad(
            "images",
            f"images of {images.dtype} are not in [0, 1].",
            "floating-point numbers from 0 to 1 are expected; the model normalises them itself",
            "divide by 255",
        )
    return images


def _tokens(tokens: Tensor, images: Tensor | None) -> Tensor:
    """[B, V, R, C, D] or [B, V, R C, D], of as many sets and views as there are images."""
    if images is None:
        batched, views = tokens, tuple(tokens.shape[:2])
    else:
        views = (1, len(images)) if images.dim() == 4 else tuple(images.shape[:2])
        lacks_sets = images.dim() == 4 and tokens.dim() < 5 and tuple(tokens.shape[:2]) != views
        batched = tokens[None] if lacks_sets else tokens
    if batched.dim() not in (4, 5) or tuple(batched.shape[:2]) != views or 0 in batched.shape:
        raise _bad(
            "tokens",
            f"tokens of shape {list(tokens.shape)} do not do.",
            f"[B, V, R, C, D] or [B, V, R C, D] of {_counted(views)} is expected",
            "give the tokens of these very views",
        )
    return batched


def _grid(images: Tensor | None, tokens: Tensor | None, patch_size: int) -> tuple[int, int]:
    """(R, C): the tokens' own, or that of the images."""
    if tokens is not None and tokens.dim() == 5:
        return tokens.shape[2], tokens.shape[3]
    if images is None:
        raise _bad(
            "tokens" if tokens is not None else "images",
            "the grid of tokens is not known.",
            "there are no images, and no tokens [B, V, R, C, D]",
            "give images, or tokens with rows and columns apart",
        )
    height, width = images.shape[-2:]
    check_whole_patches("VGGT", (height, width), patch_size, _LOAD)
    grid = height // patch_size, width // patch_size
    if tokens is not None and tokens.shape[2] != grid[0] * grid[1]:
        raise _bad(
            "tokens",
            f"there are {tokens.shape[2]} tokens a view.",
            f"the images have {grid[0]} x {grid[1]} patches of {patch_size} pixels",
            "give tokens as [B, V, R, C, D], whose grid may be any",
        )
    return grid


def _counted(views: Sequence[int]) -> str:
    return f"{views[0]} sets of {views[1]} views" if len(views) == 2 else "sets of views"


def _query_points(points: Tensor, sets: int) -> Tensor:
    batched = points if points.dim() == 3 else points[None]
    if batched.dim() != 3 or batched.shape[-1] != 2 or len(batched) != sets or not batched.shape[1]:
        raise _bad(
            "query_points",
            f"query points of shape {list(points.shape)} do not do.",
            f"[{sets}, P, 2] is expected: for each set, one (x, y) or more in pixels of its first view",
            "give at least one point a set",
        )
    return batched


def _check_finite(name: str, values: Tensor | None) -> None:
    if values is None:
        return
    broken = ~values.isfinite().flatten(2).all(dim=-1)
    if broken.any():
        kind = "point" if name == "query_points" else "view"
        places = [f"set {i}, {kind} {j}" for i, j in broken.nonzero().tolist()]
        raise _bad(
            name,
            f"{name} hold numbers that are not finite.",
            f"in {first_few(places)}",
            "leave these out; stored tokens are NaN where a view is missing from the store",
        )


def _bad(where: str, what: str, why: str, fix: str) -> EncoderError:
    return EncoderError(what, where=where, why=why, fix=fix)
