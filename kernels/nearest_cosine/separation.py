"""How well similarities tell corresponding pairs from others: ROC-AUC and average precision of histograms.

Within a bin the order of the pairs is not known. The values take it to be even; the errors are bounds on
what any order could change, and so on the distance from the value of a sort of all pairs. With p and n
corresponding and other pairs in a bin, P and N in all, the ROC-AUC cannot be off by more than

    1/2 sum of p n / (P N)    over the bins,

and the average precision not by more than the span between all corresponding pairs of a bin coming first
and all of them coming last.

Shapes: H bins, ascending in similarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Separation:
    """ROC-AUC and average precision, each [...] f64; NaN where there is nothing to compare.

    Attributes:
        auc: probability that a corresponding pair is more similar than another one, ties counted half.
        auc_error: greatest distance from the value of exact similarities.
        average_precision: mean precision over the corresponding pairs, ranked with all others.
        average_precision_error: greatest distance likewise.
    """

    auc: Tensor
    auc_error: Tensor
    average_precision: Tensor
    average_precision_error: Tensor


def separation(corr: Tensor, noncorr: Tensor) -> Separation:
    """Of histograms corr [..., H] of corresponding and noncorr [..., H] of other pairs, which broadcast."""
    p, n = torch.broadcast_tensors(corr.double().flip(-1), noncorr.double().flip(-1))  # best bin first
    total_p, total_n = p.sum(-1), n.sum(-1)
    p_above, n_above = p.cumsum(-1) - p, n.cumsum(-1) - n
    pairs = (total_p * total_n).where((total_p > 0) & (total_n > 0), torch.nan)
    tied = (p * n).sum(-1) / 2
    auc = ((p_above * n).sum(-1) + tied) / pairs
    seen = (p > 0).reshape(-1, p.shape[-1]).any(0)  # other bins add no precision
    p, n, p_above, n_above = (part[..., seen] for part in (p, n, p_above, n_above))
    share = n / p.clamp(min=1)  # others for each corresponding pair of the bin
    even = _precision_sum(p, p_above, p_above + n_above - share / 2, 1 + share)
    first = _precision_sum(p, p_above, p_above + n_above, torch.ones_like(p))
    last = _precision_sum(p, p_above, p_above + n_above + n, torch.ones_like(p))
    even, first, last = (part.sum(-1) * total_n / pairs for part in (even, first, last))
    return Separation(
        auc=auc,
        auc_error=tied / pairs,
        average_precision=even,
        average_precision_error=torch.maximum(first - even, even - last),
    )


def _precision_sum(p: Tensor, before: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """Sum of (before + i) / (start + i step) over i = 1 ... p, in closed form."""
    a = start / step
    # Sum of 1 / (a + i): digammas that are nearly equal would cancel.
    harmonic = torch.where(
        a > 1e4, torch.log1p(p / (a + 0.5)), torch.digamma(a + p + 1) - torch.digamma(a + 1)
    )
    return (p + (before - a) * harmonic) / step
