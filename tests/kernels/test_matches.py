"""What the nearest tokens say of matches: ranks, mutual neighbours, ratios, and matches between tokens."""

from __future__ import annotations

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.nearest_cosine import (
    NearestCosine,
    PairLabels,
    mutual,
    nearest_cosine,
    over_views,
    rank_of_positive,
    ratio_weight,
    refine,
)


def found_keys(keys: list, cosine: list | None = None) -> NearestCosine:
    """A result [1, V, V, P, K] by hand."""
    table = torch.tensor([keys])
    similar = torch.zeros(table.shape) if cosine is None else torch.tensor([cosine])
    valid = torch.ones(1, table.shape[1], table.shape[3], dtype=torch.bool)
    return NearestCosine(valid=valid, keys=table, cosine=similar.where(table >= 0, -torch.inf))


def test_rank_of_the_first_that_corresponds():
    none = [[-1, -1]] * 4
    found = found_keys([[none, [[3, 1], [2, 3], [0, 1], [0, 1]]], [[[0, 1]] * 4, none]])
    labels = PairLabels.from_ids(torch.tensor([[[7, 7, 9, 7], [8, 7, 9, 9]]]))
    rank = rank_of_positive(found, labels)
    assert rank[0, 0, 1].tolist() == [1, 2, 2, 1]
    assert rank[0, 1, 0].tolist() == [-1, 0, 2, 2]
    found.valid[0, 1, 1] = False  # the only token that corresponded
    assert rank_of_positive(found, labels)[0, 0, 1].tolist() == [-1, -1, 2, -1]
    with pytest.raises(ProbeError, match="not known"):
        rank_of_positive(found, PairLabels(valid=found.valid))


def test_mutual_nearest_neighbours():
    none = [[-1]] * 3
    found = found_keys([[none, [[2], [0], [-1]]], [[[1], [1], [0]], none]])
    assert mutual(found)[0, 0, 1].tolist() == [True, True, False]
    assert mutual(found)[0, 1, 0].tolist() == [True, False, True]


def test_ratio_weight():
    found = found_keys(
        [[[[0, 1], [0, 1], [0, -1], [-1, -1]]]], [[[[0.92, 0.68], [0.5, 0.5], [0.2, 0], [0, 0]]]]
    )
    assert ratio_weight(found)[0, 0, 0].tolist() == pytest.approx([0.5, 0, 1, 0])
    with pytest.raises(ProbeError, match="k=2"):
        ratio_weight(found_keys([[[[0]]]]))


def test_nearest_over_all_views():
    found = found_keys([[[[-1, -1]], [[4, 2]], [[3, 5]]]], [[[[0, 0]], [[0.5, 0.3]], [[0.5, 0.4]]]])
    view, key, cosine = over_views(found)
    assert (view[0, 0, 0].tolist(), key[0, 0, 0].tolist()) == ([1, 2], [4, 3])
    assert cosine[0, 0, 0].tolist() == [0.5, 0.5]
    found = found_keys([[[[-1, -1]], [[4, -1]]]])
    assert over_views(found)[0][0, 0, 0].tolist() == [1, -1]


def bump(row: float, column: float, twist: float = 0.0) -> torch.Tensor:
    """Similarities [1, 3, 3] with a maximum at an offset."""
    y, x = torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij")
    return (0.9 - 0.1 * (y - row) ** 2 - 0.05 * (x - column) ** 2 - twist * (y - row) * (x - column))[None]


def test_the_quadratic_is_found_exactly():
    from strata.kernels.nearest_cosine.refine import peak

    there = torch.ones(1, 3, 3, dtype=torch.bool)
    assert peak(bump(0.3, -0.2, 0.04), there)[0].tolist() == pytest.approx([0.3, -0.2], abs=1e-5)
    assert peak(bump(0.9, 0.1), there)[0].tolist() == pytest.approx([0.5, 0.1], abs=1e-5)
    assert peak(-bump(0.3, -0.2), there)[0].tolist() == [0, 0]
    there[0, 0] = False  # the upper border
    assert peak(bump(0.3, -0.2), there)[0].tolist() == pytest.approx([0, -0.2], abs=1e-5)


def test_refined_matches_of_a_shifted_view():
    """View 1 sees the same smooth field a fraction of a token further on."""
    rows, columns = 5, 6
    y, x = (
        axis.flatten().float() for axis in torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    )
    g = torch.Generator().manual_seed(0)
    frequency = 0.5 * torch.randn(256, 2, generator=g)

    def field(shift: tuple[float, float]) -> torch.Tensor:
        phase = torch.stack((y + shift[0], x + shift[1]), -1) @ frequency.T
        return torch.cat((phase.cos(), phase.sin()), -1)

    tokens = torch.stack((field((0.25, -0.3)), field((0, 0))))[None]
    labels = PairLabels(valid=torch.ones(1, 2, rows * columns, dtype=torch.bool))
    found = nearest_cosine(tokens, labels, k=1)
    offset = refine(tokens, found, [(rows, columns)] * 2)
    assert offset.shape == (1, 2, 2, 30, 2)
    inner = (y > 0) & (y < 4) & (x > 0) & (x < 5)
    assert found.keys[0, 0, 1, inner, 0].tolist() == inner.nonzero()[:, 0].tolist()
    torch.testing.assert_close(
        offset[0, 0, 1, inner], torch.tensor([0.25, -0.3]).expand(int(inner.sum()), 2), atol=0.03, rtol=0
    )
    assert bool(offset[0, 0, 0].isnan().all())
    assert bool((offset[0, 0, 1, (y == 0)][:, 0] == 0).all())
    with pytest.raises(ProbeError, match="are not those of 2 views"):
        refine(tokens, found, [(5, 6), (6, 6)])


def test_a_neighbour_that_takes_no_part_is_not_used():
    tokens = torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    tokens[0, 0, 0] = tokens[0, 1, 4]
    tokens[0, 1, 1] = torch.nan  # above the middle
    labels = PairLabels(valid=torch.ones(1, 2, 9, dtype=torch.bool))
    found = nearest_cosine(tokens, labels, k=1)
    assert found.keys[0, 0, 1, 0].tolist() == [4]
    offset = refine(tokens, found, [(3, 3), (3, 3)])[0, 0, 1, 0]
    assert float(offset[0]) == 0
    assert 0 < abs(float(offset[1])) <= 0.5
