"""Mean cosine of corresponding and of non-corresponding tokens of different views."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from ..quantized import QuantizedTokens
from . import reference, segments
from .score import CellPairs, CellSums, Scan, Tokens, VoxelCosine, finite_plan, score_of
from .segments import VoxelSegments

__all__ = [
    "CellPairs",
    "CellSums",
    "QuantizedTokens",
    "VoxelCosine",
    "VoxelSegments",
    "voxel_cosine",
    "voxel_cosines",
    "voxel_segments",
]


def voxel_cosine(
    tokens: Tokens,
    ids: Tensor,
    *,
    plan: VoxelSegments | None = None,
    pairs: bool = False,
    cells: bool = False,
) -> VoxelCosine:
    """Cosines of tokens of different views in the same and in different cells, in linear time.

    Each token is divided by max(its length, 1e-12), so that a token of zeros stays zero and counts as
    a cosine of 0. A token that is not finite, or whose squared length overflows float32, takes no part,
    as if its id were -1. Equal input gives equal bits on one machine, on any number of threads. Only
    tokens that require a gradient get one; they are computed by plain torch, as float64 is.

    Args:
        tokens: [B, V, P, D], any float dtype, or `QuantizedTokens`, which are widened on the fly.
        ids: [B, V, P] int64 cell of each token in its set, -1 = none.
        plan: `voxel_segments(ids)`, to be made once when many layers are scored.
        pairs: give the sums by cell and views too.
        cells: give the sums by cell too.

    Returns:
        Sums and counts of pairs; the means are within 1e-6 of those of all pairs in float64.
    """
    return voxel_cosines([tokens], ids, plan=plan, pairs=pairs, cells=cells)[0]


def voxel_cosines(
    layers: Sequence[Tokens],
    ids: Tensor,
    *,
    plan: VoxelSegments | None = None,
    pairs: bool = False,
    cells: bool = False,
) -> list[VoxelCosine]:
    """`voxel_cosine` of many layers, of any widths and storages, with one plan.

    On a GPU the host waits once, after the last layer.
    """
    plan = voxel_segments(ids) if plan is None else plan
    scans = [_scan_for(tokens) for tokens in layers]
    sums = [scan(tokens, plan, pairs, cells) for scan, tokens in zip(scans, layers, strict=True)]
    plans = [plan] * len(sums)
    for k, tokens in enumerate(layers):
        if not bool(sums[k].finite):
            plans[k] = finite_plan(tokens, ids)
            sums[k] = scans[k](tokens, plans[k], pairs, cells)
    return [score_of(*both) for both in zip(sums, plans, strict=True)]


def voxel_segments(ids: Tensor) -> VoxelSegments:
    """The segments of voxel ids [B, V, P] int64 below 2^40; tokens of negative id take no part."""
    if ids.device.type == "cpu" and find_spec("numba"):
        from . import counting

        return counting.voxel_segments(ids) or segments.voxel_segments(ids)
    return segments.voxel_segments(ids)


def _scan_for(tokens: Tokens) -> Scan:
    """The fastest way that there is for these tokens."""
    gradient = isinstance(tokens, Tensor) and tokens.requires_grad and torch.is_grad_enabled()
    if gradient or tokens.dtype == torch.float64:
        return reference.scan
    if tokens.device.type == "cpu" and find_spec("numba"):
        from . import cpu

        return cpu.scan
    if tokens.device.type == "cuda" and find_spec("triton"):
        from . import kernel

        return kernel.scan
    return reference.scan
