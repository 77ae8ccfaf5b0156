"""Means of cosines in linear time against all pairs, one by one, in float64."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch
from strata.kernels.voxel_cosine import VoxelCosine, segments, voxel_cosine, voxel_segments

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def by_pairs(tokens: torch.Tensor, ids: torch.Tensor) -> dict:
    """Sums and counts of one set [V, P, D] by a loop over all pairs of tokens."""
    found: dict = defaultdict(lambda: [0.0, 0])
    views, places, _ = tokens.shape
    flat = [(v, int(ids[v, p]), tokens[v, p].double().tolist()) for v in range(views) for p in range(places)]
    for (view_a, id_a, a), (view_b, id_b, b) in itertools.combinations(flat, 2):
        length = math.hypot(*a) * math.hypot(*b)
        if view_a == view_b or min(id_a, id_b) < 0 or not math.isfinite(length):
            continue
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0
        same = id_a == id_b
        for name in ["corr" if same else "noncorr", *([(id_a, view_a, view_b)] if same else [])]:
            found[name][0] += cosine
            found[name][1] += 1
    return found


def check(score: VoxelCosine, tokens: torch.Tensor, ids: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert score.corr_sum.dtype == score.noncorr_sum.dtype == torch.float64
    assert score.corr_count.dtype == score.noncorr_count.dtype == torch.int64
    assert score.pairs is not None
    for b in range(len(tokens)):
        expected = by_pairs(tokens[b], ids[b])
        for name in ("corr", "noncorr"):
            total, count = expected[name]
            assert int(getattr(score, f"{name}_count")[b]) == count
            error = abs(float(getattr(score, f"{name}_sum")[b]) - total) / max(count, 1)
            assert error < tolerance, f"{name} of set {b} is off by {error}"
        here = score.pairs.set == b
        keys = torch.stack((score.pairs.id, score.pairs.view_a, score.pairs.view_b), dim=1)[here].tolist()
        assert sorted(map(tuple, keys)) == sorted(key for key in expected if isinstance(key, tuple))
        sums, counts = score.pairs.dot_sum[here].tolist(), score.pairs.count[here].tolist()
        for key, got, number in zip(map(tuple, keys), sums, counts, strict=True):
            assert number == expected[key][1]
            assert got == pytest.approx(expected[key][0], abs=tolerance * number)


def random_set(sets: int, views: int, tokens: int, width: int, cells: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(sets * 100 + views)
    # Not centred: sums grow with the number of tokens, which is the hard case for float32.
    values = torch.randn(sets, views, tokens, width, generator=generator) + 1
    ids = torch.randint(-1, cells, (sets, views, tokens), generator=generator)
    return values.to(dtype), ids


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 4, 13, 7, 9), (1, 3, 17, 5, 1), (1, 2, 1, 1, 1), (3, 5, 7, 3, 1000)], ids=str
)
def test_equals_all_pairs(shape: tuple[int, ...], dtype: torch.dtype):
    tokens, ids = random_set(*shape, dtype=dtype)
    score = voxel_cosine(tokens, ids, pairs=True)
    check(score, tokens, ids, tolerance=1e-13 if dtype == torch.float64 else 1e-6)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    tokens, ids = random_set(2, 3, 19, 5, 6, torch.float32)
    monkeypatch.setattr(segments, "BLOCK", 7)
    assert len(voxel_segments(ids).blocks) > 5
    check(voxel_cosine(tokens, ids, pairs=True), tokens, ids)


def test_zero_tokens_are_zero_and_others_that_are_not_finite_take_no_part():
    tokens, ids = random_set(2, 3, 11, 4, 3, torch.float32)
    tokens[0, 0, :4] = 0
    tokens[0, 1, 2, 1] = torch.nan
    tokens[1, 2, 3, 0] = torch.inf
    ids[0, 1, 2] = ids[1, 2, 3] = 0
    score = voxel_cosine(tokens, ids, plan=voxel_segments(ids), pairs=True)
    check(score, tokens, ids)


def test_overflowing_length_takes_no_part():
    tokens, ids = random_set(1, 2, 4, 3, 1, torch.float32)
    ids[:] = 0
    tokens[0, 0, 0] = 3e38
    assert voxel_cosine(tokens, ids).corr_count.tolist() == [3 * 4]


def test_tokens_without_a_cell_are_not_looked_at():
    tokens, ids = random_set(1, 3, 11, 4, 3, torch.float32)
    expected = voxel_cosine(tokens, ids)
    poisoned = tokens.masked_fill((ids < 0)[..., None], torch.nan)
    assert torch.equal(voxel_cosine(poisoned, ids).corr_sum, expected.corr_sum)


@pytest.mark.parametrize(
    "ids",
    [
        [[[0, 1, 0, 2]]],  # one view
        [[[-1, -1], [-1, -1]]],  # nothing valid
        [[[0, 1], [2, 3]]],  # singletons
        [[[0, 0], [-1, -1]]],  # a view without cells
    ],
)
def test_no_correspondence_is_an_exact_zero(ids: list):
    table = torch.tensor(ids)
    tokens = torch.randn(*table.shape, 6, generator=torch.Generator().manual_seed(1))
    score = voxel_cosine(tokens, table, pairs=True)
    assert (float(score.corr_sum), int(score.corr_count)) == (0.0, 0)
    check(score, tokens, table)


def test_duplicated_views_correspond_perfectly():
    tokens, ids = random_set(1, 1, 9, 8, 1000, torch.float32)
    ids = torch.arange(9).expand(1, 2, 9)
    score = voxel_cosine(tokens.expand(1, 2, 9, 8), ids)
    assert int(score.corr_count) == 9
    assert float(score.corr_sum) / 9 == pytest.approx(1, abs=1e-6)


def test_large_cells_stay_exact():
    """Tokens all alike in one cell, so that errors of a plain float32 sum add up."""
    tokens = torch.tensor([0.3, 0.7, 0.1]).expand(1, 2, 50_000, 3)
    score = voxel_cosine(tokens, torch.zeros(1, 2, 50_000, dtype=torch.int64))
    assert int(score.corr_count) == 50_000**2
    assert float(score.corr_sum) / 50_000**2 == pytest.approx(1, abs=1e-6)


def test_runs_twice_alike_and_with_a_plan_alike():
    tokens, ids = random_set(2, 4, 50, 9, 20, torch.float16)
    first, again = voxel_cosine(tokens, ids), voxel_cosine(tokens, ids, plan=voxel_segments(ids))
    assert torch.equal(first.corr_sum, again.corr_sum)
    assert torch.equal(first.noncorr_sum, again.noncorr_sum)
    assert first.pairs is None


def test_gradient():
    tokens, ids = random_set(1, 3, 5, 4, 3, torch.float64)

    def means(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        score = voxel_cosine(values, ids, pairs=True)
        assert score.pairs is not None
        return score.corr_sum, score.noncorr_sum, score.pairs.dot_sum

    assert torch.autograd.gradcheck(means, (tokens.requires_grad_(),))
