"""Bilinear sampling of token maps on a GPU, and its gradient.

Forward, a block makes one point's channels from the four tokens around it. Backward, the corners of all
points are sorted by token, and a block adds up what reaches one token, in the order of the points: no
atomics, so that equal input gives equal bits.

Bound by memory: forward reads at most four tokens of D channels and writes one; neighbouring points find
tokens in the cache. Backward reads each point's gradient four times, mostly from the cache, and writes every
token once.

Shapes: A maps, R C token rows and columns, N points, D channels; K = 4 N corners.
"""

from __future__ import annotations

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false
# The language of kernels is Python for its compiler alone.
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compiled import Compilation
from ..quantized import QuantizedTokens
from .corners import corners

BLOCK, WARPS = 512, 4
"""Channels of a block: four for each thread."""


@triton.jit
def _corner(
    tokens, scale, offset, at, i_map, o_d, mask, weight, QUANTIZED: tl.constexpr, WIDTH: tl.constexpr
):
    """A token's channels times its weight in float32."""
    value = tl.load(tokens + at * WIDTH + o_d, mask=mask, other=0).to(tl.float32)
    if QUANTIZED:
        affine = i_map * WIDTH + o_d
        value = value * tl.load(scale + affine, mask=mask, other=0) + tl.load(
            offset + affine, mask=mask, other=0
        )
    return value * weight


@triton.jit
def sample_forward(
    tokens, scale, offset, place, weight, out, points, per_map, shared,
    QUANTIZED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [A, N, D] from the places [A or 1, N, 4] in a map and weights of four corners."""
    i_n, i_map = tl.program_id(0) % points, (tl.program_id(0) // points).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o_d < WIDTH
    at = ((i_map * (1 - shared)) * points + i_n) * 4
    first = i_map * per_map
    rows = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(4):
        token, w = first + tl.load(place + at + k), tl.load(weight + at + k)
        rows += _corner(tokens, scale, offset, token, i_map, o_d, m, w, QUANTIZED, WIDTH)
    # All four weights of a point outside are NaN, and so is what they make.
    tl.store(out + (i_map * points + i_n) * WIDTH + o_d, rows.to(out.dtype.element_ty), mask=m)


@triton.jit
def sample_backward(
    gradient, weight, order, first, out, points, per_map, shared, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """out [A, R C, D] from the corners `order` [A or 1, K], those of a token between two of `first`
    [A or 1, R C + 1]."""
    i_token, i_map = tl.program_id(0) % per_map, (tl.program_id(0) // per_map).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m, plan = o_d < WIDTH, i_map * (1 - shared)
    start = tl.load(first + plan * (per_map + 1) + i_token)
    end = tl.load(first + plan * (per_map + 1) + i_token + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(start, end):
        corner = tl.load(order + plan * points * 4 + k)
        w = tl.load(weight + plan * points * 4 + corner)
        row = (i_map * points + corner // 4) * WIDTH
        total += w * tl.load(gradient + row + o_d, mask=m, other=0).to(tl.float32)
    tl.store(out + (i_map * per_map + i_token) * WIDTH + o_d, total.to(out.dtype.element_ty), mask=m)


def sample_tokens(tokens: Tensor | QuantizedTokens, rowcol: Tensor) -> Tensor:
    """As the reference, of f16, bf16, f32 or quantized tokens; the same bits each time, in gradients too."""
    *maps, rows, cols, width = tokens.shape
    place, weight, inside = corners(rowcol.to(tokens.device), rows, cols, torch.float32)
    shape, points = (*maps, place.shape[-2], width), place.shape[-2]
    count, own = math.prod(maps), math.prod(place.shape[:-2])
    place, weight = place.reshape(own, points, 4).int(), weight.reshape(own, points, 4)
    inside = inside.reshape(own, points, 1)
    if isinstance(tokens, QuantizedTokens):
        affine = tokens.scale.float(), tokens.offset.float()
        values = tokens.values.reshape(count, rows * cols, width)
        return _forward(values, affine, place, weight, inside, torch.float32).reshape(shape)
    return _Sample.apply(tokens.reshape(count, rows * cols, width), place, weight, inside).reshape(shape)


class _Sample(torch.autograd.Function):
    """Of tokens [A, R C, D]."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, place: Tensor, weight: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(place, weight, inside)
        ctx.tokens = tokens.shape[1]
        return _forward(tokens, (tokens, tokens), place, weight, inside, tokens.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _backward(gradients[0].contiguous(), *ctx.saved_tensors, ctx.tokens), None, None, None


def _forward(
    values: Tensor,
    affine: tuple[Tensor, Tensor],
    place: Tensor,
    weight: Tensor,
    inside: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    (maps, per_map, width), points = values.shape, place.shape[1]
    out = torch.empty(maps, points, width, dtype=dtype, device=values.device)
    weight = weight.where(inside, torch.nan)
    if out.numel():
        sample_forward[(maps * points, triton.cdiv(width, BLOCK))](
            values.contiguous(), *(tensor.contiguous() for tensor in affine), place, weight, out,
            points, per_map, int(len(place) == 1),
            QUANTIZED=values.dtype == torch.uint8, WIDTH=width, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return out


def _backward(gradient: Tensor, place: Tensor, weight: Tensor, inside: Tensor, per_map: int) -> Tensor:
    """[A, R C, D] of the gradient [A, N, D]."""
    maps, points, width = gradient.shape
    # What has no influence goes behind the last token.
    used = inside & (weight != 0)
    by_token, order = place.where(used, per_map).flatten(1).sort(dim=1, stable=True)  # [A or 1, 4 N]
    wanted = torch.arange(per_map + 1, dtype=torch.int32, device=gradient.device).expand(len(place), -1)
    first = torch.searchsorted(by_token, wanted.contiguous())
    out = torch.empty(maps, per_map, width, dtype=gradient.dtype, device=gradient.device)
    if out.numel():
        sample_backward[(maps * per_map, triton.cdiv(width, BLOCK))](
            gradient, weight, order.int(), first.int(), out, points, per_map, int(len(place) == 1),
            WIDTH=width, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return out


def compilations() -> list[Compilation]:
    """Forward and backward of common storages at 1,024 channels."""
    whole = dict.fromkeys(("points", "per_map", "shared"), "i32")
    constants = {"WIDTH": 1024, "BLOCK": BLOCK}
    listed = []
    for kind in ("fp16", "bf16", "fp32", "u8"):
        small = kind == "u8"
        affine, out = ("*fp32", "*fp32") if small else (f"*{kind}", f"*{kind}")
        forward = {
            "tokens": f"*{kind}",
            "scale": affine,
            "offset": affine,
            "place": "*i32",
            "weight": "*fp32",
        }
        backward = {"gradient": out, "weight": "*fp32", "order": "*i32", "first": "*i32"}
        listed.append(
            Compilation(
                name=f"sample_tokens.forward {kind}",
                kernel=sample_forward,
                signature={**forward, **whole, "out": out},
                constants={**constants, "QUANTIZED": small},
                num_warps=WARPS,
                hot=True,
            )
        )
        if not small:
            listed.append(
                Compilation(
                    name=f"sample_tokens.backward {kind}",
                    kernel=sample_backward,
                    signature={**backward, **whole, "out": out},
                    constants=constants,
                    num_warps=WARPS,
                    hot=True,
                )
            )
    return listed
