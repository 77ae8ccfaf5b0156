"""Means of cosines in linear time against all pairs, one by one, in float64."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import fields

import pytest
import strata.kernels.voxel_cosine as voxel_cosine_module
import torch
from strata.errors import StrataError
from strata.kernels.voxel_cosine import (
    QuantizedTokens,
    VoxelCosine,
    cpu,
    reference,
    segments,
    voxel_cosine,
    voxel_cosines,
    voxel_segments,
)
from strata.kernels.voxel_cosine.score import Sums

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


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_compiled_loops_equal_the_reference(dtype: torch.dtype):
    tokens, ids = random_set(2, 5, 65, 17, 9, dtype)
    plan = voxel_segments(ids)
    same_sums(cpu.scan(tokens, plan, True, True), reference.scan(tokens, plan, True, True))


def test_threads_and_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    tokens, ids = random_set(2, 3, 19, 5, 6, torch.float32)
    plan = voxel_segments(ids)
    whole = cpu.scan(tokens, plan, True, True)
    monkeypatch.setattr(cpu, "BLOCK", 7)
    cut = {}
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        cut[threads] = cpu.scan(tokens, plan, True, True)
    same_sums(cut[1], whole)
    assert torch.equal(cut[1].by_view, cut[2].by_view)


def test_quantized_tokens_are_what_they_stand_for():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(-1, 6, (2, 3, 17), generator=generator)
    tokens = QuantizedTokens(
        values=torch.randint(0, 256, (2, 3, 17, 9), generator=generator, dtype=torch.uint8),
        scale=torch.rand(2, 3, 9, generator=generator) / 50,
        offset=torch.randn(2, 3, 9, generator=generator),
    )
    check(voxel_cosine(tokens, ids, pairs=True), tokens.dequantize(), ids)
    tokens.scale[1, 0] = torch.nan  # a view without features
    check(voxel_cosine(tokens, ids, pairs=True), tokens.dequantize(), ids)


def test_quantized_tokens_of_other_shapes_are_refused():
    values, row = torch.zeros(2, 3, 4, dtype=torch.uint8), torch.zeros(2, 4)
    for wrong in ({"values": values.float()}, {"scale": torch.zeros(3, 4)}, {"offset": torch.zeros(4)}):
        with pytest.raises(StrataError, match="do not go with"):
            QuantizedTokens(**{"values": values, "scale": row, "offset": row, **wrong})


def test_sums_by_cell_add_up():
    tokens, ids = random_set(2, 4, 13, 7, 9, torch.float32)
    score = voxel_cosine(tokens, ids, pairs=True, cells=True)
    assert score.cells is not None
    assert len(score.cells.id) == len({(b, int(i)) for b in range(2) for i in ids[b].flatten() if i >= 0})
    for k, (b, id_) in enumerate(zip(score.cells.set.tolist(), score.cells.id.tolist(), strict=True)):
        here = (score.pairs.set == b) & (score.pairs.id == id_)
        assert int(score.cells.count[k]) == int(score.pairs.count[here].sum())
        assert float(score.cells.dot_sum[k]) == pytest.approx(float(score.pairs.dot_sum[here].sum()))
    assert int(score.cells.count.sum()) == int(score.corr_count.sum())


def test_layers_of_any_width_share_a_plan():
    tokens, ids = random_set(1, 3, 17, 5, 4, torch.float32)
    layers = [tokens, tokens[..., :2].half(), tokens.masked_fill(ids[..., None] == 0, torch.nan)]
    for layer, score in zip(layers, voxel_cosines(layers, ids, pairs=True), strict=True):
        check(score, layer, ids)


@pytest.mark.parametrize("ids", [1, 5, 10**9], ids=["alike", "dense", "sparse"])
@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 1, 65), (1, 2, 0), (0, 3, 4), (2, 4, 63)], ids=str)
def test_counting_gives_the_segments_of_a_sort(shape: tuple[int, ...], ids: int):
    table = torch.randint(-1, ids, shape, generator=torch.Generator().manual_seed(0))
    found, expected = voxel_segments(table), segments.voxel_segments(table)
    for field in fields(expected):
        got, wanted = getattr(found, field.name), getattr(expected, field.name)
        assert got == wanted if field.name == "shape" else torch.equal(got, wanted), field.name


def same_sums(got: Sums, expected: Sums) -> None:
    for field in fields(expected):
        pair = getattr(got, field.name), getattr(expected, field.name)
        torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-5, msg=field.name)


def test_without_numba_the_reference_runs(monkeypatch: pytest.MonkeyPatch):
    tokens, ids = random_set(1, 3, 17, 5, 4, torch.float16)
    fast = voxel_cosine(tokens, ids)
    monkeypatch.setattr(voxel_cosine_module, "find_spec", lambda name: None)
    monkeypatch.setattr(cpu, "scan", None)
    check(voxel_cosine(tokens, ids, pairs=True), tokens, ids)
    torch.testing.assert_close(voxel_cosine(tokens, ids).noncorr_sum, fast.noncorr_sum)


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


def test_kernels_equal_the_reference(run_interpreted):
    run_interpreted("interpreted_voxel_cosine.py")
