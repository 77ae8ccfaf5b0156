"""How a ratio is measured on a machine that has other work: in turns, in CPU seconds, as a median.

CPU seconds are those of the process with all its threads.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def alternate(ours: Callable[[], Any], peer: Callable[[], Any], pairs: int) -> list[tuple[Any, Any]]:
    """What ours and the peer return, pair by pair, the order turning round each time.

    One more pair comes first and is left out: it warms up.
    """
    results = []
    for turn in range(pairs + 1):
        if turn % 2:
            own = ours()
            results.append((own, peer()))
        else:
            other = peer()
            results.append((ours(), other))
    return results[1:]


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median and its distribution-free 95 % interval (of 15: the 4th and the 12th); the range below 6."""
    ordered, n = sorted(values), len(values)
    outside = 0
    # P(fewer than k of n lie below the median) <= 2.5 % on either side.
    while sum(math.comb(n, i) for i in range(outside + 1)) <= 0.025 * 2**n:
        outside += 1
    first = max(0, outside - 1)
    return statistics.median(ordered), ordered[first], ordered[n - 1 - first]
