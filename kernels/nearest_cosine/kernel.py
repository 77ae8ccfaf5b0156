"""Nearest tokens of other views in Triton: tiles of the product of two views, searched in registers.

A program multiplies ROWS query tokens of view v by the key tokens of a chunk of view w, tile by tile. It
keeps the K best keys of its rows as the tiles pass, and writes the K best rows of each column of each tile:
one product serves both directions. A second kernel merges what the programs wrote. A candidate is one
int64, cosine above key, so that greater is nearer and the lower key wins among equals: the result does not
depend on the order of programs. Counts are integers, for which no order matters either.

Roofline, for D = 1024 on a GPU of 790 TFLOP/s (16-bit values, float32 sums) and 33 T lane operations a
second; none of it is measured. A similarity takes 2 D flops, 2.6 ps, in which the lanes do 87 operations.
Scaling and masking take 5, a round of the search 6 in columns (K rounds) and 8 in rows (as many as the row
of the tile with most improvements has, K at most, few after the first tiles). That is about 30 for K = 1
and 60 for K = 5, one after the other with the product, for the registers hold one program a processor: 60 %
and 50 % of the rate. Memory does not bound it: a tile reads (ROWS + COLUMNS) D values from the second-level
cache, 64 flops a byte, and writes 8 K COLUMNS bytes. A histogram adds one atomic addition a similarity,
whose rate in that cache (about one a clock and slice) is then the bound.

Shapes: P tokens of a view, D channels, K keys that are kept, S = K rounded up to a power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..compiled import Compilation
from .candidates import AFTER, EMPTY, FULL, LOWEST, cosine_of, pack, replace_worst

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false

ROWS, COLUMNS, DEPTH = 128, 128, 64
"""Query and key tokens of a tile, and channels that are multiplied at a time."""

MERGED = 128
"""Tokens whose candidates a program merges."""

WARPS, STAGES = 8, 3

COPIES = 16
"""Counts of all pairs side by side, so that programs seldom add to one place at a time."""


@triton.jit
def next_of_rows(tile, column, cosine, at):
    """The greatest of each row behind (cosine, at), which was the greatest before: cosine and column.

    In two steps: a greatest value with its place would hold both for a whole tile in registers.
    """
    behind = (tile < cosine[:, None]) | ((tile == cosine[:, None]) & (column[None, :] > at[:, None]))
    cosine = tl.max(tl.where(behind, tile, LOWEST), axis=1)
    first = behind & (tile == cosine[:, None])
    return cosine, tl.min(tl.where(first, column[None, :], AFTER), axis=1)


@triton.jit
def listed(entries, cursor, stop, first):
    """Tokens that the lists have at their cursors, `AFTER` at their ends."""
    row = tl.load(entries + cursor, mask=cursor < stop, other=0)
    return tl.where(cursor < stop, (row - first).to(tl.int32), AFTER)


@triton.jit
def match_views(
    tokens,
    inverse,
    pairs,
    ignored,
    ignored_start,
    ignored_stop,
    positive,
    positive_start,
    positive_stop,
    group,
    every,
    corr,
    row_best,
    column_best,
    P,
    first_block,
    chunk,
    bins,
    half,
    D: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    IGNORE: tl.constexpr,
    COUNT: tl.constexpr,
    COPIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Match a block of tokens of one view with a chunk of those of another; see the module.

    Args:
        tokens: [B * V * P, D]; inverse: [B * V * P] f32 1 / length, negative = takes no part.
        pairs: [Q, 3] int64 first row of the query view, of the key view, and of their lists.
        ignored, positive: entries of lists, with bounds [B * V * W * P] int64.
        group: [B * V * W * P] uint8.
        every: [COPIES, bins + 1] int32 counts of all pairs; corr: [G, bins + 1] int64 of positive ones.
        row_best: [Q, chunks, K, P] int64; column_best: [Q, row blocks, K, P] int64 candidates.
        first_block: of the rows; chunk: tiles of a chunk of columns; half: bins / 2.
    """
    block, part, q = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    query_view, key_view, lists = (
        tl.load(pairs + q * 3),
        tl.load(pairs + q * 3 + 1),
        tl.load(pairs + q * 3 + 2),
    )
    deep, slot = tl.arange(0, DEPTH), tl.arange(0, S)
    row = (first_block + block) * ROWS + tl.arange(0, ROWS)
    there = row < P
    safe = tl.minimum(row, P - 1)
    row_scale = tl.where(there, tl.load(inverse + query_view + safe), -1.0)
    best = tl.zeros([ROWS, S], tl.int64) + tl.where(slot < K, slot.to(tl.int64) + EMPTY, FULL)[None, :]
    if IGNORE:
        ignored_cursor = tl.load(ignored_start + lists + safe)
        ignored_end = tl.load(ignored_stop + lists + safe)
        ignored_key = listed(ignored, ignored_cursor, ignored_end, key_view)
    if COUNT:
        histogram = tl.load(group + lists + safe).to(tl.int64) * (bins + 1)
        cursor = tl.load(positive_start + lists + safe)
        end = tl.load(positive_stop + lists + safe)
        key = listed(positive, cursor, end, key_view)
    for tile_number in range(part * chunk, tl.minimum((part + 1) * chunk, tl.cdiv(P, COLUMNS))):
        column = tile_number * COLUMNS + tl.arange(0, COLUMNS)
        safe_column = tl.minimum(column, P - 1)
        column_scale = tl.where(column < P, tl.load(inverse + key_view + safe_column), -1.0)
        queries = tokens + (query_view + safe)[:, None].to(tl.int64) * D + deep[None, :]
        keys = tokens + (key_view + safe_column)[None, :].to(tl.int64) * D + deep[:, None]
        tile = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(0, D, DEPTH):
            if D % DEPTH == 0:
                a, b = tl.load(queries + start), tl.load(keys + start)
            else:
                inside = start + deep < D
                a = tl.load(queries + start, mask=inside[None, :], other=0.0)
                b = tl.load(keys + start, mask=inside[:, None], other=0.0)
            if INTERPRETED:  # where products of bfloat16 are wrong
                a, b = a.to(tl.float32), b.to(tl.float32)
            tile = tl.dot(a, b, tile, input_precision="tf32x3")
        takes_part = (row_scale >= 0)[:, None] & (column_scale >= 0)[None, :]
        tile = tl.where(takes_part, tile * row_scale[:, None] * column_scale[None, :], LOWEST)
        after = (tile_number + 1) * COLUMNS
        if IGNORE:
            while tl.min(ignored_key, axis=0) < after:
                tile = tl.where(column[None, :] == ignored_key[:, None], LOWEST, tile)
                ignored_cursor += (ignored_key < after).to(tl.int64)
                ignored_key = listed(ignored, ignored_cursor, ignored_end, key_view)
        if COUNT:
            place = tl.maximum(((tile + 1.0) * half).to(tl.int32), 0)
            copy = (block + part) % COPIES * (bins + 1)
            tl.atomic_add(every + copy + place, 1, mask=tile > LOWEST, sem="relaxed")
            while tl.min(key, axis=0) < after:
                likeness = tl.max(tl.where(column[None, :] == key[:, None], tile, LOWEST), axis=1)
                bin_ = tl.maximum(((likeness + 1.0) * half).to(tl.int32), 0)
                counted = there & (likeness > LOWEST)
                tl.atomic_add(corr + histogram + bin_, 1, mask=counted, sem="relaxed")
                cursor += (key < after).to(tl.int64)
                key = listed(positive, cursor, end, key_view)
        cosine, at = tl.full([ROWS], 2.0, tl.float32), tl.full([ROWS], -1, tl.int32)
        better = tl.sum((tile > cosine_of(tl.min(best, axis=1))[:, None]).to(tl.int32), axis=1)
        # Not `while`: Triton 3.6 fails on one whose last values are not all used.
        for _ in range(tl.minimum(tl.max(better, axis=0), K)):
            cosine, at = next_of_rows(tile, column, cosine, at)
            best = replace_worst(best, tl.where(cosine > LOWEST, pack(cosine, at), EMPTY))
        column_out = column_best + ((q * tl.num_programs(0) + block).to(tl.int64) * K) * P + column
        for n in range(K):  # last, as it takes what it finds out of the tile, for want of registers
            nearest = tl.max(tile, axis=0)
            by = tl.min(tl.where(tile == nearest[None, :], row[:, None], AFTER), axis=0)
            candidate = tl.where(nearest > LOWEST, pack(nearest, by), EMPTY)
            tl.store(column_out + n * P, candidate, mask=column < P)
            tile = tl.where(row[:, None] == by[None, :], LOWEST, tile)
    row_out = row_best + ((q * tl.num_programs(1) + part).to(tl.int64) * K + slot)[None, :] * P + row[:, None]
    # Places that are left empty differ in a list; as candidates they must not.
    best = tl.where(cosine_of(best) > LOWEST, best, EMPTY)
    tl.store(row_out, best, mask=there[:, None] & (slot < K)[None, :])


