"""Pairs of tokens of different views that lie within their radii."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from torch import Tensor

from .search import PairSearch
from .tokens import RadiusPairs, tokens_of

__all__ = ["RadiusPairs", "radius_pair_blocks", "radius_pairs"]

MOST_PAIRS = 1 << 26
"""Pairs that are returned at once: 2 GiB, twice that while they are sorted."""


def radius_pairs(
    points: Tensor, valid: Tensor, view: Tensor, radius: Tensor, *, most: int = MOST_PAIRS
) -> RadiusPairs:
    """All pairs of tokens of different views that are nearer to each other than the mean of their radii.

    All is computed in float64; equal input gives the same pairs on every device. The time grows with the
    tokens and with their neighbours, however much radii differ.

    Args:
        points: [B, N, 3] f32 or f64.
        valid: [B, N] bool; other tokens have no pairs, nor have those whose point or radius is not finite
            or whose radius is negative.
        view: [B, N] or [N] integer.
        radius: [B, N] in the unit of the points.
        most: how many pairs there may be; 32 bytes each.

    Returns:
        Each pair once, i < j, in order of (set, i, j).

    Raises:
        ProbeError: shapes do not fit, or there are more than `most` pairs.
    """
    return _search(points, valid, view, radius).all(most)


def radius_pair_blocks(
    points: Tensor, valid: Tensor, view: Tensor, radius: Tensor, *, most: int = 1 << 22
) -> Iterator[RadiusPairs]:
    """The pairs of `radius_pairs` in blocks of at most `most`, or of what one token finds.

    Each pair is in one block. Pairs are in order within a block; which block has a pair follows from where
    its tokens lie.

    Raises:
        ProbeError: shapes do not fit.
    """
    return _search(points, valid, view, radius).blocks(most)


def _search(points: Tensor, valid: Tensor, view: Tensor, radius: Tensor) -> PairSearch:
    """Triton on a GPU, numba on a processor, plain torch where neither is."""
    tokens = tokens_of(points, valid, view, radius)
    if points.is_cuda and find_spec("triton") and valid.numel():
        from . import kernel

        return kernel.search(tokens)
    if points.device.type == "cpu" and find_spec("numba") and valid.numel():
        from . import cpu

        return cpu.search(tokens)
    from . import reference

    return reference.search(tokens)
