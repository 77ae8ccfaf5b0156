"""How a ratio is measured on a machine that has other work: in turns, in CPU seconds, as a median.

CPU seconds are those of the process with all its threads.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Seconds = tuple[float, float]
"""(wall, CPU)."""
Clock = Callable[[Callable[[], object]], float]
"""Seconds of a call."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured claim.

    Attributes:
        name: what was measured.
        value, unit: in this unit; of a ratio, against what.
        low, high: 95 % interval of the value.
        goal: what the value is held against; None = printed only.
        below: whether the value must not exceed the goal; else it must not fall short of it.
        note: what else to print.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    goal: float | None = None
    below: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.goal is None or (self.value <= self.goal if self.below else self.value >= self.goal)

    def __str__(self) -> str:
        interval = "" if self.low == self.high else f" ({_digits(self.low)} to {_digits(self.high)})"
        note = f", {self.note}" if self.note else ""
        bound = "at most" if self.below else "at least"
        verdict = "reached" if self.reached else "MISSED"
        goal = "" if self.goal is None else f", goal {bound} {self.goal:,g}: {verdict}"
        return f"{self.name:<56} {_digits(self.value):>8}{interval} {self.unit}{note}{goal}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def run_alone(measure: Callable[[int], list[Row]], about: str, pairs: int) -> int:
    """The command line of a script that measures rows: exit code 1 if `--check` finds a goal missed."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--pairs", type=int, default=pairs, help="of timings for each ratio")
    options = parser.parse_args()
    rows = measure(options.pairs)
    print(*rows, sep="\n")
    if not torch.cuda.is_available():
        print("no GPU: its rows were not measured")
    return 0 if all(row.reached for row in rows) or not options.check else 1


def device_seconds(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of the GPU for so many calls, by its own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds(work: Callable[[], object]) -> Seconds:
    """(wall, CPU) seconds."""
    start = time.perf_counter()
    cpu_s = cpu_seconds(work)
    return time.perf_counter() - start, cpu_s


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peer_ratio(
    name: str,
    ours: Callable[[], object],
    peers: Sequence[Callable[[], object]],
    pairs: int,
    *,
    goal: float | None = None,
    clock: Clock = cpu_seconds,
) -> Row:
    """Seconds of the fastest peer over ours."""
    timed = alternate(partial(clock, ours), lambda: min(clock(peer) for peer in peers), pairs)
    median, low, high = median_interval([other / own for own, other in timed])
    took = f"{1e3 * statistics.median(own for own, _ in timed):.1f} ms"
    return Row(name=name, value=median, low=low, high=high, unit="times the peer", goal=goal, note=took)


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
