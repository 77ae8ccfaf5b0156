"""Voxel ids: order of occurrence, borders of cells, range, points that are no points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.voxel_hash import reference, voxel_hash
from strata.kernels.voxel_hash.cells import REACH, cell_grid


def by_hand(points: torch.Tensor, valid: torch.Tensor, size: float, origin=(0.0, 0.0, 0.0)) -> list[int]:
    """A dictionary, one point after the other."""
    numbers: dict[tuple[int, ...], int] = {}
    ids = []
    for point, ok in zip(points.double().tolist(), valid.tolist(), strict=True):
        if not ok or not all(map(math.isfinite, point)):
            ids.append(-1)
            continue
        cell = tuple(math.floor((x - o) / size) for x, o in zip(point, origin, strict=True))
        ids.append(numbers.setdefault(cell, len(numbers)))
    return ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ids_equal_a_dictionary(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 257, 3, generator=generator, dtype=dtype)
    valid = torch.rand(3, 257, generator=generator) > 0.2
    points[1, 5, 2] = torch.nan
    points[2, 0, 0] = torch.inf
    ids = voxel_hash(points, valid, voxel_size=0.7)
    assert ids.dtype == torch.int64
    for row, point, ok in zip(ids, points, valid, strict=True):
        assert row.tolist() == by_hand(point, ok, 0.7)


def test_ids_count_by_first_occurrence():
    x = torch.tensor([9.5, 2.5, -7.5, 2.1, 9.9, 0.0])
    points = torch.stack((x, x * 0, x * 0), dim=-1)[None]
    assert voxel_hash(points, torch.ones(1, 6, dtype=torch.bool), voxel_size=1.0).tolist() == [
        [0, 1, 2, 1, 0, 3]
    ]


def test_floor_and_round_have_other_borders():
    points = torch.tensor([[[-0.4, 0.0, 0.0], [0.4, 0.0, 0.0], [0.6, 0.0, 0.0]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert voxel_hash(points, valid, voxel_size=1.0).tolist() == [[0, 1, 1]]
    assert voxel_hash(points, valid, voxel_size=1.0, rounding="round").tolist() == [[0, 0, 1]]


def test_half_way_goes_to_the_even_cell():
    half = torch.arange(-8, 9) / 2
    for axis in range(3):
        points = torch.zeros(1, 17, 3)
        points[0, :, axis] = half
        ids = voxel_hash(points, torch.ones(1, 17, dtype=torch.bool), voxel_size=1.0, rounding="round")
        assert ids.tolist() == [[0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8, 8]]


def test_size_and_origin_belong_to_the_set():
    points = torch.tensor(
        [[[0.1, 0, 0], [0.9, 0, 0]], [[0.1, 0, 0], [0.9, 0, 0]], [[0.1, 0, 0], [0.9, 0, 0]]]
    )
    origin = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0.5, 0, 0]])
    ids = voxel_hash(
        points,
        torch.ones(3, 2, dtype=torch.bool),
        voxel_size=torch.tensor([1.0, 0.5, 1.0]),
        origin=origin,
    )
    assert ids.tolist() == [[0, 0], [0, 1], [0, 1]]


def test_the_whole_range_has_distinct_keys():
    ends = torch.tensor([-float(REACH), 0.0, float(REACH) - 1])
    points = torch.cartesian_prod(ends, ends, ends)[None].double()
    ids = voxel_hash(points, torch.ones(1, 27, dtype=torch.bool), voxel_size=1.0)
    assert ids.tolist() == [list(range(27))]


@pytest.mark.parametrize("x", [float(REACH), -float(REACH) - 1])
def test_points_out_of_range_are_an_error(x: float):
    points = torch.tensor([[[0.0, 0, 0], [0, x, 0]]])
    with pytest.raises(ProbeError, match="1 points lie beyond 1,048,576 voxels") as caught:
        voxel_hash(points, torch.tensor([[True, True]]), voxel_size=1.0)
    assert "larger voxels" in caught.value.fix
    assert voxel_hash(points, torch.tensor([[True, False]]), voxel_size=1.0).tolist() == [[0, -1]]


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan])
def test_edges_are_positive(size: float):
    with pytest.raises(ProbeError, match="voxel edge"):
        voxel_hash(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool), voxel_size=size)


def test_unknown_rounding():
    with pytest.raises(ProbeError, match="rounding=ceil"):
        voxel_hash(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool), voxel_size=1, rounding="ceil")


def test_no_valid_point():
    ids = voxel_hash(torch.full((2, 4, 3), torch.nan), torch.zeros(2, 4, dtype=torch.bool), voxel_size=1.0)
    assert ids.tolist() == [[-1] * 4] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_ids_equal_the_reference(rounding: str, dtype: torch.dtype):
    # 2,500 points in some 2,000 cells: the table grows.
    points = torch.randn(2, 2_500, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    valid, origin = points[..., 0] > -2, torch.tensor([[0.1, 0.2, 0.3], [0, 0, 0]])
    size = torch.tensor([0.2, 0.01])
    ids = voxel_hash(points, valid, voxel_size=size, origin=origin, rounding=rounding)
    assert ids.equal(reference.voxel_ids(points, valid, cell_grid(points, valid, size, origin, rounding)))
    assert ids[1].max() > 2_000


def test_strided_points_with_gradient():
    points = torch.randn(3, 2, 65, generator=torch.Generator().manual_seed(2)).permute(1, 2, 0)
    valid = torch.ones(65, 2, dtype=torch.bool).T
    ids = voxel_hash(points.requires_grad_(), valid, voxel_size=0.5)
    assert ids.equal(voxel_hash(points.detach().contiguous(), valid.contiguous(), voxel_size=0.5))


def test_two_kilometres_at_a_millimetre_are_in_reach_and_three_are_not():
    points = torch.tensor([[[-1000.0, 0, 0], [1000.0, 0, 0]]], dtype=torch.float64)
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert voxel_hash(points, valid, voxel_size=0.001).tolist() == [[0, 1]]
    with pytest.raises(ProbeError, match="2 points lie beyond"):
        voxel_hash(points * 1.5, valid, voxel_size=0.001)


def test_origins_are_finite():
    origin = torch.tensor([[0.0, torch.nan, 0]])
    with pytest.raises(ProbeError, match="origin is not finite"):
        voxel_hash(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool), voxel_size=1, origin=origin)


@pytest.mark.parametrize(
    ("points", "valid", "size", "origin"),
    [
        ((2, 3, 2), (2, 3), 1, 2),
        ((2, 3, 3), (3, 2), 1, 2),
        ((2, 3, 3), (2, 3), 3, 2),
        ((2, 3, 3), (2, 3), 2, 1),
    ],
)
def test_shapes_fit(points: tuple[int, ...], valid: tuple[int, ...], size: int, origin: int):
    with pytest.raises(ProbeError, match="do not fit together"):
        voxel_hash(
            torch.zeros(points),
            torch.ones(valid, dtype=torch.bool),
            voxel_size=torch.ones(size),
            origin=torch.zeros(origin, 3),
        )


def test_plain_torch_serves_where_numba_is_not(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("strata.kernels.voxel_hash.find_spec", lambda name: asked.append(name))
    points = torch.randn(1, 17, 3, generator=torch.Generator().manual_seed(3))
    valid = torch.ones(1, 17, dtype=torch.bool)
    assert voxel_hash(points, valid, voxel_size=0.7)[0].tolist() == by_hand(points[0], valid[0], 0.7)
    assert asked == ["numba"]


def test_kernels_in_the_interpreter(run_interpreted: Callable[[str], None]):
    run_interpreted("interpreted_voxel_hash.py")
