"""Ranking measures: does similarity find the token that corresponds, and tell it from all others?

A query is a token and one other view in which something corresponds to it; its candidates are the tokens of
that view, without those that its protocol does not ask about. Both directions of two views count.

    recall_k           share of the queries with a corresponding token among the k most similar
    mutual_precision   of those queries whose most similar token has them as its most similar one in turn,
                       the share for which that token corresponds
    auc                probability that a corresponding pair of the set is more similar than one that does
                       not correspond; ties count half
    average_precision  area under precision over recall when all pairs of the set are ranked together

Among equals the lower token is the nearer one. Measures `@<bin>` are of the queries, for auc of the
corresponding pairs, whose viewpoint angle lies in the bin.

Shapes: V query views, W = V key views, P tokens of the longest view, D channels, G bins of viewpoint angle,
H bins of similarity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.nearest_cosine import PairLabels, mutual, nearest_cosine, rank_of_positive, separation
from .questions import Question
from .viewpoints import BINS

RECALLS = (1, 5)
SIMILARITY_BINS = 1 << 14
"""Of [-1, 1]; what is lost within a bin moves auc by less than 1e-4 on features that are not saturated."""


def ranking_metrics(tokens: Tensor, question: Question, labels: PairLabels) -> dict[str, float | None]:
    """Measures and counts of one set; None where there is no query or pair.

    Args:
        tokens: [1, V, P, D].
        question: about the set.
        labels: `question.labels()`, made once for all layers.
    """
    nearest = nearest_cosine(tokens, labels, k=max(RECALLS), bins=SIMILARITY_BINS)
    assert nearest.noncorr is not None
    assert labels.group is not None
    rank = rank_of_positive(nearest, labels)
    asked = rank >= 0
    rank, group, found = rank[asked], labels.group[asked], mutual(nearest)[asked]  # [queries]
    metrics: dict[str, float | None] = {}
    for part, here in _parts(group):
        for k in RECALLS:
            metrics[f"recall_{k}{part}"] = _share(rank < k, here)
        metrics[f"query_count{part}"] = int(here.sum())
        metrics[f"mutual_precision{part}"] = _share(rank == 0, here & found)
        metrics[f"mutual_count{part}"] = int((here & found).sum())
    corr = question.histograms(tokens, nearest)  # [G, H]
    noncorr = nearest.noncorr[0]
    average = separation(corr.sum(0), noncorr).average_precision
    metrics["average_precision"] = _finite(average)
    for part, value in zip(("", *(f"@{name}" for name in BINS)), auc(corr, noncorr), strict=True):
        metrics[f"auc{part}"] = _finite(value)
    return metrics


def auc(corr: Tensor, noncorr: Tensor) -> Tensor:
    """[1 + G] f64 of all histograms corr [G, H] together, and of each; NaN without pairs.

    Args:
        corr: int64 similarities of corresponding pairs.
        noncorr: [H] int64 of the others.
    """
    corr, noncorr = torch.cat((corr.sum(0, keepdim=True), corr)).double(), noncorr.double()
    less_similar = noncorr.cumsum(0) - noncorr / 2  # [H]
    return corr @ less_similar / (corr.sum(1) * noncorr.sum())


def _parts(group: Tensor) -> list[tuple[str, Tensor]]:
    """All queries, and those of each bin, by suffix."""
    bins = ((f"@{name}", group == index) for index, name in enumerate(BINS))
    return [("", torch.ones_like(group, dtype=torch.bool)), *bins]


def _share(right: Tensor, of: Tensor) -> float | None:
    count = int(of.sum())
    return int((right & of).sum()) / count if count else None


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
