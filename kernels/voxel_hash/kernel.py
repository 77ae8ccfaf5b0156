"""Dense ids of the voxels that points fall into, on a GPU.

`insert` claims a slot for the cell of each point and leaves there the first point of the cell; `mark` and
one scan number the first points; `number` gives each point the number of its cell's first. Which slot a
cell gets depends on who comes first, its number does not.

Bound by memory. A point of f32 moves about 300 bytes: 13 of input, 24 to 48 to clear 2 to 4 slots of 12
bytes, 7 sectors of 32 bytes at random places (key, claim, first; first, first, number, and what collides),
36 of slots, marks, numbers and ids. At 4.3 TB/s that is 14e9 points/s; 1e9 points/s leave an order of
magnitude for the latency of atomics and seven launches. Points that share a cell read before they claim, so
that even a million in one cell are reads of one cached sector and not atomics in a row.

Shapes: B sets, N points, S slots of the table of a set.
"""

from __future__ import annotations

# pyright: reportArgumentType=false
# A number that is given for a constexpr is one for Triton alone.
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compiled import Compilation
from . import cells
from .cells import CellGrid, check_cells
from .table import EMPTY, claim, slots_for

MOST_POINTS = 1 << 30
"""In all sets: slots and numbers are 32-bit. The table would take 24 GB."""

BLOCK, WARPS = 128, 1
"""One warp needs no barrier to know that all its points have found a slot; four points of a thread keep
as many questions to memory open."""

REACH = tl.constexpr(cells.REACH)
INFINITY = tl.constexpr(float("inf"))
TO_NEAREST = tl.constexpr(1.5 * 2**52)
"""Adding and subtracting it rounds a float64 below 2^51 to the nearest whole number, half to even."""


def voxel_ids(points: Tensor, valid: Tensor, grid: CellGrid) -> Tensor:
    """As `reference.voxel_ids`. Waits for the device once, for whether all points were in reach."""
    sets, count = valid.shape
    if not points.numel():
        check_cells(points, valid, grid)
        return torch.empty(valid.shape, dtype=torch.int64, device=points.device)
    points = points if points.dtype in (torch.float32, torch.float64) else points.double()
    slots, blocks = slots_for(count), triton.cdiv(count, BLOCK)
    new = {"dtype": torch.int32, "device": points.device}
    table = torch.full((sets, slots), EMPTY.value, dtype=torch.int64, device=points.device)
    first = torch.full((sets, slots), count, **new)
    slot, mark = torch.empty(sets, count, **new), torch.empty(sets * count, **new)
    fault = torch.zeros(1, **new)
    launch, size = (sets * blocks,), {"BLOCK": BLOCK, "num_warps": WARPS}
    insert[launch](
        points.detach().contiguous(),
        valid.contiguous().view(torch.uint8),
        grid.size.contiguous(),
        grid.origin.contiguous(),
        table,
        first,
        slot,
        fault,
        count,
        slots,
        blocks,
        NEAREST=grid.rounding == "round",
        **size,
    )
    mark_first[launch](first, slot, mark, count, slots, blocks, **size)
    # Over all sets at once: a scan of one row is the one that fills a GPU.
    numbers = mark.cumsum(0, dtype=torch.int32)
    ids = torch.empty(sets, count, dtype=torch.int64, device=points.device)
    number[launch](first, slot, numbers, ids, count, slots, blocks, **size)
    if int(fault):
        check_cells(points, valid, grid)
    return ids


