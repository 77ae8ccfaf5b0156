"""The sums of a score on a GPU: every token is read once from memory, no sum depends on who comes first.

`scan_chunks` walks over the sorted tokens of a chunk. A tile of rows is loaded while the one before is
worked on; a token is divided by its length and multiplied with the sum of the tokens of earlier views of
its cell, and added to the sum of its view. `sum_rows` adds up what the chunks leave, in their order.
`dot_pairs` makes the part of each pair of views in a cell, if that is wanted.

Bound by memory. A token of 1,024 channels in f16 is 2,048 bytes, beside which its row and mark (8 bytes)
and the chunks' sums (8 (V + 1) D bytes for about 512 tokens, 4 % with four views, written and read once) are
little: at 4.3 TB/s a million tokens take 0.5 ms. The arithmetic is about 8 + V instructions a channel, 12e9
in all with four views, half of what 132 processors issue in that time. Latency is hidden by bytes on
their way: three tiles of 8 KB in each of two blocks on a processor are 48 KB; 4.3 TB/s at 1 us ask for 33 KB.
This is reasoning; nothing of it was measured.

Shapes: B sets, V views, P tokens of a view, D channels; T tokens that have a cell, S segments, G cells,
M pairs of views in a cell, K chunks, H large cells.
"""

from __future__ import annotations

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false
# The language of kernels is Python for its compiler alone.
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compiled import Compilation
from ..quantized import QuantizedTokens
from . import chunks, reference, score
from .score import Sums, Tokens
from .segments import VoxelSegments, starts

EPS, LARGEST = tl.constexpr(score.EPS), tl.constexpr(torch.finfo(torch.float32).max)
NEW_SEGMENT, NEW_CELL, VIEW = (tl.constexpr(x) for x in (chunks.NEW_SEGMENT, chunks.NEW_CELL, chunks.VIEW))

ROWS, STAGES = 4, 4
"""Tokens of a tile, which are added up in float32 before float64, and tiles on their way or in work. More
tokens would take more registers than two blocks on a processor have."""

LANES = 512
"""Bytes of a row that the 32 threads of a warp load at once. With one warp for each, a thread holds the same
channels of all rows of a tile, and picking a row moves nothing between threads."""

POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.uint8: "*u8"}

ACCUMULATORS = 4096
"""Numbers of float64 in the registers of a block for the sums by view. Where the views need more, blocks
next to each other share them, and read the same tokens at about the same time."""