@triton.jit
def merge_parts(
    best, parts, targets, P, first, end, count, K: tl.constexpr, S: tl.constexpr, BLOCK: tl.constexpr
):
    """Let candidates of tokens first to end compete with those found before.

    Args:
        best: [B * V * W, K, P] int64 candidates so far; unordered.
        parts: [Q, count, K, P] int64 candidates.
        targets: [Q] int64 place of each in `best`.
    """
    q, slot = tl.program_id(1), tl.arange(0, S)
    token = first + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = token < end
    out = best + (tl.load(targets + q) * K + slot)[None, :] * P + token[:, None]
    kept = there[:, None] & (slot < K)[None, :]
    list_ = tl.load(out, mask=kept, other=FULL)
    source = parts + (q * count).to(tl.int64) * K * P + token
    for n in range(count * K):
        list_ = replace_worst(list_, tl.load(source + tl.cast(n, tl.int64) * P, mask=there, other=EMPTY))
    tl.store(out, list_, mask=kept)


def launch_constants(*, wide: bool, listed: bool) -> dict[str, int]:
    """The tile: half as deep for wide (32-bit) values, half as broad where lists are looked up and counted,
    whose addresses need the registers."""
    return {
        "ROWS": ROWS,
        "COLUMNS": COLUMNS // 2 if listed else COLUMNS,
        "DEPTH": DEPTH // 2 if wide else DEPTH,
        "COPIES": COPIES,
    }


