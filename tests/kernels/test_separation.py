"""ROC-AUC and average precision of histograms against a sort of all similarities."""

from __future__ import annotations

import math

import pytest
import torch
from strata.kernels.nearest_cosine import (
    PairLabels,
    nearest_cosine,
    separation,
)


def exact_separation(positive: torch.Tensor, negative: torch.Tensor) -> tuple[float, float]:
    """ROC-AUC and average precision of a sort of all similarities, ties by threshold."""
    values, order = torch.cat((positive, negative)).sort(descending=True)
    hit = (order < len(positive)).double()
    last = torch.cat((values.diff() != 0, torch.tensor([True])))
    tp, fp = hit.cumsum(0)[last], (1 - hit).cumsum(0)[last]
    step_tp, step_fp = (tp.diff(prepend=tp.new_zeros(1)), fp.diff(prepend=fp.new_zeros(1)))
    auc = float(((tp - step_tp / 2) * step_fp).sum()) / len(positive) / len(negative)
    return auc, float((step_tp * tp / (tp + fp)).sum()) / len(positive)


@pytest.mark.parametrize("strength", [0.1, 0.3, 1.0])
def test_separation_is_within_its_bound_of_a_sort_of_all_pairs(strength: float):
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 150, (1, 3, 600), generator=g)
    tokens = strength * torch.randn(150, 64, generator=g)[ids] + torch.randn(1, 3, 600, 64, generator=g)
    labels = PairLabels.from_ids(ids)
    found = nearest_cosine(tokens, labels)
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1)[0].flatten(0, 1)
    view = torch.arange(1800) // 600
    cross, same = view[:, None] < view, ids.flatten()[:, None] == ids.flatten()
    similar = unit @ unit.T
    auc, precision = exact_separation(similar[cross & same], similar[cross & ~same])
    assert 0.5 < auc < 0.9999
    apart = separation(found.corr.sum(1), found.noncorr)
    for value, error, exact in (
        (apart.auc, apart.auc_error, auc),
        (apart.average_precision, apart.average_precision_error, precision),
    ):
        assert 0 < float(error) < 1e-4
        assert abs(float(value) - exact) <= float(error)


@pytest.mark.parametrize("bins", [1, 3, 50])
def test_bounds_hold_in_any_order_within_bins(bins: int):
    g = torch.Generator().manual_seed(bins)
    for _ in range(20):
        positive, negative = torch.rand(7, generator=g).double(), torch.rand(300, generator=g).double() ** 2
        corr, noncorr = (torch.histc(values, bins, 0, 1) for values in (positive, negative))
        apart = separation(corr, noncorr)
        auc, precision = exact_separation(positive, negative)
        assert abs(float(apart.auc) - auc) <= float(apart.auc_error) + 1e-12
        assert abs(float(apart.average_precision) - precision) <= float(apart.average_precision_error) + 1e-9


def test_separation_by_hand():
    one = separation(torch.tensor([1]), torch.tensor([1]))  # in one bin: 1 in one order, 1/2 in the other
    assert (float(one.auc), float(one.auc_error)) == (0.5, 0.5)
    assert float(one.average_precision) == pytest.approx(2 / 3)
    assert float(one.average_precision_error) == pytest.approx(1 / 3)
    corr, noncorr = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]]), torch.tensor([1, 0, 1, 0])
    apart = separation(corr, noncorr)
    assert apart.auc.tolist() == pytest.approx([0.75, math.nan], nan_ok=True)
    assert float(apart.average_precision[0]) == pytest.approx((1 + 2 / 3) / 2)
    assert (float(apart.auc_error[0]), float(apart.average_precision_error[0])) == pytest.approx((0, 0))
