"""The Triton kernels of `voxel_cosine` against the reference, interpreted by test_voxel_cosine.py."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest
import torch
from strata.kernels.voxel_cosine import QuantizedTokens, kernel, reference, segments
from strata.kernels.voxel_cosine import chunks as chunking
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """What no kernel writes is not a number, or not finite."""
    assert isinstance(kernel.scan_chunks, InterpretedFunction)
    empty = torch.empty

    def poisoned(*size, dtype, **place):
        return empty(*size, dtype=dtype, **place).fill_(torch.nan if dtype.is_floating_point else 0)

    monkeypatch.setattr(torch, "empty", poisoned)
    # Small, so that small inputs are cut.
    monkeypatch.setattr(chunking, "LARGE", 6)
    monkeypatch.setattr(chunking, "LEAST", 16)


def inputs(sets: int, views: int, tokens: int, width: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    values = torch.randn(sets, views, tokens, width, generator=generator) + 1
    return values, torch.randint(-1, cells, (sets, views, tokens), generator=generator)


def compare(tokens: torch.Tensor | QuantizedTokens, ids: torch.Tensor) -> None:
    plan = segments.voxel_segments(ids)
    found, expected = kernel.scan(tokens, plan, True, True), reference.scan(tokens, plan, True, True)
    for field in fields(expected):
        got, wanted = getattr(found, field.name), getattr(expected, field.name)
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=3e-6, msg=field.name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_storages(dtype: torch.dtype):
    tokens, ids = inputs(1, 3, 9, 5, 7)
    compare(tokens.to(dtype), ids)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 1),
        (1, 2, 1, 3, 1),
        (1, 2, 17, 17, 9),
        (1, 2, 9, 65, 2),
        (2, 5, 4, 2, 1),
        (1, 9, 2, 3, 6),
    ],
    ids=str,
)
def test_odd_sizes(shape: tuple[int, ...]):
    compare(*inputs(*shape))


def test_views_that_do_not_fit_are_shared_by_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "ACCUMULATORS", 8)
    compare(*inputs(1, 5, 5, 3, 3))


def test_quantized():
    generator = torch.Generator().manual_seed(3)
    tokens = QuantizedTokens(
        values=torch.randint(0, 256, (2, 3, 5, 9), generator=generator, dtype=torch.uint8),
        scale=torch.rand(2, 3, 9, generator=generator) / 50,
        offset=torch.randn(2, 3, 9, generator=generator),
    )
    compare(tokens, inputs(2, 3, 5, 9, 3)[1])


@pytest.mark.parametrize(
    "ids",
    [
        [[[-1, -1], [-1, -1]]],  # nothing valid
        [[[0] * 30]],  # one view, one large cell
        [[[0] * 9, [-1] * 9]],  # a view without cells
        [[[0, 1], [2, 3]], [[-1, -1], [-1, -1]]],  # singletons, and a set without tokens
        [[[5] * 9, [7] * 9], [[7] * 9, [7] * 9]],  # large cells of two sets with one id
    ],
)
def test_cells(ids: list):
    table = torch.tensor(ids)
    tokens = torch.randn(*table.shape, 6, generator=torch.Generator().manual_seed(1))
    compare(tokens, table)
    plan = segments.voxel_segments(table)
    corr = kernel.scan(tokens, plan).corr
    assert corr[plan.corr_count == 0].tolist() == [0.0] * int((plan.corr_count == 0).sum())


def test_zeros_are_zero_and_what_is_not_finite_is_told():
    tokens, ids = inputs(1, 3, 17, 4, 3)
    tokens[0, 0, :4] = 0
    compare(tokens, ids)
    ids[0, 1, 2] = 0
    for wrong in (torch.nan, torch.inf, 3e38):
        tokens[0, 1, 2, 1] = wrong
        assert not bool(kernel.scan(tokens, segments.voxel_segments(ids)).finite)
    ids[0, 1, 2] = -1
    assert bool(kernel.scan(tokens, segments.voxel_segments(ids)).finite)


def test_the_same_bits_twice():
    tokens, ids = inputs(1, 3, 9, 5, 2)
    plan = segments.voxel_segments(ids)
    first, again = kernel.scan(tokens, plan, True), kernel.scan(tokens, plan, True)
    assert torch.equal(first.by_view, again.by_view)
    assert torch.equal(first.by_pair, again.by_pair)


def test_alike_tokens_stay_exact():
    tokens = torch.tensor([0.3, 0.7, 0.1]).expand(1, 2, 40, 3)
    corr = kernel.scan(tokens, segments.voxel_segments(torch.zeros(1, 2, 40, dtype=torch.int64))).corr
    assert float(corr) / 40**2 == pytest.approx(1, abs=1e-6)


def test_chunks_hold_whole_cells_of_one_set_or_parts_of_a_large_one():
    _, ids = inputs(3, 4, 40, 1, 25)
    ids[1, :, :20] = 3
    plan = segments.voxel_segments(ids)
    pieces, cell = plan.chunks, plan.cell.repeat_interleave(plan.count).tolist()
    cuts = pieces.first_token.tolist()
    assert cuts[0] == 0
    assert cuts[-1] == len(cell)
    size_of = {one: cell.count(one) for one in set(cell)}
    for start, end in pairwise(cuts):
        inside = set(cell[start:end])
        assert len({int(plan.cell_set[one]) for one in inside}) == 1
        if any(size_of[one] > chunking.LARGE for one in inside):
            assert len(inside) == 1
            assert end - start <= chunking.LEAST
        else:
            assert end - start == sum(size_of[one] for one in inside)
            assert end - start < chunking.LEAST + chunking.LARGE
    assert len(pieces.large) == sum(size > chunking.LARGE for size in size_of.values())