@triton.jit
def _tile(
    values,
    scale,
    offset,
    row,
    mask,
    tokens,
    WIDTH: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Unit vectors [R, BLOCK] f32 of rows [R], and whether these are finite [R]."""
    o_d = tl.arange(0, BLOCK)
    m = mask[:, None] & (o_d < WIDTH)[None, :]
    x = tl.load(values + row.to(tl.int64)[:, None] * WIDTH + o_d[None, :], mask=m, other=0).to(tl.float32)
    if QUANTIZED:
        affine = (row // tokens).to(tl.int64)[:, None] * WIDTH + o_d[None, :]
        x = x * tl.load(scale + affine, mask=m, other=0) + tl.load(offset + affine, mask=m, other=0)
    square = tl.sum(x * x, axis=1)
    inverse = tl.div_rn(1.0, tl.maximum(tl.sqrt_rn(square), EPS))
    return x * inverse[:, None], square <= LARGEST


@triton.jit
def scan_chunks(
    values, scale, offset, rows, marks, first_token, out, finite, tokens, views,
    WIDTH: tl.constexpr, QUANTIZED: tl.constexpr, BLOCK: tl.constexpr, VIEWS: tl.constexpr,
    ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """out [K, V + 1, D] f64: sums of unit vectors by view, and last, channel by channel, the products
    of tokens with those of earlier views of their cell. finite [K] int32."""
    groups = tl.cdiv(views, VIEWS)
    i_k, i_g = tl.program_id(0) // groups, tl.program_id(0) % groups
    start, end = tl.load(first_token + i_k), tl.load(first_token + i_k + 1)
    o_d, o_r, o_v = tl.arange(0, BLOCK), tl.arange(0, ROWS), tl.arange(0, VIEWS)
    by_view, products = tl.zeros((VIEWS, BLOCK), tl.float64), tl.zeros((BLOCK,), tl.float64)
    segment, earlier = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    fine = tl.full((ROWS,), 1, tl.int32)
    for k in tl.range(start, end, ROWS, num_stages=STAGES):
        m_r = k + o_r < end
        row = tl.load(rows + k + o_r, mask=m_r, other=0)
        unit, b_fine = _tile(values, scale, offset, row, m_r, tokens, WIDTH, QUANTIZED, BLOCK)
        fine = fine & (b_fine | (m_r == 0)).to(tl.int32)
        b_view, b_products = tl.zeros((VIEWS, BLOCK), tl.float32), tl.zeros((BLOCK,), tl.float32)
        for i in tl.static_range(ROWS):
            u = tl.sum(tl.where((o_r == i)[:, None], unit, 0.0), axis=0)
            mark = tl.load(marks + k + i, mask=end > k + i, other=0)
            new_segment = (mark & NEW_SEGMENT).to(tl.float32)
            keeps_cell = 1.0 - ((mark & NEW_CELL) // NEW_CELL).to(tl.float32)
            earlier = (earlier + segment * new_segment) * keeps_cell
            segment = segment * (1.0 - new_segment) + u
            b_products += earlier * u
            b_view += (o_v == mark // VIEW - i_g * VIEWS).to(tl.float32)[:, None] * u[None, :]
        by_view += b_view.to(tl.float64)
        products += b_products.to(tl.float64)
    row_of_out = out + i_k.to(tl.int64) * (views + 1) * WIDTH
    view = i_g * VIEWS + o_v
    m = (view < views)[:, None] & (o_d < WIDTH)[None, :]
    tl.store(row_of_out + view[:, None] * WIDTH + o_d[None, :], by_view, mask=m)
    if i_g == 0:
        tl.store(row_of_out + views * WIDTH + o_d, products, mask=o_d < WIDTH)
        tl.store(finite + i_k, tl.min(fine, axis=0))


@triton.jit
def sum_rows(values, first, last, out, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """out [N, width] f64: the sum of rows first ... last - 1 of values [K, width] f64, of N ranges."""
    i_n = tl.program_id(0)
    o_d, o_r = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
    total = tl.zeros((ROWS, BLOCK), tl.float64)
    start, end = tl.load(first + i_n), tl.load(last + i_n)
    for k in tl.range(start, end, ROWS):
        m = (k + o_r < end)[:, None] & (o_d < width)[None, :]
        total += tl.load(values + (k + o_r).to(tl.int64)[:, None] * width + o_d[None, :], mask=m, other=0)
    tl.store(out + i_n.to(tl.int64) * width + o_d, tl.sum(total, axis=0), mask=o_d < width)


@triton.jit
def dot_pairs(
    values, scale, offset, rows, first_token, cell, first_segment, first_pair, out, tokens,
    LARGE: tl.constexpr, WIDTH: tl.constexpr, QUANTIZED: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """out [M] f64: the products of a segment with the later ones of its cell, large cells excepted. What a
    block reads anew its neighbours have just read."""
    a, o_r = tl.program_id(0), tl.arange(0, ROWS)
    begin, past = tl.load(first_segment + tl.load(cell + a)), tl.load(first_segment + tl.load(cell + a) + 1)
    if tl.load(first_token + past) - tl.load(first_token + begin) <= LARGE:
        mine, pair = tl.zeros((BLOCK,), tl.float32), tl.load(first_pair + a)
        for b in range(a, past):
            start, end = tl.load(first_token + b), tl.load(first_token + b + 1)
            total = tl.zeros((BLOCK,), tl.float32)
            for k in range(start, end, ROWS):
                m_r = k + o_r < end
                row = tl.load(rows + k + o_r, mask=m_r, other=0)
                unit, _ = _tile(values, scale, offset, row, m_r, tokens, WIDTH, QUANTIZED, BLOCK)
                total += tl.sum(unit, axis=0)
            if b == a:
                mine = total
            else:
                tl.store(out + pair + b - a - 1, tl.sum((mine * total).to(tl.float64), axis=0))


def scan(tokens: Tokens, plan: VoxelSegments, by_pair: bool = False, by_cell: bool = False) -> Sums:
    """The sums of tokens [B, V, P, D] f32, f16, bf16 or quantized; the same bits each time."""
    sets, views, _ = plan.shape
    width, pieces = tokens.shape[-1], plan.chunks
    if not len(plan.order) or not width:
        return reference.scan(tokens, plan, by_pair, by_cell)
    by_chunk, finite = _scan_chunks(tokens, plan)
    by_set = _sum_rows(by_chunk, *_ranges(pieces.set_chunks)).reshape(sets, views + 1, width)
    large = _sum_rows(by_chunk, *pieces.large_chunks).reshape(-1, views + 1, width)[:, :views]  # [H, V, D]
    # Channel by channel, so that a cell seen by a single view gives an exact zero.
    in_large = ((large.sum(1) ** 2 - (large**2).sum(1)) / 2).sum(-1)  # [H]
    of_set = _ranges(starts(plan.cell_set[pieces.large], sets).int())
    dots = _dot_pairs(tokens, plan, large @ large.mT) if by_pair or by_cell else large.new_zeros(0)
    return Sums(
        by_view=by_set[:, :views],
        corr=by_set[:, views].sum(-1) + _sum_rows(in_large[:, None], *of_set)[:, 0],
        finite=finite.all(),
        by_pair=dots if by_pair else None,
        by_cell=_sum_rows(dots[:, None], *_cell_pairs(plan, len(dots)))[:, 0] if by_cell else None,
    )


def _scan_chunks(tokens: Tokens, plan: VoxelSegments) -> tuple[Tensor, Tensor]:
    """[K, (V + 1) D] f64 and [K] int32, as the kernel says."""
    pieces, (_, views, places), width = plan.chunks, plan.shape, tokens.shape[-1]
    count, block = len(pieces.first_token) - 1, triton.next_power_of_2(width)
    group = min(triton.next_power_of_2(views), max(1, ACCUMULATORS // block))
    out = torch.empty(count, (views + 1) * width, dtype=torch.float64, device=tokens.device)
    finite = torch.empty(count, dtype=torch.int32, device=tokens.device)
    scan_chunks[(count * triton.cdiv(views, group),)](
        *_stored(tokens), pieces.row, pieces.mark, pieces.first_token, out, finite, places, views,
        VIEWS=group, STAGES=STAGES, **_shape(tokens),
    )  # fmt: skip
    return out, finite


def _sum_rows(values: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """[N, W] f64 of values [K, W] f64 and N ranges of rows."""
    width = values.shape[1]
    block = min(64, triton.next_power_of_2(width))
    out = torch.empty(len(first), width, dtype=torch.float64, device=values.device)
    if len(first):
        sum_rows[(len(first), triton.cdiv(width, block))](
            values.contiguous(), first.contiguous(), last.contiguous(), out, width, ROWS=32, BLOCK=block
        )
    return out


def _dot_pairs(tokens: Tokens, plan: VoxelSegments, large: Tensor) -> Tensor:
    """[M] f64, of large cells from the products [H, V, V] of their sums by view."""
    a, b = plan.pairs
    dots = torch.empty(len(a), dtype=torch.float64, device=tokens.device)
    index = plan.first_token, plan.cell, plan.first_segment, plan.first_pair
    dot_pairs[(len(plan.cell),)](
        *_stored(tokens), plan.chunks.row, *index, dots, plan.shape[2],
        LARGE=chunks.LARGE, **_shape(tokens),
    )  # fmt: skip
    if not len(large):
        return dots
    cell = torch.searchsorted(plan.chunks.large, plan.cell[a]).clamp_max(len(large) - 1)
    return torch.where(plan.chunks.large[cell] == plan.cell[a], large[cell, plan.view[a], plan.view[b]], dots)


def _cell_pairs(plan: VoxelSegments, pairs: int) -> tuple[Tensor, Tensor]:
    """[G] and [G]: the first of each cell's pairs, and the one past its last."""
    first_pair = torch.cat((plan.first_pair, plan.first_pair.new_full((1,), pairs)))
    return _ranges(first_pair[plan.first_segment])


def _ranges(starts_and_end: Tensor) -> tuple[Tensor, Tensor]:
    return starts_and_end[:-1], starts_and_end[1:]


def _stored(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Stored numbers [N, D], scale and offset [B V, D]; the latter are not read where there are none."""
    if isinstance(tokens, QuantizedTokens):
        return (
            tokens.values.contiguous(),
            tokens.scale.float().contiguous(),
            tokens.offset.float().contiguous(),
        )
    values = tokens.detach().contiguous()
    return values, values, values


def _shape(tokens: Tokens) -> dict[str, Any]:
    """Constants that go with the tokens."""
    width, quantized = tokens.shape[-1], isinstance(tokens, QuantizedTokens)
    block = triton.next_power_of_2(width)
    size = torch.float32.itemsize if quantized else tokens.dtype.itemsize
    warps = min(max(block * size // LANES, 1), 16)
    return {"WIDTH": width, "QUANTIZED": quantized, "BLOCK": block, "ROWS": ROWS, "num_warps": warps}


def compilations() -> list[Compilation]:
    """Common widths and storages; ViT-L in f16 with four views is what the goal is about."""
    cases = ((1024, torch.float16), (384, torch.bfloat16), (768, torch.float32), (1024, torch.uint8))
    sums = {"values": "*fp64", "first": "*i32", "last": "*i32", "out": "*fp64", "width": "i32"}
    shape = {"ROWS": 32, "BLOCK": 64}
    return [
        *(one for width, dtype in cases for one in _of_tokens(width, dtype, views=4)),
        Compilation(name="voxel_cosine.sum_rows", kernel=sum_rows, signature=sums, constants=shape),
    ]


def _of_tokens(width: int, dtype: torch.dtype, views: int) -> tuple[Compilation, Compilation]:
    tokens = torch.empty(1, 1, 1, width, dtype=dtype, device="meta")
    if dtype == torch.uint8:
        affine = torch.empty(1, 1, width, device="meta")
        constants = _shape(QuantizedTokens(values=tokens, scale=affine, offset=affine))
    else:
        constants = _shape(tokens)
    warps = constants.pop("num_warps")
    affine_type = POINTERS[torch.float32 if constants["QUANTIZED"] else dtype]
    types = {"values": POINTERS[dtype], "rows": "*i32", "out": "*fp64", "tokens": "i32"}
    types |= {"scale": affine_type, "offset": affine_type}
    scanned = {"marks": "*i32", "first_token": "*i32", "finite": "*i32", "views": "i32"}
    index = dict.fromkeys(("first_token", "cell", "first_segment", "first_pair"), "*i64")
    name = f"{POINTERS[dtype][1:]} D={width}"
    scan = Compilation(
        name=f"voxel_cosine.scan_chunks {name} V={views}",
        kernel=scan_chunks,
        signature={**types, **scanned},
        constants={**constants, "VIEWS": views, "STAGES": STAGES},
        num_warps=warps,
        hot=True,
    )
    dots = Compilation(
        name=f"voxel_cosine.dot_pairs {name}",
        kernel=dot_pairs,
        signature={**types, **index},
        constants={**constants, "LARGE": chunks.LARGE},
        num_warps=warps,
    )
    return scan, dots
