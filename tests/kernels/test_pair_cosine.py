"""Means of cosines of listed and of all other pairs, against a loop over pairs in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.pair_cosine import pair_cosine, pair_plan, reference


def random_pairs(valid: torch.Tensor, share: float, groups: int, seed: int = 0):
    """Some pairs of valid tokens of different views, (set, i, j), and their groups."""
    generator = torch.Generator().manual_seed(seed)
    _, views, tokens = valid.shape
    view = torch.arange(views).repeat_interleave(tokens)
    flat = valid.flatten(1)
    asked = (view[:, None] < view) & flat[:, :, None] & flat[:, None]
    number, i, j = (asked & (torch.rand(asked.shape, generator=generator) < share)).nonzero(as_tuple=True)
    return (number, i, j), torch.randint(0, groups, (len(number),), generator=generator)


def by_loop(tokens: torch.Tensor, valid: torch.Tensor, listed: dict, groups: int):
    """[groups + 1] sums and counts of one set [V, P, D]; the last is that of pairs that are not listed."""
    views, places, _ = tokens.shape
    found = [[0.0, 0] for _ in range(groups + 1)]
    flat = [(v, v * places + p, tokens[v, p].double().tolist()) for v in range(views) for p in range(places)]
    for (view_a, i, a), (view_b, j, b) in itertools.combinations(flat, 2):
        length = math.hypot(*a) * math.hypot(*b)
        if view_a == view_b or not (valid.flatten()[i] and valid.flatten()[j]) or not math.isfinite(length):
            continue
        slot = found[listed.get((i, j), groups)]
        slot[0] += sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0
        slot[1] += 1
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("broken", [False, True], ids=["finite", "with odd tokens"])
def test_equals_a_loop_over_pairs(dtype: torch.dtype, broken: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference, "BAGS", 7)
    generator = torch.Generator().manual_seed(1)
    # Not centred: sums grow with the number of tokens, which is the hard case for float32.
    tokens = (torch.randn(2, 3, 17, 5, generator=generator) + 1).to(dtype)
    valid = torch.rand(2, 3, 17, generator=generator) > 0.2
    pairs, group = random_pairs(valid, 0.3, groups=3)
    if broken:
        tokens[0, 0, :4] = torch.nan
        tokens[1, 2, 3] = torch.inf
        tokens[1, 1, :2] = 0
    score = pair_cosine(tokens, pair_plan(valid, pairs, group, 3))
    assert score.group_sum.dtype == score.rest_sum.dtype == torch.float64
    for number in range(2):
        rows = zip(*(part.tolist() for part in (*pairs, group)), strict=True)
        listed = {(i, j): g for b, i, j, g in rows if b == number}
        expected = by_loop(tokens[number], valid[number], listed, 3)
        sums = [*score.group_sum[number].tolist(), float(score.rest_sum[number])]
        counts = [*score.group_count[number].tolist(), int(score.rest_count[number])]
        assert counts == [count for _, count in expected]
        for got, (total, count) in zip(sums, expected, strict=True):
            assert got == pytest.approx(total, abs=1e-6 * max(count, 1))


def test_nothing_listed_and_nothing_left():
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    tokens = torch.ones(1, 2, 2, 3)
    none = (torch.zeros(0, dtype=torch.int64),) * 3
    score = pair_cosine(tokens, pair_plan(valid, none, none[0], 1))
    assert score.group_count.tolist() == [[0]]
    assert score.rest_count.tolist() == [4]
    assert score.rest_sum.tolist() == pytest.approx([4])
    every, group = random_pairs(valid, 2.0, groups=1)
    score = pair_cosine(tokens, pair_plan(valid, every, group, 1))
    assert score.group_sum.tolist() == [pytest.approx([4])]
    assert (int(score.rest_count), float(score.rest_sum)) == (0, 0.0)


def test_tokens_of_other_sets_are_refused():
    none = (torch.zeros(0, dtype=torch.int64),) * 3
    plan = pair_plan(torch.ones(1, 2, 2, dtype=torch.bool), none, none[0], 1)
    with pytest.raises(ProbeError, match="not those of a plan"):
        pair_cosine(torch.ones(1, 2, 3, 4), plan)


def test_kernels_equal_the_reference(run_interpreted: Callable[[str], None]):
    run_interpreted("interpreted_pair_cosine.py")
