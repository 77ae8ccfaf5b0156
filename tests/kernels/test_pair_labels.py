"""Lists of the tokens that correspond, and of pairs that are left out."""

from __future__ import annotations

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.nearest_cosine import (
    TokenLists,
)


def test_lists_of_pairs():
    pairs = torch.tensor([[1, 0, 5], [1, 4, 0], [1, 0, 4], [1, 0, 4], [0, 2, 3]]).unbind(1)
    lists = TokenLists.from_pairs((2, 2, 3), pairs)
    there = {}
    for place in (lists.stop > lists.start).nonzero().tolist():
        start, stop = int(lists.start[tuple(place)]), int(lists.stop[tuple(place)])
        there[tuple(place)] = lists.rows[start:stop].tolist()
    # Flattened rows of set 1 start at 6, those of its view 1 at 9.
    assert there == {
        (0, 0, 1, 2): [3],
        (0, 1, 0, 0): [2],
        (1, 0, 1, 0): [10, 11],
        (1, 1, 0, 1): [6],
        (1, 1, 0, 2): [6],
    }


def test_what_has_no_cell_has_no_list():
    lists = TokenLists.from_ids(torch.tensor([[[0], [1]], [[-1], [1]]]))
    assert bool((lists.start == lists.stop).all())


@pytest.mark.parametrize("pair", [(0, 0, 1), (0, 0, 6), (0, -1, 4), (2, 0, 4)])
def test_a_pair_that_joins_no_two_views_is_refused(pair: tuple[int, int, int]):
    with pytest.raises(ProbeError, match="joins no two views"):
        TokenLists.from_pairs((2, 2, 3), tuple(torch.tensor([part]) for part in pair))


def test_a_giant_cell_shares_its_list():
    lists = TokenLists.from_ids(torch.zeros(1, 3, 500, dtype=torch.int64))
    assert len(lists.rows) == 1500
    valid = torch.ones(1, 3, 500, dtype=torch.bool)
    valid[0, 1, :100] = False
    assert lists.count(valid)[0, :, :, 0].tolist() == [[0, 400, 500], [500, 0, 500], [500, 400, 0]]
