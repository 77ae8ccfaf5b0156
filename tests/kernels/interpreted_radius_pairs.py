"""The Triton kernels of `radius_pairs` against the reference; test_radius_pairs.py runs it interpreted."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from strata.kernels.radius_pairs import kernel, reference
from strata.kernels.radius_pairs.tokens import RadiusPairs, tokens_of
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """What no kernel writes does not look like a count, a place or a distance."""
    assert isinstance(kernel.visit_rows, InterpretedFunction)
    poisoned(monkeypatch, torch, "empty")
    poisoned(monkeypatch, torch.Tensor, "new_empty")


def poisoned(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    empty = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *size, **place: empty(*size, **place).fill_(-777))


def rows(pairs: RadiusPairs) -> list[tuple[float, ...]]:
    parts = (pairs.set, pairs.i, pairs.j, pairs.distance)
    return list(zip(*(part.tolist() for part in parts), strict=True))


def compare(*inputs: torch.Tensor) -> list[tuple[float, ...]]:
    tokens = tokens_of(*inputs)
    expected = rows(reference.search(tokens).all(1 << 20))
    assert rows(kernel.search(tokens).all(1 << 20)) == expected
    return expected


def scattered(sets: int, count: int, octaves: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    points = torch.randn(sets, count, 3, generator=generator)
    points[0, count // 2, 1] = torch.nan
    valid = torch.rand(sets, count, generator=generator) > 0.1
    view = torch.randint(0, 3, (sets, count), generator=generator)
    return points, valid, view, 2 ** (1 - octaves * torch.rand(sets, count, generator=generator))


# The interpreter takes its time by launches, levels and steps, not by lanes.
@pytest.mark.parametrize(
    ("sets", "count", "octaves", "block"),
    [(2, 1, 1, 32), (1, 17, 2, 32), (1, 63, 2, 64), (1, 65, 1, 32), (1, 65, 4, 128)],
)
def test_odd_sizes(sets: int, count: int, octaves: float, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "BLOCK", block)
    assert (len(compare(*scattered(sets, count, octaves))) > 3) == (count > 1)


def test_blocks_hold_each_pair_once():
    tokens = tokens_of(*scattered(2, 17, 0))
    found, expected = kernel.search(tokens), rows(reference.search(tokens).all(1 << 20))
    parts = [rows(part) for part in found.blocks(len(expected) // 2)]
    assert len(parts) > 1
    assert sorted(chain(*parts)) == expected
    assert all(part == sorted(part) for part in parts)


def test_one_place_one_view_and_none():
    points, valid = torch.zeros(1, 17, 3), torch.ones(1, 17, dtype=torch.bool)
    radius = torch.ones(1, 17)
    assert len(compare(points, valid, torch.arange(17), radius)) == 17 * 16 / 2
    assert compare(points, valid, torch.zeros(17, dtype=torch.int64), radius) == []
    assert compare(points, ~valid, torch.arange(17), radius) == []


def test_far_apart_and_far_away():
    # One cell wraps round the 2^19 of a key, others lie beyond 2^50.
    x = torch.tensor([0.0, 0.5, 2.0**20, 2.0**20 + 0.5, 1e30, 1e30, -1e30], dtype=torch.float64)
    points = torch.stack((x, x, -x), -1)[None]
    view, valid = torch.arange(7), torch.ones(1, 7, dtype=torch.bool)
    near = compare(points, valid, view, torch.full((1, 7), 1.5))
    assert [pair[1:3] for pair in near] == [(0, 1), (2, 3), (4, 5)]
