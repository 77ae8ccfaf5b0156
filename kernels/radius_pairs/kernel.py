"""Cross-view pairs within a radius, on a GPU.

`insert_runs` puts the first place of each cell into a hash table. `search` runs twice: it counts the pairs
that each token finds, and after a scan it writes them where they belong. Tokens are in order of their cells,
so that the threads of a warp look into much the same cells and their reads are of the same sectors.

Bound by the latency of reads from the L2 cache. A token asks for 27 cells of each level from its own up: a
key of 8 bytes and, where there is one, a start of 4, then 52 bytes for each token of the cell. With 4 levels
and 30 tokens around that is some 3 kB, and 40 flops in float64 a candidate: 5,476 tokens move 16 MB twice,
which take microseconds at any rate of the cache, so that the launches and sorts around them dominate; 1e6
tokens take about a millisecond at 5 TB/s.

Shapes: B sets, N tokens of a set, L levels, S slots of the table of a set, M pairs.
"""

from __future__ import annotations

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# A number that is given for a constexpr is one for Triton alone; without indices, tl.max gives no tuple.
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compiled import Compilation
from ..voxel_hash.table import EMPTY, claim, find, slots_for
from . import levels
from .levels import sorted_tokens
from .search import PairSearch
from .tokens import Tokens

BLOCK, WARPS = 32, 1
"""Threads of a warp wait for the one with the most tokens around; those of other warps need not."""

LEVELS, BITS = tl.constexpr(levels.LEVELS), tl.constexpr(levels.BITS)
CELL = tl.constexpr((1 << levels.BITS) - 1)
NO_TOKEN, FARTHEST = tl.constexpr(levels.NO_TOKEN), tl.constexpr(levels.FARTHEST)


def search(tokens: Tokens) -> PairSearch:
    """As `reference.search`; a row is a place in `SortedTokens`. Waits for the device when `ends` is read."""
    sets, count = tokens.valid.shape
    cells = sorted_tokens(tokens)
    slots, blocks, device = slots_for(count), triton.cdiv(count, BLOCK), tokens.point.device
    table = torch.full((sets, slots), EMPTY.value, dtype=torch.int64, device=device)
    begin = torch.empty(sets, slots, dtype=torch.int32, device=device)
    launch, size = (sets * blocks,), {"BLOCK": BLOCK, "num_warps": WARPS}
    key = cells.key.contiguous()
    insert_runs[launch](key, table, begin, count, slots, blocks, **size)
    lists = (cells.index, cells.point, cells.radius, cells.view, cells.edge, cells.occupied)
    arrays = (key, *(one.contiguous() for one in lists), table, begin)
    found = torch.empty(sets * count, dtype=torch.int64, device=device)
    nothing = found.new_empty(0), cells.point.new_empty(0)

    def visit(
        ends: Tensor, start: int, stop: int, skip: int, codes: Tensor, squares: Tensor, *, fill: bool
    ) -> None:
        sizes = (start, stop, skip, count, slots, blocks)
        # Fused multiplication and addition would round squares otherwise than a processor does.
        visit_rows[launch](*arrays, ends, codes, squares, *sizes, FILL=fill, **size, enable_fp_fusion=False)

    visit(found, 0, sets * count, 0, *nothing, fill=False)
    ends = found.cumsum(0)

    def fill(start: int, stop: int) -> tuple[Tensor, Tensor]:
        bounds = [ends[row - 1] if row else ends.new_zeros(()) for row in (start, stop)]
        skip, total = torch.stack(bounds).tolist()
        codes, squares = (one.new_empty(total - skip) for one in nothing)
        if total > skip:
            visit(ends, start, stop, skip, codes, squares, fill=True)
        return codes, squares

    return PairSearch(tokens=count, ends=ends, fill=fill)


@triton.jit
def insert_runs(key, table, begin, count, slots, blocks, BLOCK: tl.constexpr):
    """Where in the sorted keys those of a cell begin, at the slot of the cell."""
    i_set = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    own = tl.load(key + i_set * count + p, mask=p < count, other=NO_TOKEN)
    before = tl.load(key + i_set * count + p - 1, mask=(p > 0) & (p < count), other=-1)
    wanted = (own != NO_TOKEN) & (own != before)
    slot = claim(table + i_set * slots, own, wanted, tl.where(p < count, p, 0).to(tl.int64), slots)
    tl.store(begin + i_set * slots + slot, p, mask=wanted)


