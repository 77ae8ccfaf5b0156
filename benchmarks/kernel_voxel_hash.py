"""Voxel ids and pairs within radii against what one would write with torch.

Ids: 1e6 points in 125,000 voxels (of edge 1, by which float32 divides as float64 does), against floor, ravel
and `torch.unique(return_inverse=True)` of the same points, which numbers voxels by key and not by occurrence.
Goal on a processor: not slower. One thread, CPU seconds, in turns. On a GPU, times between device events,
goal 1e9 points/s, next to the rate of a copy in the same run.

Pairs: 4 views of 1,369 tokens, against all distances in blocks; no goal.

    python benchmarks/kernel_voxel_hash.py --check
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from judge import Row, device_seconds, median_interval, peer_ratio, run_alone
from strata.kernels.radius_pairs import RadiusPairs, radius_pairs, reference
from strata.kernels.radius_pairs.tokens import tokens_of
from strata.kernels.voxel_hash import voxel_hash
from torch import Tensor

POINTS, VOXELS, EDGE = 1_000_000, 50, 1.0
VIEWS, TOKENS, FOOTPRINT = 4, 1369, 14 / 600
GPU_POINTS, GPU_GOAL = 16_000_000, 1e9
REPEATS = 20


def measure(pairs: int) -> list[Row]:
    """The rows of a processor from so many pairs of runs, and those of the GPU where there is one."""
    torch.set_num_threads(1)
    rows = [processor_hash(pairs), processor_pairs(pairs)]
    return [*rows, *gpu_rows(pairs)] if torch.cuda.is_available() else rows


def processor_hash(pairs: int) -> Row:
    points, valid = cube(POINTS)
    ours = partial(voxel_hash, points, valid, voxel_size=EDGE)
    peer = partial(by_unique, points[0])
    ids, other = ours()[0], peer()
    assert int(ids.max()) == int(other.max())
    assert other.equal(other[first_of(ids)][ids])
    return peer_ratio(f"voxel_hash, {POINTS:,} points", ours, [peer], pairs, goal=1.0)


def processor_pairs(pairs: int) -> Row:
    inputs = room()
    ours, peer = partial(radius_pairs, *inputs), partial(all_distances, *inputs)
    assert len(ours()) == len(peer())
    return peer_ratio(f"radius_pairs, {VIEWS} x {TOKENS:,} tokens", ours, [peer], max(3, pairs // 3))


def gpu_rows(pairs: int) -> list[Row]:
    """Points a second of the kernel, and the copy that says what this GPU's memory gives."""
    points, valid = (one.cuda() for one in cube(GPU_POINTS))
    small, few = (one[:, :100_000].contiguous() for one in (points, valid))
    on_cpu = voxel_hash(small.cpu(), few.cpu(), voxel_size=EDGE)
    assert voxel_hash(small, few, voxel_size=EDGE).cpu().equal(on_cpu)
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    gigabytes = 2 * source.numel() * source.element_size() / 1e9
    copied = rate("copy", "GB/s", partial(target.copy_, source), gigabytes, pairs)
    work = partial(voxel_hash, points, valid, voxel_size=EDGE)
    hashed = rate(f"voxel_hash, {GPU_POINTS:,} points", "points/s", work, GPU_POINTS, pairs, GPU_GOAL)
    return [copied, hashed]


def rate(
    name: str, unit: str, work: Callable[[], object], amount: float, pairs: int, goal: float | None = None
) -> Row:
    """Amount a second between device events: median and interval of `pairs` times `REPEATS` calls."""
    work()
    found = [amount * REPEATS / device_seconds(work, REPEATS) for _ in range(pairs)]
    median, low, high = median_interval(found)
    return Row(name=name, value=median, low=low, high=high, unit=unit, goal=goal)


def cube(count: int) -> tuple[Tensor, Tensor]:
    """Points [1, count, 3] of a cube of `VOXELS` an axis, all valid."""
    points = torch.rand(1, count, 3, generator=torch.Generator().manual_seed(0))
    return VOXELS * points, torch.ones(1, count, dtype=torch.bool)


def room() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, validity, views and footprints of tokens on a rough wall 1 to 10 m away."""
    generator = torch.Generator().manual_seed(0)
    depth_m = 1 + 9 * torch.rand(1, VIEWS * TOKENS, generator=generator)
    across = torch.rand(1, VIEWS * TOKENS, 2, generator=generator) * depth_m[..., None]
    rough = 0.05 * torch.randn(1, VIEWS * TOKENS, 1, generator=generator)
    view = torch.arange(VIEWS).repeat_interleave(TOKENS)
    valid = torch.ones(1, VIEWS * TOKENS, dtype=torch.bool)
    return torch.cat((across, rough), -1), valid, view, depth_m * FOOTPRINT


def by_unique(points: Tensor) -> Tensor:
    """[N] voxel of points [N, 3], numbered by key."""
    cells = torch.floor(points / EDGE)
    cells = (cells - cells.amin(0)).long()
    _, height, depth = (cells.amax(0) + 1).unbind()
    key = (cells[:, 0] * height + cells[:, 1]) * depth + cells[:, 2]
    return torch.unique(key, return_inverse=True)[1]


def all_distances(points: Tensor, valid: Tensor, view: Tensor, radius: Tensor) -> RadiusPairs:
    return reference.search(tokens_of(points, valid, view, radius)).all(1 << 26)


def first_of(ids: Tensor) -> Tensor:
    """[G] the first point of each id."""
    place = torch.arange(len(ids))
    return place.new_full((int(ids.max()) + 1,), len(ids)).scatter_reduce(0, ids, place, "amin")


if __name__ == "__main__":
    sys.exit(run_alone(measure, "Voxel ids and pairs within radii against torch.", pairs=15))
