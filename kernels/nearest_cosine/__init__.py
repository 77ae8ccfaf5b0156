"""The nearest tokens of other views by cosine, and how the similarities of all pairs are distributed."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ...errors import ProbeError
from . import reference
from .labels import PairLabels, TokenLists
from .matches import mutual, over_views, rank_of_positive, ratio_weight
from .reference import NearestCosine
from .refine import refine
from .separation import Separation, separation

__all__ = [
    "NearestCosine",
    "PairLabels",
    "Separation",
    "TokenLists",
    "mutual",
    "nearest_cosine",
    "over_views",
    "rank_of_positive",
    "ratio_weight",
    "refine",
    "separation",
]


def nearest_cosine(
    tokens: Tensor,
    labels: PairLabels,
    *,
    k: int = 5,
    bins: int = 1 << 16,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> NearestCosine:
    """The K nearest tokens of each view to each token of the others, in memory linear in the tokens.

    Every pair of views is multiplied once, in tiles, and serves both directions and the histograms. Equal
    input gives equal results on one machine with one number of threads.

    Args:
        tokens: [B, V, P, D], any float dtype; or uint8 with `scale` and `offset`. A token of zeros has
            a cosine of 0; one that is not finite takes no part.
        labels: which tokens take part; which pairs correspond, if histograms are wanted; which are
            ignored.
        k: keys to keep for each token and other view, at least 1.
        bins: bins of the histograms over [-1, 1].
        scale, offset: [B, V, D] of uint8 tokens; value = q * scale + offset.

    Returns:
        Keys and similarities, [B, V, V, P, K], and histograms.

    Raises:
        ProbeError: shapes, k or bins do not fit.
    """
    _check(tokens, labels, k, bins, scale, offset)
    backend = _backend(tokens.device)
    return backend.nearest_cosine(tokens, labels, k=k, bins=bins, scale=scale, offset=offset)


def _backend(device: torch.device) -> ModuleType:
    """What runs on this device: Triton on a GPU; on a CPU numba's loops where numba is."""
    if device.type == "cuda":
        from . import gpu

        return gpu
    try:
        from . import cpu
    except ImportError:
        return reference
    return cpu


def _check(
    tokens: Tensor, labels: PairLabels, k: int, bins: int, scale: Tensor | None, offset: Tensor | None
) -> None:
    def refuse(what: str, why: str, fix: str) -> None:
        raise ProbeError(what, where="nearest_cosine", why=why, fix=fix)

    if tokens.ndim != 4 or tokens.shape[:3] != labels.valid.shape:
        refuse(
            f"tokens {list(tokens.shape)} and labels {list(labels.valid.shape)} are not of the same sets.",
            "tokens [B, V, P, D] and labels of [B, V, P] are expected",
            "make the labels for these tokens",
        )
    if tokens.device != labels.valid.device:
        refuse(
            f"the tokens are on {tokens.device}, the labels on {labels.valid.device}.",
            "",
            "make the labels from ids or pairs on the device of the tokens",
        )
    per_channel = (*tokens.shape[:2], tokens.shape[-1])
    stored = tokens.dtype == torch.uint8
    given = [part for part in (scale, offset) if part is not None]
    if len(given) != 2 * stored or any(part.shape != per_channel for part in given):
        refuse(
            f"{tokens.dtype} tokens came with {len(given)} of scale and offset"
            f"{''.join(f' {list(part.shape)}' for part in given)}.",
            f"uint8 tokens need both, {list(per_channel)}; others need none",
            "give scale and offset as they are stored with the tokens",
        )
    if k < 1 or bins < 1:
        refuse(f"k={k} and bins={bins} are not both positive.", "", "give positive numbers")
