"""Candidates for the nearest keys: a cosine and a key in one int64, and short lists of them, in Triton.

A greater candidate is nearer, and of equal cosines the lower key wins.

Shapes: S places of a list, n lists.
"""

from __future__ import annotations

import triton
import triton.language as tl

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false

LOWEST = tl.constexpr(-2.0)
"""Below every cosine: the similarity of a pair that takes no part."""

EMPTY = tl.constexpr(-1073741825 << 32)
"""No candidate: `LOWEST` packed. An empty list counts up from here, so that its places differ."""

FULL = tl.constexpr((1 << 63) - 1)
"""Fills what a list has beyond K places: nothing is nearer."""

AFTER = tl.constexpr((1 << 31) - 1)
"""Above every token."""


@triton.jit
def pack(cosine, key):
    """One int64 per candidate that sorts by cosine, then by lower key."""
    bits = tl.where(cosine == 0.0, 0.0, cosine).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - key).to(tl.int64)


@triton.jit
def cosine_of(candidate):
    """The cosine of a packed candidate; `LOWEST` where there is none."""
    ordered = (candidate >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def replace_worst(best, candidate):
    """Lists [n, S] in which candidates [n] stand for the worst where they are nearer."""
    worst = tl.min(best, axis=1)
    better = candidate > worst
    return tl.where(better[:, None] & (best == worst[:, None]), candidate[:, None], best)
