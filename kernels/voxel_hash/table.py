"""An open hash table of 64-bit keys in GPU memory, which many threads fill at once.

Keys are not negative; slots hold `EMPTY` first, and a key for ever once they hold it. So an old value that
a cache returns is one of the two, and only an empty slot need be asked for again, by the compare-and-swap
that claims it. Slots are a power of two, and more than the keys; steps of 1, 2, 3, ... visit all of them.
"""

from __future__ import annotations

# pyright: reportOperatorIssue=false
# Without indices, tl.max gives no tuple.
import triton
import triton.language as tl

EMPTY = tl.constexpr(-1)
NEVER = tl.constexpr(-2)
"""What no slot holds: a lane that claims nothing compares with it."""


def slots_for(keys: int) -> int:
    """The smallest power of two that leaves half of the table empty."""
    return max(2, 1 << (2 * keys - 1).bit_length())


@triton.jit
def mix(key):
    """The finaliser of MurmurHash3: every bit of the key [N] i64 changes every bit of the result [N] u64."""
    h = key.to(tl.uint64, bitcast=True)
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCD
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53
    return h ^ (h >> 33)


@triton.jit
def claim(table, key, wanted, idle, slots):
    """[N] i64 slots that hold the keys [N] i64 where they are wanted, claimed where no slot held them.

    A compare-and-swap has no mask: lanes without a claim touch the slots idle [N], best all in a row, so
    that they do not queue for a slot that many share.
    """
    last = slots - 1
    slot = mix(key).to(tl.int64, bitcast=True) & last
    step = tl.zeros_like(slot)
    pending = wanted
    while tl.max(pending.to(tl.int32), axis=0) > 0:
        held = tl.load(table + slot, mask=pending, other=NEVER)
        free = pending & (held == EMPTY)
        if tl.max(free.to(tl.int32), axis=0) > 0:
            expected = tl.where(free, EMPTY, NEVER).to(tl.int64)
            before = tl.atomic_cas(table + tl.where(free, slot, idle), expected, key, sem="relaxed")
            held = tl.where(free, tl.where(before == EMPTY, key, before), held)
        pending = pending & (held != key)
        step += 1
        slot = tl.where(pending, (slot + step) & last, slot)
    return slot


@triton.jit
def find(table, key, wanted, slots):
    """([N] i64 slots, [N] bool whether they hold the keys [N] i64) where they are wanted."""
    last = slots - 1
    slot = mix(key).to(tl.int64, bitcast=True) & last
    step = tl.zeros_like(slot)
    pending = wanted
    found = wanted & False
    while tl.max(pending.to(tl.int32), axis=0) > 0:
        held = tl.load(table + slot, mask=pending, other=EMPTY)
        found = found | (pending & (held == key))
        pending = pending & (held != key) & (held != EMPTY)
        step += 1
        slot = tl.where(pending, (slot + step) & last, slot)
    return slot, found
