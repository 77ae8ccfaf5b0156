"""Cross-view pairs within radii: against brute force, at odd sizes, radii of many octaves, in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.radius_pairs import RadiusPairs, radius_pair_blocks, radius_pairs, reference
from strata.kernels.radius_pairs.search import cuts
from strata.kernels.radius_pairs.tokens import tokens_of
from torch import Tensor


def rows(pairs: RadiusPairs) -> list[tuple[float, ...]]:
    parts = (pairs.set, pairs.i, pairs.j, pairs.distance)
    return list(zip(*(part.tolist() for part in parts), strict=True))


def by_hand(points: Tensor, valid: Tensor, view: Tensor, radius: Tensor) -> Iterator[tuple[object, ...]]:
    """Two loops in Python."""
    for b in range(len(points)):
        for i in range(points.shape[1]):
            for j in range(i + 1, points.shape[1]):
                apart = math.dist(points[b, i].tolist(), points[b, j].tolist())
                near = apart < (float(radius[b, i]) + float(radius[b, j])) / 2
                if near and valid[b, i] and valid[b, j] and view[b, i] != view[b, j]:
                    yield b, i, j, pytest.approx(apart, rel=1e-12)


def scattered(sets: int, count: int, octaves: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points in a unit cube, of three views, with radii of so many octaves below 1/4."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(sets, count, 3, generator=generator) - 0.5
    valid = torch.rand(sets, count, generator=generator) > 0.1
    view = torch.randint(0, 3, (sets, count), generator=generator)
    return points, valid, view, 0.25 * 2 ** (-octaves * torch.rand(sets, count, generator=generator))


@pytest.mark.parametrize("count", [0, 1, 17, 65])
def test_pairs_equal_two_loops(count: int):
    inputs = scattered(2, count, 3, seed=count)
    assert rows(radius_pairs(*inputs)) == list(by_hand(*inputs))


@pytest.mark.parametrize(("count", "octaves"), [(63, 0.0), (700, 1.0), (700, 7.0), (700, 40.0)])
def test_pairs_equal_the_reference(count: int, octaves: float):
    inputs = scattered(3, count, octaves, seed=count)
    expected = reference.search(tokens_of(*inputs)).all(1 << 30)
    found = radius_pairs(*inputs)
    assert len(expected) > 3
    assert rows(found) == rows(expected)
    assert found.i.dtype == found.j.dtype == found.set.dtype == torch.int64
    assert found.distance.dtype == torch.float64


def test_a_large_token_sees_the_small_ones_around_it():
    # Three radii, 2^0, 2^-4 and 2^-8: the mean of two is what counts.
    x = torch.tensor([0.0, 0.53, 0.54, 0.5021, 0.5018])
    points = torch.stack((x, x * 0, x * 0), -1)[None]
    radius = torch.tensor([[1.0, 2**-4, 2**-4, 2**-8, 2**-8]])
    found = radius_pairs(points, torch.ones(1, 5, dtype=torch.bool), torch.arange(5), radius)
    # Half of 1 + 2^-4 reaches 0.531, half of 1 + 2^-8 reaches 0.502.
    assert [pair[1:3] for pair in rows(found)] == [(0, 1), (0, 4), (1, 2), (1, 3), (1, 4), (3, 4)]


def test_the_radius_itself_is_too_far():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    valid, view = torch.ones(1, 2, dtype=torch.bool), torch.tensor([0, 1])
    assert len(radius_pairs(points, valid, view, torch.tensor([[1.5, 0.5]]))) == 0
    assert len(radius_pairs(points, valid, view, torch.tensor([[1.5, 0.5001]]))) == 1
    # A radius of a power of two, and a cell's border between the two.
    assert len(radius_pairs(points - 0.5, valid, view, torch.tensor([[2.0, 0.01]]))) == 1


def test_duplicates_one_view_and_radius_zero():
    points, valid = torch.zeros(1, 17, 3), torch.ones(1, 17, dtype=torch.bool)
    everything = radius_pairs(points, valid, torch.arange(17), torch.ones(1, 17))
    assert [pair[1:3] for pair in rows(everything)] == [(i, j) for i in range(17) for j in range(i + 1, 17)]
    assert everything.distance.eq(0).all()
    assert len(radius_pairs(points, valid, torch.zeros(17).long(), torch.ones(1, 17))) == 0
    assert len(radius_pairs(points, valid, torch.arange(17), torch.zeros(1, 17))) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -0.5])
def test_tokens_without_a_radius_have_no_pairs(bad: float):
    points, valid, view, radius = scattered(1, 65, 1, seed=5)
    radius[0, 7] = bad
    points[0, 9, 2] = -abs(bad) if bad != -0.5 else torch.nan
    without = valid.clone()
    without[0, [7, 9]] = False
    expected = radius_pairs(points.nan_to_num(), without, view, radius.nan_to_num())
    assert rows(radius_pairs(points, valid, view, radius)) == rows(expected)
    assert len(expected) > 3


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_extreme_extents(scale: float):
    points, valid, view, radius = scattered(1, 200, 2, seed=6)
    points = points.double() * scale
    points[0, 0] = 1e90 * scale
    points[0, 1] = points[0, 0]
    view[0, :2] = torch.tensor([0, 1])
    valid[0, :2] = True
    found = radius_pairs(points, valid, view, radius.double() * scale)
    expected = reference.search(tokens_of(points, valid, view, radius.double() * scale)).all(1 << 20)
    assert rows(found) == rows(expected)
    assert rows(found)[0][:3] == (0, 0, 1)


@pytest.mark.parametrize("most", [1, 40, 1 << 20])
@pytest.mark.parametrize("numba", [True, False])
def test_blocks_hold_each_pair_once(most: int, numba: bool, monkeypatch: pytest.MonkeyPatch):
    inputs = scattered(2, 65, 3, seed=7)
    everything = rows(radius_pairs(*inputs))
    if not numba:
        monkeypatch.setattr("strata.kernels.radius_pairs.find_spec", lambda name: None)
        monkeypatch.setattr(reference, "BLOCK", 65 * 8)
    parts = [rows(part) for part in radius_pair_blocks(*inputs, most=most)]
    assert sorted(chain(*parts)) == everything
    assert all(part and part == sorted(part) for part in parts)
    assert max(map(len, parts)) <= max(most, 64)
    assert (len(parts) > 1) == (most < len(everything))


def test_cuts_fill_blocks_and_leave_out_rows_without_pairs():
    ends = torch.tensor([0, 2, 3, 3, 9, 10, 10])
    assert list(cuts(ends, 3)) == [(0, 4), (4, 5), (5, 7)]
    assert list(cuts(ends, 100)) == [(0, 7)]
    assert list(cuts(ends[:1], 100)) == []


def test_too_many_pairs_at_once_are_an_error():
    inputs = scattered(1, 65, 1, seed=8)
    count = len(radius_pairs(*inputs))
    assert len(radius_pairs(*inputs, most=count)) == count
    with pytest.raises(ProbeError, match=f"{count} pairs of tokens") as caught:
        radius_pairs(*inputs, most=count - 1)
    assert "radius_pair_blocks" in caught.value.fix


def test_views_belong_to_all_sets_or_to_each():
    points, valid, _, radius = scattered(2, 65, 1, seed=9)
    view = torch.arange(65) % 3
    assert rows(radius_pairs(points, valid, view, radius)) == rows(
        radius_pairs(points, valid, view.expand(2, 65), radius)
    )
    with pytest.raises(ProbeError, match="do not fit together"):
        radius_pairs(points, valid, view[:2], radius)


def test_kernels_in_the_interpreter(run_interpreted: Callable[[str], None]):
    run_interpreted("interpreted_radius_pairs.py")
