"""The compiled loops over tokens of any storage. In one file, for numba caches by the file of the caller.

What is called for every token is inlined: numba counts references to the arrays that a call is given, with
an atomic operation each.

numba has no 16-bit floats. Their bits come as integers, whose types tell them apart: unsigned for f16,
signed for bf16.

Shapes: V views, N tokens, D channels; T tokens that have a cell, S segments, G cells, M pairs of views in
a cell, A rows of scale and offset.
"""

from __future__ import annotations

# pyright: reportCallIssue=false
# What is compiled is called in other ways than Python would.
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array
from torch import Tensor

from .score import EPS

REASSOCIATE = {"reassoc", "contract", "nsz"}
"""Sums may be cut into lanes. NaN and infinity keep their meaning."""

RUN = 4
"""Tokens that are added up in float32 before float64 takes over. A float32 sum of n unit vectors is off
by at most n 2^-24 of n, and a product of two such sums by twice that share, so that a mean cosine is off
by at most 10 * 2^-24 = 6e-7 however many tokens a cell has, the unit vectors' own rounding included."""

AHEAD = 8
"""Tokens between the one that is asked for from memory and the one that is worked on. That many wait in the
second cache, which is large enough for rows of thousands of channels."""

LARGEST = float(np.finfo(np.float32).max)

CACHE_LINE = 64
"""Bytes; where lines are longer, some are asked for twice."""


def bits(tokens: Tensor) -> np.ndarray:
    """[N, D] f32 or u8 as it is, f16 as uint16, bf16 as int16; no copy."""
    if tokens.dtype == torch.bfloat16:
        return tokens.view(torch.int16).numpy()
    array = tokens.numpy()
    return array.view(np.uint16) if tokens.dtype == torch.float16 else array


@njit(nogil=True, cache=True, fastmath=REASSOCIATE)
def scan_cells(
    first, last, first_view, values, scale, offset,
    order, first_token, first_segment, view_of, first_pair, by_cell, by_pair, by_view,
):  # fmt: skip
    """Adds what cells first ... last - 1 hold to by_view [V, D], by_cell [G] and, unless it is empty,
    by_pair [M]. Whether all tokens are finite."""
    width = values.shape[1]
    run, many, earlier = np.empty(width, np.float32), np.empty(width), np.empty(width)
    here = np.empty((by_view.shape[0] if by_pair.size else 0, width))  # sums of the cell's segments
    for cell in range(first, last):
        begin = first_segment[cell]
        for segment in range(begin, first_segment[cell + 1]):
            view = view_of[segment]
            affine = first_view + view if scale.size else 0
            start, stop = first_token[segment], first_token[segment + 1]
            if not _sum(values, order, start, min(start + RUN, stop), scale, offset, affine, run):
                return False
            if stop - start > RUN:
                many[:] = run
                for k in range(start + RUN, stop, RUN):
                    if not _sum(values, order, k, min(k + RUN, stop), scale, offset, affine, run):
                        return False
                    _add(many, run)
                by_cell[cell] += _settle(many, by_view, view, earlier, segment == begin)
            else:
                by_cell[cell] += _settle(run, by_view, view, earlier, segment == begin)
            if by_pair.size:
                nth = segment - begin
                if stop - start > RUN:
                    here[nth] = many
                else:
                    here[nth] = run
                for k in range(nth):
                    by_pair[first_pair[begin + k] + nth - k - 1] = _dot(here[k], here[nth])
    return True


@njit(forceinline=True, fastmath=REASSOCIATE)
def _sum(values, order, start, stop, scale, offset, affine, run):
    """Writes the sum of the unit vectors start ... stop - 1 of the order to run; whether all are finite."""
    for k in range(start, stop):
        if k + AHEAD < order.shape[0]:
            _prefetch(values, order[k + AHEAD])
        square = _squared_length(values, order[k], scale, offset, affine)
        if not square <= LARGEST:
            return False
        inverse = np.float32(1 / max(np.sqrt(square), EPS))
        _add_row(run, values, order[k], scale, offset, affine, inverse, k == start)
    return True


@njit(forceinline=True, fastmath=REASSOCIATE)
def _settle(values, by_view, view, earlier, first):
    """Adds a segment's sum to its view's and to that of the cell's earlier segments; its product with the
    latter."""
    product = 0.0
    if first:
        for d in range(values.shape[0]):
            by_view[view, d] += values[d]
            earlier[d] = values[d]
        return product
    for d in range(values.shape[0]):
        value = np.float64(values[d])
        product += value * earlier[d]
        by_view[view, d] += value
        earlier[d] += value
    return product


@njit(forceinline=True)
def _add(total, values):
    for d in range(values.shape[0]):
        total[d] += values[d]


@njit(forceinline=True, fastmath=REASSOCIATE)
def _dot(a, b):
    product = 0.0
    for d in range(a.shape[0]):
        product += a[d] * b[d]
    return product


@njit(forceinline=True, fastmath=REASSOCIATE)
def _squared_length(values, row, scale, offset, affine):
    """Of one row of values [N, D] as float32, in float64.

    scale, offset: [A, D] f32, of which row `affine` is used, for u8 alone.
    """
    total = 0.0
    for d in range(values.shape[1]):
        value = np.float64(_widen(values[row, d], scale, offset, affine, d))
        total += value * value
    return total


@njit(forceinline=True, fastmath=REASSOCIATE)
def _add_row(total, values, row, scale, offset, affine, factor, anew):
    """Adds factor times one row to total [D] f32, or writes it there if the total begins anew."""
    if anew:
        for d in range(total.shape[0]):
            total[d] = _widen(values[row, d], scale, offset, affine, d) * factor
    else:
        for d in range(total.shape[0]):
            total[d] += _widen(values[row, d], scale, offset, affine, d) * factor


def _widen(value, scale, offset, affine, d):
    """A stored number of channel d as float32; compiled below, by type."""
    raise NotImplementedError


@overload(_widen)
def _widen_by_type(value, scale, offset, affine, d):
    if value == types.uint16:
        return lambda value, scale, offset, affine, d: _from_half(value)
    if value == types.int16:
        return lambda value, scale, offset, affine, d: _from_brain(value)
    if value == types.uint8:
        return lambda value, scale, offset, affine, d: (
            np.float32(value) * scale[affine, d] + offset[affine, d]
        )
    return lambda value, scale, offset, affine, d: value


@intrinsic
def _from_half(typingctx, value):
    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _from_brain(typingctx, value):
    def generate(context, builder, signature, arguments):
        wide = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.IntType(32)(16)), ir.FloatType())

    return types.float32(types.int16), generate


@njit(forceinline=True)
def _prefetch(values, row):
    """Asks for a row of values [N, D] that is wanted soon: the processor cannot guess rows out of order.

    Into the second cache, which takes more rows at a time than the first: they then arrive nearly as fast
    out of order as in order.
    """
    for d in range(0, values.shape[1], CACHE_LINE // values.itemsize):
        _prefetch_byte(values, row, d)


@intrinsic
def _prefetch_byte(typingctx, values, row, d):
    def generate(context, builder, signature, arguments):
        array = make_array(signature.args[0])(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, signature.args[0], array, arguments[1:])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To be read, into the second cache, data.
        builder.call(function, [builder.bitcast(place, byte), word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(values, types.intp, types.intp), generate