@triton.jit
def insert(
    points, valid, size, origin, table, first, slot, fault, count, slots, blocks,
    NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A slot for the cell of each point, -1 for none, and the first point of each slot."""
    i_set = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = n < count
    row = i_set * count + n
    x = tl.load(points + 3 * row, mask=inside, other=0).to(tl.float64)
    y = tl.load(points + 3 * row + 1, mask=inside, other=0).to(tl.float64)
    z = tl.load(points + 3 * row + 2, mask=inside, other=0).to(tl.float64)
    finite = (tl.abs(x) < INFINITY) & (tl.abs(y) < INFINITY) & (tl.abs(z) < INFINITY)
    wanted = (tl.load(valid + row, mask=inside, other=0) != 0) & finite
    edge = tl.load(size + i_set)
    x0, y0, z0 = tl.load(origin + 3 * i_set), tl.load(origin + 3 * i_set + 1), tl.load(origin + 3 * i_set + 2)
    sane = (edge > 0) & (tl.abs(x0) < INFINITY) & (tl.abs(y0) < INFINITY) & (tl.abs(z0) < INFINITY)
    sane = n * 0 < sane.to(tl.int32)  # the interpreter cannot spread a single bit over a block
    x, y, z = cell(x - x0, edge, NEAREST), cell(y - y0, edge, NEAREST), cell(z - z0, edge, NEAREST)
    reached = in_reach(x) & in_reach(y) & in_reach(z)
    tl.store(fault + tl.zeros_like(n), 1, mask=(wanted & ~reached) | ~sane)
    wanted = wanted & reached & sane
    key = (packed(x, wanted) << 42) | (packed(y, wanted) << 21) | packed(z, wanted)
    table += i_set * slots
    place = claim(table, key, wanted, tl.where(inside, n, 0).to(tl.int64), slots)
    first += i_set * slots + place
    before = tl.load(first, mask=wanted, other=0)
    tl.atomic_min(first, n, mask=wanted & (n < before), sem="relaxed")
    tl.store(slot + row, tl.where(wanted, place, -1).to(tl.int32), mask=inside)


@triton.jit
def cell(shifted, edge, NEAREST: tl.constexpr):
    """The cell [N] f64 along one axis."""
    at = shifted / edge
    return (at + TO_NEAREST) - TO_NEAREST if NEAREST else tl.floor(at)


@triton.jit
def in_reach(at):
    return (at >= -REACH) & (at < REACH)


@triton.jit
def packed(at, wanted):
    """[N] i64 below 2^21."""
    return (tl.where(wanted, at, 0.0) + REACH).to(tl.int64)


@triton.jit
def mark_first(first, slot, mark, count, slots, blocks, BLOCK: tl.constexpr):
    """1 for the first point of a cell, else 0."""
    i_set = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(slot + i_set * count + n, mask=n < count, other=-1)
    found = tl.load(first + i_set * slots + place, mask=place >= 0, other=-1)
    tl.store(mark + i_set * count + n, (found == n).to(tl.int32), mask=n < count)


@triton.jit
def number(first, slot, numbers, ids, count, slots, blocks, BLOCK: tl.constexpr):
    """The id of each point: how many cells of the set came before its own."""
    i_set = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(slot + i_set * count + n, mask=n < count, other=-1)
    found = tl.load(first + i_set * slots + place, mask=place >= 0, other=0)
    earlier = tl.load(numbers + i_set * count - 1, mask=i_set > 0, other=0)  # of the sets before
    own = tl.load(numbers + i_set * count + found, mask=place >= 0, other=0) - earlier - 1
    tl.store(ids + i_set * count + n, tl.where(place >= 0, own, -1).to(tl.int64), mask=n < count)


def compilations() -> list[Compilation]:
    """The launches of `voxel_ids`."""
    sizes = dict.fromkeys(("count", "slots", "blocks"), "i32")
    shared = {"constants": {"BLOCK": BLOCK}, "num_warps": WARPS, "hot": True}
    lists = {"first": "*i32", "slot": "*i32"}
    grid = {"valid": "*u8", "size": "*fp64", "origin": "*fp64", "table": "*i64", "fault": "*i32"}
    inserts = [
        Compilation(
            name=f"voxel_hash insert {kind} {'round' if nearest else 'floor'}",
            kernel=insert,
            signature={"points": f"*{kind}", **grid, **lists, **sizes},
            **{**shared, "constants": {"BLOCK": BLOCK, "NEAREST": nearest}},
        )
        for kind, nearest in (("fp32", False), ("fp32", True), ("fp64", False))
    ]
    marks = {**lists, "mark": "*i32", **sizes}
    numbers = {**lists, "numbers": "*i32", "ids": "*i64", **sizes}
    return [
        *inserts,
        Compilation(name="voxel_hash mark_first", kernel=mark_first, signature=marks, **shared),
        Compilation(name="voxel_hash number", kernel=number, signature=numbers, **shared),
    ]