@triton.jit
def visit_rows(
    key, index, point, radius, view, edge, occupied, table, begin, ends, codes, squares,
    start, stop, skip, count, slots, blocks, FILL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """How many pairs rows start ... stop find, into ends; or those pairs, without the first `skip` of all."""
    i_set = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    row = i_set * count + p
    asked = (p < count) & (row >= start) & (row < stop)
    own = tl.load(key + row, mask=asked, other=NO_TOKEN)
    sought = asked & (own != NO_TOKEN)
    own_level = own >> (3 * BITS)
    i = tl.load(index + row, mask=sought, other=0)
    x = tl.load(point + 3 * row, mask=sought, other=0)
    y = tl.load(point + 3 * row + 1, mask=sought, other=0)
    z = tl.load(point + 3 * row + 2, mask=sought, other=0)
    r = tl.load(radius + row, mask=sought, other=0)
    v = tl.load(view + row, mask=sought, other=0)
    found = tl.zeros_like(own)
    if FILL:
        found = tl.load(ends + row - 1, mask=sought & (row > 0), other=0) - skip
    for level in range(LEVELS):
        here = sought & (own_level >= level)
        tokens_here = tl.load(occupied + i_set * LEVELS + level)
        if tokens_here * tl.max(here.to(tl.int32), axis=0) > 0:
            size = tl.load(edge + i_set * LEVELS + level)
            x0, y0, z0 = cell(x, size), cell(y, size), cell(z, size)
            for near in range(27):
                x1, y1, z1 = x0 + (near // 9 - 1), y0 + (near // 3 % 3 - 1), z0 + (near % 3 - 1)
                other = cell_key(own * 0 + level, x1, y1, z1)
                slot, alive = find(table + i_set * slots, other, here, slots)
                q = tl.load(begin + i_set * slots + slot, mask=alive, other=0)
                while tl.max(alive.to(tl.int32), axis=0) > 0:
                    there = i_set * count + q
                    alive = alive & (tl.load(key + there, mask=alive, other=NO_TOKEN) == other)
                    j = tl.load(index + there, mask=alive, other=0)
                    dx = x - tl.load(point + 3 * there, mask=alive, other=0)
                    dy = y - tl.load(point + 3 * there + 1, mask=alive, other=0)
                    dz = z - tl.load(point + 3 * there + 2, mask=alive, other=0)
                    square = dx * dx + dy * dy + dz * dz
                    reach = (r + tl.load(radius + there, mask=alive, other=0)) * 0.5
                    crosses = tl.load(view + there, mask=alive, other=0) != v
                    # Of two tokens of one level, the earlier finds the pair.
                    pair = alive & crosses & (square < reach * reach) & ((own_level > level) | (j > i))
                    if FILL:
                        code = (i_set * count + tl.minimum(i, j)) * count + tl.maximum(i, j)
                        tl.store(codes + found, code, mask=pair)
                        tl.store(squares + found, square, mask=pair)
                    found += pair.to(tl.int64)
                    q += 1
                    alive = alive & (q < count)
    if not FILL:
        tl.store(ends + row, found, mask=asked)


@triton.jit
def cell(at, size):
    """[N] i64 cell of coordinates [N] f64; neighbours stay neighbours."""
    return tl.minimum(tl.maximum(tl.floor(at / size), -FARTHEST), FARTHEST).to(tl.int64)


@triton.jit
def cell_key(level, x, y, z):
    """[N] i64, as in `SortedTokens`."""
    return (level << (3 * BITS)) | ((x & CELL) << (2 * BITS)) | ((y & CELL) << BITS) | (z & CELL)


def compilations() -> list[Compilation]:
    """The launches of `search`."""
    sizes = dict.fromkeys(("count", "slots", "blocks"), "i32")
    table = {"key": "*i64", "table": "*i64", "begin": "*i32"}
    tokens = {"index": "*i64", "point": "*fp64", "radius": "*fp64", "view": "*i64"}
    cells = {"edge": "*fp64", "occupied": "*i32", "ends": "*i64", "codes": "*i64", "squares": "*fp64"}
    rows = dict.fromkeys(("start", "stop", "skip"), "i64")
    shared = {"num_warps": WARPS, "hot": True}
    return [
        Compilation(
            name="radius_pairs insert_runs",
            kernel=insert_runs,
            signature={**table, **sizes},
            constants={"BLOCK": BLOCK},
            **shared,
        ),
        *(
            Compilation(
                name=f"radius_pairs {'fill' if fill else 'count'}",
                kernel=visit_rows,
                signature={**table, **tokens, **cells, **rows, **sizes},
                constants={"BLOCK": BLOCK, "FILL": fill},
                fp_fusion=False,
                **shared,
            )
            for fill in (False, True)
        ),
    ]
