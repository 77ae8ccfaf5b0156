"""The Triton kernels of `pair_cosine` against the reference, interpreted by test_pair_cosine.py."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from strata.kernels.pair_cosine import PairPlan, kernel, pair_plan, reference
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """What no kernel writes is not a number; views are added up few tokens at a time."""
    assert isinstance(kernel.dot_bags, InterpretedFunction)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **place: empty(*size, **place).fill_(torch.nan))
    monkeypatch.setattr(kernel, "ROWS", 4)


def inputs(sets: int, views: int, places: int, width: int, share: float) -> tuple[torch.Tensor, PairPlan]:
    """Tokens that are not centred, of which some are not valid, and a plan of some pairs in three groups."""
    generator = torch.Generator().manual_seed(views * places + width)
    tokens = torch.randn(sets, views, places, width, generator=generator) + 1
    valid = torch.rand(sets, views, places, generator=generator) > 0.2
    view = torch.arange(views).repeat_interleave(places)
    flat = valid.flatten(1)
    asked = (view[:, None] < view) & flat[:, :, None] & flat[:, None]
    pairs = (asked & (torch.rand(asked.shape, generator=generator) < share)).nonzero(as_tuple=True)
    group = torch.randint(0, 3, (len(pairs[0]),), generator=generator)
    return tokens, pair_plan(valid, (pairs[0], pairs[1], pairs[2]), group, 3)


def compare(tokens: torch.Tensor, plan: PairPlan) -> None:
    found, expected = kernel.pair_cosine(tokens, plan), reference.pair_cosine(tokens, plan)
    for field in fields(expected):
        got, wanted = getattr(found, field.name), getattr(expected, field.name)
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=3e-6, msg=field.name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_storages(dtype: torch.dtype):
    tokens, plan = inputs(1, 3, 9, 5, 0.3)
    compare(tokens.to(dtype), plan)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 2, 1, 3), (1, 3, 17, 17), (1, 2, 5, 65), (2, 5, 4, 2), (0, 2, 3, 4)], ids=str
)
@pytest.mark.parametrize("share", [0.0, 0.4, 2.0], ids=["none", "some", "all"])
def test_odd_sizes(shape: tuple[int, int, int, int], share: float):
    compare(*inputs(*shape, share))


def test_what_is_not_finite_takes_no_part_and_zeros_count():
    tokens, plan = inputs(2, 3, 7, 5, 0.5)
    tokens[0, 0, :3] = torch.nan
    tokens[1, 2, 3] = torch.inf
    tokens[1, 1, :2] = 0
    compare(tokens, plan)


def test_all_invalid():
    tokens, _ = inputs(1, 2, 3, 4, 0.0)
    none = torch.zeros(0, dtype=torch.int64)
    plan = pair_plan(torch.zeros(1, 2, 3, dtype=torch.bool), (none, none, none), none, 3)
    compare(tokens, plan)
    assert int(kernel.pair_cosine(tokens, plan).rest_count) == 0