def compilations() -> list[Compilation]:
    """As `gpu` launches them, a case of each kind; compiling one takes seconds."""
    plain, listed = ({"IGNORE": there, "COUNT": there} for there in (False, True))
    cases = [
        ("fp16", 1024, 1, plain),
        ("bf16", 1024, 5, plain),
        ("fp16", 388, 5, listed),
        ("fp32", 384, 2, listed),
    ]
    return [_matching(*case) for case in cases] + [
        Compilation(
            name=f"nearest_cosine.merge K={keys}",
            kernel=merge_parts,
            signature={
                "best": "*i64",
                "parts": "*i64",
                "targets": "*i64",
                "P": "i32",
                "first": "i32",
                "end": "i32",
                "count": "i32",
            },
            constants={"K": keys, "S": places, "BLOCK": MERGED},
        )
        for keys, places in ((1, 1), (5, 8))
    ]


def _matching(dtype: str, width: int, keys: int, what: dict[str, bool]) -> Compilation:
    counted = " counted" if what["COUNT"] else ""
    int64 = dict.fromkeys(
        ("ignored", "ignored_start", "ignored_stop", "positive", "positive_start", "positive_stop"), "*i64"
    )
    return Compilation(
        name=f"nearest_cosine.match {dtype} D={width} K={keys}{counted}",
        kernel=match_views,
        signature={
            "tokens": f"*{dtype}",
            "inverse": "*fp32",
            "pairs": "*i64",
            **int64,
            "group": "*u8",
            "every": "*i32",
            "corr": "*i64",
            "row_best": "*i64",
            "column_best": "*i64",
            "P": "i32",
            "first_block": "i32",
            "chunk": "i32",
            "bins": "i32",
            "half": "fp32",
        },
        constants={
            "D": width,
            "K": keys,
            "S": triton.next_power_of_2(keys),
            **what,
            **launch_constants(wide=dtype == "fp32", listed=what["COUNT"]),
            "INTERPRETED": False,
        },
        num_warps=WARPS,
        num_stages=STAGES,
        hot=dtype != "fp32",
    )
