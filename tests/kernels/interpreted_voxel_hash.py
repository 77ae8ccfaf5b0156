"""The Triton kernels of `voxel_hash` against the reference; run by test_voxel_hash.py in the interpreter."""

from __future__ import annotations

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.voxel_hash import kernel, reference
from strata.kernels.voxel_hash.cells import REACH, cell_grid
from strata.kernels.voxel_hash.table import claim, find, mix, slots_for
from triton import jit
from triton import language as tl
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """What no kernel writes does not look like an id."""
    assert isinstance(kernel.insert, InterpretedFunction)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **place: empty(*size, **place).fill_(-777))


def compare(points: torch.Tensor, valid: torch.Tensor, size=0.7, origin=None, rounding="floor") -> None:
    grid = cell_grid(points, valid, size, origin, rounding)
    ids, expected = kernel.voxel_ids(points, valid, grid), reference.voxel_ids(points, valid, grid)
    assert ids.tolist() == expected.tolist()
    assert kernel.voxel_ids(points, valid, grid).tolist() == ids.tolist()


@pytest.mark.parametrize("rounding", ["floor", "round"])
@pytest.mark.parametrize("count", [0, 1, 17, 63, 65, 129])
def test_odd_sizes(count: int, rounding: str):
    generator = torch.Generator().manual_seed(count)
    points = torch.randn(3, count, 3, generator=generator)
    valid = torch.rand(3, count, generator=generator) > 0.2
    points[0, count // 2 : count // 2 + 1, 1] = torch.nan
    points[1, count // 3 : count // 3 + 1, 2] = -torch.inf
    size, origin = torch.tensor([0.3, 0.7, 1.9]), torch.tensor([[0.0, 0, 0], [0.1, -0.2, 0.3], [9, 9, 9]])
    compare(points, valid, size, origin, rounding)
    compare(points.double(), valid, size.double(), origin.double(), rounding)


def test_duplicates_and_one_cell():
    points = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1)).repeat(2, 13, 1)
    compare(points, torch.ones(2, 65, dtype=torch.bool))
    compare(points, torch.ones(2, 65, dtype=torch.bool), size=100.0, rounding="round")


def test_none_is_valid():
    compare(torch.full((2, 17, 3), torch.nan), torch.ones(2, 17, dtype=torch.bool))
    compare(torch.zeros(2, 17, 3), torch.zeros(2, 17, dtype=torch.bool))


def test_half_way_goes_to_the_even_cell():
    x = torch.arange(-8, 9) / 2
    compare(torch.stack((x, -x, x * 0), -1)[None], torch.ones(1, 17, dtype=torch.bool), 1.0, rounding="round")


def test_the_whole_range():
    ends = torch.tensor([-float(REACH), 0.0, float(REACH) - 1], dtype=torch.float64)
    compare(torch.cartesian_prod(ends, ends, ends)[None], torch.ones(1, 27, dtype=torch.bool), 1.0)


@pytest.mark.parametrize(
    ("x", "size", "origin", "words"),
    [
        (float(REACH), 1.0, 0.0, "1 points lie beyond"),
        (-float(REACH) - 1, 1.0, 0.0, "1 points lie beyond"),
        (3e38, 1e-30, 0.0, "1 points lie beyond"),
        (0.0, 0.0, 0.0, "voxel edge"),
        (0.0, -1.0, 0.0, "voxel edge"),
        (0.0, torch.nan, 0.0, "voxel edge"),
        (0.0, 1.0, torch.nan, "origin is not finite"),
    ],
)
def test_what_is_refused(x: float, size: float, origin: float, words: str):
    points, valid = torch.tensor([[[0.0, 0, 0], [0, x, 0]]]), torch.tensor([[False, True]])
    with pytest.raises(ProbeError, match=words):
        compare(points, valid, size, torch.tensor([[0.0, 0, origin]]))
    grid = cell_grid(points, valid, size, torch.tensor([[0.0, 0, origin]]), "floor")
    with pytest.raises(ProbeError, match=words):
        kernel.voxel_ids(points, valid, grid)


def test_points_out_of_reach_may_be_invalid():
    compare(torch.tensor([[[0.0, 0, 0], [0, 1e9, 0]]]), torch.tensor([[True, False]]), 1.0)


@jit
def fill_and_find(table, keys, asked, slots_of_keys, slots_of_asked, slots, N: tl.constexpr):
    n = tl.arange(0, N)
    key = tl.load(keys + n)
    slot = claim(table, key, n < N - 1, n.to(tl.int64), slots)
    tl.store(slots_of_keys + n, slot)
    slot, found = find(table, tl.load(asked + n), n >= 0, slots)
    tl.store(slots_of_asked + n, tl.where(found, slot, -1))


@jit
def mixed(keys, out, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(out + n, mix(tl.load(keys + n)).to(tl.int64, bitcast=True))


def test_a_table_that_is_nearly_full():
    keys = torch.randint(0, 1 << 62, (64,), generator=torch.Generator().manual_seed(2))
    keys[7] = keys[3]
    table, slots, found = torch.full((64,), -1), torch.zeros(64).long(), torch.zeros(64).long()
    fill_and_find[(1,)](table, keys, keys.flip(0), slots, found, 64, N=64)
    assert table[slots[:63]].tolist() == keys[:63].tolist()
    assert sorted(set(table.tolist())) == sorted({-1, *keys[:63].tolist()})
    assert (table == -1).sum() == 2
    assert found.flip(0)[:63].tolist() == slots[:63].tolist()
    assert found[0] == -1


def test_mix_is_the_finaliser_of_murmurhash3():
    keys, out = torch.tensor([0, 1, 2, 1 << 62]), torch.zeros(4, dtype=torch.int64)
    mixed[(1,)](keys, out, N=4)
    assert [hex(one & (2**64 - 1)) for one in out.tolist()] == [hex(by_hand(one)) for one in keys.tolist()]


def by_hand(key: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        key = (key ^ (key >> 33)) * factor % 2**64
    return key


@pytest.mark.parametrize(("keys", "slots"), [(0, 2), (1, 2), (2, 4), (3, 8), (64, 128), (65, 256)])
def test_half_of_the_slots_stay_empty(keys: int, slots: int):
    assert slots_for(keys) == slots
