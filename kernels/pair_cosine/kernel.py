"""Sums of the cosines of listed pairs, and of unit vectors by view, on a GPU.

A block makes one bag: it adds up the unit vectors of the tokens that are listed with the bag's own, and
multiplies the sum with that. Another kernel adds up the tokens of a view, some at a time. No atomics, so that
equal input gives equal bits.

Bound by memory: lengths and views read every token once each; a listed pair reads one token more, and pairs
are of tokens near to each other, which are found in the cache. None of it is measured.

Shapes: B sets, V views, P tokens of a view, D channels; Q bags, M listed pairs, K chunks of a view.
"""

from __future__ import annotations

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false
# The language of kernels is Python for its compiler alone.
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compiled import Compilation
from ..nearest_cosine.unit import inverse_length
from .plan import PairPlan
from .score import PairCosine, score_of

ROWS = 64
"""Tokens of a view that are added up in float32; their sums are added up in float64."""

LANES = 256
"""Channels of a warp."""


@triton.jit
def _unit(tokens, inverse, row, o_d, WIDTH: tl.constexpr):
    """[BLOCK] f32 unit vector of a row; zeros where it takes no part, be it not finite."""
    scale = tl.load(inverse + row)
    channels = tl.where(scale >= 0, WIDTH, 0)
    return tl.load(tokens + row * WIDTH + o_d, mask=o_d < channels, other=0).to(tl.float32) * scale


@triton.jit
def dot_bags(tokens, inverse, first, start, second, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out [Q] f64: the token of each bag times the sum of those that are listed with it."""
    i_q, o_d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(tl.load(start + i_q), tl.load(start + i_q + 1)):
        total += _unit(tokens, inverse, tl.load(second + k), o_d, WIDTH)
    own = _unit(tokens, inverse, tl.load(first + i_q), o_d, WIDTH)
    tl.store(out + i_q, tl.sum(total * own, axis=0).to(tl.float64))


@triton.jit
def sum_views(
    tokens, inverse, out, places, chunks, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """out [B * V, K, D] f32 sums of the unit vectors of ROWS tokens."""
    i_k, i_v = tl.program_id(0) % chunks, (tl.program_id(0) // chunks).to(tl.int64)
    o_d = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for p in range(i_k * ROWS, tl.minimum((i_k + 1) * ROWS, places)):
        total += _unit(tokens, inverse, i_v * places + p, o_d, WIDTH)
    row_out = out + (i_v * chunks + i_k) * WIDTH + o_d
    tl.store(row_out, total, mask=o_d < WIDTH)


def pair_cosine(tokens: Tensor, plan: PairPlan) -> PairCosine:
    """See the package; of f16, bf16 or f32 tokens."""
    tokens = tokens.detach().contiguous()
    inverse = inverse_length(tokens, plan.valid)
    sets, views, places, width = tokens.shape
    chunks, shape = triton.cdiv(places, ROWS), _shape(width)
    warps = shape.pop("num_warps")
    dots = torch.empty(len(plan.first), dtype=torch.float64, device=tokens.device)
    by_view = torch.empty(sets, views, chunks, width, dtype=torch.float32, device=tokens.device)
    if len(dots):
        lists = plan.first, plan.start, plan.second
        dot_bags[(len(dots),)](tokens, inverse, *lists, dots, **shape, num_warps=warps)
    if by_view.numel():
        launch = (sets * views * chunks,)
        sum_views[launch](tokens, inverse, by_view, places, chunks, **shape, ROWS=ROWS, num_warps=warps)
    return score_of(plan, inverse >= 0, dots, by_view.sum(2, dtype=torch.float64))


def _shape(width: int) -> dict[str, int]:
    """Constants that go with the channels."""
    block = triton.next_power_of_2(max(width, 1))
    return {"WIDTH": width, "BLOCK": block, "num_warps": min(max(block // LANES, 1), 16)}


def compilations() -> list[Compilation]:
    """Common storages at 1,024 channels."""
    constants = _shape(1024)
    warps = constants.pop("num_warps")
    listed = []
    for kind in ("fp16", "bf16", "fp32"):
        read = {"tokens": f"*{kind}", "inverse": "*fp32"}
        listed += [
            Compilation(
                name=f"pair_cosine.dot_bags {kind}",
                kernel=dot_bags,
                signature={**read, "out": "*fp64", **dict.fromkeys(("first", "start", "second"), "*i64")},
                constants=constants,
                num_warps=warps,
                hot=True,
            ),
            Compilation(
                name=f"pair_cosine.sum_views {kind}",
                kernel=sum_views,
                signature={**read, "out": "*fp32", "places": "i32", "chunks": "i32"},
                constants={**constants, "ROWS": ROWS},
                num_warps=warps,
                hot=True,
            ),
        ]
    return listed
